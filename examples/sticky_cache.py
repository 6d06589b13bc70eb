"""Sticky runs: what is costly to build is built once for each run and kept in `context.local`; timed, with and without sticky.

Try it:
    mesh dev examples/sticky_cache.py        # in one terminal; more workers in others: mesh worker examples/sticky_cache.py
    python examples/sticky_cache.py          # in another
"""

import ast
import asyncio
import sys
import sysconfig
from collections import Counter, defaultdict
from pathlib import Path
from time import perf_counter
from typing import Any

from mesh_sdk import ConnectionFailed, Context, Mesh, StickyStrategy, Unavailable, UnknownWorkflow

mesh = Mesh()


def load(context: Context[str]) -> None:
    """What costs: parse a package of the standard library and count its names, by kind of syntax node."""
    context.local["names"] = names = defaultdict(Counter)
    for path in Path(sysconfig.get_path("stdlib"), context.workflow_input()).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            names[type(node)][getattr(node, "name", getattr(node, "id", getattr(node, "attr", "")))] += 1
    context.local["loads"] = 1


def commonest(context: Context[str], kind: type[ast.AST]) -> dict[str, Any]:
    """What each step asks: a question that takes no time once the names are there."""
    began = perf_counter()
    if "names" not in context.local:
        load(context)
    [(name, count)] = context.local["names"][kind].most_common(1)
    return {"answer": f"{name}: {count}", "loads": context.local.pop("loads", 0), "ms": (perf_counter() - began) * 1000}


class Questions:
    @mesh.step()
    def function(self, context: Context[str]) -> dict[str, Any]:
        return commonest(context, ast.FunctionDef)

    @mesh.step(parents=["function"])
    def variable(self, context: Context[str]) -> dict[str, Any]:
        return commonest(context, ast.Name)

    @mesh.step(parents=["variable"])
    def attribute(self, context: Context[str]) -> dict[str, Any]:
        return commonest(context, ast.Attribute)

    @mesh.step(parents=["attribute"])
    def imported(self, context: Context[str]) -> dict[str, Any]:
        return commonest(context, ast.alias)


@mesh.workflow(sticky=StickyStrategy.SOFT)
class Sticky(Questions):
    @mesh.on_moved()
    def rebuild(self, context: Context[str]) -> None:
        load(context)  # the run's memory stayed behind: its worker was lost, drained, or full for too long


@mesh.workflow()
class Unsticky(Questions):
    pass


worker = mesh.worker("cache", slots=4, workflows=[Sticky, Unsticky])


async def measure(workflow: str) -> float:
    began, refs = perf_counter(), []
    for package in ("asyncio", "email", "multiprocessing", "unittest"):
        refs.append(await mesh.start(workflow, package))
        await refs[-1].result(timeout=60)
    seconds = perf_counter() - began
    steps = [(await mesh.runs.get(ref.run_id)).steps for ref in refs]
    loads = sum(step.output["loads"] for run in steps for step in run.values())
    means = (f"{name} {sum(run[name].output['ms'] for run in steps) / len(steps):.1f}" for name in steps[0])
    print(f"{workflow:8}  {len(steps)} runs  {loads:2} loads  {seconds:.2f} s  mean ms of each step: {', '.join(means)}")
    return seconds


async def main() -> None:
    async with mesh:
        print(f"{await measure('Unsticky') / await measure('Sticky'):.1f} times as fast with sticky")


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except (ConnectionFailed, UnknownWorkflow, Unavailable, TimeoutError) as error:
        sys.exit(f"{error}\nthis needs a running mesh: mesh dev examples/sticky_cache.py")

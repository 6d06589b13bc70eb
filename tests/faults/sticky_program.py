"""The workflows of the sticky tests, and their worker.

Each step function writes down when it began and ended, where, and what it was told. How long a step takes its run's input
says: `ms` (also step → ms), and a gate for a step (`gates`: step → gate), which stays shut until the test opens it.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

from mesh_sdk import Context, Mesh, MeshError, StickyStrategy, Workflow

FOLDER = Path(os.environ.get("STICKY_FOLDER", "."))
GATE_S = 0.01
SOFT, HARD = StickyStrategy.SOFT, StickyStrategy.HARD

mesh = Mesh()

_file = os.open(FOLDER / f"{os.getpid()}.seen", os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def say(ctx: Context[Any], what: str, note: object = None) -> None:
    seen = {
        "run": ctx.run_id,
        "workflow": ctx.workflow_name,
        "step": ctx.step_name,
        "attempt": ctx.attempt,
        "retries": ctx.retry_count,
        "moved": ctx.moved,
        "worker": ctx.worker.id(),
        "pid": os.getpid(),
        "what": what,
        "note": note,
        "at": time.monotonic(),
    }
    os.write(_file, json.dumps(seen).encode() + b"\n")


async def gate(name: str) -> None:
    """Stand at a gate until the test opens it."""
    while not (FOLDER / f"{name}.gate").exists():
        await asyncio.sleep(GATE_S)


async def work(input: dict[str, Any], ctx: Context[Any]) -> dict[str, Any]:
    """A step: it begins, takes its time, fails as often as it is told to, ends."""
    say(ctx, "begin", ctx.local.get("from"))
    ctx.local.setdefault("from", ctx.step_name)
    ms = input.get("ms", 0)
    if ms := ms.get(ctx.step_name, 0) if isinstance(ms, dict) else ms:
        await asyncio.sleep(ms / 1000)
    if name := input.get("gates", {}).get(ctx.step_name):
        await gate(name)
    if ctx.retry_count < input.get("fails", {}).get(ctx.step_name, 0):
        say(ctx, "fail")
        raise ValueError("not yet")
    say(ctx, "end")
    return {"worker": ctx.worker.id()}


def rebuilt(ctx: Context[Any]) -> None:
    say(ctx, "rebuilt")
    ctx.local["from"] = "rebuilt"


def chain(name: str, **options: Any) -> Workflow[Any]:
    """Three steps, one after the other."""
    made: Workflow[Any] = mesh.workflow(name=name, **options)
    for step, parents in (("a", []), ("b", ["a"]), ("c", ["b"])):
        made.step(name=step, parents=parents)(_step())
    made.on_moved()(_moved())
    return made


def twins(name: str, retries: int = 0, **options: Any) -> Workflow[Any]:
    """Two roots and a join."""
    made: Workflow[Any] = mesh.workflow(name=name, **options)
    for step, parents in (("left", []), ("right", []), ("join", ["left", "right"])):
        made.step(name=step, parents=parents, retries=retries)(_step())
    made.on_moved()(_moved())
    return made


def _step() -> Any:
    async def step(input: dict[str, Any], ctx: Context[Any]) -> dict[str, Any]:
        return await work(input, ctx)

    return step


def _moved() -> Any:
    def on_moved(context: Context[Any]) -> None:
        rebuilt(context)

    return on_moved


@mesh.workflow(sticky=SOFT, sticky_timeout="1s")
class SoftClass:
    """The style of the reference: two steps, and what rebuilds their state."""

    @mesh.on_moved()
    async def rebuild(self, context: Context[Any]) -> None:
        rebuilt(context)

    @mesh.step()
    async def first(self, context: Context[Any]) -> dict[str, Any]:
        return await work(context.workflow_input(), context)

    @mesh.step(parents=["first"])
    async def second(self, context: Context[Any]) -> dict[str, Any]:
        return await work(context.workflow_input(), context)


def single(name: str, **options: Any) -> Workflow[Any]:
    """One step."""
    made: Workflow[Any] = mesh.workflow(name=name, **options)
    made.step(name="only")(_step())
    return made


async def family(input: dict[str, Any], ctx: Context[Any]) -> Any:
    """Spawns `children` ([workflow, input, options]), stands at its gate, and awaits them (`awaits`: or not)."""
    say(ctx, "begin")
    refs, refused = [], []
    if name := input.get("first"):
        await gate(name)
    for child, given, options in input.get("children", []):
        try:
            refs.append(ctx.spawn_workflow(child, given, options=options))
        except MeshError as error:
            refused.append(f"{type(error).__name__}: {error}")
    say(ctx, "spawned", {"children": [ref.run_id for ref in refs], "refused": refused})
    if name := input.get("gate"):
        await gate(name)
    results = []
    say(ctx, "awaits")
    for ref in refs if input.get("awaits", True) else []:
        results.append(await ref.result())
    say(ctx, "resumes")
    say(ctx, "end")
    return {"worker": ctx.worker.id(), "children": results}


def parent(name: str, **options: Any) -> Workflow[Any]:
    """One step with children."""
    made: Workflow[Any] = mesh.workflow(name=name, **options)
    made.step(name="family")(family)
    return made


@mesh.task(sticky=SOFT)
def parent_sync(input: dict[str, Any], ctx: Context[Any]) -> str:
    """Waits on its thread for a sticky child; what it is told when it may not."""
    say(ctx, "begin")
    ref = ctx.spawn_workflow(input["child"], {}, options={"sticky": True})
    said = "it ended"
    try:
        ref.result_sync()
    except MeshError as error:
        said = f"{type(error).__name__}: {error}"
    say(ctx, "end", ref.run_id)
    return said


@mesh.task(sticky=HARD, timeout="300ms")
def stuck(input: dict[str, Any], ctx: Context[Any]) -> None:
    """A thread that outlives its step's timeout, and keeps its slot meanwhile: the leader takes it for free."""
    say(ctx, "begin")
    while not (FOLDER / f"{input['gate']}.gate").exists():
        time.sleep(GATE_S)
    say(ctx, "end")


WORKFLOWS = (
    single("busy"),
    single("hold", sticky=HARD, timeout="5m"),
    chain("soft_chain", sticky=SOFT, sticky_timeout="1s"),
    chain("hard_chain", sticky=HARD),
    chain("brief_chain", sticky=HARD, schedule_timeout="2s"),
    twins("soft_twins", sticky=SOFT, sticky_timeout="1s"),
    twins("hard_twins", sticky=HARD),
    twins("soft_mixed", sticky=SOFT, sticky_timeout="300ms", retries=2, timeout="700ms"),
    twins("hard_mixed", sticky=HARD, retries=2, timeout="700ms"),
    parent("parent_free"),
    parent("parent_soft", sticky=SOFT, sticky_timeout="1s"),
    parent("parent_hard", sticky=HARD),
    parent_sync,
    stuck,
    single("child_free"),
    single("child_soft", sticky=SOFT, sticky_timeout="1s"),
    single("child_slow", sticky=SOFT, sticky_timeout="1m"),
    single("child_hard", sticky=HARD),
    single("child_brief", sticky=HARD, schedule_timeout="3s"),
    SoftClass,
)
"""What a worker registers, but for what STICKY_WITHOUT names."""

_without = set(filter(None, os.environ.get("STICKY_WITHOUT", "").split(",")))

worker = mesh.worker(
    "sticky",
    slots=int(os.environ.get("STICKY_SLOTS", "2")),
    workflows=[known for known in WORKFLOWS if getattr(known, "name", "") not in _without],
)

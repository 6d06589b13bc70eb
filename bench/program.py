"""What is measured: one step that takes 256 bytes and returns a number; a chain of three; the same chain, SOFT and HARD."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from mesh_sdk import Context, Mesh, StickyStrategy, Workflow

mesh = Mesh()


class In(BaseModel):
    p: str


class Out(BaseModel):
    n: int


@mesh.task()
async def one(input: In, ctx: Context) -> Out:
    return Out(n=len(input.p))


def chain_of_three(name: str, sticky: StickyStrategy | None) -> Workflow[In, Any]:
    """Three steps, each of which reads what the one before it wrote."""
    workflow = mesh.workflow(name=name, input=In, sticky=sticky)

    @workflow.step()
    async def a(input: In, ctx: Context) -> Out:
        return Out(n=1)

    @workflow.step(parents=[a])
    async def b(input: In, ctx: Context) -> Out:
        return Out(n=ctx.step_output(a).n + 1)

    @workflow.step(parents=[b])
    async def c(input: In, ctx: Context) -> Out:
        return Out(n=ctx.step_output(b).n + 1)

    return workflow


CHAINS = {
    "three steps": chain_of_three("chain", None),
    "three, SOFT": chain_of_three("soft_chain", StickyStrategy.SOFT),
    "three, HARD": chain_of_three("hard_chain", StickyStrategy.HARD),
}

worker = mesh.worker("bench", slots=100, workflows=[one, *CHAINS.values()])

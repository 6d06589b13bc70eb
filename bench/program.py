"""What is measured: one step that takes 256 bytes and returns a number; a chain of three."""

from __future__ import annotations

from pydantic import BaseModel

from mesh_sdk import Context, Mesh

mesh = Mesh()


class In(BaseModel):
    p: str


class Out(BaseModel):
    n: int


@mesh.task()
async def one(input: In, ctx: Context) -> Out:
    return Out(n=len(input.p))


chain = mesh.workflow(name="chain", input=In)


@chain.step()
async def a(input: In, ctx: Context) -> Out:
    return Out(n=1)


@chain.step(parents=[a])
async def b(input: In, ctx: Context) -> Out:
    return Out(n=ctx.step_output(a).n + 1)


@chain.step(parents=[b])
async def c(input: In, ctx: Context) -> Out:
    return Out(n=ctx.step_output(b).n + 1)


worker = mesh.worker("bench", slots=100, workflows=[one, chain])

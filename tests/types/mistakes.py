"""What type checkers must refuse: each line with an `ignore` is one; an ignore that is not needed is an error of its own."""

from __future__ import annotations

from mesh_sdk import Context, Mesh

mesh = Mesh()


@mesh.task
async def double(number: int, ctx: Context) -> int:
    return 2 * number


@mesh.task
async def tick(ctx: Context) -> int:
    return 1


async def wrong() -> None:
    await double.run("3")  # type: ignore  # pyright: ignore[reportArgumentType]
    await double.run()  # type: ignore  # pyright: ignore[reportCallIssue]
    await tick.run(3)  # type: ignore  # pyright: ignore[reportCallIssue, reportArgumentType]
    await double.start(3, prioritty=3)  # type: ignore  # pyright: ignore[reportCallIssue]
    text: str = await double.run(3)  # type: ignore  # pyright: ignore[reportAssignmentType]
    print(text)


mesh.on_moved(timeout="1s")  # type: ignore  # pyright: ignore[reportArgumentType]
mesh.workflow(name="w", retries=3)  # type: ignore  # pyright: ignore[reportCallIssue]

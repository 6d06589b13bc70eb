"""What type checkers must refuse: each line with an `ignore` is one; an ignore that is not needed is an error of its own."""

from __future__ import annotations

from mesh_sdk import Concurrency, Context, Mesh, RateLimit, WorkerLabel

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
mesh.concurrency(max_runs="5")  # type: ignore  # pyright: ignore[reportArgumentType]
mesh.concurrency(limit_strategy="FIFO")  # type: ignore  # pyright: ignore[reportArgumentType]
mesh.concurrency(max_run=5)  # type: ignore  # pyright: ignore[reportCallIssue]
mesh.workflow(name="w", concurrency=5)  # type: ignore  # pyright: ignore[reportArgumentType]
Concurrency("input.user_id", limit_strategy="FIFO")  # type: ignore  # pyright: ignore[reportArgumentType]
RateLimit("mails", 1.5)  # type: ignore  # pyright: ignore[reportArgumentType]
WorkerLabel(None)  # type: ignore  # pyright: ignore[reportArgumentType]


def counted(context: Context) -> int:
    return 3


mesh.concurrency()(counted)  # type: ignore  # pyright: ignore[reportArgumentType]

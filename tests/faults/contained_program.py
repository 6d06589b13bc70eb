"""Steps that do what no step should, and their worker. What each one does stands in its name."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, model_serializer, model_validator

from mesh_sdk import Context, Mesh

mesh = Mesh()
MIB = 1024 * 1024

if limit := int(os.environ.get("CONTAINED_MIB", "0")):
    resource.setrlimit(resource.RLIMIT_AS, (limit * MIB, limit * MIB))


def say(ctx: Context, what: str) -> None:
    """As `Fleet.executions` reads it."""
    with (Path(os.environ["FAULTS_EXECUTED"]) / str(os.getpid())).open("a") as file:
        file.write(f"{ctx.run_id} {ctx.step_name} {ctx.attempt} {what}\n")


@mesh.task()
async def fine(input: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """A good neighbour."""
    await asyncio.sleep(input.get("ms", 0) / 1000)
    return {"worker": ctx.worker.id()}


@mesh.task()
async def blocks(input: dict[str, Any], ctx: Context) -> str:
    """Stops the event loop, at once or a while after it began; with `once` the first time only."""
    say(ctx, "start")
    if after := input.get("after_ms"):
        await asyncio.sleep(after / 1000)
    if ctx.attempt == 1 or not input.get("once"):
        time.sleep(input["seconds"])
    say(ctx, "end")
    return ctx.worker.id()


@mesh.task()
async def leaks_threads(input: dict[str, Any], ctx: Context) -> int:
    for _ in range(input["count"]):
        threading.Thread(target=threading.Event().wait, daemon=True).start()
    return threading.active_count()


@mesh.task()
async def returns(input: dict[str, Any], ctx: Context) -> Any:
    """Something that no message carries."""
    if "bytes" in input:
        return "x" * input["bytes"]
    found: Any = []
    if input["what"] == "itself":
        found.append(found)
    elif input["what"] == "deep":
        for _ in range(200_000):
            found = [found]
    elif input["what"] == "unwritable":
        return Unwritable()
    return found


class Unwritable(BaseModel):
    """Whoever writes it down is to end."""

    @model_serializer
    def end(self) -> Any:
        raise SystemExit("written")


class Unreadable(BaseModel):
    """Whoever reads it is to end."""

    n: int

    @model_validator(mode="before")
    @classmethod
    def end(cls, data: Any) -> Any:
        raise KeyboardInterrupt


@mesh.task()
async def reads(input: Unreadable, ctx: Context) -> int:
    return input.n


class Unspeakable(Exception):
    """Can't say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class Worse(BaseException):
    """Its text ends whoever asks for it."""

    def __str__(self) -> str:
        raise SystemExit("no text")

    __repr__ = __str__


RAISED: dict[str, Callable[[], BaseException]] = {
    "BaseException": lambda: BaseException("base"),
    "GeneratorExit": GeneratorExit,
    "KeyboardInterrupt": KeyboardInterrupt,
    "SystemExit": lambda: SystemExit(7),
    "StopIteration": lambda: StopIteration(1),
    "StopAsyncIteration": StopAsyncIteration,
    "MemoryError": MemoryError,
    "RecursionError": RecursionError,
    "CancelledError": asyncio.CancelledError,
    "BaseExceptionGroup": lambda: BaseExceptionGroup("many", [KeyboardInterrupt(), ValueError("one")]),
    "Unspeakable": Unspeakable,
    "Worse": Worse,
    "ValueError": lambda: ValueError("x" * 20 * MIB),
}


@mesh.task()
async def raises(input: dict[str, Any], ctx: Context) -> None:
    raise RAISED[input["kind"]]()


@mesh.task()
def raises_sync(input: dict[str, Any], ctx: Context) -> None:
    raise RAISED[input["kind"]]()


@mesh.task()
async def exits(input: dict[str, Any], ctx: Context) -> None:
    os._exit(3)


@mesh.task()
def killed(input: dict[str, Any], ctx: Context) -> None:
    """As the kernel ends whoever takes too much memory; the first time only."""
    if ctx.attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)


@mesh.task()
def eats(input: dict[str, Any], ctx: Context) -> int:
    """Takes more memory than there is."""
    eaten = []
    while True:
        eaten.append(bytearray(16 * MIB))


@mesh.task()
async def closes_files(input: dict[str, Any], ctx: Context) -> str:
    """Whatever the process has open, its sockets and its event loop's among it; the first time only."""
    if ctx.attempt == 1:
        os.closerange(3, 1024)
    await asyncio.sleep(0.05)
    return "done"


@mesh.task()
async def meddles(input: dict[str, Any], ctx: Context) -> str:
    """With what belongs to the whole process."""
    sys.setrecursionlimit(max(90, _depth() + 40))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, lambda number, frame: None)
    threading.setprofile(None)
    sys.excepthook = lambda *error: None
    return "done"


def _depth() -> int:
    depth, frame = 0, sys._getframe()
    while (back := frame.f_back) is not None:
        depth, frame = depth + 1, back
    return depth


@mesh.task()
async def cancels_all(input: dict[str, Any], ctx: Context) -> str:
    """Every task of the loop, the worker's own and this one."""
    for task in asyncio.all_tasks():
        task.cancel()
    await asyncio.sleep(0.05)
    return "done"


worker = mesh.worker(
    "contained",
    slots=int(os.environ.get("FAULTS_SLOTS", "4")),
    workflows=[
        fine, blocks, leaks_threads, returns, reads, raises, raises_sync, exits, killed, eats, closes_files, meddles, cancels_all,
    ],
)  # fmt: skip

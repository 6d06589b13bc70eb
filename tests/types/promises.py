"""What type checkers are promised, as code that they must accept. `test_types.py` has mypy and pyright read it; nothing runs it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any, assert_type

from pydantic import BaseModel

from mesh_sdk import (
    Concurrency,
    ConcurrencyLimitStrategy,
    Context,
    EventRef,
    Mesh,
    RateLimit,
    RunInfo,
    RunList,
    RunRef,
    Spawn,
    Step,
    StickyStrategy,
    Task,
    WorkerInfo,
    WorkerLabel,
    Workflow,
)


class Order(BaseModel):
    id: int


class Receipt(BaseModel):
    order_id: int


mesh = Mesh()


# ---- tasks


@mesh.task(retries=2)
async def charge(order: Order, ctx: Context) -> Receipt:
    return Receipt(order_id=order.id)


@mesh.task
def weigh(order: Order, ctx: Context[Order]) -> float:
    assert_type(ctx.input, Order)
    return float(order.id)


@mesh.task
async def tick(ctx: Context) -> int:
    assert_type(ctx.input, Any)
    return ctx.attempt


@mesh.task(priority=3, on_events=["tock"])
def tock(ctx: Context) -> str:
    return ctx.run_id


assert_type(charge, Task[Order, Receipt])
assert_type(weigh, Task[Order, float])
assert_type(tick, Task[None, int])
assert_type(tock, Task[None, str])


@charge.concurrency(max_runs=2)
def per_customer(order: Order, ctx: Context) -> str:
    return str(order.id)


async def start_tasks() -> None:
    assert_type(await charge.run(Order(id=1)), Receipt)
    assert_type(await charge.start(Order(id=1), priority=3, delay="10m", key="k"), RunRef[Receipt])
    assert_type(await (await charge.start(Order(id=1))).result(timeout=3), Receipt)
    assert_type(await charge.run_many([Order(id=1)]), list[Receipt])
    assert_type(await charge.run_many([Order(id=1)], return_exceptions=True), list[Receipt | BaseException])
    assert_type(charge.start_nowait(Order(id=1)), RunRef[Receipt])
    assert_type(charge.run_sync(Order(id=1)), Receipt)
    assert_type(charge.start_sync(Order(id=1)).result_sync(), Receipt)
    assert_type(await tick.run(), int)
    assert_type(await tick.start(), RunRef[int])
    assert_type(tock.run_sync(), str)


# ---- graphs of functions

fulfil = mesh.workflow(name="fulfil", input=Order)
assert_type(fulfil, Workflow[Order])


@fulfil.step()
def reserve(order: Order, ctx: Context) -> dict[str, int]:
    return {"shelf": order.id}


@fulfil.step(parents=[reserve], timeout="30s")
async def ship(order: Order, ctx: Context[Order]) -> Receipt:
    assert_type(ctx.step_output(reserve), dict[str, int])
    assert_type(ctx.step_output("reserve"), Any)
    return Receipt(order_id=order.id)


@fulfil.step(parents=[ship, "reserve"])
def close(ctx: Context[Order]) -> None:
    assert_type(ctx.input, Order)
    assert_type(ctx.step_output(ship), Receipt)


assert_type(reserve, Step[Order, dict[str, int]])
assert_type(ship, Step[Order, Receipt])
assert_type(close, Step[Order, None])


# ---- classes


@mesh.workflow(on_events=["user:create"], input=Order)
class Typed:
    def __init__(self) -> None:
        self.shelf = 3

    @mesh.step()
    def first(self, context: Context[Order]) -> int:
        return self.shelf

    @mesh.step(parents=["first"], retries=3)
    async def second(self, order: Order, context: Context[Order]) -> Receipt:
        assert_type(context.step_output("first"), Any)
        return Receipt(order_id=order.id)


assert_type(Typed(), Typed)
assert_type(Typed().shelf, int)
first: Callable[[Context[Order]], int] = Typed().first


@mesh.workflow()
class Plain:
    @mesh.step()
    def only(self, context: Context) -> None: ...


plain: type[Plain] = Plain


@mesh.workflow(sticky=StickyStrategy.SOFT)
class Moving:
    @mesh.step()
    def only(self, context: Context) -> None: ...

    @mesh.on_moved()
    async def rebuild(self, context: Context) -> int:
        context.local["built"] = context.moved
        return 3


rebuild: Callable[[Context], Coroutine[Any, Any, int]] = Moving().rebuild


@fulfil.on_moved()
def refill(ctx: Context[Order]) -> str:
    return ctx.run_id


restored: Callable[[Context[Order]], str] = refill


# ---- flow control


@mesh.workflow(concurrency=["input.shop", Concurrency("input.user_id", max_runs=2, limit_strategy="CANCEL_NEWEST")])
class Limited:
    @mesh.concurrency(max_runs=5, limit_strategy=ConcurrencyLimitStrategy.GROUP_ROUND_ROBIN)
    def per_user(self, context: Context) -> str:
        return str(context.workflow_input()["user_id"])

    @mesh.step(
        concurrency="metadata.tenant",
        rate_limits=[RateLimit("mails", 10, per="second"), RateLimit("input.user_id", "input.calls", timedelta(days=1), "input.size")],
        desired_worker_labels={
            "gpu": WorkerLabel("a100", required=True, weight=10),
            "zone": "eu",
            "cpu": WorkerLabel([8, 16], comparator="in"),
        },
        slots=2,
    )
    def only(self, context: Context) -> None: ...


per_user: Callable[[Context], str] = Limited().per_user


@fulfil.concurrency(limit_strategy="QUEUE_NEWEST")
async def per_order(order: Order, ctx: Context[Order]) -> str:
    return str(order.id)


ordered: Callable[[Order, Context[Order]], Coroutine[Any, Any, str]] = per_order


@mesh.task(concurrency=Concurrency("input.id", scope="orders", weights={"7": 2}), slots=2, desired_worker_labels={"memory": 64})
def heavy(order: Order, ctx: Context) -> float:
    return float(order.id)


async def start_somewhere() -> None:
    wanted = {"gpu": WorkerLabel("a100")}
    assert_type(await heavy.start(Order(id=1), desired_worker_labels=wanted), RunRef[float])
    assert_type(await mesh.run("Limited", desired_worker_labels={"zone": "eu"}), Any)


# ---- by name, children, reading


async def by_name() -> None:
    assert_type(await mesh.start("Plain", {"a": 1}, metadata={"tenant": "a"}, sticky_worker=None), RunRef[Any])
    assert_type(await mesh.run("Plain"), Any)
    assert_type(await mesh.run(Plain, 3), Any)
    assert_type(await mesh.run(charge, Order(id=1)), Receipt)
    assert_type(await mesh.start(tick), RunRef[int])
    assert_type(mesh.run_sync(charge, Order(id=1)), Receipt)
    assert_type(await mesh.events.publish("user:create", {"user_id": 7}), EventRef)
    assert_type(await mesh.runs.get("id"), RunInfo)
    assert_type(await mesh.runs.list(workflow="Plain"), RunList)
    assert_type([run.status for run in await mesh.runs.list()], list[str])
    assert_type(await mesh.workers.list(), list[WorkerInfo])


async def children(ctx: Context) -> None:
    assert_type(ctx.spawn_workflow("Child", {}, options={"sticky": True}), RunRef[Any])
    assert_type(ctx.spawn_workflow(charge, Order(id=1), key="a"), RunRef[Receipt])
    assert_type(ctx.spawn_workflows([Spawn(charge, Order(id=n)) for n in range(3)]), list[RunRef[Receipt]])


async def manage() -> None:
    async with Mesh(url="nats://127.0.0.1:4222", namespace="a") as opened:
        assert_type(opened, Mesh)
    worker = mesh.worker("w", slots=5, workflows=[Typed, Plain(), charge, fulfil], labels={"gpu": "a100", "size": 3})
    worker.register_workflow(tick)

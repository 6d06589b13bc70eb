"""What the contexts of one incarnation ask, and who answers for the children they spawn.

Rule: a step may ask from the event loop or from a thread; whatever changes the worker's state happens on the loop, in the
order in which the step asked for it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Coroutine, MutableMapping
from functools import partial
from typing import Any, TypeVar

import msgspec

from mesh_sdk.client import Client
from mesh_sdk.context import Spawn, WorkerView
from mesh_sdk.errors import MeshError, SpawnError, StepCancelled
from mesh_sdk.loops import refuse_running_loop
from mesh_sdk.protocol.records import Cancel, Done
from mesh_sdk.protocol.subjects import Subjects
from mesh_sdk.reads import WorkflowInfo
from mesh_sdk.refs import RunRef
from mesh_sdk.transport.bus import Bus
from mesh_sdk.worker.attempt import Attempt
from mesh_sdk.worker.children import Order, check_live, order_child
from mesh_sdk.worker.loop import StepLoop
from mesh_sdk.worker.parking import Parking
from mesh_sdk.worker.registry import Registry
from mesh_sdk.worker.reports import Reports
from mesh_sdk.worker.slots import Slots
from mesh_sdk.worker.threads import Threads

Result = TypeVar("Result")


class StepHost:
    """Answers contexts.

    Args:
        steps: the attempts.
        view: what steps may know of the worker.
        registry: what the worker can run.
        reports: where spawns go.
        slots: the worker's.
        threads: carries calls from threads to the loop, in order.
        client: hears of children's ends.
        bus: for live streams.
        subjects: of the namespace.
    """

    def __init__(
        self,
        steps: StepLoop,
        view: WorkerView,
        registry: Registry,
        reports: Reports,
        slots: Slots,
        threads: Threads,
        client: Client,
        bus: Bus,
        subjects: Subjects,
    ) -> None:
        self.view = view
        self.steps = steps
        self.client = client
        self.reports = reports
        self.parking = Parking(slots, self._only_here, self._size)
        self.loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._registry = registry
        self._threads = threads
        self._bus = bus
        self._subjects = subjects

    def on_loop(self, call: Callable[[], object]) -> None:
        """Have something called on the loop: now if this is the loop, else after all that this thread asked for before."""
        if threading.get_ident() == self._thread:
            call()
        else:
            self._threads.post(call)

    def spawn(self, attempt: Attempt, spawn: Spawn[Any, Any]) -> RunRef[Any]:
        """Start a child; see `Context.spawn_workflow`."""
        _refuse_key_function(attempt, "spawn_workflow()", SpawnError)
        order = order_child(attempt, spawn, self._registry, self.view.id())
        child = Child(self, attempt, order)
        if order.record is not None:
            self.on_loop(child.report)
        return RunRef(child, order.child, order.parse)

    def refresh(self, attempt: Attempt, extend_ms: int) -> None:
        """Give the attempt more time."""
        _refuse_key_function(attempt, "refresh_timeout()")
        self.on_loop(partial(self.steps.refresh, attempt, extend_ms))

    def release_slot(self, attempt: Attempt) -> None:
        """Let the attempt go on without its slots."""
        _refuse_key_function(attempt, "release_slot()")
        self.on_loop(partial(self.steps.lending.release, attempt))

    def stream(self, attempt: Attempt, chunk: bytes) -> None:
        """Send a chunk to whoever watches the attempt's run."""
        _refuse_key_function(attempt, "put_stream()")
        self.on_loop(partial(self._bus.publish, self._subjects.live(attempt.assign.run), chunk))

    def local(self, attempt: Attempt) -> MutableMapping[str, Any]:
        """The run's memory on this worker, if its workflow is sticky."""
        _refuse_key_function(attempt, "local")
        return {} if attempt.entry is None else attempt.entry.values

    def _size(self, workflow: str) -> int:
        definition = self._registry.definition(workflow)
        return max(step.slots for step in definition.steps) if definition is not None else 1

    async def _only_here(self, workflow: str) -> bool:
        answer = await self.client.call("workflows.get", {"name": workflow})
        workers = msgspec.json.decode(answer, type=WorkflowInfo).workers
        return set(workers) <= {self.view.id()}


def _refuse_key_function(attempt: Attempt, call: str, error: type[MeshError] = MeshError) -> None:
    if attempt.action.is_key:
        raise error(
            f"key function {attempt.assign.name!r} of workflow {attempt.assign.workflow!r} used context.{call}: it is called before "
            "its run begins, only to return the key by which the run is limited; do this in a step"
        )


class Child:
    """A child that a step has spawned, as the source of its `RunRef`."""

    def __init__(self, host: StepHost, attempt: Attempt, order: Order) -> None:
        self._host = host
        self._attempt = attempt
        self._order = order
        self._stored: asyncio.Future[int] | None = None

    def report(self) -> None:
        """Have the spawn stored, unless the attempt's last report was made before it could be."""
        assert self._order.record is not None
        if self._attempt.answered:
            return
        self._stored = self._host.reports.put(self._order.record, 256 + len(bytes(self._order.record.input)))

    async def done(self, requested: str, keyed: bool) -> Done:
        """Wait for the child's end; an async step lends its slot out meanwhile."""
        self._check_spawned()
        client = self._host.client
        known = client.wait_for(requested)
        if known.done():
            return known.result()
        known.cancel()
        end = asyncio.ensure_future(client.done(requested, ask=self._order.record is None))
        try:
            if not self._attempt.action.is_async:
                return await end
            return await self._host.steps.lending.wait(self._attempt, end)
        finally:
            end.cancel()

    async def accepted(self, requested: str, keyed: bool) -> str:
        """Wait until the spawn is stored."""
        self._check_spawned()
        if self._stored is not None:
            await asyncio.shield(self._stored)
        return requested

    def _check_spawned(self) -> None:
        """A thread may have spawned in the very moment in which its attempt was answered: then there is no child."""
        if self._stored is None and self._order.record is not None:
            check_live(self._attempt, self._order.workflow)

    async def cancel(self, run_id: str, reason: str) -> None:
        """Ask for the child's end."""
        await self._host.client.control(Cancel(run_id, reason), f"the cancel of child {run_id}")

    async def status(self, run_id: str) -> str:
        """The child's status."""
        answer = await self._host.client.call("runs.get", {"run_id": run_id})
        status: str = msgspec.json.decode(answer, type=dict[str, Any])["status"]
        return status

    def block(self, make: Callable[[], Coroutine[Any, Any, Result]], name: str) -> Result:
        """Wait on a step's thread."""
        refuse_running_loop(name)
        order = self._order
        waiting = self._host.parking.wait(self._attempt, order.workflow, order.hard, make())
        future = asyncio.run_coroutine_threadsafe(waiting, self._host.loop)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise StepCancelled(f"the worker stopped while step {self._attempt.assign.name!r} waited for {order.child}") from None
        except BaseException:  # a KeyboardInterrupt of the thread: nobody wants the result any more
            future.cancel()
            raise

"""The slot ledger: which attempt occupies which place, on which worker or charged to which pool.

An attempt is in exactly one of four places: `pool.out` (released to the shared lane, unanswered), `worker.reserved`
(sent to the private lane, not yet known to run), `worker.held` (runs), or nowhere (over). A lent attempt is held but
takes no slot. `free` never lets the mesh release more than the slots that are known to be free.
"""

from __future__ import annotations

from mesh.core.labels import Wish
from mesh.core.line import Line
from mesh.core.step import Attempt, Step
from mesh_sdk.protocol.ids import pool_id
from mesh_sdk.protocol.records import DRAIN, PAUSE


class Pool:
    """The workers that register the same actions."""

    def __init__(self, actions: frozenset[str]) -> None:
        self.id = pool_id(actions)
        self.actions = actions
        self.workers: dict[str, Worker] = {}
        self.capacity = 0
        """Slots of its workers that take work."""
        self.busy = 0
        """Of these, reserved or in use."""
        self.out: dict[str, Attempt] = {}
        self.full: list[Step] = []
        """Steps that came back because a worker had no room."""
        self.waiting: dict[str, Worker] = {}
        """Its workers that have bound steps waiting."""
        self.short: dict[str, Worker] = {}
        """Its workers that were given a step before they had as many slots as it takes."""
        self.joined = 0
        """How often a worker of it began to take work, as it is from then on."""

    @property
    def free(self) -> int:
        return self.capacity - self.busy - len(self.out)


class Worker:
    """One incarnation of a worker."""

    draining = False
    steered = ""
    """What an operator had it do last: PAUSE, RESUME or DRAIN."""
    gone = False
    joined = 0
    """What its pool counted when it began to take work."""

    def __init__(
        self,
        id: str,
        incarnation: str,
        name: str,
        slots: int,
        labels: dict[str, str | int | float],
        workflows: list[tuple[str, str]],
        client: str,
        host: str,
        pid: int,
        pool: Pool,
    ) -> None:
        self.id = id
        self.incarnation = incarnation
        self.name = name
        self.slots = slots
        self.labels = labels
        self.workflows = workflows
        self.client = client
        self.host = host
        self.pid = pid
        self.pool = pool
        self.reserved: dict[str, Attempt] = {}
        self.held: dict[str, Attempt] = {}
        self.used = 0
        """Slots of what it holds; of what is lent, none."""
        self.promised = 0
        """Slots of what is reserved."""
        self.bound = 0
        """Live sticky runs that belong to it."""
        self.line: Line[Step] = Line()
        """Steps bound to it, waiting for room."""
        self.keys_out = 0
        """Key functions that it was given and has not answered."""

    @property
    def room(self) -> int:
        """Free slots. Less than none, when a step that takes several was given to it to be begun as soon as they are free."""
        return self.slots - self.used - self.promised

    @property
    def busy(self) -> int:
        """Slots in use or reserved. What it is promised beyond those it has costs the others of its pool nothing."""
        return min(self.slots, self.used + self.promised)

    @property
    def paused(self) -> bool:
        """Whether an operator has it take no more work: for a while, or (it will say itself that it drains) for good."""
        return self.steered in (PAUSE, DRAIN)

    @property
    def takes_work(self) -> bool:
        return not (self.draining or self.gone or self.paused)

    def can_run(self, action: str, wish: Wish) -> bool:
        """Whether steps of this action, with such a wish, may be sent to it."""
        return self.takes_work and action in self.pool.actions and wish.allows(self.slots, self.labels)


def charge(attempt: Attempt) -> None:
    """A released attempt takes its place: a reservation on its worker, or a charge to its pool."""
    worker = attempt.worker
    if worker is not None:
        worker.reserved[attempt.token] = attempt
        worker.keys_out += not attempt.slots
        _change(worker, 0, attempt.slots)
    elif attempt.pool is not None:
        attempt.pool.out[attempt.token] = attempt


def hold(attempt: Attempt, worker: Worker) -> None:
    """The attempt is known to run on `worker`."""
    promised = 0
    if attempt.worker is None:
        if attempt.pool is not None:
            del attempt.pool.out[attempt.token]
    else:
        del worker.reserved[attempt.token]
        promised = attempt.slots
    attempt.worker = worker
    attempt.held = True
    worker.held[attempt.token] = attempt
    _change(worker, attempt.slots, -promised)


def discharge(attempt: Attempt) -> None:
    """The attempt is over: its place is free."""
    worker = attempt.worker
    if worker is None:
        if attempt.pool is not None:
            del attempt.pool.out[attempt.token]
        return
    worker.keys_out -= not attempt.slots
    if not attempt.held:
        del worker.reserved[attempt.token]
        _change(worker, 0, -attempt.slots)
        return
    del worker.held[attempt.token]
    if not attempt.lent:
        _change(worker, -attempt.slots, 0)


def lend(attempt: Attempt) -> None:
    """The attempt gives its slots away while it awaits children."""
    assert attempt.worker is not None
    attempt.lent = True
    _change(attempt.worker, -attempt.slots, 0)


def resume(attempt: Attempt) -> None:
    """The attempt has its slots again."""
    assert attempt.worker is not None
    attempt.lent = False
    _change(attempt.worker, attempt.slots, 0)


def _change(worker: Worker, used: int, promised: int) -> None:
    before = worker.busy
    worker.used += used
    worker.promised += promised
    if worker.takes_work:
        worker.pool.busy += worker.busy - before
    _note(worker)


def _note(worker: Worker) -> None:
    short = worker.pool.short
    if worker.used + worker.promised > worker.slots:
        short[worker.id] = worker
    elif short:
        short.pop(worker.id, None)


def join(worker: Worker) -> None:
    """The worker's slots become part of its pool."""
    pool = worker.pool
    pool.workers[worker.id] = worker
    pool.capacity += worker.slots
    pool.busy += worker.busy
    pool.joined += 1
    worker.joined = pool.joined
    _note(worker)


def withdraw(worker: Worker) -> None:
    """The worker takes no more work: its slots, and what stands in them, leave the pool's count."""
    if worker.takes_work:
        worker.pool.capacity -= worker.slots
        worker.pool.busy -= worker.busy
    worker.pool.short.pop(worker.id, None)

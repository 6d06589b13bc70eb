"""When a simulated mesh is quiet, what must hold then, and what is said about it.

Rule: what was acknowledged has ended; the ledger is what workers hold; a cold replay is what everybody has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mesh.core.image import digest, encode_image, image
from mesh.core.loading import load
from mesh_sdk.protocol.records import FAILED, SUCCEEDED
from tests.simulation.loop import EPOCH_S
from tests.simulation.names import LISTENERS, RESULTS

if TYPE_CHECKING:
    from tests.simulation.world import World


class Verdict:
    """What came of a seed."""

    def __init__(self, world: World) -> None:
        self.seed = world.seed
        self.failures = world.failures
        self.tail = list(world.tail)
        self.seconds = world.loop.time() - EPOCH_S
        self.handled = world.loop.handled
        self.runs = len(world.auditor.started)
        self.executions = world.witness.executions
        self.frames = world.auditor.sequence
        self.journal = world.auditor.journal.hexdigest()
        """Digest of every byte that was journaled."""
        self.plan = world.plan
        self.struck = world.server.struck
        """How often each kind of fault struck."""
        self.seen = world.auditor.seen
        """What there was to look at, and how often."""

    @property
    def good(self) -> bool:
        return not self.failures

    def __str__(self) -> str:
        what = "ok" if self.good else "BROKEN"
        return (
            f"seed {self.seed}: {what}, {self.seconds:.1f} s, {self.runs} runs, {self.executions} executions, {self.frames} frames, "
            f"{self.handled} handles, journal {self.journal[:12]}"
        )


def quiet(world: World) -> bool:
    """Nothing is left to do."""
    return not outstanding(world)


def outstanding(world: World) -> list[str]:
    """What is not done yet."""
    auditor = world.auditor
    found = [f"user {user.name} still waits" for user in world.users if user.wanted]
    for requested in world.ledger.starts:
        run = auditor.repeated.get(requested, requested)
        if run not in auditor.ended and run not in auditor.refused:
            found.append(f"acknowledged start {requested} has not ended")
    found += _unheard(world)
    found += [f"run {run} lives: {_waits(world, run)}" for run in auditor.state.runs]
    found += [f"attempt {token} is in the ledger" for token in auditor.state.attempts]
    found += [f"worker {worker.name} holds {worker.holds} slots" for worker in world.workers if worker.holds]
    found += auditor.places.left()
    found += [f"attempt {token} is still executed" for token in world.witness.still_running()]
    return found


def _unheard(world: World) -> list[str]:
    """Stored events that have not started what listens for them."""
    decided = world.auditor.decided
    return [
        f"event {sequence} on {subject} has started no run of {workflow}"
        for sequence, (subject, defined) in decided.events.items()
        for workflow, tail in LISTENERS
        if workflow in defined and subject.endswith(tail) and (sequence, workflow) not in decided.started_by
    ]


def _waits(world: World, id: str) -> str:
    run = world.auditor.state.runs[id]
    return f"{run.flow.name} " + " ".join(f"{step.name}={step.state}/{step.attempt}" for step in run.steps) + f" worker={run.worker!r}"


def _told_wrong(world: World) -> list[str]:
    """Results that are not what is journaled."""
    auditor, found = world.auditor, []
    for requested, (status, result) in world.ledger.results.items():
        run = auditor.repeated.get(requested, requested)
        journaled = auditor.ended.get(run, FAILED)  # one that was refused is told as failed
        if status != journaled:
            found.append(f"a user was told that start {requested} has {status}; journaled is {journaled}")
        elif status == SUCCEEDED and result != RESULTS[auditor.started[run]]:
            found.append(f"a user was told that start {requested} of {auditor.started[run]} came to {result!r}")
    return found


def look_at_the_end(world: World) -> None:
    """Everything has had its time."""
    for text in outstanding(world):
        world.fail(text)
    for text in _told_wrong(world):
        world.fail(text)
    state = world.auditor.state
    mine = digest(state)
    if digest(load(encode_image(image(state)), world.plan.finished_runs_max)) != mine:
        world.fail("a state that was written as a snapshot and read is another one")

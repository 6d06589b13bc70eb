"""What was seen in a world: whom it told what, and that nothing was doubled."""

from __future__ import annotations

from mesh.core.records import Fact, RunFinished, RunRefused, RunStarted, StepFinished, StepReleased
from mesh.core.state import State
from mesh_sdk.protocol import records as wire
from tests.core.comparing import once
from tests.core.holder import Holder


class Seen:
    """The part of a world that looks back."""

    state: State
    journal: list[tuple[int, Fact]]
    notices: list[tuple[str, wire.Notice]]
    executed: list[tuple[str, int, int, str]]
    workers: dict[str, Holder]

    def done(self, run: str) -> wire.Done | None:
        found = [notice for _, notice in self.notices if isinstance(notice, wire.Done) and notice.run == run]
        assert len(found) <= 1, f"told twice: {found}"
        return found[0] if found else None

    def check_once(self) -> None:
        """Nothing was doubled: starts, completions, ends, and attempts given to workers."""
        facts = [fact for _, fact in self.journal]
        once((f.run, f.step) for f in facts if isinstance(f, StepFinished))
        once(f.run for f in facts if isinstance(f, RunFinished | RunRefused))
        once(f.run for f in facts if isinstance(f, RunStarted | RunRefused))
        once((f.run, f.step, f.attempt) for f in facts if isinstance(f, StepReleased))
        once(executed[:3] for executed in self.executed)

    def check_ledger(self) -> None:
        """When nothing is in flight, the ledger knows what the workers hold, and nobody holds more than it has."""
        for holder in self.workers.values():
            worker = self.state.workers.get(holder.id)
            if worker is None or worker.incarnation != holder.incarnation:
                continue
            assert 0 <= worker.used <= worker.slots
            assert set(worker.held) <= set(holder.running), "the ledger counts what the worker does not run"
            assert all(attempt.lent == (token in holder.lent) for token, attempt in worker.held.items())
            for token in holder.running:
                attempt = self.state.attempts.get(token)
                assert attempt is None or attempt.worker is worker or token in attempt.pool.out  # type: ignore[union-attr]

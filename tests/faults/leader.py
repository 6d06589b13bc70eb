"""A scheduler that dies, or stops itself, at a phase of a frame: `die|stop KIND PHASE` on its standard input.

It acts at the first PHASE that ends after a frame with a record of that kind was decided.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading

from mesh.cli.process import run, until_signal
from mesh.core import records as facts
from mesh.engine import Engine

KINDS: dict[str, type[facts.Fact]] = {
    "start": facts.RunStarted,
    "event": facts.EventReceived,
    "report": facts.StepFinished,
    "timer": facts.StepDue,
    "lost worker": facts.WorkerGone,
}
PHASES = ("decide", "journal", "notice", "effects", "free")
DIED = 9


class Trap:
    """What the engine's probe runs into."""

    def __init__(self) -> None:
        self._action = ""
        self._kind: type[facts.Fact] = facts.Fact
        self._phase = ""
        self._sprung = False

    def listen(self) -> None:
        for line in sys.stdin:
            action, _, rest = line.strip().partition(" ")
            kind, _, phase = rest.rpartition(" ")
            self._kind, self._phase, self._sprung = KINDS[kind], phase, False
            self._action = action
            print(f"armed {rest}", flush=True)

    def probe(self, phase: str, records: list[facts.Fact]) -> None:
        if not self._action:
            return
        if phase == "decide" and any(isinstance(record, self._kind) for record in records):
            self._sprung = True
        if self._sprung and phase == self._phase:
            action, self._action = self._action, ""
            if action == "die":
                os._exit(DIED)
            print(f"stopped at {phase}", flush=True)
            os.kill(os.getpid(), signal.SIGSTOP)


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    trap = Trap()
    threading.Thread(target=trap.listen, daemon=True).start()
    engine = Engine(os.environ["MESH_URL"], probe=trap.probe)
    run(lambda on_ready: until_signal(lambda stop: engine.run(on_ready, stop)))


if __name__ == "__main__":
    main()

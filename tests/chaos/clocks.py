"""The wall clocks of a chaos run's Python processes: each tells the machine's time, shifted by what its file says at that moment.

libfaketime stands between the processes and the C library. Rule: only the wall clock is shifted; histories, leases and timeouts go by
the monotonic ones. (nats-server is no C program, and reads the machine's clock past it.)
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

LIBRARIES = ("/usr/lib/*/faketime", "/usr/lib/faketime", "/usr/lib64/faketime", "/usr/local/lib/faketime")
NAME = "libfaketimeMT.so.1"
TRIAL_S = 3_600
TRIAL = "import time; print(time.time(), time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME))"
CLOSE_S = 300
"""Two readings of one clock in a trial."""
LEFT_BEHIND = ("/dev/shm/faketime_shm_{pid}", "/dev/shm/sem.faketime_sem_{pid}")


class Clocks:
    """See the module.

    Args:
        folder: for the files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._folder.mkdir()
        self._library = _library()
        self.why_not = self._try() if self._library else "libfaketime is not installed"
        """Why they can't be shifted on this machine, "" if they can."""

    def environment(self, name: str) -> dict[str, str]:
        """What a process is started with."""
        if self.why_not:
            return {}
        self.shift(name, 0)
        return {
            "LD_PRELOAD": str(self._library),
            "FAKETIME_TIMESTAMP_FILE": str(self._folder / name),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }

    def shift(self, name: str, seconds: int) -> None:
        """From now on a process, and any that takes its place, sees the machine's time plus these seconds."""
        new = self._folder / f"{name}.new"
        new.write_text(f"{seconds:+d}")
        new.replace(self._folder / name)  # whoever reads it sees one or the other

    def forget(self, pids: Iterable[int]) -> None:
        """Remove what the library leaves behind of a process that is killed."""
        for pid in pids:
            for name in LEFT_BEHIND:
                Path(name.format(pid=pid)).unlink(missing_ok=True)

    def _try(self) -> str:
        """Whether a Python process is fooled, and its monotonic clocks are not."""
        self.why_not = ""
        readings = []
        for seconds in (0, TRIAL_S):
            environment = self.environment("trial")
            self.shift("trial", seconds)
            said = subprocess.run(
                [sys.executable, "-c", TRIAL], env=environment, capture_output=True, text=True, check=False
            ).stdout.split()
            if len(said) != 3:
                return "Python does not start with libfaketime"
            readings.append([float(text) for text in said])
        wall, *steady = (after - before for before, after in zip(*readings, strict=True))
        if abs(wall - TRIAL_S) > CLOSE_S or any(not 0 < passed < CLOSE_S for passed in steady):
            return f"libfaketime shifts a clock by {wall:.0f} s instead of {TRIAL_S} s, or the monotonic ones too"
        return ""


def _library() -> Path | None:
    found = [file for folder in LIBRARIES for file in Path("/").glob(f"{folder[1:]}/{NAME}")]
    return found[0] if found else None

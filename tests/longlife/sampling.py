"""Samples of what may grow, on a clock of the sampler's own: a thread, so that a busy loop is sampled too."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Curve:
    """One quantity over time: (seconds since the beginning, value)."""

    name: str
    points: list[tuple[float, float]] = field(default_factory=list)

    def between(self, start: float, end: float) -> list[float]:
        """Its values in a part of the time."""
        return [value for at, value in self.points if start <= at < end]


class Sampler:
    """Reads every quantity at an interval.

    Args:
        interval_s: between two samples.
    """

    def __init__(self, interval_s: float = 0.5) -> None:
        self.curves: dict[str, Curve] = {}
        self.marks: list[tuple[float, str]] = []
        self._interval_s = interval_s
        self._reads: dict[str, Callable[[], float]] = {}
        self._began = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def now(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began

    def watch(self, name: str, read: Callable[[], float]) -> None:
        """Sample `read` from now on; one that is there is replaced."""
        self.curves.setdefault(name, Curve(name))
        self._reads[name] = read

    def forget(self, name: str) -> None:
        """Sample it no more; its curve stays."""
        self._reads.pop(name, None)

    def add(self, name: str, value: float) -> None:
        """A value that somebody else has read."""
        self.curves.setdefault(name, Curve(name)).points.append((self.now, value))

    def mark(self, text: str) -> None:
        """Something begins."""
        self.marks.append((self.now, text))

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            for name, read in list(self._reads.items()):
                self.curves[name].points.append((self.now, read()))
            self._stop.wait(self._interval_s)

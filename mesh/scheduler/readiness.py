"""Whether a scheduler leads or follows, for `/readyz` and the `ready` line.

Rule: the line is said once, and not before it is true; the answer follows every change.
"""

from __future__ import annotations

from collections.abc import Callable


class Readiness:
    """One scheduler's.

    Args:
        tell: gets the line.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._line = ""
        self._said = False
        self._doubt = "it neither leads nor follows yet"

    def say(self, line: str) -> None:
        """This is what it does; told once, when there is no doubt."""
        self._line = line
        self._say()

    def doubt(self, why: str) -> None:
        """It is not ready, and why."""
        self._doubt = why

    def sure(self) -> None:
        """It leads, or follows as it should."""
        self._doubt = ""
        self._say()

    @property
    def doubtful(self) -> bool:
        """Nothing has shown so far, or since the last trouble, that it is ready."""
        return bool(self._doubt)

    def _say(self) -> None:
        if self._line and not self._doubt and not self._said:
            self._said = True
            self._tell(self._line)

    def check(self) -> tuple[bool, str]:
        """For the health server."""
        if self._doubt:
            return False, self._doubt
        return self._said, self._line if self._said else "no leader was heard so far"

"""Notices changed Python files below a folder, by their times: for `mesh dev --reload`, without a dependency.

Rule: looks at the project's own files only, and at a bounded number of them.
"""

from __future__ import annotations

import os
from pathlib import Path

FILES_MAX = 20_000
_SKIPPED = frozenset(("__pycache__", "node_modules", "site-packages", "venv", "env"))

Stamps = dict[str, tuple[int, int]]


class Sources:
    """The Python files below `folder`, as they were when last looked at."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stamps = self._look()

    def changed(self) -> list[str]:
        """Paths of the files that are new, gone or different since the last call (or the beginning)."""
        before, self._stamps = self._stamps, self._look()
        paths = before.keys() | self._stamps.keys()
        return sorted(path for path in paths if before.get(path) != self._stamps.get(path))

    def _look(self) -> Stamps:
        stamps: Stamps = {}
        for root, folders, files in os.walk(self._folder):
            folders[:] = [name for name in folders if name not in _SKIPPED and not name.startswith(".")]
            for name in files:
                if name.endswith(".py") and len(stamps) < FILES_MAX:
                    self._stamp(os.path.join(root, name), stamps)
        return stamps

    def _stamp(self, path: str, stamps: Stamps) -> None:
        try:
            status = os.stat(path)
        except OSError:  # gone between the listing and now: the next look tells
            return
        stamps[path] = (status.st_mtime_ns, status.st_size)

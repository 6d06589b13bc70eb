"""The history of a chaos run: one JSON object per line, a file per process, all by the machine's one monotonic clock.

Rule: a line is written by whoever saw the thing itself, in one write, so that a kill leaves whole lines behind.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

FOLDER_VARIABLE = "CHAOS_HISTORY"
ROLE_VARIABLE = "CHAOS_ROLE"


class Line(NamedTuple):
    """One thing that happened."""

    at: float
    role: str
    pid: int
    what: str
    fields: dict[str, Any]


class History:
    """Where one process writes what it sees.

    Args:
        folder: of the chaos run.
        role: of the process, e.g. `w-2`.
    """

    def __init__(self, folder: Path, role: str) -> None:
        self._role = role
        self._file = os.open(folder / f"{role}-{os.getpid()}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def say(self, what: str, **fields: Any) -> None:
        """Write a line."""
        line = {"at": time.monotonic(), "role": self._role, "pid": os.getpid(), "what": what, **fields}
        os.write(self._file, json.dumps(line).encode() + b"\n")


def of_this_process() -> History:
    """The history that the environment names."""
    return History(Path(os.environ[FOLDER_VARIABLE]), os.environ[ROLE_VARIABLE])


def read(folder: Path) -> list[Line]:
    """Everything that any process wrote, in the order of the clock."""
    return sorted((line for file in folder.glob("*.jsonl") for line in _lines(file)), key=lambda line: line.at)


def _lines(file: Path) -> Iterator[Line]:
    for text in file.read_bytes().split(b"\n")[:-1]:
        fields = json.loads(text)
        yield Line(fields.pop("at"), fields.pop("role"), fields.pop("pid"), fields.pop("what"), fields)

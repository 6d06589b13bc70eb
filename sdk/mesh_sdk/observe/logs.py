"""Logging of the long-running processes: the standard library's, as lines for people or as JSON, with the step it is about.

Rule: only a process that is the mesh's own is configured here: the CLI's, or that of `worker.start()` where nobody else did.
Importing the SDK never touches anybody's logging.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Callable, Mapping
from contextvars import ContextVar, Token
from datetime import UTC, datetime
from json import dumps
from typing import TextIO

FIELDS = ("event", "run", "step", "attempt", "worker")
"""What a log line may be about; taken from `extra=`, else from what is bound, else from the step that runs here."""

_OURS = "mesh_sdk."
"""Loggers of the SDK: a callback of its own may still see the context of the step that it came from, and isn't about it."""

Fields = Mapping[str, str | int]

_bound: ContextVar[Fields | None] = ContextVar("mesh_log_fields", default=None)
_asked: list[Callable[[], Mapping[str, object]]] = [dict]


def bind(fields: Fields) -> Token[Fields | None]:
    """Have every log line of this context tell these fields, e.g. `{"run": run, "step": step, "attempt": 1}`.

    Args:
        fields: keys out of FIELDS; replaces what was bound.

    Returns:
        For `unbind`. A task of its own needs none: its context ends with it.
    """
    return _bound.set(fields)


def unbind(token: Token[Fields | None]) -> None:
    """Go back to what was bound before."""
    _bound.reset(token)


def ask(fields: Callable[[], Mapping[str, object]]) -> None:
    """Have log lines without fields of their own ask for them, which costs nothing until a line is written.

    Args:
        fields: tells those of the step that runs here, none elsewhere; replaces what was asked before.
    """
    _asked[:] = [fields]


def fields_of(record: logging.LogRecord) -> dict[str, object]:
    """The fields that a log record is about, in the order of FIELDS."""
    own = record.__dict__
    bound = _bound.get() or _fields_of_step(record)
    pairs = ((name, own.get(name, bound.get(name))) for name in FIELDS)
    return {name: value for name, value in pairs if value is not None}


def _fields_of_step(record: logging.LogRecord) -> Mapping[str, object]:
    return {} if record.name.startswith(_OURS) else _asked[-1]()


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, the fields, and the traceback if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **fields_of(record),
        }
        if record.exc_info and record.exc_info[0]:
            line["exception"] = "".join(traceback.format_exception(*record.exc_info)).rstrip()
        return dumps(line, ensure_ascii=False, default=str)


class TextFormatter(logging.Formatter):
    """One line for people: time, level, logger, message, then the fields as `name=value`; below it the message's further lines."""

    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {name}={value}" for name, value in fields_of(record).items())
        message, newline, below = record.getMessage().partition("\n")
        line = f"{_time(record)} {record.levelname:<7} {record.name}: {message}{fields}{newline}{below}"
        if record.exc_info and record.exc_info[0]:
            line += "\n" + self.formatException(record.exc_info)
        return line


class _MeshHandler(logging.StreamHandler[TextIO]):
    """Ours, so that configuring twice replaces it and leaves others alone."""


def configure(level: str = "INFO", json: bool = False, stream: TextIO | None = None) -> None:
    """Log to standard error (standard output is for results and the `ready` line).

    Args:
        level: a level's name, in any case.
        json: one JSON object a line instead of text.
        stream: where to, instead of standard error.

    Raises:
        ValueError: when there is no such level.
    """
    root = logging.getLogger()
    root.setLevel(level.upper())
    for handler in root.handlers[:]:
        if isinstance(handler, _MeshHandler):
            root.removeHandler(handler)
    handler = _MeshHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if json else TextFormatter())
    root.addHandler(handler)


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

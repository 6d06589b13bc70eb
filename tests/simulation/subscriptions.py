"""Who listens on which subject. Rule: found in the order of subscribing, whatever the pattern."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation.stream import matches

if TYPE_CHECKING:
    from tests.simulation.connection import Connection

Listener = tuple["Connection", int]


class Subscriptions:
    """The server's interest graph."""

    def __init__(self) -> None:
        self._exact: dict[str, dict[Listener, None]] = {}
        self._star: dict[str, dict[Listener, None]] = {}
        """`prefix.*`, by the prefix."""
        self._other: dict[str, dict[Listener, None]] = {}
        self._subjects: dict[Listener, str] = {}

    def add(self, connection: Connection, sid: int, subject: str) -> None:
        """Somebody listens."""
        table, key = self._place(subject)
        table.setdefault(key, {})[(connection, sid)] = None
        self._subjects[(connection, sid)] = subject

    def remove(self, connection: Connection, sid: int) -> None:
        """Somebody does not any more."""
        subject = self._subjects.pop((connection, sid), None)
        if subject is None:
            return
        table, key = self._place(subject)
        del table[key][(connection, sid)]
        if not table[key]:
            del table[key]

    def drop(self, connection: Connection) -> None:
        """A connection is gone."""
        for listener in [listener for listener in self._subjects if listener[0] is connection]:
            self.remove(*listener)

    def of(self, subject: str) -> list[Listener]:
        """Who hears a message."""
        found = list(self._exact.get(subject, ()))
        if self._star:
            found += self._star.get(subject.rpartition(".")[0], ())
        for pattern, listeners in self._other.items():
            if matches(pattern, subject):
                found += listeners
        return found

    def _place(self, subject: str) -> tuple[dict[str, dict[Listener, None]], str]:
        if "*" not in subject and ">" not in subject:
            return self._exact, subject
        if subject.endswith(".*") and "*" not in subject[:-1]:
            return self._star, subject[:-2]
        return self._other, subject

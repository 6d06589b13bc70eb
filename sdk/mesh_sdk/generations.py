"""A bounded memory: the latest entries by key, the oldest forgotten half at a time. Pure.

Rule: at most twice `most` entries; forgetting costs nothing per entry.
"""

from __future__ import annotations

from typing import Generic, TypeVar

V = TypeVar("V")


class Generations(Generic[V]):
    """Two dictionaries: the one that is filled, and the one before it.

    Args:
        most: entries at which a new generation begins.
        weight_most: likewise, of the entries' weights.
    """

    def __init__(self, most: int, weight_most: int = 0) -> None:
        self.forgotten = 0
        """How many generations were dropped."""
        self._most = most
        self._weight_most = weight_most
        self._new: dict[str, V] = {}
        self._old: dict[str, V] = {}
        self._weight = 0

    def put(self, key: str, value: V, weight: int = 0) -> None:
        """Remember a value."""
        self._new[key] = value
        self._weight += weight
        if len(self._new) >= self._most or (self._weight_most and self._weight >= self._weight_most):
            self.forgotten += bool(self._old)
            self._old, self._new, self._weight = self._new, {}, 0

    def get(self, key: str) -> V | None:
        """The value, unless it was never put or is forgotten."""
        value = self._new.get(key)
        return self._old.get(key) if value is None else value

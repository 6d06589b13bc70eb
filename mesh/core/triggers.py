"""What starts runs: which workflows an event name starts, and the ids of runs that follow from what started them."""

from __future__ import annotations

import re
from collections.abc import Iterable

from mesh.core.graph import Flow
from mesh_sdk.protocol.ids import derived_run_id

_REMEMBERED_MAX = 10_000


def event_run_id(time_ms: int, sequence: int, workflow: str) -> str:
    """The one run that this stored event can ever start of this workflow."""
    return derived_run_id(time_ms, "event", str(sequence), workflow)


class EventMatcher:
    """Finds the workflows whose `on_events` match a name; `*` stands for any characters."""

    def __init__(self) -> None:
        self._patterns: list[tuple[re.Pattern[str], str]] = []
        self._found: dict[str, list[str]] = {}

    def rebuild(self, flows: Iterable[Flow]) -> None:
        """Follow a change of definitions."""
        self._found.clear()
        self._patterns = [
            (re.compile(".*".join(map(re.escape, pattern.split("*"))), re.DOTALL), flow.name)
            for flow in flows
            for pattern in flow.definition.on_events
        ]

    def workflows(self, event: str) -> list[str]:
        """Names of the workflows that the event starts, each once, in the order of their definitions."""
        found = self._found.get(event)
        if found is None:
            if len(self._found) >= _REMEMBERED_MAX:
                self._found.clear()
            found = list(dict.fromkeys(name for pattern, name in self._patterns if pattern.fullmatch(event)))
            self._found[event] = found
        return found

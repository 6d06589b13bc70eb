"""What starts runs: which workflows an event name starts, and the ids of runs that follow from what started them."""

from __future__ import annotations

from collections.abc import Collection

from mesh.core.graph import Flow
from mesh_sdk.protocol.ids import derived_run_id

_REMEMBERED_MAX = 100_000
"""Names of workflows that are remembered of events, all events together."""


def event_run_id(time_ms: int, sequence: int, workflow: str) -> str:
    """The one run that this stored event can ever start of this workflow."""
    return derived_run_id(time_ms, "event", str(sequence), workflow)


class EventMatcher:
    """Finds the workflows whose `on_events` match a name; `*` stands for any characters."""

    def __init__(self) -> None:
        self._flows: Collection[Flow] = ()
        self._patterns: list[tuple[list[str], str]] | None = []
        """What stands between the stars, and the workflow; None until somebody asks after a change."""
        self._found: dict[str, list[str]] = {}
        self._remembered = 0

    def rebuild(self, flows: Collection[Flow]) -> None:
        """Follow a change of definitions. Workers come in numbers, so the work is left to the next event.

        Args:
            flows: as they are at any moment.
        """
        self._flows = flows
        self._patterns = None

    def workflows(self, event: str) -> list[str]:
        """Names of the workflows that the event starts, each once, in the order of their definitions."""
        if self._patterns is None:
            self._patterns = [(pattern.split("*"), flow.name) for flow in self._flows for pattern in flow.definition.on_events]
            self._forget()
        found = self._found.get(event)
        if found is None:
            found = list(dict.fromkeys(name for parts, name in self._patterns if event.startswith(parts[0]) and _matches(parts, event)))
            if self._remembered > _REMEMBERED_MAX:
                self._forget()
            self._remembered += len(found) + 1
            self._found[event] = found
        return found

    def _forget(self) -> None:
        self._found.clear()
        self._remembered = 0


def _matches(parts: list[str], event: str) -> bool:
    """Whether the parts stand in the event's name, which begins with the first, in their order, and the last at its end.

    Each is looked for as far left as it can be. No regular expression: one with many stars takes time without end.
    """
    first, last = parts[0], parts[-1]
    if len(parts) == 1:
        return event == first
    at, end = len(first), len(event) - len(last)
    if end < at or not event.endswith(last):
        return False
    for part in parts[1:-1]:
        at = event.find(part, at, end) + len(part)
        if at < len(part):
            return False
    return True

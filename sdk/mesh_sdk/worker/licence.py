"""Until when a worker may start steps: what the loop needs to know of whoever keeps the worker's presence confirmed."""

from __future__ import annotations

from typing import Protocol


class Licence(Protocol):
    """Says until when, in seconds since boot, the worker may start steps."""

    confirmed_until: float

"""The fleet of the fault tests, and a connection to it."""

from __future__ import annotations

from tests.faults.conftest import bus, fleet

__all__ = ["bus", "fleet"]

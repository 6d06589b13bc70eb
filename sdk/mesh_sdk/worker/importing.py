"""Whether a command imports a user's module at this moment.

Rule: a module that is imported for its worker must not run that worker itself.
"""

from __future__ import annotations

from contextvars import ContextVar

importing: ContextVar[bool] = ContextVar("mesh_importing", default=False)

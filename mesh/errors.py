"""Errors of the engine's own, under the one tree of `mesh_sdk.errors`.

Rule: whoever meets one of these has a machine, a file or a process to look at; the message names it.

```
MeshError
├── ConfigurationError
│   └── ServerBinaryMissing     no nats-server to start, or not one that can be used
├── ServerStartFailed           the embedded server did not come up
│   ├── StoreLocked             another process runs a server on this store
│   └── PortTaken               another process listens there
└── ExtraMissing                a command whose packages are not installed
```
"""

from __future__ import annotations

from mesh_sdk.errors import ConfigurationError, MeshError


class ServerBinaryMissing(ConfigurationError):
    """There is no nats-server that could be started, or it is too old."""


class ServerStartFailed(MeshError):
    """The embedded server did not become ready."""


class StoreLocked(ServerStartFailed):
    """The store belongs to a server that another process runs: two servers on one store would destroy it."""


class PortTaken(ServerStartFailed):
    """Something else listens on the port."""


class ExtraMissing(MeshError):
    """A command needs packages of an extra that is not installed; the message names the extra."""

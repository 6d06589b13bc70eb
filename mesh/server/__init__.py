"""An embedded nats-server for development, the demo and tests: a process of our own on a store of our own."""

from mesh.server.embedded import EmbeddedServer

__all__ = ["EmbeddedServer"]

"""One client for one command: opens a mesh, asks, closes it.

Rule: a command's client lives in one event loop and is closed whatever happens.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from mesh.cli.where import Where

if TYPE_CHECKING:
    from mesh_sdk import Mesh

T = TypeVar("T")


def ask(where: Where, question: Callable[[Mesh], Awaitable[T]]) -> T:
    """Connect, await `question(mesh)`, disconnect.

    Raises:
        MeshError: as the client or the question does.
    """
    import asyncio

    from mesh_sdk import Mesh

    async def answer() -> T:
        async with Mesh(url=where.url, namespace=where.namespace) as mesh:
            return await question(mesh)

    return asyncio.run(answer())

"""A mesh that is followed while a test runs."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Protocol, TypeVar

from authz.control.mesh_follower import MeshFollower


class HasFollower(Protocol):
    """The files of a mesh, and who follows them."""

    follower: MeshFollower


_Followed = TypeVar("_Followed", bound=HasFollower)


@contextlib.asynccontextmanager
async def following(mesh: _Followed) -> AsyncIterator[_Followed]:
    """Start to follow; key sets that do not come are not waited for."""
    await mesh.follower.start(keys_timeout_seconds=0.1)
    running = asyncio.create_task(mesh.follower.run())
    try:
        yield mesh
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await mesh.follower.close()

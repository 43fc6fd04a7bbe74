"""Work that a signal may end."""

import asyncio
from collections.abc import Awaitable, Callable


async def unless(stopping: asyncio.Event, work: Callable[[], Awaitable[None]]) -> bool:
    """Do the work; False when a signal came first."""
    task = asyncio.ensure_future(work())
    waiting = asyncio.ensure_future(stopping.wait())
    await asyncio.wait((task, waiting), return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if not task.done():
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return False
    task.result()
    return True

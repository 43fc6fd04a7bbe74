"""Waiting for the first of two things."""

import asyncio
from collections.abc import Awaitable


async def first_done(work: Awaitable[object], other: Awaitable[object]) -> bool:
    """Do both until one is done; True when that is ``work``, whose exceptions pass."""
    tasks = [asyncio.ensure_future(work), asyncio.ensure_future(other)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if tasks[0].done():
            tasks[0].result()
            return True
        return False
    finally:
        for task in tasks:
            task.cancel()  # does nothing to what is already done
        await asyncio.gather(*tasks, return_exceptions=True)

"""The signals of a process that serves, and waiting for the first of two things."""

import asyncio
import signal
from collections.abc import Awaitable, Callable


def on_signals(stop: Callable[[], object], hang_up: Callable[[], object]) -> None:
    """Call ``stop`` on SIGTERM and SIGINT, and ``hang_up`` on SIGHUP, from the running event loop."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGHUP, hang_up)


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
            task.cancel()  # does nothing to what is done
        await asyncio.gather(*tasks, return_exceptions=True)

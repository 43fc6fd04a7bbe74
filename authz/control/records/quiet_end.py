"""
A stream that is ended where nothing is under way: nobody acknowledges entries, and what is sent into an end is lost.

Without an end of its own a stream lasts as long as its connection, which ends in the midst of whatever is being said.
"""

import asyncio
from collections.abc import AsyncIterator, Callable

PAUSE_SECONDS = 0.005
"""Longer than a message is under way, and shorter than Envoy waits between two."""


async def until_quiet(messages: AsyncIterator[bytes], is_over: Callable[[], bool]) -> AsyncIterator[bytes]:
    """
    The messages of a stream until it is over, asked after each of them, and then those before the first pause.

    A stream on which nothing is said is not ended: the next message is taken, and then it is.
    """
    async for message in messages:
        yield message
        if is_over():
            break
    else:
        return
    while (late := await _before_a_pause(messages)) is not None:
        yield late


async def _before_a_pause(messages: AsyncIterator[bytes]) -> bytes | None:
    reading = asyncio.create_task(_next(messages))
    try:
        done, _ = await asyncio.wait((reading,), timeout=PAUSE_SECONDS)
        return reading.result() if done else None
    finally:
        reading.cancel()


async def _next(messages: AsyncIterator[bytes]) -> bytes | None:
    return await anext(messages, None)

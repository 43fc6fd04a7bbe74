"""Where a stream of entries is ended: between two messages, and never while one is there."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from authz.control.records.quiet_end import until_quiet


async def said(*messages: bytes, then: bool = False) -> AsyncIterator[bytes]:
    """These at once; then nothing more for ever, or the end."""
    for message in messages:
        yield message
    if not then:
        await asyncio.Event().wait()


async def heard(messages: AsyncIterator[bytes], over_after: int) -> list[bytes]:
    """What is taken of a stream that is over after so many messages."""
    found: list[bytes] = []
    async with asyncio.timeout(10):
        async for message in until_quiet(messages, lambda: len(found) >= over_after):
            found.append(message)  # noqa: PERF401  # how many there are says when it is over
    return found


@pytest.mark.parametrize(
    ("messages", "over_after", "found"),
    [
        pytest.param(said(b"1", b"2", then=True), 9, [b"1", b"2"], id="its sender ends it"),
        pytest.param(said(b"1"), 1, [b"1"], id="nothing is under way"),
        pytest.param(said(b"1", b"2", b"3"), 1, [b"1", b"2", b"3"], id="others are there already"),
        pytest.param(said(b"1", b"2", then=True), 1, [b"1", b"2"], id="its sender ends it meanwhile"),
        pytest.param(said(then=True), 0, [], id="nothing is said"),
    ],
)
async def test_messages_that_are_there_are_taken_before_the_end(
    messages: AsyncIterator[bytes], over_after: int, found: list[bytes]
) -> None:
    assert await heard(messages, over_after) == found


async def test_a_stream_on_which_nothing_is_said_is_not_ended() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await heard(said(), 0)


async def test_what_waits_for_a_pause_ends_with_whoever_takes_it() -> None:
    before = asyncio.all_tasks()
    listening = asyncio.create_task(heard(said(b"1"), 1))
    while len(asyncio.all_tasks() - before) < 2:  # noqa: ASYNC110  # the reading has no event of its own
        await asyncio.sleep(0)
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    async with asyncio.timeout(10):
        while asyncio.all_tasks() - before:  # noqa: ASYNC110  # a cancelled task ends a turn later
            await asyncio.sleep(0)

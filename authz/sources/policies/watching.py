"""
When files have changed: found by looking at them, and sooner where the system notifies.

A notice only makes the next look come at once. Without any (a parent folder's link is swapped, a mounted file is edited
outside, a network file system), files are still looked at every two seconds.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from pathlib import Path

from authz.sources.policies.looking import Looker, State
from authz.sources.policies.notices import NOTICES, Subscriber

_log = logging.getLogger("authz.directory")
QUIET_SECONDS = 0.1
"""A change has settled when nothing moved for this long: longer than ``cp -r`` or an editor takes between files."""
MAX_UNREST_SECONDS = 0.5
"""Endless small changes are read after this time in any case, to keep within one second."""
LOOK_SECONDS = 2.0
"""Seconds between looks where the system notifies: what it cannot see is then in force within three seconds."""
UNWATCHED_SECONDS = 0.5
"""Seconds between looks where nothing can be watched: all inotify instances of this user may be taken."""
_START_SECONDS = 2.0


async def watch(
    paths: Sequence[Path], *, quiet_seconds: float = QUIET_SECONDS, ready: asyncio.Event | None = None
) -> AsyncGenerator[State]:
    """
    Yield each time that files below some directories, or some files, have changed and are at rest again: their state.

    Args:
        paths: directories are watched with everything below them, files by name.
        quiet_seconds: how long nothing must move.
        ready: set when the watchers run; a change after that is not missed.

    A path that vanishes is waited for.
    """
    loop, hint = asyncio.get_running_loop(), asyncio.Event()

    def wake() -> None:
        with suppress(RuntimeError):  # the loop has just ended
            loop.call_soon_threadsafe(hint.set)

    looker, follower = Looker(paths), Subscriber(wake)
    is_told = False

    async def look() -> State:
        state = await asyncio.to_thread(looker.look)
        NOTICES.renew(follower, state.tree, state.names, state.folders)
        return state

    with NOTICES.following(follower):
        await look()
        await _begun(follower, hint)
        seen = await look()  # what changed before the watch began
        if ready is not None:
            ready.set()
        while True:
            is_watched = follower.is_covered or not follower.is_answered
            if not is_watched and not is_told and seen.tree:
                is_told = True
                _log.warning("`%s` cannot be watched; it is looked at every %.1f s", paths[0], UNWATCHED_SECONDS)
            await _hinted(hint, LOOK_SECONDS if is_watched else UNWATCHED_SECONDS)
            hint.clear()
            found = await look()
            if found == seen:
                continue
            latest = loop.time() + MAX_UNREST_SECONDS
            while loop.time() < latest:
                hint.clear()
                await _hinted(hint, quiet_seconds)
                before, found = found, await look()
                if found == before and not hint.is_set():
                    break
            seen = found
            yield found


async def _begun(follower: Subscriber, hint: asyncio.Event) -> None:
    """Wait until it is known whether the folders can be watched."""
    loop = asyncio.get_running_loop()
    latest = loop.time() + _START_SECONDS
    while not follower.is_answered and (left := latest - loop.time()) > 0:
        hint.clear()
        if follower.is_answered:
            return
        await _hinted(hint, left)


async def _hinted(hint: asyncio.Event, seconds: float) -> None:
    """Wait for a hint, at most this long; ``wait_for`` would forget a cancellation that comes with the hint."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await hint.wait()

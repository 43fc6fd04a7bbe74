"""
An event loop that gives way: it runs in a thread that the kernel schedules only where a processor would be idle.

A recorder may wait; the proxies it records may not, and a thread of the usual class keeps a woken proxy off the
processor for up to some milliseconds. An unprivileged thread cannot leave the idle class again, so the loop itself
moves: from a thread of that class back to the main thread, whenever too much waits or the loop is starved.
"""

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from time import monotonic
from typing import Any

BEAT_SECONDS = 0.25
STARVED_SECONDS = 5.0
"""How long a saturated machine may keep the loop waiting, its administration included."""
SHARE_SECONDS = 5.0
"""How long, at least, the loop takes its share of the processor afterwards."""


class GivingWay:
    """One main coroutine, run as by ``asyncio.run`` until ``begin`` is called in it; see the module."""

    def __init__(self) -> None:
        self._is_behind: Callable[[], bool] | None = None
        self._begun = asyncio.Event()
        self._beat = 0.0
        self._is_starved = False

    def begin(self, is_behind: Callable[[], bool]) -> None:
        """
        Give way from now on; called in the loop when everything has started.

        Nothing happens where the system has no such class or forbids it. Signal handlers must have been set before:
        Python sets them in the main thread only.

        Args:
            is_behind: whether too much waits; asked in the loop four times a second.
        """
        if hasattr(os, "SCHED_IDLE"):
            self._is_behind = is_behind
            self._begun.set()

    def run(self, main: Coroutine[Any, Any, None]) -> None:
        """Run ``main`` to its end. Raises what it raises."""
        with asyncio.Runner() as runner:
            task = runner.run(self._start(main))
            is_polite = True
            while not task.done():
                if is_polite:
                    is_polite = self._run_idle(runner.get_loop(), task)
                else:
                    runner.run(_wait(task, SHARE_SECONDS))
                    is_polite = self._is_behind is not None and not self._is_behind()
            task.result()

    async def _start(self, main: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Return when ``main`` has ended or wants to give way."""
        task, begun = asyncio.create_task(main), asyncio.create_task(self._begun.wait())
        try:
            await asyncio.wait((task, begun), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:  # Ctrl-C before signals are handled
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            raise
        begun.cancel()
        return task

    def _run_idle(self, loop: asyncio.AbstractEventLoop, task: "asyncio.Task[None]") -> bool:
        """Run the loop in a thread of the idle class until the task has ended (True) or its share is needed (False)."""
        self._beat, self._is_starved = monotonic(), False
        thread = threading.Thread(target=self._idle, args=(loop, task), name="authz-idle")
        thread.start()
        while thread.is_alive():
            thread.join(BEAT_SECONDS)  # signals are noticed meanwhile: their handler tells the loop through a socket
            self._is_starved = monotonic() - self._beat > STARVED_SECONDS
        return task.done()

    def _idle(self, loop: asyncio.AbstractEventLoop, task: "asyncio.Task[None]") -> None:
        with suppress(OSError):  # a sandbox forbids it; the loop runs all the same
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        loop.run_until_complete(self._beating(task))

    async def _beating(self, task: "asyncio.Task[None]") -> None:
        assert self._is_behind is not None, "set before the loop moved"
        while not task.done() and not self._is_starved and not self._is_behind():
            self._beat = monotonic()
            await _wait(task, BEAT_SECONDS)


async def _wait(task: "asyncio.Task[None]", seconds: float) -> None:
    await asyncio.wait((task,), timeout=seconds)

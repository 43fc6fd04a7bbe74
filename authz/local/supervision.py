"""
Processes on one machine, kept running: started, started again when they die, stopped in order.

Nothing is printed here: whoever runs it is told by ``OnEvent``.
"""

import asyncio
import fcntl
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from authz.local.children import Child, Command, LocalError, last_lines, start, stop
from authz.local.ready import wait_until_ready

MOST_RESTARTS = 5
"""The most restarts of one process within ``RESTART_WINDOW_SECONDS``; then it stays down and is reported."""
RESTART_WINDOW_SECONDS = 30.0
CRASH_SECONDS = 5.0
"""How long a killed process may take to be gone."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something worth telling; kinds: step, wave (starting up), died, gave-up, policies, rendered, problem."""

    kind: str
    text: str
    seconds: float = 0.0


OnEvent = Callable[[Event], None]


class LocalSupervisor:
    """Children in one state directory, which is theirs alone while the lock is held."""

    def __init__(self, state: Path, report: OnEvent) -> None:
        self._state = state
        self._report = report
        self._children: dict[str, Child] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._ends: dict[str, list[float]] = {}
        self._lock: IO[str] | None = None
        self._is_stopping = False

    @property
    def children(self) -> dict[str, Child]:
        """Processes by name; do not change it."""
        return self._children

    async def kill(self, name: str) -> None:
        """End one process at once and leave it down; KeyError for an unknown one."""
        await stop(self._children[name], kill=True)

    async def revive(self, name: str) -> None:
        """Start a killed process again, unless it runs, and wait until it is ready. Raises LocalError."""
        if not self._children[name].is_running:
            await self._start(self._children[name].command)

    async def crash(self, name: str) -> bool:
        """Kill one process as if it had ended by itself, so that it is started again; True when it ended."""
        child = self._children[name]
        os.kill(child.pid, signal.SIGKILL)
        with suppress(TimeoutError):
            await asyncio.wait_for(child.process.wait(), CRASH_SECONDS)
        return not child.is_running

    async def _start_wave(self, commands: Sequence[Command]) -> None:
        """Start processes side by side and wait until all of them are ready. Raises LocalError."""
        began = time.monotonic()
        await asyncio.gather(*(self._start(command) for command in commands))
        kinds = Counter(command.kind for command in commands)
        told = ", ".join(kind if count == 1 else f"{count} × {kind}" for kind, count in kinds.items())
        self._report(Event("wave", told, time.monotonic() - began))

    async def _start(self, command: Command) -> None:
        began = time.monotonic()
        try:
            child = await start(command, self._state)
        except OSError as error:
            raise LocalError(f"{command.name} cannot be started: {error}") from error
        self._children[command.name] = child
        await wait_until_ready(child, self._state)
        self._step(f"{command.name}", began, command.kind)
        self._background(self._watch(child))

    async def _watch(self, child: Child) -> None:
        """Start a process again when it ends by itself."""
        code = await child.process.wait()
        command = child.command
        if self._is_stopping or child.is_expected_to_end or self._children.get(command.name) is not child:
            return
        now = time.monotonic()
        ends = [end for end in self._ends.get(command.name, []) if now - end < RESTART_WINDOW_SECONDS]
        self._ends[command.name] = [*ends, now]
        how = f"by signal {-code}" if code < 0 else f"with code {code}"
        said = last_lines(self._state, command.name, 2)
        text = f"{command.name} ({command.kind}) ended {how}" + (f": {said}" if said else "")
        if len(ends) >= MOST_RESTARTS:
            self._report(Event("gave-up", f"{text}; it stays down after {MOST_RESTARTS} restarts"))
            return
        self._report(Event("died", f"{text}; starting it again"))
        try:
            await self._start(command)
        except LocalError as error:
            self._report(Event("gave-up", str(error)))

    async def _stop_tasks(self) -> None:
        """Nothing is started again from here on."""
        self._is_stopping = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    async def _stop_children(self, names: Iterable[str]) -> None:
        """Stop processes side by side; unknown names are passed over."""
        known = [name for name in names if name in self._children]
        await asyncio.gather(*(stop(self._children.pop(name)) for name in known))

    def _take_lock(self, busy: str) -> None:
        """Two of them in one state directory would overwrite each other's sockets: raises LocalError, saying so."""
        lock = open(self._state / "lock", "w")  # noqa: SIM115  # held until stop
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise LocalError(busy) from None
        self._lock = lock

    def _leave_lock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _step(self, text: str, began: float, kind: str = "") -> None:
        self._report(Event("step", f"{text} ({kind})" if kind else text, time.monotonic() - began))

    def _background(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

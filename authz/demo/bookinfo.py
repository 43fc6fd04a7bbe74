"""
Start Bookinfo, keep it running, stop it.

The supervisor starts processes in waves, starts again what died and says so, renews certificates, and renders listeners
anew when PeerAuthentication changes. It prints nothing itself: whoever runs it is told by ``OnEvent``.
"""

import asyncio
import fcntl
import os
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

from authz.control.mesh_follower import MeshFollower
from authz.core.engine import Engine
from authz.core.errors import LoadError
from authz.demo.certificates import CERTIFICATE_TTL_SECONDS, issue_certificates
from authz.demo.commands import all_commands, hosting_check
from authz.demo.layout import DemoError, Layout, busy_ports, describe, ports_of
from authz.demo.prepare import (
    Modes,
    PolicyState,
    clear_sockets,
    modes,
    options,
    policy_state,
    read_engine,
    read_engine_or_stop,
    render,
    render_again,
)
from authz.demo.processes import Child, Command, last_lines, start, stop
from authz.demo.ready import wait_until_ready
from authz.mesh.nouns import Enforce

MOST_RESTARTS = 5
"""The most restarts of one process within ``RESTART_WINDOW_SECONDS``; then it stays down and is reported."""
RESTART_WINDOW_SECONDS = 30.0
WATCH_SECONDS = 0.2
CRASH_SECONDS = 5.0
"""How long a killed process may take to be gone."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something worth telling; kinds: step, wave (starting up), died, gave-up, policies, rendered, problem."""

    kind: str
    text: str
    seconds: float = 0.0


OnEvent = Callable[[Event], None]


class DemoSupervisor:
    """The running demo. ``start`` once, then ``stop``; in between ``kill`` and ``revive`` single processes."""

    def __init__(self, layout: Layout, report: OnEvent, clock: Callable[[], float] = time.time) -> None:
        self.layout = layout
        self._report = report
        self._clock = clock
        self._children: dict[str, Child] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._ends: dict[str, list[float]] = {}
        self._lock: IO[str] | None = None
        self._is_stopping = False
        self._follower: MeshFollower | None = None

    @property
    def children(self) -> dict[str, Child]:
        """Processes by name; do not change it."""
        return self._children

    async def start(self) -> None:
        """
        Prepare the state directory and start everything.

        Raises DemoError; what was started by then is stopped again.
        """
        began = time.monotonic()
        self._take_lock()
        try:
            self._check_ports()
            await self._check_hosting()
            clear_sockets(self.layout)
            seen = policy_state(self.layout.policies)
            engine = read_engine_or_stop(self.layout)
            await asyncio.to_thread(issue_certificates, self.layout, self._clock())
            self._step("certificates", began)
            rendering = self._rendering(engine)
            for commands in all_commands(self.layout):
                if commands[0].ready.startswith("envoy:"):
                    await rendering
                    if self._follower is not None:  # the issuer runs by now, whose keys are part of the filters
                        await self._follower.start()
                        self._background(self._follower.run())
                    self._step("Envoy configuration", began)
                began = time.monotonic()
                await asyncio.gather(*(self._start(command) for command in commands))
                kinds = Counter(command.kind for command in commands)
                told = ", ".join(kind if count == 1 else f"{count} × {kind}" for kind, count in kinds.items())
                self._report(Event("wave", told, time.monotonic() - began))
        except BaseException:
            await self.stop()
            raise
        self._background(self._renew_certificates())
        self._background(self._follow_policies(seen, engine))

    def _rendering(self, engine: Engine) -> Awaitable[None]:
        """Render in the background; where Envoys decide by themselves, a follower does it when the issuer runs."""
        if self.layout.enforce is Enforce.NATIVE:
            state = self.layout.state
            self._follower = MeshFollower(
                self.layout.policies,
                state / "mesh.yaml",
                state,
                options(self.layout),
                clock=self._clock,
                say=lambda line: self._report(Event("rendered", line)),
            )
            return asyncio.sleep(0)
        return asyncio.create_task(asyncio.to_thread(render, self.layout, engine))

    async def stop(self) -> None:
        """Stop everything: proxies first, so that nobody sees a half-dead mesh. Safe to call twice."""
        self._is_stopping = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        if self._follower is not None:
            await self._follower.close()
        for commands in reversed(all_commands(self.layout)):
            names = [command.name for command in commands if command.name in self._children]
            await asyncio.gather(*(stop(self._children.pop(name)) for name in names))
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    async def kill(self, name: str) -> None:
        """End one process at once and leave it down; KeyError for an unknown one."""
        await stop(self._children[name], kill=True)

    async def revive(self, name: str) -> None:
        """Start a killed process again, unless it runs, and wait until it is ready. Raises DemoError."""
        if not self._children[name].is_running:
            await self._start(self._children[name].command)

    async def crash(self, name: str) -> bool:
        """Kill one process as if it had ended by itself, so that it is started again; True when it ended."""
        child = self._children[name]
        os.kill(child.pid, signal.SIGKILL)
        with suppress(TimeoutError):
            await asyncio.wait_for(child.process.wait(), CRASH_SECONDS)
        return not child.is_running

    async def _start(self, command: Command) -> None:
        began = time.monotonic()
        try:
            child = await start(command, self.layout.state)
        except OSError as error:
            raise DemoError(f"{command.name} cannot be started: {error}") from error
        self._children[command.name] = child
        await wait_until_ready(child, self.layout.state)
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
        said = last_lines(self.layout.state, command.name, 2)
        text = f"{command.name} ({command.kind}) ended {how}" + (f": {said}" if said else "")
        if len(ends) >= MOST_RESTARTS:
            self._report(Event("gave-up", f"{text}; it stays down after {MOST_RESTARTS} restarts"))
            return
        self._report(Event("died", f"{text}; starting it again"))
        try:
            await self._start(command)
        except DemoError as error:
            self._report(Event("gave-up", str(error)))

    async def _renew_certificates(self) -> None:
        """Well before they expire; Envoys follow the renamed files."""
        while True:
            await asyncio.sleep(CERTIFICATE_TTL_SECONDS / 2)
            issue_certificates(self.layout, self._clock())
            self._report(Event("rendered", "certificates renewed"))

    async def _follow_policies(self, seen: PolicyState, engine: Engine) -> None:
        """PeerAuthentication is enforced by listeners, which the proxies follow without a restart."""
        known: Modes = modes(self.layout, engine)
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            found = policy_state(self.layout.policies)
            if found == seen:
                continue
            seen = found
            try:
                engine = await asyncio.to_thread(read_engine, self.layout)
            except LoadError as error:
                # The authorization server finds the same with the same reader, and keeps what it has.
                told = describe(error.problems)
                self._report(
                    Event("problem", f"the policies cannot be used, the last good ones stay in force:\n{told}")
                )
                continue
            except OSError:
                continue  # a file vanished while it was read; the next round sees why
            self._report(Event("policies", f"policies changed: version {engine.version}"))
            found_modes = modes(self.layout, engine)
            if found_modes != known and self._follower is None:
                changed = await asyncio.to_thread(render_again, self.layout, engine, known)
                known = found_modes
                self._report(
                    Event("rendered", f"PeerAuthentication changed: {len(changed)} files rendered, the proxies follow")
                )

    def _take_lock(self) -> None:
        """Two demos in one state directory would overwrite each other's sockets."""
        lock = open(self.layout.state / "lock", "w")  # noqa: SIM115  # held until stop
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise DemoError(
                f"another demo runs in `{self.layout.state}`; stop it, or choose --state and --port-offset"
            ) from None
        self._lock = lock

    def _check_ports(self) -> None:
        busy = busy_ports(ports_of(self.layout.mesh, self.layout.offset))
        if busy:
            listed = ", ".join(map(str, busy[:8])) + (" and more" if len(busy) > 8 else "")
            raise DemoError(
                f"port {listed} in use by something else; stop it, or shift all ports, for example --port-offset 10000"
            )

    async def _check_hosting(self) -> None:
        """Say before anything is started that Envoy cannot host a server on this machine."""
        arguments = hosting_check(self.layout)
        if not arguments:
            return
        process = await asyncio.create_subprocess_exec(
            *arguments,
            cwd=self.layout.state,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        said = (await process.communicate())[1].decode("utf-8", "replace").strip()
        if process.returncode:
            raise DemoError(said.removeprefix("error: "))

    def _step(self, text: str, began: float, kind: str = "") -> None:
        self._report(Event("step", f"{text} ({kind})" if kind else text, time.monotonic() - began))

    def _background(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

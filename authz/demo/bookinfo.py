"""
Start Bookinfo, keep it running, stop it.

The supervisor starts processes in waves, renews certificates, and renders listeners again when PeerAuthentication
changes; the rest is ``local.supervision``. It prints nothing itself: whoever runs it is told by ``OnEvent``.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from authz.control.login_discovery import discover_logins
from authz.control.mesh_follower import MeshFollower
from authz.core.engine import Engine
from authz.core.errors import LoadError
from authz.demo.certificates import CERTIFICATE_TTL_SECONDS, issue_certificates
from authz.demo.commands import all_commands, hosting_check
from authz.demo.layout import DemoError, Layout, describe, ports_of
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
from authz.demo.traffic_rules import TrafficRendering, TrafficState, read_again, traffic_state, why_not
from authz.local.busy import busy_ports
from authz.local.supervision import Event, LocalSupervisor, OnEvent
from authz.mesh.nouns import Enforce

WATCH_SECONDS = 0.2
ISSUER_SECONDS = 60.0
"""Within this time the demo's own issuer runs, even on a slow machine."""


class DemoSupervisor(LocalSupervisor):
    """The running demo. ``start`` once, then ``stop``; in between ``kill`` and ``revive`` single processes."""

    def __init__(self, layout: Layout, report: OnEvent, clock: Callable[[], float] = time.time) -> None:
        super().__init__(layout.state, report)
        self.layout = layout
        self._clock = clock
        self._follower: MeshFollower | None = None
        self._rendering_lock = asyncio.Lock()  # what was rendered from older policies must not be written over newer

    async def start(self) -> None:
        """
        Prepare the state directory and start everything.

        Raises LocalError; what was started by then is stopped again.
        """
        began = time.monotonic()
        self._take_lock(f"another demo runs in `{self.layout.state}`; stop it, or choose --state and --port-offset")
        try:
            self._check_ports()
            await self._check_hosting()
            clear_sockets(self.layout)
            seen, rules = policy_state(self.layout.policies), traffic_state(self.layout.traffic)
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
                await self._start_wave(commands)
        except BaseException:
            await self.stop()
            raise
        self._background(self._renew_certificates())
        self._background(self._follow_policies(seen, engine))
        self._background(self._follow_traffic(rules))

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
        return asyncio.create_task(self._render(engine))

    async def _render(self, engine: Engine) -> None:
        """The issuer of a browser's login is starting meanwhile."""
        try:
            logins, _ = await discover_logins(self.layout.mesh, self.layout.state, patience_seconds=ISSUER_SECONDS)
        except LoadError as error:
            raise DemoError(describe(error.problems)) from error
        self.layout = replace(self.layout, logins=logins)
        await asyncio.to_thread(render, self.layout, engine)

    async def stop(self) -> None:
        """Stop everything: proxies first, so that nobody sees a half-dead mesh. Safe to call twice."""
        await self._stop_tasks()
        if self._follower is not None:
            await self._follower.close()
        for commands in reversed(all_commands(self.layout)):
            await self._stop_children(command.name for command in commands)
        self._leave_lock()

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
                # The authorization server comes to the same result with the same reader, and keeps what it has.
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
                async with self._rendering_lock:
                    changed = await asyncio.to_thread(render_again, self.layout, engine, known)
                known = found_modes
                self._report(
                    Event("rendered", f"PeerAuthentication changed: {len(changed)} files rendered, the proxies follow")
                )

    async def _follow_traffic(self, seen: TrafficState) -> None:
        """What is edited in traffic/ leads requests elsewhere, without a restart and without a refused one."""
        rendering = TrafficRendering(self.layout, options(self.layout))
        while self.layout.traffic is not None:
            await asyncio.sleep(WATCH_SECONDS)
            found = traffic_state(self.layout.traffic)
            try:
                if found == seen:
                    async with self._rendering_lock:
                        await asyncio.to_thread(rendering.retire)
                    continue
                seen = found
                async with self._rendering_lock:
                    self.layout = await asyncio.to_thread(read_again, self.layout)
                    if self._follower is not None:  # it sees that mesh.yaml has changed
                        continue
                    engine = await asyncio.to_thread(read_engine, self.layout)
                    count = await asyncio.to_thread(rendering.render, self.layout, engine)
            except (DemoError, LoadError, OSError) as error:
                told = why_not(error)
                self._report(Event("problem", f"the traffic rules cannot be used, the last good ones stay:\n{told}"))
                continue
            self._report(Event("rendered", f"traffic rules changed: {count} files rendered, the proxies follow"))

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

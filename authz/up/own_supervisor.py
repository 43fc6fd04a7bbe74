"""
Start a mesh of one's own, follow its files, stop it.

Policies are followed by the server; what the proxies need of them, and the description, by ``MeshFollower``. A workload
that is added to the description meanwhile gets its proxy, and one that is removed from it loses it.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable

from authz.control.authority.authority_server import LOOK_SECONDS
from authz.control.mesh_follower import MeshFollower
from authz.core.errors import LoadError
from authz.envoy.native.binary import find_envoy
from authz.local.busy import busy_ports
from authz.local.children import LocalError
from authz.local.ready import ask
from authz.local.supervision import Event, LocalSupervisor, OnEvent
from authz.mesh.nouns import Mesh, MeshWorkload
from authz.up.own_commands import APPLICATION, PROXY, applications, authorities, proxy, proxy_name, server
from authz.up.own_mesh import OwnMesh, app_port, make_state, read_mesh, write_entries

_LOGGERS = ("authz.reload", "authz.render")
"""The loggers of this process that say what became of an edit."""


class OwnSupervisor(LocalSupervisor):
    """``start`` once, then ``stop``."""

    def __init__(self, own: OwnMesh, report: OnEvent, clock: Callable[[], float] = time.time) -> None:
        super().__init__(own.state, report)
        self.own = own
        self._clock = clock
        self._follower: MeshFollower | None = None
        self._told = _Told(report)
        self._envoy = ""
        self._rendered = asyncio.Event()
        self._begun: dict[str, bytes] = {}
        """Bootstraps of running proxies, by process."""

    async def start(self) -> None:
        """
        Make certificates, render, and start everything.

        Raises LoadError, EnvoyError and LocalError; what was started by then is stopped again.
        """
        began = time.monotonic()
        own = self.own
        self._envoy = find_envoy()
        own.state.mkdir(parents=True, exist_ok=True)
        self._take_lock(f"this mesh is already running, in `{own.state}`; stop it first")
        try:
            self._check_ports()
            await asyncio.to_thread(make_state, own, self._clock())
            self._step("certificates", began)
            await self._start_wave(authorities(own))
            await self._follow()
            await self._start_wave([server(own)])
            await self._start_proxies(own.mesh, [proxy_name(workload.name) for workload in own.mesh.workloads])
            if commands := applications(own):
                await self._start_wave(commands)
        except BaseException:
            await self.stop()
            raise
        self._background(self._follow_workloads())
        await self._tell_of_missing_applications()

    async def stop(self) -> None:
        """Stop everything: applications and proxies first, so that nobody sees a half-dead mesh. Safe to call twice."""
        await self._stop_tasks()
        if self._follower is not None:
            await self._follower.close()
        self._told.close()
        early = [name for name in self._children if name.startswith((APPLICATION, PROXY))]
        await self._stop_children(early)
        await self._stop_children(["server"])
        await self._stop_children(list(self._children))
        self._leave_lock()

    def _check_ports(self) -> None:
        if busy := busy_ports(sorted(set(self.own.ports()))):
            listed = ", ".join(map(str, busy[:8])) + (" and more" if len(busy) > 8 else "")
            raise LocalError(
                f"port {listed} in use by something else: stop it, or choose other ports in mesh.yaml and up.yaml "
                "(`authz init --first-port N` gives all proxies other ones)"
            )

    async def _follow(self) -> None:
        """Render once, then whatever is edited."""
        own = self.own
        self._told.open()
        self._follower = MeshFollower(
            own.policies, own.mesh_file, own.state, own.options, clock=self._clock, say=self._say_rendered
        )
        await self._follower.start()
        self._background(self._follower.run())

    def _say_rendered(self, line: str) -> None:
        self._report(Event("rendered", line))
        self._rendered.set()

    async def _start_proxies(self, mesh: Mesh, names: Iterable[str]) -> None:
        """Start proxies by the names of their processes, and remember what each began with."""
        wanted = {proxy_name(workload.name): workload for workload in mesh.workloads}
        for name in names:
            self._begun[name] = self._bootstrap(wanted[name])
        await self._start_wave([proxy(self._envoy, wanted[name]) for name in names])

    def _bootstrap(self, workload: MeshWorkload) -> bytes:
        return (self.own.state / "envoy" / f"{workload.name}.yaml").read_bytes()

    async def _follow_workloads(self) -> None:
        """Give new workloads their certificates and proxies, after their configuration is written."""
        while True:
            await self._rendered.wait()
            self._rendered.clear()
            try:
                mesh = await asyncio.to_thread(read_mesh, self.own.mesh_file)
                await self._take_workloads(mesh)
            except (LoadError, OSError):
                continue  # edited again meanwhile, which the follower reports
            except LocalError as error:
                self._report(Event("problem", str(error)))

    async def _take_workloads(self, mesh: Mesh) -> None:
        """Envoy reads its clusters only at the start: a proxy whose destinations differ is started again."""
        wanted = {proxy_name(workload.name): workload for workload in mesh.workloads}
        running = {name for name in self._children if name.startswith(PROXY)}
        stays = {name for name in running & wanted.keys() if self._bootstrap(wanted[name]) == self._begun.get(name)}
        if running == stays == wanted.keys():
            return
        if new := wanted.keys() - running:
            await asyncio.to_thread(write_entries, self.own.state, mesh)
            await asyncio.sleep(2 * LOOK_SECONDS)  # until the authority knows them; Envoy would ask again only later
            self._report(Event("rendered", f"new: {', '.join(sorted(wanted[name].name for name in new))}"))
        await self._stop_children(running - stays)
        await self._start_proxies(mesh, sorted(wanted.keys() - stays))

    async def _tell_of_missing_applications(self) -> None:
        """A service without a command is the user's to start."""
        for workload in self.own.mesh.sidecars:
            if workload.inbound and workload.name not in self.own.run:
                port = app_port(workload)
                if await ask(f"tcp:{port}", self.own.state):
                    self._report(Event("problem", f"nobody listens on {port} yet: start {workload.name}"))


class _Told(logging.Handler):
    """What the follower logs about edits, as events."""

    def __init__(self, report: OnEvent) -> None:
        super().__init__(logging.INFO)
        self._report_event = report

    def open(self) -> None:
        """Listen."""
        for name in _LOGGERS:
            logger = logging.getLogger(name)
            logger.addHandler(self)
            logger.setLevel(logging.INFO)
            logger.propagate = False

    def close(self) -> None:
        """Stop listening."""
        for name in _LOGGERS:
            logger = logging.getLogger(name)
            logger.removeHandler(self)
            logger.setLevel(logging.NOTSET)
            logger.propagate = True
        super().close()

    def emit(self, record: logging.LogRecord) -> None:
        kind = "problem" if record.levelno >= logging.WARNING else "policies"
        self._report_event(Event(kind, record.getMessage()))

"""
The one assembly place: settings become parts, parts are joined, started in order and stopped in reverse order.

Nothing is decided here. Everything that needs the time or randomness is given it here.
"""

import asyncio
import logging
import os
import secrets
import signal
from collections.abc import Callable
from time import time

from authz.admin.administration import create_app
from authz.admin.api import LocalSource, PageFacts
from authz.admin.explained import Sources
from authz.admin.page import Page
from authz.admin.reach_matrix import Reach
from authz.admin.watch import Watch
from authz.audit.entry import Sink
from authz.audit.sinks import StreamSink
from authz.core.engine import Engine
from authz.core.errors import LoadError
from authz.service.candidate import Candidate
from authz.service.check_function import CheckFunction
from authz.service.doors.open_doors import OpenDoors
from authz.service.evidence import PeerEvidence
from authz.service.ids import DecisionIds
from authz.service.key_statuses import fetched_status, inline_statuses, introspection_status
from authz.service.loading.garbage import settle
from authz.service.loading.reload import Reloader
from authz.service.loading.snapshot import Snapshot
from authz.service.native.record import NativeRecord
from authz.service.ports.expiries import CertificateFiles
from authz.service.ports.giving_way import GivingWay
from authz.service.ports.handshakes import HANDSHAKES
from authz.service.ports.http import AdminServer, make_admin_server
from authz.service.ports.log import Announce, other_log_level, set_log_level
from authz.service.ports.own_python import own_environment, own_python
from authz.service.ports.server_tls import ServerCertificate
from authz.service.ports.signals import on_signals
from authz.service.ports.waiting import first_done
from authz.service.questions import Questions
from authz.service.rate_limits.rate_limit_port import rate_limit_port
from authz.service.readiness import wait_for_keys
from authz.service.recording import make_tracer, make_trail
from authz.service.server import AskProvider, CheckServer, Server
from authz.service.shared_keys import make_key_source
from authz.service.streams import JudgeCaller, stream_server
from authz.settings.sections import Sections
from authz.settings.settings import Settings
from authz.sources.introspection.introspector import Introspector
from authz.sources.keys.http_proxy import Proxies
from authz.sources.published.policy_cache import read_source_status
from authz.telemetry.counters import Telemetry
from authz.telemetry.status import CacheStatus, KeySetStatus, ServiceStatus
from authz.tokens.json_text import read_object

_log = logging.getLogger("authz.app")
ServerOf = Callable[[CheckFunction, AskProvider, JudgeCaller | None], Server]


class App:
    """All parts of one worker. ``start`` once in a running event loop, then ``stop`` once."""

    def __init__(
        self,
        settings: Settings,
        announce: Announce,
        clock: Callable[[], float] = time,
        *,
        server: ServerOf | None = None,
        stdout: Sink | None = None,
    ) -> None:
        """``server`` None is grpcio's; ``stdout`` None writes records to standard output unguarded."""
        self._settings = parts = Sections.of(settings)
        self._announce = announce
        self._clock = clock
        self._only_records = server is None and not (parts.server.listen or parts.doors.http)
        self.telemetry = Telemetry()
        self.watch = Watch(clock())
        self.tracer = make_tracer(parts.otlp)
        self.trail = make_trail(
            parts.audit,
            parts.otlp,
            stdout or StreamSink(),
            self.telemetry,
            self.tracer,
            lambda: None if (found := self.function.snapshot) is None else found.engine,
            self.watch.observe if parts.admin.address else None,
            parts.truth,
        )
        keys = parts.keys
        self._proxies = Proxies.of(keys.proxy, os.environ)
        self.keys = make_key_source(keys, parts.truth, clock, self._proxies)
        self.evidence = PeerEvidence.of(parts.peer, clock)
        self.introspector = Introspector(read_object, clock=clock, ca_bundles=keys.ca_bundles, proxies=self._proxies)
        self.function = CheckFunction(
            self.trail,
            DecisionIds(clock(), secrets.token_bytes(3)),
            lambda: self.keys.key_sets,
            on_unknown_key=self.keys.hint,
            max_token_bytes=parts.tokens.max_bytes,
            token_cache_size=parts.tokens.cache_size,
            metadata_namespaces=parts.server.metadata_namespaces,
            judge_peer=self.evidence.judge if self.evidence is not None else None,
            remembered=self.introspector.remembered,
        )
        self.candidate = Candidate.of(parts.policies, parts.tokens, self.function, clock)
        self.native = NativeRecord.of(parts, self.trail, clock)
        self.questions = Questions(self.introspector)
        stream = self.native.stream if self.native else None
        has_port = server is None or bool(parts.access_logs.listen or parts.rate_limits.listen)
        self._tls = ServerCertificate.of(parts.tls) if has_port else None
        judge_caller = self.evidence.judge_caller if self.evidence is not None else None
        self.server: Server = (
            server(self.function, self.questions.ask, judge_caller)
            if server is not None
            else CheckServer(
                self.function,
                self.questions.ask,
                max_message_bytes=parts.server.max_message_bytes,
                credentials=self._tls.credentials() if self._tls is not None else None,
                socket_mode=parts.server.socket_permissions,
                clock=clock,
                judge_caller=judge_caller,
                is_mutual=parts.tls.client_ca is not None,
                take_stream=stream.take if stream and parts.access_logs.on_listen else None,
            )
        )
        self.doors = OpenDoors(parts, self.function, self.questions.ask, judge_caller, clock)
        self.streams = stream_server(parts, stream.take, self._tls, judge_caller, clock) if stream is not None else None
        self.rate_limits = rate_limit_port(parts, self.trail, self.native, self._tls, judge_caller, clock)
        read = parts.policies
        self.reloader = Reloader(
            read.place, read.mesh, self._put_in_force, clock, allow_empty=read.allow_empty, archive=read.archive
        )
        self.is_draining = False
        self.admin: AdminServer | None = None
        self.page: Page | None = None
        own = {"authz": parts.tls.certificate, "authz-admin": parts.admin.tls_certificate}
        self.certificates = CertificateFiles(parts.admin.certificates, own, clock=clock)
        self._tasks: list[asyncio.Task[None]] = []
        self._inline_keys: tuple[KeySetStatus, ...] = ()

    @property
    def is_ready(self) -> bool:
        """Whether health says SERVING."""
        return self.server.health.is_serving

    async def start(self) -> None:
        """
        Load, then listen, then wait for keys in the background and say SERVING.

        Raises:
            LoadError: the policies have problems.
            SettingsError: an address cannot be used.
        """
        settings = self._settings
        if self._proxies:
            _log.info("key sets and discovery documents are fetched through the proxy %s", self._proxies)
        self.trail.start(asyncio.get_running_loop().call_soon)
        watching = asyncio.Event()
        self._tasks.append(asyncio.create_task(self.reloader.run(watching), name="reload"))
        await watching.wait()
        if not await self.reloader.load():
            raise LoadError(self.reloader.status.problems)
        settle()
        status = self.reloader.status
        self._announce(f"policies  {settings.policies.path}: version {status.policy_version}, {status.counted}")
        if self.candidate is not None:
            self._tasks.append(asyncio.create_task(self.candidate.run(), name="candidate"))
        if self.evidence is not None:
            await self.evidence.begin(self._tasks)
        if settings.admin.address:  # before anything is served, because it refuses an address that is open to everybody
            self.page = Page(LocalSource(self._facts()))
            app = create_app(self.status, self.trail.status, self.telemetry, self._clock, routes=self.page.routes)
            self.admin = make_admin_server(app, settings.admin)
        if self.native:
            self._tasks += self.native.start(self._announce)
        if self.streams:
            await self.streams.start(settings.access_logs.listen, self._announce)
        if self.rate_limits:
            await self.rate_limits.start(self._announce)
        await self.server.start(settings.server.listen)
        for address in self.server.addresses:
            self._announce(f"listening {address}")
        await self.doors.start(self._announce)
        if self.admin is not None:
            await self.admin.start()
            self._announce(f"admin     {self.admin.url}/healthz")
        self._tasks.append(asyncio.create_task(self._become_ready(), name="readiness"))
        self._tasks.append(asyncio.create_task(self.certificates.run(), name="certificates"))

    async def _become_ready(self) -> None:
        await wait_for_keys(self.keys, self._settings.keys.timeout_seconds, self._announce)
        self.server.health.set_serving(True)
        self._announce("ready     health is SERVING")

    async def stop(self, *, drain: bool = True) -> None:
        """Drain the server, then stop the parts it needed."""
        self.is_draining = True
        if drain:
            await self.server.drain(self._settings.drain.delay_seconds, self._settings.drain.grace_seconds)
        else:
            await self.server.stop()
        for port in (self.doors, self.streams, self.rate_limits):
            if port is not None:
                await port.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.page is not None:
            self.page.close()
        if self.admin is not None:
            await self.admin.stop()
        if self.native is not None:
            await self.native.close()
        await self.questions.close()
        await self.keys.close()
        await asyncio.to_thread(self.trail.close)
        await asyncio.to_thread(self.tracer.close)

    def status(self) -> ServiceStatus:
        """Return the state for health, metrics and the admin page; this is cheap."""
        tokens = self.function.tokens
        return ServiceStatus(
            reload=self.reloader.status,
            policy_source=read_source_status(self._settings.policies.cache),
            key_sets=(*map(fetched_status, self.keys.status()), *self._inline_keys),
            introspections=(*map(introspection_status, self.introspector.status()),),
            token_cache=None
            if tokens is None
            else CacheStatus(tokens.hits, tokens.misses, len(tokens), self._settings.tokens.cache_size),
            certificates=self.certificates.status,
            tls_problem=self._tls.problem if self._tls is not None else "",
            refused_handshakes=HANDSHAKES.refused,
            sidecar_remarks=tuple(self.function.remarks.counts.items()),
            peer_trust=self.evidence.status if self.evidence is not None else None,
            native=self.native.status() if self.native is not None and self._settings.access_logs.carriers else None,
            rate_limits=self.rate_limits.status() if self.rate_limits is not None else None,
            candidate=self.candidate.status if self.candidate is not None else None,
            is_starting=not self.is_ready and not self.is_draining,
            is_draining=self.is_draining,
        )

    def _facts(self) -> PageFacts:
        """Give the page the facts it is made of; it asks for them when somebody looks."""

        def engine() -> Engine | None:
            return snapshot.engine if (snapshot := self.function.snapshot) is not None else None

        def described() -> int:
            return len(snapshot.workloads) if (snapshot := self.function.snapshot) is not None else 0

        read = self._settings.policies
        paths = (read.place, read.mesh, read.candidate)  # absolute in commands that are copied
        sources = Sources(*(str(path.absolute()) if path is not None else "" for path in paths))
        program = (own_python(), "-S", "-P", "-m", "authz")
        reach = Reach(program, own_environment(), sources, described, self._clock)
        return PageFacts(
            self.watch, engine, self.status, self.trail.status, self.telemetry, self._clock, sources, reach
        )

    def _put_in_force(self, snapshot: Snapshot) -> None:
        rules = list(snapshot.engine.token_rules())
        self.introspector.update(snapshot.mesh.introspections)
        if not self._only_records:  # what only records verifies no token
            self.keys.update(rules)  # first, so that the rules of the snapshot find their keys
        self._inline_keys = tuple(inline_statuses(rules, snapshot.loaded_at))
        for part in (self.function, self.native, self.rate_limits):
            if part is not None:
                part.replace(snapshot)


async def run(settings: Settings, announce: Announce, giving_way: GivingWay) -> None:
    """
    Serve until SIGTERM, SIGINT or SIGQUIT, then drain; a second signal stops at once.

    SIGUSR1 reopens audit files, SIGUSR2 switches the log level to debug and back.

    Raises:
        LoadError, SettingsError: the start failed.
    """
    if settings.tls_certificate is not None:
        HANDSHAKES.of_grpc()
    app = App(settings, announce)
    stopping, at_once = asyncio.Event(), asyncio.Event()

    def signalled() -> None:
        (at_once if stopping.is_set() else stopping).set()

    others: dict[signal.Signals, Callable[[], object]] = {  # SIGHUP rolls several workers
        signal.SIGHUP: lambda: announce("SIGHUP    changes nothing here: policies are followed without it"),
        signal.SIGUSR1: app.trail.reopen,
        signal.SIGUSR2: lambda: set_log_level(other_log_level(settings.log_level)),
    }
    on_signals(signalled, others, announce)
    try:
        await app.start()
        if app.native is not None and not (settings.listen or settings.http_doors or app.streams or app.rate_limits):
            giving_way.begin(app.native.is_behind)
        await stopping.wait()
        announce("draining  health is NOT_SERVING, press again to stop at once")
        if not await first_done(app.stop(), at_once.wait()):
            await app.stop(drain=False)
        announce("stopped")
    except BaseException:
        await app.stop(drain=False)
        raise

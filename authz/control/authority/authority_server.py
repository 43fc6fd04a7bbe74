"""
The authority as a process: secret discovery and the Workload API on a Unix socket, secret discovery over mutual TLS,
enrolment, the bundle endpoint, renewal, reload.

Files are looked at every second: the authority's directory (rotation), the entries, the revocations, federated bundles.
What is broken is reported and the last good one kept. When this process dies, Envoys keep what they have (XA-156).
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import grpc

from authz.admin.access import Guard
from authz.control.authority.authority_files import AuthorityFiles, Changes
from authz.control.authority.bundle_endpoint import EndpointDoor, make_endpoint
from authz.control.authority.connection_options import OPTIONS, ConnectionLife, options_for
from authz.control.authority.enrolment import Enrolment
from authz.control.authority.figures import AuthorityFacts, GuestPages, Reload, admin_access, make_app
from authz.control.authority.issuance_record import IssuanceRecord
from authz.control.authority.sds import Identify, SecretServer
from authz.control.authority.stock import Stock
from authz.control.authority.upkeep import Upkeep
from authz.control.authority.workload_api import STRANGERS, WorkloadServer
from authz.control.federation.bundle_follower import BundleFollower
from authz.core.errors import LoadError, Problem, SettingsError
from authz.core.spiffe import AUTHORITY_PATH, SpiffeId
from authz.identity.announcing import SERVER_DIRECTORY
from authz.identity.ca import BUNDLE_FILE, CertificateAuthority
from authz.identity.federation import Relationship
from authz.identity.join_tokens import TOKENS_DIRECTORY, TokenDirectory
from authz.identity.jwt_keys import read_jwt_keys
from authz.identity.registrar import Refused, Registrar, SigningLimit
from authz.identity.registration import UnixPeer, binary_selectors
from authz.identity.renewal import renewal_time
from authz.identity.secret_files import FILE_NAME, write_secret_files
from authz.service.ports.dead_machines import find_dead_machines
from authz.service.ports.http import AdminServer, AdminTls
from authz.service.ports.server_tls import ServerCertificate
from authz.service.ports.unix_peers import Close, UnixPeers

if TYPE_CHECKING:
    from authz.control.authority.common_state import CommonState  # its client of NATS is an extra

log = logging.getLogger("authz.control.authority.server")  # the name that people search logs for

SERVER = SERVER_DIRECTORY
LOOK_SECONDS = 1.0
OWN_RETRY_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Doors:
    """Where peers come in; empty: closed."""

    socket: Path | None = None
    """Local Envoys and applications, known by the kernel's credentials."""
    listen: str = ""
    """``host:port`` for holders of an SVID: secret discovery and renewal over mutual TLS."""
    enrol: str = ""
    """``host:port`` for bearers of a join token, over TLS with our certificate only."""
    dns: tuple[str, ...] = ()
    """Names in our own certificate, by which enrolling workloads check it."""
    admin: str = ""
    """``host:port`` on loopback, or ``unix:PATH``: metrics and health for operators."""
    life: ConnectionLife = field(default_factory=ConnectionLife)
    """Of connections of remote peers."""
    endpoint: EndpointDoor | None = None
    """Our trust bundle, for other trust domains."""


class Guest(GuestPages, Protocol):
    """Another service in the authority's process: at its door for holders of an SVID, and on its admin pages."""

    def handlers(self, stock: Stock, identify: Identify) -> "tuple[grpc.GenericRpcHandler[Any, Any], ...]":
        """Its services; asked once, when the doors are opened."""


@dataclass(slots=True)
class AuthorityServer:
    """Loads, opens the doors, renews, looks for changes."""

    files: AuthorityFiles
    doors: Doors
    clock: Callable[[], float] = time.time
    limit: SigningLimit = field(default_factory=SigningLimit)
    ports: dict[str, int] = field(default_factory=dict)
    """The ports that ``listen``, ``enrol`` and ``endpoint`` were bound to, for port 0."""
    jwt_issuer: str = ""
    """``iss`` of JWT-SVIDs, for verifiers that ask for one."""
    guest: Guest | None = None
    common: "CommonState | None" = None
    """What is shared with other authorities; its connection begins and ends with this one."""
    record: IssuanceRecord = field(init=False)
    stock: Stock = field(init=False)
    workload: WorkloadServer = field(init=False)
    follower: BundleFollower | None = None
    _registrar: Registrar = field(init=False)
    secrets: SecretServer = field(init=False)
    _changes: Changes = field(default_factory=Changes)
    _servers: list[grpc.aio.Server] = field(default_factory=list)
    _unix: UnixPeers | None = None
    _web: list[AdminServer] = field(default_factory=list)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _own_renewal: float = 0.0
    own_expires: float = 0.0
    """When the certificate of the doors ends; 0: there is none."""
    _upkeep: Upkeep = field(init=False)
    reload: Reload = field(default_factory=Reload)

    async def start(self) -> None:
        """Load the authority and open the doors. Raises SettingsError, LoadError, OSError."""
        try:
            ca = CertificateAuthority.load(self.files.directory)
        except ValueError as error:
            raise SettingsError(str(error)) from error
        self.record = IssuanceRecord(self.files.directory)
        if self.common is not None:
            await asyncio.to_thread(self.common.begin)
            ca = CertificateAuthority.load(self.files.directory)
        self._registrar = Registrar(ca, limit=self.limit, observe=self.record.note, jwt_issuer=self.jwt_issuer)
        self.stock = Stock(self._registrar, self.clock, random.random)  # spreads renewals, guards nothing
        holders = self.common.holders if self.common is not None else None
        self.secrets, self.workload = SecretServer(self.stock, holders), WorkloadServer(self.stock)
        relationships = self.files.read_relationships(ca.trust_domain)
        if relationships or self.files.fetched.is_dir():
            self.follower = BundleFollower(relationships, self.files.fetched, self.clock)
        self._changes.look(self._watched())
        self._upkeep = Upkeep(self.files, self._registrar, self.reload)
        self._read_rules()
        self._upkeep.keep_jwt_keys(self.clock())
        self._upkeep.keep_announced(self.clock())
        try:
            await self._open_doors()
        except BaseException as error:
            await self.stop(0)
            if isinstance(error, ValueError):
                raise SettingsError(f"the authority cannot sign a certificate for itself: {error}") from error
            raise
        self._tasks = [asyncio.create_task(self.stock.keep_current()), asyncio.create_task(self._look())]
        if self.follower is not None:
            self._tasks.append(asyncio.create_task(self.follower.run()))
        if self.common is not None:
            self._tasks.append(asyncio.create_task(self.common.run()))

    async def stop(self, grace_seconds: float = 0.5) -> None:
        """Stop all doors, waiting ``grace_seconds`` for calls under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for web in self._web:
            await web.stop()
        if self._unix is not None:
            await self._unix.stop()
        for server in self._servers:
            await server.stop(grace_seconds)
        if self.common is not None:
            await asyncio.to_thread(self.common.stop)

    def look(self) -> None:
        """Read what changed again; where it is broken, what was there before stays."""
        changed = self._changes.look(self._watched())
        # A file that was refused does not change again, though a change of another file may have made it good.
        if changed and self.reload.problem:
            changed = set(self._watched())
        try:
            if changed & {self.files.state_file, self.files.others}:
                self._registrar.ca = CertificateAuthority.load(self.files.directory)
            if self.files.state_file in changed:
                self._own_renewal = 0.0
                log.info("the authority changed: active is now %s", self._registrar.ca.active.id)
            if changed:
                if self.files.jwt_keys in changed:
                    self._registrar.jwt_keys = read_jwt_keys(self.files.directory)
                self._read_rules()
                self.reload.problem = ""
                self.stock.tell()
        except (SettingsError, ValueError, OSError) as error:
            self.reload.refuse(str(error))
            log.error("a change of the authority is not taken, the old one stays: %s", error)
        except LoadError as error:
            self.reload.refuse(_listed(error.problems))
            log.error("a change is not taken, what was in force stays: %s", self.reload.problem)
        is_new = self._upkeep.keep_jwt_keys(self.clock())
        if is_new:
            self.stock.tell()
        if changed or is_new or self.reload.announcement:
            self._upkeep.keep_announced(self.clock())
        try:
            self._renew_own()
            self.reload.own_certificate = ""
        except (ValueError, OSError) as error:  # doors that are open stay open; the others' certificates matter more
            self._own_renewal = self.clock() + OWN_RETRY_SECONDS
            self.reload.own_certificate = str(error)
            log.error("the authority's own certificate is not renewed: %s", error)

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                self.look()
            except Exception:  # must not end the looking altogether
                log.exception("looking for changes failed")

    def _read_rules(self) -> None:
        """Entries, revocations and federated bundles: all or nothing. Raises LoadError, ValueError, OSError."""
        rules = self.files.read_rules(self._registrar.ca.trust_domain, self._relationships)
        self._registrar.entries, self._registrar.revocations = rules.entries, rules.revocations
        self._upkeep.taken = rules.taken
        self.stock.replace_federated(rules.federated)
        if self._unix is not None:
            self._unix.recheck()

    @property
    def _relationships(self) -> tuple[Relationship, ...]:
        return self.follower.relationships if self.follower is not None else ()

    def _watched(self) -> list[Path]:
        return self.files.watched(self._relationships)

    async def _open_doors(self) -> None:
        if self.doors.socket is not None:
            asked = self._asked_of_binaries
            self._unix = UnixPeers(self.doors.socket, self._is_known, self._refuse_peer, self._open_private, asked)
            await self._unix.start()
        self._renew_own()
        tokens = TokenDirectory(self.files.directory / TOKENS_DIRECTORY) if self.common is None else self.common.tokens
        holders = self.common.holders if self.common is not None else None
        enrolment = Enrolment(self._registrar, tokens, self.clock, holders)
        if self.doors.listen:
            identify = self.secrets.identify_svid
            handlers = (self.secrets.handler(identify), enrolment.handler(identify))
            if self.guest is not None:
                handlers += self.guest.handlers(self.stock, identify)
            await self._serve("listen", self.doors.listen, handlers, is_mutual=True)
        if self.doors.enrol:
            await self._serve("enrol", self.doors.enrol, (enrolment.handler(None),), is_mutual=False)
        if self.doors.endpoint is not None:
            place = self.files.directory / SERVER
            own = AdminTls(place / "tls.crt", place / "tls.key")
            app = make_endpoint(self._registrar, self.files)
            self._web.append(self.doors.endpoint.server(app, own))
            self.ports["bundle"] = int(self._web[-1].address.rpartition(":")[2])
        if self.doors.admin:
            guarded = Guard(make_app(self._facts, self.guest), admin_access(self.doors.admin))
            self._web.append(AdminServer(guarded, self.doors.admin))
        for web in self._web:
            await web.start()  # last: whoever answers here is serving

    def _facts(self) -> AuthorityFacts:
        return AuthorityFacts(
            self._registrar.ca,
            self.stock,
            self.secrets,
            self.workload,
            self.record.counts,
            self.reload,
            self.follower,
            self.common.problems if self.common is not None else (),
        )

    def _is_known(self, peer: UnixPeer) -> bool:
        return bool(self._registrar.grants(peer))

    def _asked_of_binaries(self) -> frozenset[str]:
        return binary_selectors(self._registrar.entries)

    def _refuse_peer(self, peer: UnixPeer, reason: str) -> None:
        self._registrar.refuse(str(peer), "", Refused(reason), self.clock())

    async def _open_private(self, peer: UnixPeer | None, path: str) -> Close:
        server = grpc.aio.server(options=OPTIONS)
        handlers = (STRANGERS,) if peer is None else (self.secrets.handler(lambda _: peer), self.workload.handler(peer))
        server.add_generic_rpc_handlers(handlers)
        server.add_insecure_port(f"unix:{path}")
        await server.start()
        return lambda: server.stop(0.5)

    async def _serve(
        self, door: str, address: str, handlers: "tuple[grpc.GenericRpcHandler[Any, Any], ...]", *, is_mutual: bool
    ) -> None:
        place = self.files.directory / SERVER
        bundle = self.files.directory / BUNDLE_FILE if is_mutual else None
        server = grpc.aio.server(options=options_for(self.doors.life))
        server.add_generic_rpc_handlers(handlers)
        credentials = ServerCertificate(place / "tls.crt", place / "tls.key", bundle).credentials()
        try:
            port = server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise SettingsError(f"cannot listen on `{address}`: it is in use or not an address of this host") from error
        self.ports[door] = port
        find_dead_machines(port)
        await server.start()
        self._servers.append(server)

    def _renew_own(self) -> None:
        """Our own certificate for the TLS doors, in files that ``ServerCertificate`` follows."""
        now = self.clock()
        if now < self._own_renewal or not (self.doors.listen or self.doors.enrol or self.doors.endpoint):
            return
        own = SpiffeId(self._registrar.ca.trust_domain, AUTHORITY_PATH)
        issued = self._registrar.ca.issue_svid(own, now, dns=self.doors.dns)
        write_secret_files(self.files.directory / SERVER, FILE_NAME, issued.chain_pem, issued.key_pem)
        self.own_expires = issued.not_after
        self._own_renewal = renewal_time(issued.not_before, issued.not_after, 0.5)


def _listed(problems: tuple[Problem, ...]) -> str:
    return "; ".join(str(problem) for problem in problems)

"""
The authority as a process: secret discovery on a Unix socket and over mutual TLS, enrolment, renewal, reload.

Files are looked at every second: the authority's directory (rotation), the entries, the revocations, federated bundles.
What is broken is reported and the last good one kept. When this process dies, Envoys keep what they have (XA-156).
"""

import asyncio
import json
import logging
import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import grpc

from authz.admin.access import Access, Guard, judge_access
from authz.control.authority.enrolment import Enrolment
from authz.control.authority.figures import AuthorityFacts, Issuances, Reload, make_app
from authz.control.authority.sds import SecretServer
from authz.core.errors import LoadError, Problem, SettingsError
from authz.core.spiffe import SpiffeId, TrustDomain
from authz.identity.bundle import TrustBundle, read_bundle
from authz.identity.ca import BUNDLE_FILE, STATE_FILE, CertificateAuthority
from authz.identity.join_tokens import TOKENS_DIRECTORY
from authz.identity.ledger import LEDGER_FILE, Ledger
from authz.identity.registrar import Cause, Issuance, Refused, Registrar, SigningLimit
from authz.identity.registration import UnixPeer, read_entries
from authz.identity.renewal import renewal_time
from authz.identity.revocation import read_revocations
from authz.identity.secret_files import FILE_NAME, write_secret_files
from authz.service.ports.http import AdminServer, host_and_port
from authz.service.ports.server_tls import ServerCertificate
from authz.service.ports.unix_peers import UnixPeers

log = logging.getLogger("authz.control.authority.server")  # the name in the logs that people search
audit = logging.getLogger("authz.issuance")
"""One JSON line for every certificate issued or refused."""

SERVER = "server"
LOOK_SECONDS = 1.0
OWN_RETRY_SECONDS = 60.0
OPTIONS = [
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", 1 << 20),
    ("grpc.http2.min_ping_interval_without_data_ms", 5000),  # Envoy's keepalive pings (XA-128)
    ("grpc.http2.max_ping_strikes", 0),  # else a quiet stream ends with the fourth ping, and comes back for a new SVID
]
CONNECTION_SECONDS = 300.0
"""
The longest connection of a remote peer, which then proves anew who it is. An Envoy whose SVID expired would ask again
and again on the connection that it opened with that SVID, and would never be served.
"""
CONNECTION_GRACE_SECONDS = 1.0
"""The time for calls that are still running then; streams never end by themselves."""


@dataclass(frozen=True, slots=True)
class AuthorityFiles:
    """Where everything is that may change while the process runs."""

    directory: Path
    entries: Path | None = None
    revocations: Path | None = None
    federated: tuple[tuple[TrustDomain, Path], ...] = ()


@dataclass(frozen=True, slots=True)
class Doors:
    """Where peers come in; empty: closed."""

    socket: Path | None = None
    """Local Envoys, known by the kernel's credentials."""
    listen: str = ""
    """``host:port`` for holders of an SVID: secret discovery and renewal over mutual TLS."""
    enrol: str = ""
    """``host:port`` for bearers of a join token, over TLS with our certificate only."""
    dns: tuple[str, ...] = ()
    """Names in our own certificate, by which enrolling workloads check it."""
    admin: str = ""
    """``host:port`` on loopback, or ``unix:PATH``: metrics and health for operators."""
    connection_seconds: float = CONNECTION_SECONDS


@dataclass(slots=True)
class AuthorityServer:
    """Load, open the doors, renew, look for changes."""

    files: AuthorityFiles
    doors: Doors
    clock: Callable[[], float] = time.time
    limit: SigningLimit = field(default_factory=SigningLimit)
    ports: dict[str, int] = field(default_factory=dict)
    """The ports that ``listen`` and ``enrol`` were bound to, for port 0."""
    issuances: Issuances = field(default_factory=Issuances)
    _refusals: SigningLimit = field(default_factory=lambda: SigningLimit(1.0, 10, 20.0, 200))
    """The same buckets, for records instead of signatures: a stranger who knocks in a loop must not fill the disk."""
    _registrar: Registrar = field(init=False)
    secrets: SecretServer = field(init=False)
    _seen: dict[Path, tuple[int, ...]] = field(default_factory=dict)
    _servers: list[grpc.aio.Server] = field(default_factory=list)
    _unix: UnixPeers | None = None
    _admin: AdminServer | None = None
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _own_renewal: float = 0.0
    reload: Reload = field(default_factory=Reload)

    async def start(self) -> None:
        """Load the authority and open the doors. Raises SettingsError, LoadError, OSError."""
        try:
            ca = CertificateAuthority.load(self.files.directory)
        except ValueError as error:
            raise SettingsError(str(error)) from error
        self._registrar = Registrar(ca, limit=self.limit, observe=self._record)
        self.secrets = SecretServer(self._registrar, self.clock, random.random)  # spreads renewals, guards nothing
        for path in self._watched():
            self._seen[path] = _state(path)
        self._read_rules()
        try:
            await self._open_doors()
        except BaseException as error:
            await self.stop(0)
            if isinstance(error, ValueError):
                raise SettingsError(f"the authority cannot sign a certificate for itself: {error}") from error
            raise
        self._tasks = [asyncio.create_task(self.secrets.keep_current()), asyncio.create_task(self._look())]

    async def stop(self, grace_seconds: float = 0.5) -> None:
        """Stop all doors, waiting ``grace_seconds`` for calls under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._admin is not None:
            await self._admin.stop()
        if self._unix is not None:
            await self._unix.stop()
        for server in self._servers:
            await server.stop(grace_seconds)

    def look(self) -> None:
        """Read again what changed; what is broken stays as it was."""
        changed = set()
        for path in self._watched():
            state = _state(path)
            if self._seen.get(path) != state:
                self._seen[path] = state
                changed.add(path)
        # A file that was refused does not change again, though a change of another file may have made it good.
        if changed and self.reload.problem:
            changed = set(self._watched())
        try:
            if self.files.directory / STATE_FILE in changed:
                self._registrar.ca = CertificateAuthority.load(self.files.directory)
                self._own_renewal = 0.0
                log.info("the authority changed: active is now %s", self._registrar.ca.active.id)
            if changed:
                self._read_rules()
                self.reload.problem = ""
                self.secrets.tell()
        except (ValueError, OSError) as error:
            self.reload.refuse(str(error))
            log.error("a change of the authority is not taken, the old one stays: %s", error)
        except LoadError as error:
            self.reload.refuse(_listed(error.problems))
            log.error("a change is not taken, what was in force stays: %s", self.reload.problem)
        try:
            self._renew_own()
            self.reload.own_certificate = ""
        except (ValueError, OSError) as error:  # doors that are open stay so; the others' certificates matter more
            self._own_renewal = self.clock() + OWN_RETRY_SECONDS
            self.reload.own_certificate = str(error)
            log.error("the authority's own certificate is not renewed: %s", error)

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                self.look()
            except Exception:  # must not end all looking
                log.exception("looking for changes failed")

    def _read_rules(self) -> None:
        """Entries, revocations and federated bundles: all or nothing. Raises LoadError, ValueError, OSError."""
        domain = self._registrar.ca.trust_domain
        entries, revocations = self._registrar.entries, self._registrar.revocations
        problems: tuple[Problem, ...] = ()
        if self.files.entries is not None:
            entries, found = read_entries(str(self.files.entries), self.files.entries.read_bytes(), domain)
            problems += found
        if self.files.revocations is not None:
            text = self.files.revocations.read_text(errors="replace")
            revocations, found = read_revocations(str(self.files.revocations), text)
            problems += found
        if problems:
            raise LoadError(problems)
        federated = [read_federated(trust_domain, path) for trust_domain, path in self.files.federated]
        self._registrar.entries, self._registrar.revocations = entries, revocations
        self.secrets.replace_federated(federated)

    def _watched(self) -> list[Path]:
        named = (self.files.entries, self.files.revocations, *(path for _, path in self.files.federated))
        return [self.files.directory / STATE_FILE, *(path for path in named if path is not None)]

    async def _open_doors(self) -> None:
        if self.doors.socket is not None:
            self._unix = UnixPeers(self.doors.socket, self._admit, self._refuse_peer, self._open_private)
            await self._unix.start()
        self._renew_own()
        enrolment = Enrolment(self._registrar, self.files.directory / TOKENS_DIRECTORY, self.clock)
        if self.doors.listen:
            identify = self.secrets.identify_svid
            handlers = (self.secrets.handler(identify), enrolment.handler(identify))
            await self._serve("listen", self.doors.listen, handlers, is_mutual=True)
        if self.doors.enrol:
            await self._serve("enrol", self.doors.enrol, (enrolment.handler(None),), is_mutual=False)
        if self.doors.admin:
            guarded = Guard(make_app(self._facts), _access(self.doors.admin))
            self._admin = AdminServer(guarded, self.doors.admin)
            await self._admin.start()  # last: whoever answers here serves

    def _facts(self) -> AuthorityFacts:
        return AuthorityFacts(self._registrar.ca, self.secrets, self.issuances, self.reload)

    def _admit(self, peer: UnixPeer) -> bool:
        if self._registrar.grants(peer):
            return True
        self._refuse_peer(peer, f"no registration entry is for {peer}")
        return False

    def _refuse_peer(self, peer: UnixPeer, reason: str) -> None:
        self._registrar.refuse(str(peer), "", Refused(reason), self.clock())

    async def _open_private(self, peer: UnixPeer, path: str) -> None:
        server = grpc.aio.server(options=OPTIONS)
        server.add_generic_rpc_handlers((self.secrets.handler(lambda _: peer),))
        server.add_insecure_port(f"unix:{path}")
        await server.start()
        self._servers.append(server)

    async def _serve(
        self, door: str, address: str, handlers: "tuple[grpc.GenericRpcHandler[Any, Any], ...]", *, is_mutual: bool
    ) -> None:
        place = self.files.directory / SERVER
        bundle = self.files.directory / BUNDLE_FILE if is_mutual else None
        ages = (("age", self.doors.connection_seconds), ("age_grace", CONNECTION_GRACE_SECONDS))
        limits = [(f"grpc.max_connection_{name}_ms", int(seconds * 1000)) for name, seconds in ages]
        server = grpc.aio.server(options=[*OPTIONS, *limits])
        server.add_generic_rpc_handlers(handlers)
        credentials = ServerCertificate(place / "tls.crt", place / "tls.key", bundle).credentials()
        try:
            port = server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise SettingsError(f"cannot listen on `{address}`: it is in use or not an address of this host") from error
        self.ports[door] = port
        await server.start()
        self._servers.append(server)

    def _renew_own(self) -> None:
        """Our own certificate for the TLS doors, in files that ``ServerCertificate`` follows."""
        now = self.clock()
        if now < self._own_renewal or not (self.doors.listen or self.doors.enrol):
            return
        own = SpiffeId(self._registrar.ca.trust_domain, "/authz/ca")
        issued = self._registrar.ca.issue_svid(own, now, dns=self.doors.dns)
        write_secret_files(self.files.directory / SERVER, FILE_NAME, issued.chain_pem, issued.key_pem)
        self._own_renewal = renewal_time(issued.not_before, issued.not_after, 0.5)

    def _record(self, issuance: Issuance) -> None:
        """Record certificates always, and refusals until somebody floods the record with them."""
        if issuance.is_issued:
            self.issuances.issued += 1
        else:
            self.issuances.refused[Cause(issuance.cause)] += 1
        if not issuance.is_issued and not self._refusals.take(issuance.evidence, issuance.time):
            self.issuances.unrecorded += 1
            return
        level = logging.INFO if issuance.is_issued else logging.WARNING
        audit.log(level, "%s", json.dumps(asdict(issuance) | {"serial": f"{issuance.serial:x}"}))
        try:
            Ledger(self.files.directory / LEDGER_FILE).record(issuance)
        except OSError as error:
            log.error("the ledger cannot be written: %s", error)


def _access(address: str) -> Access:
    """Raises SettingsError for an address at which others could read, because nobody has to show anything here."""
    if not address.startswith("unix:"):
        host_and_port(address)
    try:
        return judge_access(address)
    except SettingsError:
        message = f"`{address}` can be reached from other machines; listen on 127.0.0.1 or on unix:PATH"
        raise SettingsError(message) from None


def read_federated(trust_domain: TrustDomain, path: Path) -> TrustBundle:
    """Read the bundle of another trust domain. Raises ValueError, OSError."""
    return read_bundle(trust_domain, path.read_bytes())


def _state(path: Path) -> tuple[int, ...]:
    try:
        status = path.stat()
    except OSError:
        return ()
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _listed(problems: tuple[Problem, ...]) -> str:
    return "; ".join(str(problem) for problem in problems)

"""
What a server of the truth is told: ``nats-server.conf``, with one user for each role, known by the SPIFFE ID it has.

    reader      takes policies, key sets and who runs what; writes records of decisions and key sets; says of servers
                (never of control planes) which revision they have, and with a name of its own of itself alone
    publisher   changes policies, and reads the same
    auditor     reads records of decisions, and who runs what; nothing else, and changes nothing
    authority   changes everything; this is the ID of every control plane

Servers answer where whoever asks wants the answer, without asking whether he may send there. So what the fleet has is
in an account of its own, in which nobody is. Each role has another one, into which comes what it may send to and hear,
and an answer reaches nothing that is not there, nor another role. For the same reason nobody makes a consumer: readers
ask for one message after another, and hear of changes under a name of their own.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from authz.core.errors import SettingsError
from authz.core.spiffe import AUTHORITY_PATH, SpiffeId, TrustDomain
from authz.truth.fleet_report import SERVER
from authz.truth.server_version import least_server
from authz.truth.truth_bucket import (
    ARCHIVES,
    FLEET,
    KEEPS,
    KEY_SETS,
    POLICIES,
    bucket_name,
    change_subject,
    stream_of,
)
from authz.truth.truth_stream import AGAIN, FIRST, stream_name, stream_subject
from authz.truth.truth_tls import API, API_OF_ROLES, inbox_prefix

ALL_CLIENTS = "0.0.0.0:4222"  # whoever has no certificate is not let in
"""Where a server listens by default."""
PING_SECONDS = 5
"""
How often a server asks clients and other servers whether they are there. Half a connection that has outlived a
partition keeps its server out of the cluster: the other half is gone, and a new connection counts as a second one.
"""
SERVER_PATH = "/authz/truth"
"""Of the SPIFFE ID that servers know each other by."""
TRUTH_ACCOUNT = "TRUTH"
"""What NATS calls the account of the streams; those of roles are called as these."""
READS = (POLICIES, KEY_SETS, FLEET)
"""Buckets of values that readers and publishers read; archives as well. Auditors read the last one alone."""
KEYS_OF_SERVERS = ("set", "lease")
"""What keys of key sets begin with that servers share (``sources.keys.key_sharing``); others are of control planes."""

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


class TruthRole(StrEnum):
    """Who may do what."""

    READER = "reader"
    PUBLISHER = "publisher"
    AUDITOR = "auditor"
    AUTHORITY = "authority"

    @property
    def path(self) -> str:
        """Of the SPIFFE ID."""
        return AUTHORITY_PATH if self is TruthRole.AUTHORITY else f"/authz/{self.value}"

    def spiffe_id(self, trust_domain: TrustDomain) -> SpiffeId:
        """The identity that has this role."""
        return SpiffeId(trust_domain, self.path)


@dataclass(frozen=True, slots=True)
class TruthMember:
    """
    A holder of a role with a name of its own, ``spiffe://TRUST-DOMAIN/authz/reader/web-1``.

    Servers of NATS know no revocations: who is in their configuration is let in. By a name of its own, one whose key
    was stolen can be left out of it, and the others of that role stay.
    """

    role: TruthRole
    name: str

    @property
    def account(self) -> str:
        """What NATS calls its account: one of its own, so that it hears nothing of what others ask."""
        return f"{self.role.value}/{self.name}"

    def spiffe_id(self, trust_domain: TrustDomain) -> SpiffeId:
        """The identity by which servers know it."""
        return SpiffeId(trust_domain, f"{self.role.path}/{self.name}")


def read_member(text: str) -> TruthMember:
    """
    Read ``reader/web-1``.

    Raises:
        SettingsError: it is none. Control planes have one name for all, by which proxies know them.
    """
    kind, _, name = text.partition("/")
    known = [role.value for role in TruthRole if role is not TruthRole.AUTHORITY]
    if kind not in known or not _NAME.fullmatch(name):
        shown = " or ".join(f"`{role}/NAME`" for role in known)
        raise SettingsError(f"`{text}` is no member of a role: write {shown}, with a NAME of a-z, 0-9 and `-`")
    return TruthMember(TruthRole(kind), name)


def member_of(path: str) -> TruthMember | None:
    """Whom a SPIFFE ID with this path names; None: not a member of a role."""
    try:
        return read_member(path.removeprefix("/authz/"))
    except SettingsError:
        return None


@dataclass(frozen=True, slots=True)
class TruthServerTls:
    """Files of a server: an SVID of ``SERVER_PATH`` with the DNS names by which clients and other servers call it."""

    trust_domain: TrustDomain
    ca: Path
    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class TruthServer:
    """One server."""

    name: str
    fleet: str
    store: Path
    listen: str = ALL_CLIENTS
    """For clients, ``host:port``."""
    cluster: str = ""
    """For the other servers, ``host:port``; empty: there are none."""
    routes: tuple[str, ...] = ()
    """``host:port`` of all servers; a host is a DNS name in the certificate of that server."""
    own_route: str = ""
    """
    Which of these is its own. Servers tell each other of the rest, and without it by numbers that no certificate has:
    after a partition they would then try such a connection a hundred times a second, for ever.
    """
    monitor: str = ""
    """``host:port`` of this machine where it says how it is, by HTTP to anybody; empty: nowhere."""
    tls: TruthServerTls | None = None
    """None: clients of this machine alone, who may do everything."""
    members: tuple[TruthMember, ...] = ()
    """Of a role that has some, nobody else is let in: not who has the role's own ID."""


def server_configuration(server: TruthServer) -> str:
    """
    Write the file that ``nats-server -c`` takes.

    Raises:
        SettingsError: others could reach a server that asks nobody who they are.
    """
    if server.tls is None:
        for place in (server.listen, server.cluster, *server.routes):
            host = place.rpartition(":")[0]
            if place and host not in ("localhost", "127.0.0.1", "[::1]"):
                raise SettingsError(
                    f"without TLS a server of the truth is for this machine, and `{place}` is not on it"
                )
    lines = [
        f"# for nats-server {least_server()} or newer",
        f"server_name: {_quoted(server.name)}",
        f"listen: {_quoted(server.listen)}",
        "jetstream {",
        f"  store_dir: {_quoted(str(server.store))}",
        "  sync_interval: always  # what was acknowledged is on the disk",
        "}",
        f'ping_interval: "{PING_SECONDS}s"  # the second without an answer ends a connection',
    ]
    if server.monitor:
        lines.append(f"http: {_quoted(server.monitor)}")
    if server.tls is not None:
        lines += [*_tls(server.tls, ""), *_accounts(server.tls.trust_domain, server.fleet, server.members)]
    if server.cluster:
        lines += ["cluster {", f"  name: {_quoted(f'authz-{server.fleet}')}", f"  listen: {_quoted(server.cluster)}"]
        lines += ["  no_advertise: true  # clients have the addresses that they were given"]
        if server.own_route:
            lines.append(f"  advertise: {_quoted(server.own_route)}")
        if server.tls is not None:
            own = f"spiffe://{server.tls.trust_domain}{SERVER_PATH}"
            lines += [f"  authorization {{ user: {_quoted(own)} }}", *_tls(server.tls, "  ")]
        lines += ["  routes: [", *(f"    {_quoted(f'nats://{route}')}" for route in server.routes), "  ]", "}"]
    return "\n".join(lines) + "\n"


def permissions(fleet: str, role: TruthRole, member: str = "") -> Mapping[str, tuple[str, ...]]:
    """
    The subjects that a role may send to (``publish``) and hear (``subscribe``), with the wildcards of NATS.

    ``member``: the name of one who has it. Without names nobody can tell one server from another, so each may report
    by any name.
    """
    heard = [f"{inbox_prefix(role.path)}.>"]
    if role is TruthRole.AUTHORITY:
        every = tuple(stream_of(fleet, what) for what in (*KEEPS, ARCHIVES))
        sent = [f"{API_OF_ROLES}.{verb}.{stream}" for stream in every for verb in _ALL_VERBS]
        sent += [f"$KV.{bucket_name(fleet, what)}.>" for what in KEEPS] + [f"$O.{bucket_name(fleet, ARCHIVES)}.>"]
        sent += [f"{API_OF_ROLES}.{verb}.{stream_name(fleet)}" for verb in _ALL_VERBS] + [stream_subject(fleet, ">")]
        return {"publish": tuple(sent), "subscribe": (*heard, *(change_subject(fleet, what, ">") for what in KEEPS))}
    read = (FLEET,) if role is TruthRole.AUDITOR else (*READS, ARCHIVES)
    streams = tuple(stream_of(fleet, what) for what in read)
    sent = [f"{API_OF_ROLES}.{verb}.{stream}" for stream in streams for verb in _READ_VERBS]
    sent += [f"{API_OF_ROLES}.{verb}.{stream_name(fleet)}" for verb in _READ_VERBS]
    if role is TruthRole.READER:
        # The servers that take policies write what they decided, and key sets that they fetched for all, signed.
        sent += [stream_subject(fleet, kind) for kind in (FIRST, AGAIN)]
        sent += [f"$KV.{bucket_name(fleet, KEY_SETS)}.{kind}.*" for kind in KEYS_OF_SERVERS]
        sent.append(f"$KV.{bucket_name(fleet, FLEET)}.{SERVER}.{member or '*'}")  # and which revision they have
    if role is TruthRole.PUBLISHER:
        sent += [f"$KV.{bucket_name(fleet, POLICIES)}.>", f"$O.{bucket_name(fleet, ARCHIVES)}.>"]
        sent += [f"{API_OF_ROLES}.STREAM.PURGE.{stream_of(fleet, ARCHIVES)}"]
    heard += [change_subject(fleet, what, ">") for what in read if what != ARCHIVES]
    return {"publish": tuple(sent), "subscribe": tuple(heard)}


_READ_VERBS = ("STREAM.INFO", "STREAM.MSG.GET")
_ALL_VERBS = (*_READ_VERBS, "STREAM.CREATE", "STREAM.UPDATE", "STREAM.PURGE")


def _accounts(trust_domain: TrustDomain, fleet: str, members: tuple[TruthMember, ...]) -> Iterable[str]:
    """That of the streams, which gives everything to the others, and one for each role, which takes what it may."""
    gives = {pair for role in TruthRole for pair in _taken(permissions(fleet, role))}  # whoever the members are
    yield "accounts {"
    yield f"  {TRUTH_ACCOUNT}: {{"
    yield "    jetstream: enabled"
    yield "    exports: ["
    for kind, subject in sorted({(kind, _there(subject)) for kind, subject in gives}):
        yield f"      {{ {kind}: {_quoted(subject)} }}"
    yield "    ]"
    yield "  }"
    for role in TruthRole:
        named = dict.fromkeys(one for one in members if one.role is role)
        for one in named:
            yield from _account(one.account, one.spiffe_id(trust_domain), permissions(fleet, role, one.name))
        if not named:
            yield from _account(role.value, role.spiffe_id(trust_domain), permissions(fleet, role))
    yield "}"


def _account(name: str, spiffe_id: SpiffeId, allowed: Mapping[str, tuple[str, ...]]) -> Iterable[str]:
    yield f"  {_quoted(name)}: {{"
    yield f"    users: [ {{ user: {_quoted(str(spiffe_id))}, permissions: {{"
    for what, subjects in allowed.items():
        yield f"      {what}: {{ allow: ["
        yield from (f"        {_quoted(subject)}" for subject in subjects)
        yield "      ] }"
    yield "    } } ]"
    yield "    imports: ["
    for kind, subject in _taken(allowed):
        there = f"{kind}: {{ account: {TRUTH_ACCOUNT}, subject: {_quoted(_there(subject))} }}"
        to = "" if subject == _there(subject) else f", to: {_quoted(subject)}"
        yield f"      {{ {there}{to} }}"
    yield "    ]"
    yield "  }"


def _taken(allowed: Mapping[str, tuple[str, ...]]) -> Iterable[tuple[str, str]]:
    """What comes from the account of the streams, as NATS calls it, and its subject; inboxes stay where they are."""
    yield from (("service", subject) for subject in allowed["publish"])
    yield from (("stream", subject) for subject in allowed["subscribe"] if not subject.startswith("_INBOX"))


def _there(subject: str) -> str:
    """What a subject of a role is called in the account of the streams: elsewhere JetStream's own name is taken."""
    asked = subject.removeprefix(f"{API_OF_ROLES}.")
    return subject if asked == subject else f"{API}.{asked}"


def _tls(tls: TruthServerTls, indent: str) -> Iterable[str]:
    yield f"{indent}tls {{"
    yield f"{indent}  ca_file: {_quoted(str(tls.ca))}"
    yield f"{indent}  cert_file: {_quoted(str(tls.certificate))}"
    yield f"{indent}  key_file: {_quoted(str(tls.key))}"
    yield f"{indent}  verify_and_map: true"
    if not indent:
        yield f'{indent}  min_version: "1.3"'
        yield f"{indent}  handshake_first: true  # nobody between can say that there is no TLS"
    yield f"{indent}  timeout: 5"
    yield f"{indent}}}"


def _quoted(text: str) -> str:
    """Between quotes nothing means anything else there: not ``$``, ``#`` or a brace."""
    return json.dumps(text, ensure_ascii=False)

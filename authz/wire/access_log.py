"""
Envoy's access log entries to nouns of the core: what was asked, and what Envoy's own filters decided.

An entry of the gRPC access log service and, by way of ``access_line``, a JSON line of ``envoy.native.record_log``
become the same value. Nothing here decides, waits or knows which policies exist. A query is reduced to the values that
may be recorded here, before anything else sees it.
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from authz.core.attributes import (
    NOT_AUTHENTICATED,
    UNKNOWN,
    AttributeContext,
    Authentication,
    AuthenticationOutcome,
    Destination,
    HttpRequest,
    Json,
    Source,
    Token,
    Unknown,
    Workload,
)
from authz.core.networks import parse_address
from authz.wire.enforced import JWT_DENIED, Enforced

if TYPE_CHECKING:
    from functools import _lru_cache_wrapper

_Read = TypeVar("_Read")
MAX_ID = 128
MAX_ALIKE = 8192
"""Most shared bytes by which entries are remembered: a client may write a hundred thousand, new ones each time."""
MAX_WORDS = 2048
"""Most characters of what Envoy itself says, and of an identity: an entry that has more is no Envoy's work."""
_MAX_RESULTS = 32
MAX_TIME = 253_402_300_800
"""The year 10000, which no record can write."""
BROKEN = (KeyError, TypeError, ValueError, AttributeError, RecursionError, OverflowError)
"""The exceptions that facts outside the format raise."""
_NAMES = ("proxy", "listener", "namespace", "service_account", "workload")
_MICRO = 1e-3
_UNAUTHORIZED = 401


class NotAnEntry(ValueError):
    """These bytes are not an entry of ours; the message says why and holds nothing that a client sent."""


class LogEntry(NamedTuple):
    """One request or connection and what became of it."""

    attributes: AttributeContext
    enforced: Enforced
    decision_id: str
    """Envoy's request id; of TCP its id of the connection."""
    started_at: float
    """Seconds since the epoch."""
    ended_at: float
    proxy: str
    listener: str
    alike: "Alike | None" = None
    """
    Entries with the same object differ only in path, the client's addresses, size, id, trace and times; None where that
    is not known.
    """

    @property
    def is_decided(self) -> bool:
        """
        Whether it reached the filters: what Envoy's codec refused did not, nor what a browser login answered itself.

        Those are requests without a method, and 4xx answers that neither a filter nor an upstream nor a route gave. The
        401 of a login has its reason in free words; what did reach the filters has their version.
        """
        enforced, http = self.enforced, self.attributes.http
        if enforced.results or http is None or enforced.is_denied or enforced.audit is not None:
            return True
        early = enforced.details.startswith(("http1.", "http2.", "http3.", "oauth.")) or enforced.details in _EARLY
        is_login = enforced.status == _UNAUTHORIZED and not enforced.version and enforced.details != "via_upstream"
        return bool(http.method) and not early and not is_login


_EARLY = frozenset(
    {
        "missing_host_header", "missing_path_rejected", "absolute_path_rejected", "path_normalization_failed",
        "low_version", "internal_redirects_limit_exceeded", "request_headers_failed_strict_check", "invalid_host",
        "filter_chain_not_found", "overload", "request_overall_timeout", "request_header_timeout",
        "downstream_remote_disconnect_before_headers", "rejecting_because_detection_failed",
    }
)  # fmt: skip


class Own(NamedTuple):
    """The facts that belong to one request alone."""

    started_at: float
    lasted: float
    """Milliseconds."""
    size: int
    direct: str
    remote: str
    id: str
    path: str
    trace: str


class Alike:
    """
    The facts that many requests share: everything but ``Own``. Facts become nouns here, and only once for all of them.

    Raises BROKEN for what is not in the format.
    """

    __slots__ = (
        "_authentication", "_destination", "_enforced", "_headers", "_host", "_is_http", "_is_short", "_listener",
        "_metadata", "_method", "_peer", "_protocol", "_proxy", "_query", "_scheme", "_sni", "is_remembered",
        "otherwise",
    )  # fmt: skip

    def __init__(self, told: Mapping[str, Any], *, is_remembered: bool = True) -> None:
        """
        ``told``: facts by their names in a stream.

        ``is_remembered``: whether its reader keeps it, so that others may remember things by it.
        """
        self.is_remembered = is_remembered
        who = short_remembered(_who, told["authz"])
        self._proxy, self._listener = who["proxy"], who["listener"]
        self._peer = (told.get("peer") or "", told.get("dns") or "", told.get("peer_subject") or "")
        self._is_short = sum(map(len, self._peer)) <= MAX_ALIKE
        places = told["authz"], told.get("local") or "", told.get("own") or ""
        self._destination = short_remembered(_destination, *places)
        self._enforced = Enforced(
            int(told.get("code") or 0),
            (told.get("details") or "")[:MAX_WORDS],
            _results(told.get("rbac") or {}),
            told.get("hint"),
            (told.get("version") or "")[:MAX_WORDS],
            _text(told.get("limit") or "")[:MAX_WORDS],
        )
        if self._enforced.audit not in (None, True, False):
            raise TypeError
        self._sni = (told.get("sni") or "").lower()
        self._metadata = {name: value or {} for name, value in (told.get("metadata") or {}).items()}
        self._is_http = "method" in told
        self._authentication = _authentication(told, self._enforced) if self._is_http else NOT_AUTHENTICATED
        self.otherwise: Authentication | None = None
        """Other claims that the token may have had; None if the entry leaves no doubt."""
        if told.get("claims_otherwise") and self._authentication.token is not None:
            self.otherwise = _authentication({**told, "claims": told["claims_otherwise"]}, self._enforced)
        self._method, self._host = told.get("method") or "", told.get("host") or ""
        self._scheme, self._protocol = told.get("scheme") or "", told.get("protocol") or ""
        self._headers = _headers(told)
        pairs = [f"{name}={value}" for name, value in (told.get("query") or {}).items() if value is not None]
        self._query = f"?{'&'.join(pairs)}" if pairs else ""

    def entry(self, own: Own, alike: "Alike | None" = None) -> LogEntry:
        """Make one entry with these facts. ``alike``: see ``LogEntry``."""
        started_at, lasted, size, direct, remote, request_id, path, trace = own
        if not 0 <= started_at < MAX_TIME:
            raise ValueError
        http = None
        if self._is_http:
            headers: dict[str, tuple[str, ...]] = {":path": (path,)}
            if request_id:
                headers["x-request-id"] = (request_id,)
            if trace:
                headers["traceparent"] = (trace,)
            headers.update(self._headers)
            http = HttpRequest(
                self._method, self._host, path + self._query, headers, self._scheme, "", self._protocol, size
            )
        attributes = AttributeContext(
            (_source if self._is_short and len(direct) + len(remote) <= MAX_WORDS else _source.__wrapped__)(
                *self._peer, direct, remote
            ),
            self._destination,
            http,
            self._sni,
            self._authentication,
            self._metadata,
            {},
            trace if http is not None else "",
        )
        return LogEntry(
            attributes, self._enforced, request_id[:MAX_ID], started_at, started_at + lasted * _MICRO,
            self._proxy, self._listener, alike,
        )  # fmt: skip


def short_remembered(read: "_lru_cache_wrapper[_Read]", *written: str | bytes) -> _Read:
    """
    What a function that remembers reads from texts: anew for long ones, so that what is remembered is bounded in bytes.

    Raises BROKEN for what is no text, and what the function raises.
    """
    if sum(map(len, written)) <= MAX_ALIKE:
        return read(*written)
    return read.__wrapped__(*written)


def asked_facts(written: str | None) -> dict[str, Any]:
    """What filters told of the facts that their policies ask for; nothing where they did not. Raises BROKEN."""
    found = json.loads(written) if written else {}
    if not isinstance(found, dict):
        raise TypeError
    return {name: found[name] for name in ("claims", "headers", "kid", "metadata") if name in found}


def _results(told: Mapping[str, Any]) -> dict[str, str]:
    """What RBAC filters say, none of which is long."""
    given = ((name, value) for name, value in told.items() if value is not None and len(name) <= MAX_ID)
    return {name: _text(value)[:MAX_WORDS] for name, value in islice(given, _MAX_RESULTS)}


def _headers(told: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """All headers that are given, except path and id."""
    headers: dict[str, tuple[str, ...]] = {
        ":method": (told.get("method") or "",),
        ":authority": (told.get("host") or "",),
    }
    for name, key in (("user-agent", "user_agent"), ("content-type", "content_type")):
        if told.get(key) is not None:
            headers[name] = (told[key],)
    for name, value in (told.get("headers") or {}).items():
        if value is not None:
            headers[name] = (_text(value),)
    return headers


def _text(value: object) -> str:
    """What must be text, since others remember or write it as text. Raises TypeError."""
    if not isinstance(value, str):
        raise TypeError
    return value


def _authentication(told: Mapping[str, Any], enforced: Enforced) -> Authentication:
    details = enforced.details
    if details.startswith(JWT_DENIED):
        body = details[len(JWT_DENIED) : -1].replace("_", " ")  # Envoy's words with underscores for blanks (RA-42)
        return Authentication(AuthenticationOutcome.REJECTED, status=enforced.status, body=body, reason=body)
    claims = told.get("claims")
    if not claims or not any(value is not None for value in claims.values()):
        return NOT_AUTHENTICATED
    return short_remembered(_accepted, json.dumps(claims), _text(told.get("kid") or ""))


@lru_cache(maxsize=8192)
def _accepted(written: str, kid: str) -> Authentication:
    """A verified token by its claims; remembered, because a token comes many times."""
    claims: dict[str, Json] = {name: value for name, value in json.loads(written).items() if value is not None}
    issuer, subject, expires_at = claims.get("iss"), claims.get("sub"), claims.get("exp")
    token = Token(
        claims,
        issuer if isinstance(issuer, str) else "",
        subject if isinstance(subject, str) else "",
        kid,
        "",
        float(expires_at) if isinstance(expires_at, int | float) else None,
    )
    return Authentication(AuthenticationOutcome.ACCEPTED, token)


@lru_cache(maxsize=4096)
def _who(written: str) -> dict[str, Any]:
    told = {"proxy": "", "listener": "", **json.loads(written)}
    for value in (*map(told.get, _NAMES), *told["labels"].values()):
        _text(value)
    return told


@lru_cache(maxsize=8192)
def _source(uris: str, names: str, subject: str, direct: str, remote: str) -> Source:
    """The identities that RBAC looks at: URI names, else DNS names, else the subject (AP-24)."""
    identities: tuple[str, ...] = ()
    for written in (uris, names, subject):
        if written:
            identities = (written,) if written is subject else tuple(written.split(","))
            break
    ip, port = _address(direct)
    return Source(identities, ip, _address(remote)[0], port)


@lru_cache(maxsize=4096)
def _destination(written: str, local: str, own: str) -> Destination:
    told = short_remembered(_who, written)
    workload = Workload(
        told["namespace"],
        frozenset(told["labels"].items()),
        told["service_account"],
        told["workload"],
    )
    ip, port = _address(local)
    principal = own.partition(",")[0][: MAX_WORDS + 1]
    return Destination(
        workload, ip, port if not isinstance(ip, Unknown) else UNKNOWN, principal, bool(told.get("gateway"))
    )


def _address(text: str) -> tuple[str | Unknown, int]:
    """``127.0.0.1:80`` or ``[::1]:80``; UNKNOWN for what is not an address, such as the path of a Unix socket."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not port.isdigit() or parse_address(host) is None:
        return UNKNOWN, 0
    return host, int(port)

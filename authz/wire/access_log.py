"""
Envoy's access log entries to nouns of the core: what was asked, and what Envoy's own filters decided.

A JSON line of ``envoy.native.access_log`` and an entry of the gRPC access log service become the same value. Nothing
here decides, waits or knows which policies exist. A query is reduced to the values that may be recorded here, before
anything else sees it.
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

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

LINE_BEGINS = b'{"authz":'
"""The beginning of every line: its first key, which is the first in the alphabet, as Envoy sorts them."""
MAX_ID = 128
_JWT_DENIED, _RBAC_DENIED, _CUSTOM_DENIED = (
    "jwt_authn_access_denied{",
    "rbac_access_denied_matched_policy[",
    "ext_authz_",
)
_MICRO = 1e-3


class NotAnEntry(ValueError):
    """These bytes are no entry of ours; the message says why and holds nothing that a client sent."""


class Enforced(NamedTuple):
    """What Envoy did, in Envoy's words."""

    status: int = 0
    """Status of the response, an upstream's included; 0 for TCP."""
    details: str = ""
    """Response code details, or connection termination details."""
    results: Mapping[str, str] = {}
    """Dynamic metadata of the RBAC filters: effective policies and results, enforced and dry run."""
    audit: bool | None = None
    """``access_log_hint``."""
    version: str = ""
    """Version of the policies that the filters were made of; empty when they do not say."""

    @property
    def is_denied(self) -> bool:
        """Whether one of Envoy's filters refused the request."""
        return self.details.startswith((_JWT_DENIED, _RBAC_DENIED, _CUSTOM_DENIED))

    @property
    def denied_by(self) -> str:
        """``jwt``, ``rbac`` or ``custom``; empty when it was not denied."""
        for name, prefix in (("rbac", _RBAC_DENIED), ("jwt", _JWT_DENIED), ("custom", _CUSTOM_DENIED)):
            if self.details.startswith(prefix):
                return name
        return ""

    @property
    def matched(self) -> str:
        """Istio's name of the rule that refused; empty when none did."""
        if not self.details.startswith(_RBAC_DENIED):
            return ""
        name = self.details[len(_RBAC_DENIED) : -1]
        return "" if name == "none" else name


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

    @property
    def is_decided(self) -> bool:
        """
        Whether it reached the filters: what Envoy's codec refused did not, and no policy was asked.

        Requests without a method, and answers of 4xx that neither a filter nor an upstream nor a route gave.
        """
        enforced, http = self.enforced, self.attributes.http
        if http is None or enforced.is_denied or enforced.results or enforced.audit is not None:
            return True
        early = enforced.details.startswith(("http1.", "http2.", "http3.")) or enforced.details in _EARLY
        return bool(http.method) and not early


_EARLY = frozenset(
    {
        "missing_host_header", "missing_path_rejected", "absolute_path_rejected", "path_normalization_failed",
        "low_version", "internal_redirects_limit_exceeded", "request_headers_failed_strict_check", "invalid_host",
        "filter_chain_not_found", "overload", "request_overall_timeout", "request_header_timeout",
        "downstream_remote_disconnect_before_headers", "rejecting_because_detection_failed",
    }
)  # fmt: skip


def read_line(line: bytes) -> LogEntry:
    """
    Read one line of a file; a torn line that another one follows without a line feed is read from the latter's begin.

    Raises:
        NotAnEntry: it is another's line, or broken.
    """
    try:
        told = json.loads(line)
    except ValueError:
        begins = line.rfind(LINE_BEGINS)
        if begins > 0:
            return read_line(line[begins:])
        raise NotAnEntry("no JSON") from None
    if not isinstance(told, dict) or "authz" not in told:
        raise NotAnEntry("a line of another format")
    return read_facts(told)


def is_torn(line: bytes) -> bool:
    """Whether a line is two, of which the first was never finished: its proxy was killed while it wrote."""
    return line.rfind(LINE_BEGINS) > 0


def read_facts(told: Mapping[str, Any]) -> LogEntry:
    """Read the facts of an entry by the names of the line. Raises NotAnEntry."""
    try:
        return _entry(told)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise NotAnEntry(f"not what the format says: {type(error).__name__}") from None


def _entry(told: Mapping[str, Any]) -> LogEntry:
    who, started_at = _who(told["authz"]), float(told["start"])
    source = _source(
        told.get("peer") or "", told.get("dns") or "", told.get("peer_subject") or "",
        told.get("direct") or "", told.get("remote") or "",
    )  # fmt: skip
    destination = _destination(told["authz"], told.get("local") or "", told.get("own") or "")
    enforced = Enforced(
        int(told.get("code") or 0),
        told.get("details") or "",
        {name: value for name, value in (told.get("rbac") or {}).items() if value is not None},
        told.get("hint"),
        told.get("version") or "",
    )
    http, authentication, trace = None, NOT_AUTHENTICATED, ""
    decision_id = (told.get("id") or "")[:MAX_ID]
    if "method" in told:
        http = _http(told, decision_id)
        authentication = _authentication(told, enforced)
        trace = told.get("trace") or ""
    attributes = AttributeContext(
        source,
        destination,
        http,
        (told.get("sni") or "").lower(),
        authentication,
        {name: value or {} for name, value in (told.get("metadata") or {}).items()},
        {},
        trace,
    )
    ended_at = started_at + (told.get("duration") or 0) * _MICRO
    return LogEntry(attributes, enforced, decision_id, started_at, ended_at, who["proxy"], who["listener"])


def _http(told: Mapping[str, Any], request_id: str) -> HttpRequest:
    method, host, path = told.get("method") or "", told.get("host") or "", told.get("path") or ""
    headers: dict[str, tuple[str, ...]] = {":method": (method,), ":authority": (host,), ":path": (path,)}
    for name, key in (("user-agent", "user_agent"), ("content-type", "content_type"), ("x-request-id", "id")):
        if told.get(key) is not None:
            headers[name] = (told[key],)
    for name, value in (told.get("headers") or {}).items():
        if value is not None:
            headers[name] = (value,)
    kept = told.get("query")
    if kept:
        pairs = [f"{name}={value}" for name, value in kept.items() if value is not None]
        path = f"{path}?{'&'.join(pairs)}" if pairs else path
    size = told.get("bytes_in") or 0
    return HttpRequest(method, host, path, headers, told.get("scheme") or "", "", told.get("protocol") or "", size)


def _authentication(told: Mapping[str, Any], enforced: Enforced) -> Authentication:
    details = enforced.details
    if details.startswith(_JWT_DENIED):
        return _rejected(details, enforced.status)
    claims = told.get("claims")
    if not claims or not any(value is not None for value in claims.values()):
        return NOT_AUTHENTICATED
    return _accepted(json.dumps(claims), told.get("kid") or "")


@lru_cache(maxsize=256)
def _rejected(details: str, status: int) -> Authentication:
    """Envoy writes the body into the details with underscores for blanks (RA-42)."""
    body = details[len(_JWT_DENIED) : -1].replace("_", " ")
    return Authentication(AuthenticationOutcome.REJECTED, status=status, body=body, reason=body)


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
    told = json.loads(written)
    return {"proxy": "", "listener": "", **told}


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
    told = _who(written)
    workload = Workload(
        told["namespace"],
        frozenset((str(name), str(value)) for name, value in told["labels"].items()),
        told["service_account"],
        told["workload"],
    )
    ip, port = _address(local)
    principal = own.split(",")[0]
    return Destination(
        workload, ip, port if not isinstance(ip, Unknown) else UNKNOWN, principal, bool(told.get("gateway"))
    )


def _address(text: str) -> tuple[str | Unknown, int]:
    """``127.0.0.1:80`` or ``[::1]:80``; UNKNOWN for what is no address, such as the path of a Unix socket."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not port.isdigit() or parse_address(host) is None:
        return UNKNOWN, 0
    return host, int(port)

"""
The attribute context: every fact known of one request, as nouns.

Built once at the edge (``wire`` for Envoy, ``analysis.offline`` for offline requests) and read by everything else.
It does not know where a fact came from, and nothing here parses the wire.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar, dataclass_transform

T = TypeVar("T")

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
"""A decoded JSON value."""

Headers = Mapping[str, tuple[str, ...]]
"""
Lower-case header name to its occurrences in wire order, pseudo headers (``:path``) included.

A header that Envoy keeps as one entry has exactly one occurrence, already joined (AP-22). Bytes that are not UTF-8
are kept as surrogate escapes, so that different bytes stay different (CS-5).
"""


NOTHING_HIDDEN: frozenset[str] = frozenset()


@dataclass_transform(frozen_default=True)
def per_request(noun: type[T]) -> type[T]:
    """
    Make a noun that every request needs anew; to the type checker it is frozen.

    It is not frozen at run time: the constructor of a frozen class takes four times as long.
    """
    return dataclass(slots=True, unsafe_hash=True)(noun)


class Unknown:
    """Type of ``UNKNOWN``: the deployment does not deliver this fact. Unknown is not absent (CS-7, CS-8)."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN = Unknown()


@dataclass(frozen=True, slots=True)
class Workload:
    """The workload that was asked for: it selects the policies (RE-15 to RE-19)."""

    namespace: str
    labels: frozenset[tuple[str, str]] = frozenset()
    """Label pairs; hashable, so that a workload is a dictionary key."""
    service_account: str = ""
    name: str = ""
    """A name for people, such as ``reviews-v2``; it never decides."""


@dataclass(frozen=True, slots=True)
class Source:
    """The directly connected peer."""

    identities: tuple[str, ...] = ()
    """
    Identities of the client certificate, SPIFFE ones with ``spiffe://`` (AP-24); empty for plaintext and for TLS
    without a client certificate. All of them are tried.
    """
    ip: str | Unknown = UNKNOWN
    """Address of the direct peer (AP-40); UNKNOWN behind a Unix socket."""
    remote_ip: str | Unknown = UNKNOWN
    """Client address as the proxy determined it (AP-41, CS-9)."""
    port: int = 0
    is_unproven: bool = False
    """Nobody vouches for the client's certificate, so whether there is an identity, and which, is unknown (CS-8)."""

    @property
    def principal(self) -> str:
        """The first identity in Istio's form, without ``spiffe://``; empty without identity."""
        return self.identities[0].removeprefix("spiffe://") if self.identities else ""


@dataclass(frozen=True, slots=True)
class Destination:
    """The side that was connected to."""

    workload: Workload
    ip: str | Unknown = UNKNOWN
    port: int | Unknown = UNKNOWN
    principal: str = ""
    """Identity of our own certificate, ``spiffe://`` included; empty on plaintext."""
    is_gateway: bool = False
    """The proxy is a gateway: its own servers say how TLS is spoken, PeerAuthentication does not (PA-14)."""


@per_request
class HttpRequest:
    """The HTTP request as the policies must see it: after path normalisation (PN-1)."""

    method: str
    host: str
    """``:authority`` as received, port and trailing dot included (AP-42)."""
    path: str
    """``:path`` with the query string; empty for CONNECT."""
    headers: Headers = field(default_factory=dict)
    scheme: str = "http"
    id: str = ""
    protocol: str = ""
    size: int = 0
    is_partial: bool = False
    """Some headers are not delivered: what is not in ``headers`` is unknown (CS-7), what is ``()`` is absent."""
    hidden: frozenset[str] = NOTHING_HIDDEN
    """Headers that are not delivered where all others are: unknown, unless they are in ``headers``."""

    def changed(self, headers: Headers, path: str) -> "HttpRequest":
        """The same request with other headers and another path."""
        return HttpRequest(
            self.method,
            self.host,
            path,
            headers,
            self.scheme,
            self.id,
            self.protocol,
            self.size,
            self.is_partial,
            self.hidden,
        )

    @property
    def hides_headers(self) -> bool:
        """Whether the client may have sent a header that nobody reported."""
        return self.is_partial or bool(self.hidden)

    def is_unseen(self, name: str) -> bool:
        """Whether it is unknown if the request has this header."""
        return name not in self.headers and (self.is_partial or name in self.hidden)

    @property
    def url_path(self) -> str:
        """The path portion, everything before the first ``?`` or ``#`` (AP-46)."""
        path = self.path
        if "?" in path:
            path = path[: path.index("?")]
        if "#" in path:
            path = path[: path.index("#")]
        return path


@per_request
class Token:
    """A verified token. ``claims`` is the whole payload; nothing here can be used to replay the token."""

    claims: Mapping[str, Json]
    """The payload as matched: space-delimited claims already split (RA-33)."""
    issuer: str = ""
    subject: str = ""
    key_id: str = ""
    digest: str = ""
    """First eight hexadecimal digits of the token's SHA-256: enough to correlate, not to use."""
    expires_at: float | None = None
    """``exp`` in seconds since the epoch; None when the token has none."""
    rule: str = ""
    """``namespace/name/index`` of the jwtRule that accepted it."""
    is_introspected: bool = False
    """Its issuer was asked about it, instead of its signature being verified."""


class AuthenticationOutcome(StrEnum):
    """The result of the RequestAuthentication stage."""

    NONE = "none"
    """No rule, no token, a CORS preflight or a request without a path: claims are "none"."""
    ACCEPTED = "accepted"
    REJECTED = "rejected"


@per_request
class Authentication:
    """
    Result of the RequestAuthentication stage (RA), as a value: an invalid token is an expected "no".

    For REJECTED ``status``, ``body`` and ``challenge`` are what the client is told (RA-40, RA-41); ``reason`` is
    for the audit record and may say more (for example why a key set was never fetched).
    """

    outcome: AuthenticationOutcome = AuthenticationOutcome.NONE
    token: Token | None = None
    status: int = 0
    body: str = ""
    challenge: str = ""
    reason: str = ""
    headers_to_set: tuple[tuple[str, str], ...] = ()
    """Output headers with verified values (RA-47, RA-48)."""
    headers_to_remove: tuple[str, ...] = ()
    """Consumed token headers (RA-45) and every output header that is not set (RA-49, RA-50)."""
    query_parameters_to_remove: tuple[str, ...] = ()
    """Parameters a token was taken from (RA-45); wire names, decoded."""
    rewritten_path: str | None = None
    """The path the upstream sees after a query parameter was removed; Envoy rewrites the whole query (RA-45)."""


NOT_AUTHENTICATED = Authentication()
_REJECTED = AuthenticationOutcome.REJECTED


@per_request
class AttributeContext:
    """
    All facts of one request. ``http`` is None for a TCP connection (CS-14).

    Field names follow Istio's keys: ``source.principal`` is ``.source.principal``.
    """

    source: Source
    destination: Destination
    http: HttpRequest | None = None
    sni: str | Unknown = ""
    """TLS server name, lower-cased (AP-57); empty for plaintext; UNKNOWN when Envoy was not told to send it."""
    authentication: Authentication = NOT_AUTHENTICATED
    metadata: Mapping[str, Mapping[str, object]] | Unknown = UNKNOWN
    """
    Dynamic metadata by namespace (AP-66, CS-12). A namespace that is not in the mapping is not delivered, which is not
    the same as empty (CS-8); offline requests use a mapping that has every namespace.
    """
    context_extensions: Mapping[str, str] = field(default_factory=dict)
    trace_parent: str = ""
    """W3C ``traceparent`` of Envoy's Check span (XA-170), or of the request (XA-172); may be empty."""
    certificate: str = ""
    """PEM of the peer's leaf certificate when Envoy sends it (XA-35), decoded; else empty."""
    trace_state: str = ""
    """W3C ``tracestate`` that came with a ``traceparent`` of Envoy's (XA-170); mostly empty."""

    @property
    def is_mtls(self) -> bool:
        """Only an identity proves mTLS; neither scheme nor destination does (XA-33)."""
        return bool(self.source.identities)

    def header(self, name: str) -> tuple[str, ...]:
        """Occurrences of a header by lower-case name; empty for TCP."""
        return self.http.headers.get(name, ()) if self.http else ()

    def after(self, authentication: Authentication) -> "AttributeContext":
        """
        Return the request as the JWT stage left it (EV-6): consumed and forged headers gone, verified ones set.

        A rejected token changes nothing.
        """
        if authentication is self.authentication:
            return self
        http = self.http
        changes = authentication.outcome is not _REJECTED and (
            authentication.headers_to_remove
            or authentication.headers_to_set
            or authentication.rewritten_path is not None
        )
        if http is not None and changes:
            headers = dict(http.headers)
            for name in authentication.headers_to_remove:
                if http.is_partial or name in http.hidden:
                    headers[name] = ()  # absent from now on, whatever there was
                else:
                    headers.pop(name, None)
            for name, value in authentication.headers_to_set:
                headers[name] = (value,)
            path = http.path
            if authentication.rewritten_path is not None:
                path = authentication.rewritten_path
                headers[":path"] = (path,)
            http = http.changed(headers, path)
        # Spelled out: dataclasses.replace costs three times as much, on every request.
        return AttributeContext(
            self.source,
            self.destination,
            http,
            self.sni,
            authentication,
            self.metadata,
            self.context_extensions,
            self.trace_parent,
            self.certificate,
            self.trace_state,
        )


def read_field(record: Mapping[str, Json], *path: str) -> Json:
    """Read ``record[path[0]][path[1]]…``; None when any part is absent."""
    value: Json = dict(record) if not isinstance(record, dict) else record
    for name in path:
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value

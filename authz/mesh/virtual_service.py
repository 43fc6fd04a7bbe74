"""
A VirtualService as nouns: where requests and connections lead, in Istio's own terms.

What the reader gives is resolved: every host is a full name, every gateway ``namespace/name`` or ``mesh``. Numbers are
seconds and percent. Nothing here knows YAML or Envoy.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from authz.core.errors import NOWHERE, Location

MESH = "mesh"
"""Istio's reserved name among ``gateways``: every sidecar."""

AUTHORITY = (":authority", "host")
"""Names, in lower case, of the header that says which host is asked for."""
GRPC_STATUSES = (
    *("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS"),
    *("PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED"),
    *("INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"),
)
"""In the order of their numbers, from 0."""


class MatchKind(StrEnum):
    """How a text is compared; a regular expression (RE2) must match all of it."""

    EXACT = "exact"
    PREFIX = "prefix"
    REGEX = "regex"


@dataclass(frozen=True, slots=True)
class StringMatch:
    """Istio's StringMatch."""

    kind: MatchKind
    value: str

    def __str__(self) -> str:
        return f"{self.kind} `{self.value}`"


@dataclass(frozen=True, slots=True)
class HttpMatch:
    """One ``http[].match[]``: all of it must hold. A header or parameter with None must only be there."""

    name: str = ""
    uri: StringMatch | None = None
    ignore_uri_case: bool = False
    scheme: StringMatch | None = None
    method: StringMatch | None = None
    authority: StringMatch | None = None
    headers: Mapping[str, StringMatch | None] = field(default_factory=dict)
    without_headers: Mapping[str, StringMatch | None] = field(default_factory=dict)
    query_params: Mapping[str, StringMatch | None] = field(default_factory=dict)
    port: int = 0
    """The port of the called service, or of the gateway; 0: any."""
    source_labels: Mapping[str, str] = field(default_factory=dict)
    source_namespace: str = ""
    gateways: tuple[str, ...] = ()
    stat_prefix: str = ""
    location: Location = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class ConnectionMatch:
    """One ``match[]`` of ``tcp`` and ``tls``; ``sni_hosts`` is of the latter alone."""

    port: int = 0
    source_labels: Mapping[str, str] = field(default_factory=dict)
    source_namespace: str = ""
    gateways: tuple[str, ...] = ()
    sni_hosts: tuple[str, ...] = ()
    location: Location = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class RouteDestination:
    """Istio's Destination: a service, one of its ports and one of its subsets."""

    host: str
    port: int = 0
    """0: the only port of the service, or the one that was called."""
    subset: str = ""
    location: Location = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class HeaderOperations:
    """What to do to the headers of a request or of a response, in this order."""

    set: Mapping[str, str] = field(default_factory=dict)
    add: Mapping[str, str] = field(default_factory=dict)
    remove: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HeaderChanges:
    """Istio's Headers."""

    request: HeaderOperations = HeaderOperations()
    response: HeaderOperations = HeaderOperations()


def authority_of(changes: HeaderChanges | None) -> str:
    """The host that header operations give a request; ``set`` before ``add``, as in Istio."""
    if changes is None:
        return ""
    values = [
        value
        for operations in (changes.request.set, changes.request.add)
        for name, value in operations.items()
        if name.lower() in AUTHORITY
    ]
    return values[0] if values else ""


@dataclass(frozen=True, slots=True)
class WeightedDestination:
    """One ``route[]``. The weights of a route are shares of their sum; a single one needs none."""

    destination: RouteDestination
    weight: int = 0
    headers: HeaderChanges | None = None


@dataclass(frozen=True, slots=True)
class HttpRedirect:
    """``redirect``; empty texts leave that part as it was asked for."""

    uri: str = ""
    prefix_rewrite: str = ""
    authority: str = ""
    scheme: str = ""
    port: int = 0
    from_request_port: bool = False
    code: int = 301


@dataclass(frozen=True, slots=True)
class DirectResponse:
    """What the proxy answers by itself: ``directResponse``."""

    status: int
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class HttpRewrite:
    """``rewrite``; ``regex`` is a pair of pattern and substitution, as in RE2."""

    uri: str = ""
    authority: str = ""
    regex: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class HttpRetry:
    """``retries``; no attempts switch retrying off."""

    attempts: int
    per_try_timeout: float | None = None
    retry_on: str = ""
    """Empty: Istio's own conditions."""
    remote_localities: bool = False
    ignore_previous_hosts: bool = True
    backoff: float | None = None


@dataclass(frozen=True, slots=True)
class FaultInjection:
    """``fault``: the share of requests that wait, and of those that are answered here."""

    delay_seconds: float = 0.0
    delay_percent: float = 0.0
    abort_status: int = 0
    abort_grpc: str = ""
    abort_percent: float | None = None
    """None: not written, and then nothing is aborted."""


@dataclass(frozen=True, slots=True)
class HttpMirror:
    """One of ``mirrors``, or ``mirror``; None percent means all."""

    destination: RouteDestination
    percent: float | None = None


@dataclass(frozen=True, slots=True)
class CorsRules:
    """``corsPolicy``: which other origins a browser may let call."""

    allow_origins: tuple[StringMatch, ...] = ()
    allow_methods: tuple[str, ...] = ()
    allow_headers: tuple[str, ...] = ()
    expose_headers: tuple[str, ...] = ()
    max_age: float | None = None
    allow_credentials: bool | None = None
    ignore_unmatched_preflights: bool = False


@dataclass(frozen=True, slots=True)
class HttpRoute:
    """One ``http[]``: what it matches (nothing written: everything), and what becomes of a request."""

    name: str = ""
    matches: tuple[HttpMatch, ...] = ()
    destinations: tuple[WeightedDestination, ...] = ()
    redirect: HttpRedirect | None = None
    direct_response: DirectResponse | None = None
    delegate: tuple[str, str] | None = None
    """Namespace and name of the VirtualService whose routes take this place; none is left after linking."""
    rewrite: HttpRewrite | None = None
    timeout: float | None = None
    retries: HttpRetry | None = None
    fault: FaultInjection | None = None
    mirror: RouteDestination | None = None
    mirror_percent: float | None = None
    mirrors: tuple[HttpMirror, ...] | None = None
    cors: CorsRules | None = None
    headers: HeaderChanges | None = None
    location: Location = field(default=NOWHERE, compare=False)

    @property
    def mirrored_to(self) -> tuple[HttpMirror, ...]:
        """Every mirror that gets something, the old field's first."""
        first = (HttpMirror(self.mirror, self.mirror_percent),) if self.mirror else ()
        return tuple(one for one in (*first, *(self.mirrors or ())) if one.percent is None or one.percent > 0)


@dataclass(frozen=True, slots=True)
class ConnectionRoute:
    """One ``tcp[]`` or ``tls[]``."""

    matches: tuple[ConnectionMatch, ...]
    destinations: tuple[WeightedDestination, ...]
    location: Location = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class VirtualService:
    """A VirtualService; without hosts it is a delegate, which others refer to."""

    name: str
    namespace: str
    hosts: tuple[str, ...]
    gateways: tuple[str, ...] = (MESH,)
    http: tuple[HttpRoute, ...] = ()
    tls: tuple[ConnectionRoute, ...] = ()
    tcp: tuple[ConnectionRoute, ...] = ()
    export_to: tuple[str, ...] = ()
    """Namespaces, or ``*``; empty: all."""
    created: str = ""
    """``metadata.creationTimestamp`` of YAML that came from a cluster: there the older one is first."""
    location: Location = field(default=NOWHERE, compare=False)
    kept: dict[object, object] = field(default_factory=dict, init=False, repr=False, compare=False)
    """For whoever makes something of it again and again: what was made, beside what it was made of besides."""

    @property
    def is_delegate(self) -> bool:
        """Whether others lead to it by ``delegate``."""
        return not self.hosts

    def is_exported_to(self, namespace: str) -> bool:
        """Whether a workload of this namespace sees it."""
        return not self.export_to or "*" in self.export_to or namespace in self.export_to

"""
A DestinationRule as nouns: how proxies speak to a host, as a whole, at one port, and to one subset of it.

Numbers are seconds, percent and counts; None and 0 mean *not said*, as with Istio, whose defaults then hold.
Nothing here knows YAML or Envoy.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from authz.core.errors import NOWHERE, Location


class LoadBalancing(StrEnum):
    """Istio's ``loadBalancer.simple`` as far as it is done; UNSPECIFIED is LEAST_REQUEST, as with Istio."""

    UNSPECIFIED = "UNSPECIFIED"
    LEAST_REQUEST = "LEAST_REQUEST"
    LEAST_CONN = "LEAST_CONN"
    """Istio's old name of LEAST_REQUEST."""
    RANDOM = "RANDOM"
    ROUND_ROBIN = "ROUND_ROBIN"


class HashKey(StrEnum):
    """What of a request a consistent hash is made from; NONE: nothing, so the choice is random."""

    NONE = "none"
    HEADER = "httpHeaderName"
    COOKIE = "httpCookie"
    SOURCE_IP = "useSourceIp"
    QUERY_PARAMETER = "httpQueryParameterName"


@dataclass(frozen=True, slots=True)
class ConsistentHash:
    """Istio's ConsistentHashLB: the same key leads to the same endpoint while endpoints stay."""

    key: HashKey = HashKey.NONE
    name: str = ""
    """Name of the header, cookie or query parameter."""
    source_ip: bool = True
    cookie_path: str = ""
    cookie_seconds: float | None = None
    """None: a cookie is only looked at, never set; 0: set until the browser ends."""
    cookie_attributes: tuple[tuple[str, str], ...] = ()
    ring_size: int | None = None
    """At least so many entries in the ring. 0: Envoy's default; None: Istio's 1024."""
    maglev: int | None = None
    """Size of Maglev's table, which then takes the ring's place; 0: Envoy's default."""


@dataclass(frozen=True, slots=True)
class Warmup:
    """How an endpoint that has just come gets its share of requests step by step. None: Envoy's default."""

    seconds: float
    minimum_percent: float | None = None
    aggression: float | None = None


@dataclass(frozen=True, slots=True)
class LocalityBalancing:
    """Istio's LocalityLoadBalancerSetting: shares by place, or where to turn when a place fails."""

    enabled: bool = True
    distribute: tuple[tuple[str, tuple[tuple[str, int], ...]], ...] | None = None
    """From a locality (``region/zone/subzone``, ``*`` for all) to shares of localities in percent."""
    failover: tuple[tuple[str, str], ...] = ()
    """From a region to the region that is next."""
    failover_priority: tuple[str, ...] = ()
    """Labels that an endpoint should have in common with the proxy, or ``label=value``; the first weighs most."""


@dataclass(frozen=True, slots=True)
class LoadBalancer:
    """Istio's LoadBalancerSettings."""

    simple: LoadBalancing = LoadBalancing.UNSPECIFIED
    consistent_hash: ConsistentHash | None = None
    locality: LocalityBalancing | None = None
    warmup: Warmup | None = None


@dataclass(frozen=True, slots=True)
class TcpKeepalive:
    """Probes on silent connections, in whole seconds; 0: as the operating system does."""

    probes: int = 0
    time_seconds: int | None = None
    interval_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class ConnectionPool:
    """Istio's ConnectionPoolSettings. A bound of 0 is no bound."""

    max_connections: int = 0
    connect_seconds: float | None = None
    keepalive: TcpKeepalive | None = None
    max_connection_seconds: float | None = None
    tcp_idle_seconds: float | None = None
    max_pending_requests: int = 0
    max_requests: int = 0
    max_requests_per_connection: int = 0
    max_retries: int = 0
    http_idle_seconds: float | None = None
    http2: bool = False
    """``h2UpgradePolicy: UPGRADE``: HTTP/2 to a host outside. Between proxies HTTP/2 is always spoken."""
    max_concurrent_streams: int = 0
    ping_seconds: tuple[float, float] | None = None
    """``http2KeepAlive``: interval and timeout of HTTP/2's pings."""

    @property
    def idle_seconds(self) -> float | None:
        """After how much silence a connection is closed; what is said for HTTP counts first."""
        return self.tcp_idle_seconds if self.http_idle_seconds is None else self.http_idle_seconds


@dataclass(frozen=True, slots=True)
class OutlierPolicy:
    """Istio's OutlierDetection: which endpoints are left out for a while. None: Envoy's default."""

    consecutive_5xx: int | None = None
    consecutive_gateway_errors: int | None = None
    split_local_origin: bool = False
    consecutive_local_origin: int | None = None
    interval_seconds: float | None = None
    base_ejection_seconds: float | None = None
    max_ejection_percent: int = 0
    min_health_percent: int = 0


class ClientTlsMode(StrEnum):
    """Istio's ``tls.mode`` of a client."""

    DISABLE = "DISABLE"
    SIMPLE = "SIMPLE"
    MUTUAL = "MUTUAL"
    ISTIO_MUTUAL = "ISTIO_MUTUAL"


@dataclass(frozen=True, slots=True)
class ClientTls:
    """Istio's ClientTLSSettings. Paths are relative to the state directory."""

    mode: ClientTlsMode = ClientTlsMode.SIMPLE
    ca_certificates: str = ""
    """PEM bundle; empty: the system's roots."""
    sni: str = ""
    """Empty: the requested host."""
    subject_alt_names: tuple[str, ...] = ()
    """Empty: the requested host must be in the certificate; inside the mesh an identity behind the service."""
    client_certificate: str = ""
    private_key: str = ""
    credential: str = ""
    """Directory below ``certs/``: ``ca.crt``, and for MUTUAL ``tls.crt`` and ``tls.key``."""
    ca_crl: str = ""
    """PEM file of revoked certificates."""


@dataclass(frozen=True, slots=True)
class RetryBudget:
    """How many retries may be under way, as a part of the requests under way."""

    percent: float = 20.0
    min_concurrency: int = 3
    interval_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class TrafficPolicy:
    """Istio's TrafficPolicy. ``ports`` replace it for one port of the service; they have no ports themselves."""

    load_balancer: LoadBalancer | None = None
    connection_pool: ConnectionPool | None = None
    outlier: OutlierPolicy | None = None
    tls: ClientTls | None = None
    proxy_protocol: str = ""
    """``V1`` or ``V2``: each connection begins with the PROXY protocol's header; empty: it does not."""
    retry_budget: RetryBudget | None = None
    ports: Mapping[int, "TrafficPolicy"] = field(default_factory=dict)

    def at_port(self, number: int) -> "tuple[TrafficPolicy, bool]":
        """
        What holds at a port of the service, and whether it is said for that port.

        Nothing is inherited from the whole: what the port's policy leaves out has its default (Istio's
        ``portLevelSettings``).
        """
        found = self.ports.get(number)
        return (self, False) if found is None else (found, True)


@dataclass(frozen=True, slots=True)
class Subset:
    """The endpoints of a host that have all these labels."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    policy: TrafficPolicy | None = None
    location: Location = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class DestinationRule:
    """A DestinationRule; its host is a full name, or one with ``*`` at its beginning."""

    name: str
    namespace: str
    host: str
    policy: TrafficPolicy | None = None
    subsets: tuple[Subset, ...] = ()
    export_to: frozenset[str] = frozenset()
    """Namespaces whose proxies heed it, ``.`` for its own, ``*`` for all; empty: all."""
    selector: Mapping[str, str] | None = None
    """Labels of the proxies of its namespace that alone heed it; None: all."""
    created: str = ""
    """``metadata.creationTimestamp`` of YAML that came from a cluster: there the older one is first."""
    location: Location = field(default=NOWHERE, compare=False)

    @property
    def is_wildcard(self) -> bool:
        """Whether it is about many hosts."""
        return self.host.startswith("*")

    def subset(self, name: str) -> Subset | None:
        """The subset with this name; None when there is none."""
        return next((subset for subset in self.subsets if subset.name == name), None)

    def policy_for(self, port: int, subset: Subset | None = None) -> TrafficPolicy:
        """
        What holds at a port of the host, or of one of its subsets: the subset's settings before the host's.

        Each of load balancer, pool, outlier detection and TLS is taken whole from one of the two. If the subset says
        something for this very port, nothing of these four is taken from the host (Istio's MergeTrafficPolicy).
        """
        whole, _ = (self.policy or _NOTHING).at_port(port)
        if subset is None or subset.policy is None:
            return whole
        own, is_ports = subset.policy.at_port(port)
        return replace(
            whole,
            load_balancer=own.load_balancer if own.load_balancer or is_ports else whole.load_balancer,
            connection_pool=own.connection_pool if own.connection_pool or is_ports else whole.connection_pool,
            outlier=own.outlier if own.outlier or is_ports else whole.outlier,
            tls=own.tls if own.tls or is_ports else whole.tls,
            proxy_protocol=own.proxy_protocol or whole.proxy_protocol,
            retry_budget=own.retry_budget or whole.retry_budget,
        )


_NOTHING = TrafficPolicy()

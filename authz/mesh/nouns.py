"""
The mesh as frozen nouns: workloads, services, gateways, and who may call whom.

Built by ``description`` from Istio's kinds, read by ``render`` and the demo. Nothing here knows YAML or Envoy.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from authz.core.attributes import Workload
from authz.core.errors import NOWHERE, Location
from authz.core.resources import MeshConfig
from authz.core.spiffe import SpiffeId
from authz.mesh.destination_rules import DestinationRules
from authz.mesh.extensions import EnvoyFilter, WasmPlugin
from authz.mesh.gateway_server import GatewayServer as GatewayServer
from authz.mesh.locality_values import NOWHERE_KNOWN, WorkloadLocality
from authz.mesh.login import Login
from authz.mesh.ports import Address as Address
from authz.mesh.ports import Place as Place
from authz.mesh.ports import ServicePort as ServicePort
from authz.mesh.probes import Probe
from authz.mesh.rate_limits import AppliedLimit
from authz.mesh.telemetry_kind import WorkloadTelemetry
from authz.mesh.traffic_policy import DestinationRule
from authz.mesh.virtual_services import VirtualServices
from authz.mesh.written_choices import Enforce as Enforce
from authz.mesh.written_choices import Protocol as Protocol
from authz.mesh.written_choices import Resolution as Resolution
from authz.mesh.written_choices import TlsMode as TlsMode

T = TypeVar("T")
TLS_MODE = "security.istio.io/tlsMode"
"""Istio's label of endpoints; ``disabled``: there is no proxy, and no TLS."""


@dataclass(frozen=True, slots=True)
class ServiceEndpoint:
    """One of ``endpoints`` of a service, at one of its ports."""

    place: Place
    """With ``DNS`` its host may be a name."""
    labels: Mapping[str, str] = field(default_factory=dict)
    locality: WorkloadLocality = NOWHERE_KNOWN
    weight: int = 0
    """Its share beside others; 0: as much as every other."""
    service_account: str = ""
    """Inside the mesh: with the service's namespace the identity of its proxy; empty: it has none, and no TLS."""
    network: str = ""


@dataclass(frozen=True, slots=True)
class MeshService:
    """A ServiceEntry: a name that workloads call."""

    name: str
    namespace: str
    host: str
    """``reviews.bookinfo.svc.cluster.local``, or the external host name."""
    ports: tuple[ServicePort, ...]
    selector: Mapping[str, str] = field(default_factory=dict)
    """Labels of the workloads behind it, same namespace; empty for external services."""
    external: bool = False
    endpoints: Mapping[str, tuple[ServiceEndpoint, ...]] = field(default_factory=dict)
    """Port name to written addresses; empty: the workloads, or outside the host itself."""
    location: Location = field(default=NOWHERE, compare=False)
    resolution: Resolution = Resolution.STATIC
    export_to: tuple[str, ...] = ()
    """Namespaces whose proxies may call it; empty, or ``*``: all."""
    addresses: tuple[str, ...] = ()
    """IP addresses by which it may be asked for where a port leads by host."""
    subject_alt_names: tuple[str, ...] = ()
    """Names that its endpoints may have, beside those of their service accounts."""

    def is_exported_to(self, namespace: str) -> bool:
        """Whether proxies of a namespace may call it."""
        return not self.export_to or "*" in self.export_to or namespace in self.export_to

    @property
    def is_looked_up(self) -> bool:
        """Whether the DNS knows where it is; else its addresses are a file of endpoints."""
        return self.resolution is not Resolution.STATIC

    def port(self, number: int) -> ServicePort | None:
        """The port with this number; None when there is none."""
        return next((port for port in self.ports if port.number == number), None)


@dataclass(frozen=True, slots=True)
class InboundPort:
    """A port on which a sidecar receives for its application. ``number`` is the workload port of PA-8."""

    number: int
    name: str
    protocol: Protocol
    app: Place
    """Where the application itself listens."""


@dataclass(frozen=True, slots=True)
class OutboundPort:
    """
    A loopback port of a sidecar.

    It leads to one service, whatever host is asked for; or by host to several; or outwards (``HTTP_PROXY``).
    """

    number: int
    protocol: Protocol
    host: str = ""
    """The host of the one service."""
    service_port: int = 0
    targets: tuple[tuple[str, int], ...] | None = None
    """
    Host and port of every service to which it leads by the requested host; None where it does not go by that.

    Of several ports of a host the first is meant where a request names none.
    """
    leaves: bool = False
    """Whether every other host is asked for at the egress gateway; else such requests are refused here."""
    is_unwritten: bool = False
    """Whether its number is not written: it leads to every port of its services, and is unique on its machine alone."""

    @property
    def services(self) -> tuple[tuple[str, int], ...]:
        """Host and port of every service to which it leads."""
        if self.targets is not None:
            return self.targets
        return ((self.host, self.service_port),) if self.host else ()


@dataclass(frozen=True, slots=True)
class MeshWorkload:
    """A WorkloadEntry with its proxy: a sidecar beside an application, or a gateway."""

    name: str
    """Unique in the mesh; names the proxy's files, sockets and certificates."""
    namespace: str
    service_account: str
    spiffe_id: SpiffeId
    labels: Mapping[str, str]
    address: str
    """IP address in the process mesh."""
    compose_address: str
    """IP address in the container mesh."""
    ports: Mapping[str, int] = field(default_factory=dict)
    """``WorkloadEntry.spec.ports``: service port name to the port on which the proxy receives it."""
    inbound: tuple[InboundPort, ...] = ()
    outbound: tuple[OutboundPort, ...] = ()
    servers: tuple[GatewayServer, ...] = ()
    """Not empty for gateways."""
    enforce: Enforce | None = None
    """The choice made by annotation; None leaves it to the rendering."""
    limits: tuple[AppliedLimit, ...] = ()  # of the requests that it receives, in the order of policies and rules
    group: str = ""
    """Name of its WorkloadGroup."""
    probe: Probe | None = None
    """How its proxy sees whether the application can work; None: it is taken to be."""
    locality: WorkloadLocality = NOWHERE_KNOWN
    weight: int = 0
    """Its share beside others; 0: as much as every other."""
    network: str = ""
    telemetry: WorkloadTelemetry = field(default_factory=WorkloadTelemetry)
    """What Telemetries say of its logs and spans."""
    location: Location = field(default=NOWHERE, compare=False)
    workload: Workload = field(init=False, repr=False, compare=False)  # what policies select (RE-15 to RE-19)

    def __post_init__(self) -> None:
        noun = Workload(self.namespace, frozenset(self.labels.items()), self.service_account, self.name)
        object.__setattr__(self, "workload", noun)

    @property
    def is_gateway(self) -> bool:
        """Whether it is a gateway rather than a sidecar."""
        return bool(self.servers)

    @property
    def speaks_http(self) -> bool:
        """Whether its proxy takes requests from others, and not just bytes."""
        servers = any(server.is_egress or server.takes_requests for server in self.servers)
        return servers or any(port.protocol.is_http for port in self.inbound)

    @property
    def speaks_tcp(self) -> bool:
        """Whether its proxy takes bytes from others; it may speak HTTP as well."""
        servers = any(not server.is_egress and not server.takes_requests for server in self.servers)
        return servers or any(not port.protocol.is_http for port in self.inbound)

    @property
    def is_egress_gateway(self) -> bool:
        """Whether one of its servers takes what sidecars send out."""
        return any(server.is_egress for server in self.servers)

    @property
    def is_passthrough(self) -> bool:
        """Whether one of its servers lets TLS pass unopened."""
        return any(server.is_passthrough for server in self.servers)

    def speaks_mtls_at(self, port: int) -> bool:
        """Whether a gateway's server at a port takes mTLS of the mesh, which PeerAuthentication says of sidecars."""
        return any(server.port == port and server.tls is TlsMode.ISTIO_MUTUAL for server in self.servers)

    @property
    def listening(self) -> tuple[int, ...]:
        """Every port that the proxy binds, in order."""
        ports = (
            *(port.number for port in self.inbound),
            *(port.number for port in self.outbound),
            *dict.fromkeys(server.port for server in self.servers),
        )
        return tuple(sorted(ports))

    def outbound_port(self, host: str) -> int | None:
        """The loopback port that leads to ``host``; ``""`` asks for the forward proxy."""
        if not host:
            return next((port.number for port in self.outbound if port.protocol is Protocol.HTTP_PROXY), None)
        named = (port.number for port in self.outbound if host in (name for name, _ in port.services))
        return next(named, None)


@dataclass(frozen=True, slots=True)
class Mesh:
    """Everything that was described. Workloads (gateways too) and services are sorted by name."""

    config: MeshConfig
    workloads: tuple[MeshWorkload, ...] = ()
    services: tuple[MeshService, ...] = ()
    envoy_filters: tuple[EnvoyFilter, ...] = ()
    """In the order in which they are applied to a proxy that all of them select."""
    wasm_plugins: tuple[WasmPlugin, ...] = ()
    """By namespace and name."""
    virtual_services: VirtualServices = field(default_factory=VirtualServices)
    destination_rules: DestinationRules = field(default_factory=DestinationRules)
    _index: "_Index" = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_index", _Index(self.workloads, self.services))

    def workload(self, name: str) -> MeshWorkload:
        """Find a workload by its name. Raises KeyError."""
        return self._index.by_name[name]

    def service(self, host: str) -> MeshService:
        """Find a service by its host. Raises KeyError."""
        return self._index.by_host[host]

    def find_service(self, host: str) -> MeshService | None:
        """Find a service by its host; None when there is none."""
        return self._index.by_host.get(host)

    def workloads_of(self, service: MeshService) -> tuple[MeshWorkload, ...]:
        """The workloads behind a service: same namespace, every label of the selector."""
        if service.external or service.endpoints:
            return ()
        wanted = service.selector.items()
        first = next(iter(wanted), None)
        return tuple(w for w in self._index.labelled(service.namespace, first) if wanted <= w.labels.items())

    def rule_for(self, workload: MeshWorkload, service: MeshService) -> DestinationRule | None:
        """The DestinationRule that a workload's proxy heeds when it calls a service; None when there is none."""
        return self.destination_rules.in_force(workload.namespace, workload.labels, service.host, service.namespace)

    def leaves_alone(self, workload: MeshWorkload) -> bool:
        """
        Whether a proxy sends requests out of the mesh by itself, and not through the egress gateway.

        Gateways do that take mTLS of the mesh or let TLS out, and where there is no egress gateway all gateways do.
        Bytes go out from every gateway, and from no sidecar.
        """
        if not workload.is_gateway or self.egress_gateway is None:
            return workload.is_gateway
        return workload.is_passthrough or any(server.tls is TlsMode.ISTIO_MUTUAL for server in workload.servers)

    @property
    def sidecars(self) -> tuple[MeshWorkload, ...]:
        """Workloads with an application behind them."""
        return tuple(w for w in self.workloads if not w.is_gateway)

    @property
    def gateways(self) -> tuple[MeshWorkload, ...]:
        """Workloads that are gateways."""
        return tuple(w for w in self.workloads if w.is_gateway)

    @property
    def logins(self) -> tuple[Login, ...]:
        """Every login at a gateway, each once."""
        found = (server.login for gateway in self.gateways for server in gateway.servers)
        return tuple(dict.fromkeys(login for login in found if login is not None))

    def once(self, make: Callable[..., T], *of: object) -> T:
        """What ``make`` makes of this mesh and of these very objects: made once, and kept as long as the mesh."""
        key = (make, *map(id, of))
        if key not in self._index.made:
            self._index.made[key] = of, make(self, *of)  # who keeps the objects keeps their ids from others
        found: T = self._index.made[key][1]
        return found

    @property
    def egress_gateway(self) -> MeshWorkload | None:
        """The first egress gateway by name; external traffic leaves through it."""
        return self._index.egress_gateway


class _Index:
    """Where to find what, so that a mesh of a thousand services is not searched a thousand times."""

    def __init__(self, workloads: tuple[MeshWorkload, ...], services: tuple[MeshService, ...]) -> None:
        self.made: dict[tuple[object, ...], tuple[tuple[object, ...], Any]] = {}
        self.by_name = {workload.name: workload for workload in reversed(workloads)}
        self.by_host = {service.host: service for service in reversed(services)}
        self.egress_gateway = next((workload for workload in workloads if workload.is_egress_gateway), None)
        self._by_label: dict[tuple[str, tuple[str, str] | None], list[MeshWorkload]] = {}
        for workload in workloads:
            for label in (None, *workload.labels.items()):
                self._by_label.setdefault((workload.namespace, label), []).append(workload)

    def labelled(self, namespace: str, label: tuple[str, str] | None) -> list[MeshWorkload]:
        """The workloads of a namespace, those with a label if one is given."""
        return self._by_label.get((namespace, label), [])

"""
The mesh as frozen nouns: workloads, services, gateways, and who may call whom.

Built by ``description`` from Istio's kinds, read by ``render`` and the demo. Nothing here knows YAML or Envoy.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from authz.core.attributes import Workload
from authz.core.errors import NOWHERE, Location
from authz.core.resources import MeshConfig
from authz.core.spiffe import SpiffeId
from authz.mesh.destination_rules import DestinationRules
from authz.mesh.extensions import EnvoyFilter, WasmPlugin
from authz.mesh.locality_values import NOWHERE_KNOWN, WorkloadLocality
from authz.mesh.login import Login
from authz.mesh.rate_limits import AppliedLimit
from authz.mesh.traffic_policy import DestinationRule
from authz.mesh.virtual_services import VirtualServices
from authz.mesh.written_choices import Enforce as Enforce
from authz.mesh.written_choices import Protocol as Protocol
from authz.mesh.written_choices import TlsMode as TlsMode


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """An IP address (or, for external services resolved by DNS, a host name) and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Place:
    """One address in each of the two worlds: processes of one machine, and containers (XA-190)."""

    process: Address
    compose: Address


@dataclass(frozen=True, slots=True)
class ServicePort:
    """A port of a service; ``name`` ties it to the workloads' ports."""

    number: int
    name: str
    protocol: Protocol


@dataclass(frozen=True, slots=True)
class OutsideEndpoint:
    """One of ``endpoints`` of an external service, at one of its ports; ``weight`` is as a workload's."""

    place: Place
    labels: Mapping[str, str] = field(default_factory=dict)
    locality: WorkloadLocality = NOWHERE_KNOWN
    weight: int = 0


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
    endpoints: Mapping[str, tuple[OutsideEndpoint, ...]] = field(default_factory=dict)
    """Addresses of external services: port name to addresses; empty: the host itself, resolved by DNS."""
    location: Location = field(default=NOWHERE, compare=False)

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
    """A loopback port of a sidecar that leads to one service, or to every external host (``HTTP_PROXY``)."""

    number: int
    protocol: Protocol
    host: str = ""
    """The service's host; empty for ``HTTP_PROXY``."""
    service_port: int = 0


@dataclass(frozen=True, slots=True)
class GatewayServer:
    """
    One ``servers[]`` of a Gateway.

    ``ISTIO_MUTUAL`` and ``PASSTHROUGH`` lead outwards: requests of the mesh, and TLS of the applications' own.
    """

    port: int
    name: str
    hosts: tuple[str, ...]
    tls: TlsMode
    credential: str = ""
    """Directory below ``certs/`` with ``tls.crt`` and ``tls.key`` (and ``ca.crt`` for MUTUAL)."""
    minimum_protocol: str = "TLSV1_2"
    ciphers: tuple[str, ...] = ()
    login: Login | None = None
    """How people sign in there with a browser; None: they do not."""
    gateway: str = ""
    """``namespace/name`` of the Gateway that it is of."""

    @property
    def is_egress(self) -> bool:
        """Whether sidecars send through it by mTLS of the mesh."""
        return self.tls is TlsMode.ISTIO_MUTUAL

    @property
    def is_passthrough(self) -> bool:
        """Whether TLS passes unopened, by its server name."""
        return self.tls is TlsMode.PASSTHROUGH

    @property
    def is_outwards(self) -> bool:
        """Whether it leads to hosts outside the mesh."""
        return self.is_egress or self.is_passthrough


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
    locality: WorkloadLocality = NOWHERE_KNOWN
    weight: int = 0
    """Its share beside others; 0: as much as every other."""
    network: str = ""
    location: Location = field(default=NOWHERE, compare=False)

    @property
    def is_gateway(self) -> bool:
        """Whether it is a gateway rather than a sidecar."""
        return bool(self.servers)

    @property
    def is_egress_gateway(self) -> bool:
        """Whether one of its servers takes what sidecars send out."""
        return any(server.is_egress for server in self.servers)

    @property
    def is_passthrough(self) -> bool:
        """Whether one of its servers lets TLS pass unopened."""
        return any(server.is_passthrough for server in self.servers)

    @property
    def workload(self) -> Workload:
        """The noun by which policies are selected (RE-15 to RE-19)."""
        return Workload(self.namespace, frozenset(self.labels.items()), self.service_account, self.name)

    @property
    def listening(self) -> tuple[int, ...]:
        """Every port that the proxy binds, in order."""
        ports = (
            *(port.number for port in self.inbound),
            *(port.number for port in self.outbound),
            *(server.port for server in self.servers),
        )
        return tuple(sorted(ports))

    def outbound_port(self, host: str) -> int | None:
        """The loopback port that leads to ``host``; ``""`` asks for the forward proxy."""
        return next((port.number for port in self.outbound if port.host == host), None)


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
        if service.external:
            return ()
        wanted = service.selector.items()
        first = next(iter(wanted), None)
        return tuple(w for w in self._index.labelled(service.namespace, first) if wanted <= w.labels.items())

    def rule_for(self, workload: MeshWorkload, service: MeshService) -> DestinationRule | None:
        """The DestinationRule that a workload's proxy heeds when it calls a service; None when there is none."""
        return self.destination_rules.in_force(workload.namespace, workload.labels, service.host, service.namespace)

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

    @property
    def egress_gateway(self) -> MeshWorkload | None:
        """The first egress gateway by name; external traffic leaves through it."""
        return self._index.egress_gateway


class _Index:
    """Where to find what, so that a mesh of a thousand services is not searched a thousand times."""

    def __init__(self, workloads: tuple[MeshWorkload, ...], services: tuple[MeshService, ...]) -> None:
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

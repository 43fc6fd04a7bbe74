"""Sidecars tied to the workloads that they select, and their ports to the services that they lead to."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address

from authz.documents.accessors import Part
from authz.mesh.kind_parts import compose_app
from authz.mesh.mesh_documents import EgressListener, Sidecar, Written
from authz.mesh.nouns import InboundPort, MeshService, MeshWorkload, OutboundPort, Place, Protocol, ServicePort
from authz.mesh.virtual_service import MESH
from authz.mesh.virtual_services import is_subset


@dataclass(frozen=True, slots=True)
class Registry:
    """What sidecars can lead to: services in order, and whether the mesh has a way out."""

    services: tuple[MeshService, ...]
    by_host: Mapping[str, MeshService]
    has_egress_gateway: bool
    sidecars: "SidecarIndex"
    is_registry_only: bool = False
    """Whether nobody asks for hosts that are not described, unless a Sidecar says so."""
    routed: tuple[str, ...] = ()
    """Hosts for which VirtualServices have routes at sidecars; ``check_routes`` looks at where those lead."""

    def is_routed(self, service: MeshService) -> bool:
        """Whether requests for a service outside may go to a gateway of the user's own instead."""
        return any(is_subset(service.host, host) for host in self.routed)


def routed_hosts(written: Written) -> tuple[str, ...]:
    """The hosts of VirtualServices for sidecars."""
    found = [one.service for one in written.virtual_services if MESH in one.service.gateways]
    return tuple(dict.fromkeys(host for service in found for host in service.hosts))


def with_sidecar(workload: MeshWorkload, part: Part, registry: Registry) -> MeshWorkload:
    """
    The workload with the ports of its Sidecars.

    Several Sidecars may select a workload; their ports add up, and clashes of numbers are noted later. Where none does,
    that of the namespace without a selector counts, and else that of the mesh's root namespace.
    """
    app = compose_app(part)
    inbound: list[InboundPort] = []
    outbound: list[OutboundPort] = []
    for sidecar in registry.sidecars.selecting(workload):
        for port, at in sidecar.inbound:
            if port.number not in workload.ports.values() and port.number:
                at.note("ME-4", f"the port {port.number} is not among `spec.ports` of {workload.name}", "port")
            inbound.append(replace(port, app=Place(port.app.process, app)) if app else port)
        outbound += [_resolve(listener, sidecar, workload, registry) for listener in sidecar.outbound]
    return replace(workload, inbound=tuple(inbound), outbound=tuple(outbound))


class SidecarIndex:
    """The Sidecars of a mesh by namespace and a label, so that a thousand are not searched a thousand times."""

    def __init__(self, written: Written) -> None:
        self._root = written.config.root_namespace
        self._defaults: dict[str, Sidecar] = {}
        self._by_label: dict[tuple[str, tuple[str, str] | None], list[tuple[int, Sidecar]]] = {}
        for place, one in enumerate(written.sidecars):
            if one.labels is None:
                self._defaults.setdefault(one.namespace, one)
            else:
                label = next(iter(one.labels.items()), None)
                self._by_label.setdefault((one.namespace, label), []).append((place, one))

    def selecting(self, workload: MeshWorkload) -> list[Sidecar]:
        """The Sidecars that hold for a workload, in the order in which they are written."""
        labels = (None, *workload.labels.items())
        near = [pair for label in labels for pair in self._by_label.get((workload.namespace, label), ())]
        found = [pair for pair in near if (pair[1].labels or {}).items() <= workload.labels.items()]
        if found:
            return [one for _, one in sorted(found, key=lambda pair: pair[0])]
        default = self._defaults.get(workload.namespace) or self._defaults.get(self._root)
        return [default] if default is not None else []


def _resolve(listener: EgressListener, sidecar: Sidecar, workload: MeshWorkload, registry: Registry) -> OutboundPort:
    port, at = listener.port, listener.part
    by_default = registry.has_egress_gateway and not registry.is_registry_only
    leaves = by_default if sidecar.leaves is None else sidecar.leaves
    if port.protocol is Protocol.HTTP_PROXY:
        _check_outside(at, registry)
        return replace(port, leaves=not registry.is_registry_only if sidecar.leaves is None else sidecar.leaves)
    found = list(_visible(listener, workload, registry))
    _check_named(listener, found, workload, registry)
    if port.targets is None:
        return _resolve_one(port, at, found, registry)
    if port.protocol is Protocol.TCP:
        at.note("ME-6", "bytes do not say to which host they go", "hosts", "write one port for each service, or TLS")
        return port
    if sidecar.leaves and not registry.has_egress_gateway:
        help_text = "add an egress gateway, or write `outboundTrafficPolicy: {mode: REGISTRY_ONLY}`"
        at.note("ME-4", "`ALLOW_ANY` leads through an egress gateway, and there is none", "hosts", help_text)
    if port.is_unwritten:
        every = tuple(_every_port(listener, found))
        return replace(port, targets=every, leaves=leaves and registry.has_egress_gateway)
    targets = []
    for service in found:
        fitting = _port(service, port)
        if fitting is None or (service.external and not port.protocol.is_http and not registry.is_routed(service)):
            continue
        if service.external and not registry.is_routed(service):
            _check_outside(at, registry)
        targets.append((service.host, fitting.number))
    leaves = port.protocol.is_http and leaves and registry.has_egress_gateway
    return replace(port, targets=tuple(targets), leaves=leaves)


def _every_port(listener: EgressListener, found: Iterable[MeshService]) -> Iterable[tuple[str, int]]:
    """Every port of the services that takes requests; where a request names none, 80 or the first is meant."""
    for service in found:
        ports = sorted((one for one in service.ports if one.protocol.is_http), key=lambda one: one.number != 80)
        if not ports and any(host == service.host for _, host in listener.hosts):
            help_text = "bytes do not say to which host they go: write a listener with a `port` for this service"
            listener.part.warn("ME-4", f"`{service.host}` takes no requests, and is not led to", "hosts", help_text)
        yield from ((service.host, one.number) for one in ports)


def with_unwritten_ports(workloads: Sequence[MeshWorkload], index: "SidecarIndex") -> list[MeshWorkload]:
    """The workloads without ports that are not written, where something else on their machine has that port."""
    if not any(port.is_unwritten for workload in workloads for port in workload.outbound):
        return list(workloads)
    taken: dict[tuple[str, int], set[str]] = {}
    for workload in workloads:
        for number in workload.listening:
            taken.setdefault((_machine(workload), number), set()).add(workload.name)
        for inbound in workload.inbound:
            place = (_machine(workload), inbound.app.process.port)
            taken.setdefault(place, set()).add(f"the application of {workload.name}")
    made: list[MeshWorkload] = []
    lost: dict[int, tuple[EgressListener, set[str]]] = {}
    for workload in workloads:
        port = next((one for one in workload.outbound if one.is_unwritten), None)
        sharing = taken[_machine(workload), port.number] if port else set()
        if len(sharing) > 1:
            for sidecar in index.selecting(workload):
                for listener in sidecar.outbound:
                    if listener.port.is_unwritten:
                        lost.setdefault(id(listener), (listener, set()))[1].update(sharing)
            workload = replace(workload, outbound=tuple(one for one in workload.outbound if not one.is_unwritten))
        made.append(workload)
    for listener, names in lost.values():
        message = f"{', '.join(sorted(names))} run on one machine, so none has a port {listener.port.number} for this"
        listener.part.warn("ME-5", message, "hosts", "give each of them a Sidecar of its own, with a `port` of its own")
    return made


def _machine(workload: MeshWorkload) -> str:
    """Where a loopback port is unique; this machine has many addresses."""
    return "" if ip_address(workload.address).is_loopback else workload.address


def _visible(listener: EgressListener, workload: MeshWorkload, registry: Registry) -> Iterable[MeshService]:
    wanted = [pair for pair in listener.hosts if not pair[0].startswith("~")]
    services: Iterable[MeshService] = registry.services
    if not any("*" in host for _, host in wanted):  # most ports name one service, of thousands
        services = [registry.by_host[host] for _, host in wanted if host in registry.by_host]
    excluded = [(scope[1:], host) for scope, host in listener.hosts if scope.startswith("~")]
    for service in services:
        is_seen = service.is_exported_to(workload.namespace)
        if is_seen and _is_among(service, wanted) and not _is_among(service, excluded):
            yield service


def _is_among(service: MeshService, pairs: Iterable[tuple[str, str]]) -> bool:
    return any(
        scope in ("*", service.namespace) and (is_subset(service.host, host) or service.host == host)
        for scope, host in pairs
    )


def _check_named(
    listener: EgressListener, found: list[MeshService], workload: MeshWorkload, registry: Registry
) -> None:
    """Every host that is written whole must be there, and be of its namespace and for this one."""
    hosts = {service.host for service in found}
    for scope, host in listener.hosts:
        if "*" in host or scope.startswith("~") or host in hosts:
            continue
        service = registry.by_host.get(host)
        if service is None:
            listener.part.note("ME-4", f"no ServiceEntry has the host `{host}`", "hosts")
        elif scope not in ("*", service.namespace):
            help_text = f"write `{service.namespace}/{host}`"
            listener.part.note("ME-4", f"`{host}` is a service of `{service.namespace}`", "hosts", help_text)
        elif not service.is_exported_to(workload.namespace):
            help_text = f"add `{workload.namespace}` to the `exportTo` of its ServiceEntry"
            listener.part.note("ME-4", f"`{host}` is not exported to `{workload.namespace}`", "hosts", help_text)


def _resolve_one(port: OutboundPort, at: Part, found: list[MeshService], registry: Registry) -> OutboundPort:
    service = next((one for one in found if one.host == port.host), None)
    if service is None:
        return port
    fitting = _port(service, port)
    if fitting is None:
        at.note("ME-4", f"`{port.host}` has no port that speaks {port.protocol}", "port")
        return port
    is_outside = service.external and not registry.is_routed(service)
    if is_outside and not port.protocol.is_http:
        at.note("ME-6", "bytes do not leave the mesh through a sidecar", "port", BYTES_HELP)
    if is_outside:
        _check_outside(at, registry)
    return replace(port, service_port=fitting.number)


BYTES_HELP = "an application speaks TLS to the gateway's server with `mode: PASSTHROUGH`, or CONNECT to HTTP_PROXY"


def _port(service: MeshService, port: OutboundPort) -> ServicePort | None:
    """The service port of the same number, or the first of the same sort: bytes for bytes, requests for requests."""
    alike = [one for one in service.ports if one.protocol.is_http == port.protocol.is_http]
    if service.external and port.protocol is Protocol.TLS:  # the TLS of applications, as `tls` routes take it
        alike = [replace(one, protocol=Protocol.TLS) for one in service.ports if one.speaks_tls]
    if not port.protocol.is_http:  # bytes that begin with TLS have routes of their own
        alike.sort(key=lambda one: one.protocol is not port.protocol)
        if port.targets is not None:
            alike = [one for one in alike if one.protocol is port.protocol]
    return next((one for one in alike if one.number == port.number), next(iter(alike), None))


def _check_outside(at: Part, registry: Registry) -> None:
    if not registry.has_egress_gateway:
        message = "external hosts are reached through an egress gateway, and there is none"
        at.note("ME-4", message, "port", EGRESS_HELP)


EGRESS_HELP = "add a Gateway with `tls: {mode: ISTIO_MUTUAL}` and a WorkloadEntry with the labels of its selector"

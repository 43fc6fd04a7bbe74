"""Documents of a mesh description tied together: ports to workloads, routes to gateways, TLS to hosts."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from ipaddress import ip_address

from authz.core.errors import NOWHERE, Problem, Severity
from authz.core.spiffe import SpiffeId, TrustDomain
from authz.documents.accessors import Part
from authz.mesh.checking_routes import check_routes
from authz.mesh.checking_ways_out import with_ways_out
from authz.mesh.delegates import resolve
from authz.mesh.destination_rules import DestinationRules
from authz.mesh.link_extensions import linked_extensions
from authz.mesh.link_gateways import ROOTS, DescribedServers, check_gateways, described_servers, with_gateways
from authz.mesh.link_groups import check_probes, with_groups
from authz.mesh.link_rate_limits import check_limits, with_limits
from authz.mesh.link_rules import check_rules
from authz.mesh.link_sidecars import Registry, SidecarIndex, routed_hosts, with_sidecar, with_unwritten_ports
from authz.mesh.link_telemetry import sorted_telemetries, telemetry_of
from authz.mesh.mesh_documents import Written, WrittenTelemetry
from authz.mesh.nouns import Mesh, MeshService, MeshWorkload
from authz.mesh.routing import called_by
from authz.mesh.virtual_service import VirtualService
from authz.mesh.virtual_services import VirtualServices


@dataclass(slots=True)
class LinkedProxies:
    """The workloads of a mesh tied to everything but routes and rules, and the documents that they are made of."""

    made_of: tuple[object, ...]
    """Documents by their parts, which are equal only to themselves; the settings, which are always read, by value."""
    workloads: tuple[MeshWorkload, ...]
    parts: dict[int, Part]
    sidecars: SidecarIndex
    is_silent: bool
    """Whether no problem was noted on the way; else it has to be noted again whenever these documents are read."""
    is_checked: bool = False
    """Whether their ports, servers and probes were looked at, and there was nothing to note."""


def link(written: Written, before: LinkedProxies | None = None) -> tuple[Mesh, LinkedProxies | None]:
    """
    Tie the documents together: ports to workloads, routes to gateways, TLS to hosts; and note any clashes.

    Args:
        before: what the last reading gave beside its mesh: where only routes changed, its workloads are taken again.
    """
    services = tuple(sorted((service for service, _ in written.services), key=lambda s: (s.host, s.name)))
    _note_twice(((service.host.lower(), part) for service, part in written.services), "the host")
    _note_twice(((workload.name, part) for workload, part in written.workloads), "the workload name")
    described = with_groups(written)
    gateways = described_servers(written)
    telemetries = sorted_telemetries(written, [workload for workload, _ in described])
    proxies = _proxies(written, services, described, gateways, telemetries, before)
    parts = dict(proxies.parts)
    filters, plugins = linked_extensions(written)
    virtual_services = VirtualServices(_virtual_services(written))
    rules = DestinationRules(tuple(rule for rule, _ in written.destination_rules), written.config.root_namespace)
    mesh = Mesh(written.config, proxies.workloads, services, filters, plugins, virtual_services, rules)
    mesh = with_ways_out(mesh, proxies.sidecars, parts)
    if proxies is not before or mesh.workloads is not proxies.workloads or not proxies.is_checked:
        noted = written.noted
        _check_ports(mesh, parts)
        check_gateways(mesh.workloads, written, gateways)
        check_probes([(workload, parts[id(workload)]) for workload in mesh.workloads])
        proxies.is_checked = written.noted == noted and mesh.workloads is proxies.workloads
    _check_exported(mesh, parts)
    _check_targets(mesh, written)
    check_limits(mesh, written)
    check_routes(mesh, written)
    return mesh, proxies if proxies.is_silent else None


def _proxies(
    written: Written,
    services: tuple[MeshService, ...],
    described: list[tuple[MeshWorkload, Part]],
    gateways: DescribedServers,
    telemetries: tuple[WrittenTelemetry, ...],
    before: LinkedProxies | None,
) -> LinkedProxies:
    """The workloads with the ports of their Sidecars, servers, limits and telemetry; ``before`` if it is the same."""
    routed = routed_hosts(written)
    made_of = (
        *(tuple(described), tuple(written.groups), tuple(written.services), tuple(written.sidecars)),
        *(tuple(written.gateways), [[server for server, _ in servers] for _, servers in gateways]),
        *(tuple(written.rate_limits), telemetries, routed, written.config, written.telemetry_providers),
    )
    if before is not None and before.made_of == made_of:
        return before
    noted = written.noted
    parts = {id(workload): part for workload, part in described}
    trust_domain = _trust_domain(written)
    selectors = [gateway.labels for gateway, servers in gateways for server, _ in servers if server.is_egress]
    has_egress = any(labels.items() <= workload.labels.items() for labels in selectors for workload, _ in described)
    by_host = {service.host: service for service in reversed(services)}
    sidecars = SidecarIndex(written)
    registry = Registry(services, by_host, has_egress, sidecars, written.config.is_registry_only, routed)
    workloads: list[MeshWorkload] = []
    for workload, part in described:
        linked = replace(workload, spiffe_id=SpiffeId(trust_domain, workload.spiffe_id.path))
        linked = with_limits(with_gateways(with_sidecar(linked, part, registry), gateways), written)
        linked = replace(linked, telemetry=telemetry_of(linked, telemetries, written))
        if linked.name == ROOTS:
            part.note("ME-5", f"`{ROOTS}` is what the mesh's own authorities are called", "", "choose another name")
        if not linked.is_gateway and not linked.inbound and not linked.outbound:
            part.note("ME-4", "neither a Sidecar nor a Gateway selects this workload", help_text=_SIDECAR_HELP)
        if linked.is_gateway and linked.inbound:
            help_text = "a gateway has no application behind it: let the selector of one of them name other labels"
            part.note("ME-5", "a Gateway and a Sidecar with `ingress` both select this workload", "spec", help_text)
        workloads.append(linked)
        parts[id(linked)] = part
    kept = with_unwritten_ports(workloads, registry.sidecars)
    parts |= {id(new): parts[id(old)] for old, new in zip(workloads, kept, strict=True)}
    ordered = tuple(sorted(kept, key=lambda w: w.name))
    return LinkedProxies(made_of, ordered, parts, sidecars, is_silent=written.noted == noted)


_SIDECAR_HELP = "add a Sidecar whose `workloadSelector.labels` are among the labels of this workload"


def _virtual_services(written: Written) -> list[VirtualService]:
    services = [one.service for one in written.virtual_services]
    delegates = {(one.namespace, one.name): one for one in services if one.is_delegate}
    return [resolve(one, delegates) for one in services if not one.is_delegate]


def _trust_domain(written: Written) -> TrustDomain:
    try:
        return TrustDomain(written.config.trust_domain)
    except ValueError as error:
        place = written.config_part.location if written.config_part else NOWHERE
        written.problems.append(
            Problem(Severity.ERROR, "ME-1", str(error), place, path="trustDomain", help=_SPIFFE_HELP)
        )
        return TrustDomain("cluster.local")


_SPIFFE_HELP = "certificates carry it in a SPIFFE ID, which allows lower case only"


def _note_twice(names: Iterable[tuple[str, Part]], what: str) -> None:
    first: dict[str, Part] = {}
    for name, part in names:
        other = first.setdefault(name, part)
        if other is not part and name:
            part.note("ME-5", f"{what} `{name}` is given twice, first at {other.location}")


def _check_ports(mesh: Mesh, parts: dict[int, Part]) -> None:
    """
    Proxies bind all addresses, so that one set of files serves processes and containers.

    Hence every port is unique on a machine (XA-190), applications' ports included. Another address is another machine,
    except on loopback.
    """
    owner: dict[tuple[str, int], str] = {}
    for workload in mesh.workloads:
        part = parts[id(workload)]
        machine = _machine(workload.address)
        unwritten = {port.number for port in workload.outbound if port.is_unwritten}  # unique on its machine
        applications = sorted({port.app.process.port for port in workload.inbound})
        for number in (*(one for one in workload.listening if one not in unwritten), *applications):
            other = owner.setdefault((machine, number), workload.name)
            if other != workload.name and number:
                part.note("ME-5", f"the port {number} of {workload.name} is also one of {other}", "", _UNIQUE)
        if len(set(workload.listening)) != len(workload.listening):
            part.note("ME-5", f"two listeners of {workload.name} have the same port", "", _UNIQUE)


def _machine(address: str) -> str:
    try:
        return "" if ip_address(address).is_loopback else address
    except ValueError:  # which was noted
        return ""


def _check_exported(mesh: Mesh, parts: dict[int, Part]) -> None:
    """Routes lead only to what its ServiceEntry exports to the namespace of the proxy."""
    if not any(service.export_to for service in mesh.services):
        return
    for workload in mesh.workloads:
        hidden = {s.host: s for s, _, _ in called_by(mesh, workload) if not s.is_exported_to(workload.namespace)}
        for service in hidden.values():
            message = f"a route of {workload.name} leads to `{service.host}`, which is not exported to its namespace"
            help_text = f"add `{workload.namespace}` to the `exportTo` of its ServiceEntry"
            parts[id(workload)].note("ME-4", message, "", help_text)


_UNIQUE = "ports are unique among the workloads of an address, because a proxy binds all addresses of its machine"


def _check_targets(mesh: Mesh, written: Written) -> None:
    for service, part in written.services:
        if not service.external and not service.endpoints and not mesh.workloads_of(service):
            part.note("ME-4", "no workload has the labels of `workloadSelector`", "spec")
        rules = mesh.destination_rules.for_service(service.host) if service.subject_alt_names else ()
        if service.external and service.subject_alt_names and not any(rule.policy for rule in rules):
            help_text = "add a DestinationRule with `tls: {mode: SIMPLE, caCertificates: …}`, or leave them out"
            part.note(
                "ME-3", "`subjectAltNames` needs an authority, and no DestinationRule names one", "spec", help_text
            )
    check_rules(mesh, written)

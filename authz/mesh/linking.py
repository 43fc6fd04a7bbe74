"""Documents of a mesh description tied together: ports to workloads, routes to gateways, TLS to hosts."""

from collections.abc import Iterable
from dataclasses import replace

from authz.core.errors import NOWHERE, Problem, Severity
from authz.core.spiffe import SpiffeId, TrustDomain
from authz.documents.accessors import Part
from authz.mesh.checking_routes import check_routes
from authz.mesh.delegates import resolve
from authz.mesh.destination_rules import DestinationRules
from authz.mesh.kind_parts import compose_app
from authz.mesh.link_extensions import linked_extensions
from authz.mesh.link_rate_limits import check_limits, with_limits
from authz.mesh.link_rules import check_rules
from authz.mesh.login import Login
from authz.mesh.mesh_documents import Written
from authz.mesh.nouns import (
    InboundPort,
    Mesh,
    MeshService,
    MeshWorkload,
    OutboundPort,
    Place,
    Protocol,
)
from authz.mesh.virtual_service import VirtualService
from authz.mesh.virtual_services import VirtualServices


def link(written: Written) -> Mesh:
    """Tie the documents together: ports to workloads, routes to gateways, TLS to hosts; and note any clashes."""
    services = tuple(sorted((service for service, _ in written.services), key=lambda s: (s.host, s.name)))
    _note_twice(((service.host, part) for service, part in written.services), "the host")
    _note_twice(((workload.name, part) for workload, part in written.workloads), "the workload name")
    parts = {id(workload): part for workload, part in written.workloads}
    trust_domain = _trust_domain(written)
    by_host = {service.host: service for service in reversed(services)}
    workloads = []
    for workload, part in written.workloads:
        linked = replace(workload, spiffe_id=SpiffeId(trust_domain, workload.spiffe_id.path))
        linked = with_limits(_with_gateways(_with_sidecar(linked, part, written, by_host), written), written)
        if not linked.is_gateway and not linked.inbound and not linked.outbound:
            part.note("ME-4", "neither a Sidecar nor a Gateway selects this workload", help_text=_SIDECAR_HELP)
        workloads.append(linked)
        parts[id(linked)] = part
    filters, plugins = linked_extensions(written)
    ordered = tuple(sorted(workloads, key=lambda w: w.name))
    virtual_services = VirtualServices(_virtual_services(written))
    rules = DestinationRules(tuple(rule for rule, _ in written.destination_rules), written.config.root_namespace)
    mesh = Mesh(written.config, ordered, services, filters, plugins, virtual_services, rules)
    _check_ports(mesh, parts)
    _check_logins(written)
    _check_targets(mesh, written)
    check_limits(mesh, written)
    check_routes(mesh, written)
    return mesh


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


def _with_sidecar(
    workload: MeshWorkload, part: Part, written: Written, services: dict[str, MeshService]
) -> MeshWorkload:
    """Several Sidecars may select a workload; their ports add up, and clashes of numbers are noted later."""
    app = compose_app(part)
    inbound: list[InboundPort] = []
    outbound: list[OutboundPort] = []
    for sidecar in written.sidecars:
        if sidecar.namespace != workload.namespace or not sidecar.labels.items() <= workload.labels.items():
            continue
        for port, at in sidecar.inbound:
            if port.number not in workload.ports.values() and port.number:
                at.note("ME-4", f"the port {port.number} is not among `spec.ports` of {workload.name}", "port")
            inbound.append(replace(port, app=Place(port.app.process, app)) if app else port)
        for target, at in sidecar.outbound:
            outbound.append(_resolve(target, at, services))
    return replace(workload, inbound=tuple(inbound), outbound=tuple(outbound))


def _resolve(port: OutboundPort, at: Part, services: dict[str, MeshService]) -> OutboundPort:
    """Find the service port: the first of the same sort, bytes for bytes and requests for requests."""
    if port.protocol is Protocol.HTTP_PROXY or not port.host:
        return port
    service = services.get(port.host)
    if service is None:
        at.note("ME-4", f"no ServiceEntry has the host `{port.host}`", "hosts")
        return port
    alike = [one for one in service.ports if one.protocol.is_http == port.protocol.is_http]
    if not port.protocol.is_http:  # bytes that begin with TLS have routes of their own
        alike.sort(key=lambda one: one.protocol is not port.protocol)
    fitting = next(iter(alike), None)
    if fitting is None:
        at.note("ME-4", f"`{port.host}` has no port that speaks {port.protocol}", "port")
        return port
    if service.external and not port.protocol.is_http:
        at.note("ME-6", "bytes do not leave the mesh through a sidecar", "port", _BYTES_HELP)
    return replace(port, service_port=fitting.number)


_BYTES_HELP = "an application speaks TLS to the gateway's server with `mode: PASSTHROUGH`, or CONNECT to HTTP_PROXY"


def _with_gateways(workload: MeshWorkload, written: Written) -> MeshWorkload:
    servers = [
        replace(server, gateway=f"{gateway.namespace}/{gateway.name}")
        for gateway in sorted(written.gateways, key=lambda g: (g.namespace, g.name))
        if gateway.labels.items() <= workload.labels.items() and gateway.namespace == workload.namespace
        for server in gateway.servers
    ]
    return replace(workload, servers=tuple(servers))


def _note_twice(names: Iterable[tuple[str, Part]], what: str) -> None:
    first: dict[str, Part] = {}
    for name, part in names:
        other = first.setdefault(name, part)
        if other is not part and name:
            part.note("ME-5", f"{what} `{name}` is given twice, first at {other.location}")


def _check_ports(mesh: Mesh, parts: dict[int, Part]) -> None:
    """
    Proxies bind all addresses, so that one set of files serves processes and containers.

    Hence every port is unique in the mesh (XA-190), applications' ports included.
    """
    owner: dict[int, str] = {}
    for workload in mesh.workloads:
        part = parts[id(workload)]
        for number in (*workload.listening, *sorted({port.app.process.port for port in workload.inbound})):
            other = owner.setdefault(number, workload.name)
            if other != workload.name and number:
                part.note("ME-5", f"the port {number} of {workload.name} is also one of {other}", "", _UNIQUE)
        if len(set(workload.listening)) != len(workload.listening):
            part.note("ME-5", f"two listeners of {workload.name} have the same port", "", _UNIQUE)


_UNIQUE = "ports are unique in the whole mesh, so that it can run on one machine"


def _check_logins(written: Written) -> None:
    """Two gateways may share a session, if everything about their logins is the same."""
    first: dict[str, tuple[Login, Part]] = {}
    for gateway in written.gateways:
        for login in {server.login for server in gateway.servers if server.login}:
            other, at = first.setdefault(login.credential, (login, gateway.part))
            if other != login and login.credential:
                message = f"another login has the credential `{login.credential}`, at {at.location}"
                gateway.part.note("ME-5", message, "", "write the same login there, or choose another `credentialName`")


def _check_targets(mesh: Mesh, written: Written) -> None:
    hosts = {service.host: service for service in mesh.services}
    for service, part in written.services:
        if not service.external and not mesh.workloads_of(service):
            part.note("ME-4", "no workload has the labels of `workloadSelector`", "spec")
    check_rules(mesh, written)
    if mesh.egress_gateway is None:
        for sidecar in written.sidecars:
            for port, at in sidecar.outbound:
                if port.protocol is Protocol.HTTP_PROXY or (port.host in hosts and hosts[port.host].external):
                    at.note(
                        "ME-4",
                        "external hosts are reached through an egress gateway, and there is none",
                        "port",
                        _EGRESS_HELP,
                    )


_EGRESS_HELP = "add a Gateway with `tls: {mode: ISTIO_MUTUAL}` and a WorkloadEntry with the labels of its selector"

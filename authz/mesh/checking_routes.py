"""What the routes of VirtualServices lead to: every host, port, subset, Gateway and delegate must be there."""

from authz.documents.accessors import Part
from authz.mesh.checking_ways_out import check_ways_out
from authz.mesh.link_gateways import is_routed
from authz.mesh.mesh_documents import Gateway, Written, WrittenVirtualService
from authz.mesh.near_names import host_help, name_help
from authz.mesh.nouns import Mesh, MeshService, Protocol
from authz.mesh.re2_syntax import matcher_of
from authz.mesh.routing import port_of, unresolved
from authz.mesh.unreached_routes import warn_of_unreached
from authz.mesh.virtual_service import AUTHORITY, MESH, MatchKind, RouteDestination, authority_of
from authz.mesh.virtual_services import is_wildcard


def check_routes(mesh: Mesh, written: Written) -> None:
    """Note every reference that leads nowhere, at its place."""
    subsets = _subsets(mesh)
    delegates = {(one.service.namespace, one.service.name): one for one in written.virtual_services}
    gateways = {f"{gateway.namespace}/{gateway.name}": gateway for gateway in written.gateways}
    places: dict[int, Part] = {}
    for virtual in written.virtual_services:
        _check_gateways(virtual, gateways)
        _check_hosts_known(mesh, virtual)
        _warn_of_no_service(mesh, virtual)
        _warn_of_no_server(virtual, gateways)
        for destination, part in virtual.destinations:
            places[id(destination)] = part
            _check_destination(mesh, destination, part, subsets, _is_tcp(virtual, destination))
        for key, part in virtual.delegates:
            _check_delegate(virtual, key, part, delegates)
    _note_twice(written)
    warn_of_unreached(written)
    noted: set[int] = set()
    open_ports = (
        mesh.find_service(one.host)
        for virtual in written.virtual_services
        for one, _ in virtual.destinations
        if not one.port
    )
    can_be_open = any(service is not None and len(service.ports) != 1 for service in open_ports)
    for workload in mesh.workloads if can_be_open else ():
        for destination, service, called in unresolved(mesh, workload):
            at = places.get(id(destination))
            if at is not None and id(destination) not in noted:
                noted.add(id(destination))
                help_text = f"write `port: {{number: …}}`, one of {_ports(service)}"
                at.note("ME-4", f"`{service.host}` has several ports, and none is {called}", "host", help_text)
    check_ways_out(mesh, written, places)


def _is_tcp(virtual: WrittenVirtualService, destination: RouteDestination) -> bool:
    connections = (*virtual.service.tls, *virtual.service.tcp)
    return any(one.destination is destination for route in connections for one in route.destinations)


def _check_destination(
    mesh: Mesh, destination: RouteDestination, part: Part, subsets: dict[str, set[str]], is_tcp: bool
) -> None:
    host, service = destination.host, mesh.find_service(destination.host)
    if service is None:
        part.note("ME-4", f"no ServiceEntry has the host `{host}`", "host", host_help(mesh, host))
        return
    port = port_of(service, destination, 0)
    if destination.port and port is None:
        part.note("ME-4", f"`{host}` has no port {destination.port}", "port", f"its ports: {_ports(service)}")
    elif port is not None and port.protocol.is_http is is_tcp and not (service.external and port.speaks_tls):
        wanted, help_text = ("bytes", "write an `http` route") if is_tcp else ("HTTP", "write a `tcp` route")
        if port.protocol is Protocol.HTTPS and is_tcp:
            help_text = "if the application speaks TLS itself, give this port of its ServiceEntry `protocol: TLS`"
        part.note("ME-4", f"the port {port.number} of `{host}` does not speak {wanted}", "host", help_text)
    if destination.subset and destination.subset not in subsets.get(host, ()):
        message = f"the subset `{destination.subset}` is defined by no DestinationRule of `{host}`"
        part.note("ME-4", message, "subset", "add it to `subsets` of a DestinationRule with this host")


def _warn_of_no_service(mesh: Mesh, virtual: WrittenVirtualService) -> None:
    """Warn of a host for sidecars that no service has: Istio takes it, and no request ever would."""
    spec = virtual.part.part("spec")
    if spec is None or virtual.service.gateways != (MESH,) or virtual.service.tls:
        return  # TLS routes go by the names in `sniHosts`
    for i, host in enumerate(virtual.service.hosts):
        if not is_wildcard(host) and mesh.find_service(host) is None:
            message = f"no ServiceEntry has the host `{host}`, so no sidecar has a route for it"
            spec.warn("ME-4", message, f"hosts[{i}]", host_help(mesh, host))


def _warn_of_no_server(virtual: WrittenVirtualService, gateways: dict[str, Gateway]) -> None:
    """Warn of a host that no server of its Gateways has (``istioctl analyze``: IST0132): no client can ask for it."""
    service = virtual.service
    found = [gateways[name] for name in service.gateways if name in gateways]
    servers = [server for gateway in found for server, _ in gateway.servers]
    if len(found) < len(service.gateways) or not servers:
        return  # what is missing is told already; and a host for sidecars need not be one of a gateway
    for i, host in enumerate(service.hosts):
        if not any(server.admits(host, service.namespace) for server in servers):
            hosts = (one for server in servers for one in server.hosts_for(service.namespace))
            known = ", ".join(f"`{one}`" for one in dict.fromkeys(hosts)) or "none for this namespace"
            message = f"no server of {' or '.join(f'`{one}`' for one in service.gateways)} has the host `{host}`"
            spec = virtual.part.part("spec") or virtual.part
            spec.warn("ME-4", message, f"hosts[{i}]", f"add it to the `hosts` of a server; there are {known}")


def _check_hosts_known(mesh: Mesh, virtual: WrittenVirtualService) -> None:
    """Sidecars know the requested host while rendering; and the egress gateway leads by it."""
    for part, route in zip(virtual.http, virtual.service.http, strict=True):
        for match in route.matches if MESH in virtual.service.gateways else ():
            headers = (*match.headers.items(), *match.without_headers.items())
            about = (match.authority, *(one for name, one in headers if name.lower() in AUTHORITY))
            for one in about:
                if one and one.kind is MatchKind.REGEX and one.value != "*" and matcher_of(one.value) is None:
                    message = f"`{one.value}` compares a host in a way that is not done here"
                    part.note("ME-6", message, "match", "write a simpler expression")
        given = [route.rewrite.authority if route.rewrite else "", authority_of(route.headers)]
        is_by_gateway = MESH in virtual.service.gateways or mesh.egress_gateway is not None
        for weighted in route.destinations if is_by_gateway else ():
            service = mesh.find_service(weighted.destination.host)
            hosts = {host for host in (*given, authority_of(weighted.headers)) if host}
            if service is not None and service.external and hosts - {service.host}:
                message = f"requests to `{service.host}` leave through the egress gateway, which leads by host"
                part.note("ME-6", message, "", "do not change the host of what goes there")


def _subsets(mesh: Mesh) -> dict[str, set[str]]:
    """Names of the subsets of each host, whoever heeds the rule that has them."""
    rules = mesh.destination_rules
    hosts = [service.host for service in mesh.services]
    return {host: {subset.name for rule in rules.for_service(host) for subset in rule.subsets} for host in hosts}


def _check_delegate(
    virtual: WrittenVirtualService,
    key: tuple[str, str],
    part: Part,
    delegates: dict[tuple[str, str], WrittenVirtualService],
) -> None:
    name, found = "/".join(key), delegates.get(key)
    if found is None:
        known = [f"{space}/{own}" for (space, own), one in delegates.items() if one.service.is_delegate]
        part.note("ME-4", f"no VirtualService is called `{name}`", "name", name_help(name, known))
    elif not found.service.is_delegate:
        part.note("ME-4", f"`{name}` has `hosts`, so nobody can delegate to it", "name", "leave its `hosts` out")
    elif not found.service.is_exported_to(virtual.service.namespace):
        help_text = f"add `{virtual.service.namespace}` to its `exportTo`"
        part.note("ME-4", f"`{name}` is not exported to `{virtual.service.namespace}`", "name", help_text)


def _check_gateways(virtual: WrittenVirtualService, gateways: dict[str, Gateway]) -> None:
    service, known = virtual.service, {*gateways, MESH}
    for name in service.gateways:
        servers = gateways[name].servers if name in gateways else ()
        inwards = [one for one, _ in servers if not one.is_outwards or is_routed(one, [service])]
        if name in gateways and not inwards:
            help_text = "an egress gateway has a route for every host, and the policies decide"
            spec, field = _gateway_place(virtual, name)
            spec.note("ME-6", f"the Gateway `{name}` leads outwards, where routes do not count", field, help_text)
    connections = [match for one in (*service.tls, *service.tcp) for match in one.matches]
    matched = {name for http in service.http for match in http.matches for name in match.gateways}
    matched.update(name for match in connections for name in match.gateways)
    for name in dict.fromkeys((*service.gateways, *sorted(matched))):
        if name not in known:
            spec, field = _gateway_place(virtual, name)
            spec.note("ME-4", f"no Gateway is called `{name}`", field, name_help(name, gateways))
    if not service.is_delegate:
        for name in sorted((matched & known) - set(service.gateways)):
            help_text = f"add `{name}` to `spec.gateways`"
            virtual.part.note("ME-4", f"a match is for `{name}`, to which it is not bound", "spec", help_text)


def _gateway_place(virtual: WrittenVirtualService, name: str) -> tuple[Part, str]:
    """Where the name of a Gateway is written: among ``gateways``, or somewhere in a match."""
    spec = virtual.part.part("spec") or virtual.part
    names = virtual.service.gateways
    return spec, f"gateways[{names.index(name)}]" if spec.has("gateways") and name in names else ""


def _note_twice(written: Written) -> None:
    first: dict[tuple[str, str], Part] = {}
    for virtual in written.virtual_services:
        key = (virtual.service.namespace, virtual.service.name)
        other = first.setdefault(key, virtual.part)
        if other is not virtual.part and key[1]:
            message = f"the VirtualService `{'/'.join(key)}` is given twice, first at {other.location}"
            virtual.part.note("ME-5", message)


def _ports(service: MeshService) -> str:
    return ", ".join(str(port.number) for port in service.ports)

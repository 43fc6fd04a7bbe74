"""The reader of VirtualService: where requests and connections lead. What Istio would refuse is a problem."""

from authz.documents.accessors import Part
from authz.mesh.kind_parts import read_created, read_export_to, read_metadata, read_spec
from authz.mesh.mesh_documents import Written, WrittenVirtualService
from authz.mesh.read_http_match import read_gateways, read_namespace
from authz.mesh.read_http_route import RouteReader, full_host
from authz.mesh.value_parts import is_host, only_fields
from authz.mesh.virtual_service import MESH, ConnectionMatch, ConnectionRoute, VirtualService
from authz.mesh.virtual_service_fields import FIELDS
from authz.mesh.virtual_services import is_subset


def read_virtual_service(part: Part, written: Written) -> None:
    """Read one document; delegates have no hosts."""
    name, namespace, _ = read_metadata(part)
    spec = read_spec(part)
    only_fields(spec, FIELDS["VirtualService"])
    hosts = spec.texts("hosts")
    routes = RouteReader(namespace, is_delegate=not hosts)
    http = tuple(routes.read_http(one) for one in spec.parts("http"))
    gateways = read_gateways(spec, namespace) or (MESH,)
    service = VirtualService(
        name=name,
        namespace=namespace,
        hosts=tuple(full_host(host, namespace) for host in hosts),
        gateways=gateways,
        http=http,
        tls=_connections(spec, "tls", hosts, routes),
        tcp=_connections(spec, "tcp", hosts, routes),
        export_to=read_export_to(spec, namespace),
        created=read_created(part),
        location=part.location,
    )
    _check_hosts(spec, hosts, service)
    if not any(spec.has(field) for field in ("http", "tls", "tcp")):
        spec.note("ME-3", "`http`, `tls` or `tcp` is missing", "http")
    for field in ("gateways", "tls", "tcp") if service.is_delegate else ():
        if spec.has(field):
            spec.note("ME-1", f"without `hosts` it is a delegate, which has no `{field}`", field, "write `hosts`")
    written.virtual_services.append(
        WrittenVirtualService(service, part, tuple(routes.http), tuple(routes.destinations), tuple(routes.delegates))
    )


def _check_hosts(spec: Part, hosts: tuple[str, ...], service: VirtualService) -> None:
    for i, (host, name) in enumerate(zip(hosts, service.hosts, strict=True)):
        if not is_host(host):
            spec.note("ME-1", f"`{host}` is not a host", f"hosts[{i}]", "a DNS name, `*` or `*.example.com`")
        elif host == "*" and service.gateways == (MESH,):
            help_text = "name the hosts, or the `gateways` for which this is"
            spec.note("ME-1", "a sidecar has no route for every host", f"hosts[{i}]", help_text)
        twin = next((other for other in service.hosts[:i] if is_subset(name, other) or is_subset(other, name)), None)
        if twin is not None:
            spec.note("ME-5", f"`{host}` and `{twin}` stand for the same names", f"hosts[{i}]", "write one of them")


def _connections(spec: Part, field: str, hosts: tuple[str, ...], routes: RouteReader) -> tuple[ConnectionRoute, ...]:
    found = []
    for one in spec.parts(field):
        only_fields(one, FIELDS["TCPRoute"])
        matches = tuple(_match(match, field, hosts, routes.namespace) for match in one.parts("match"))
        if field == "tls" and not one.has("match"):
            one.note("ME-3", "`match` is missing", "match", "write the names: `match: [{sniHosts: [example.com]}]`")
        destinations = routes.read_weighted(one, FIELDS["RouteDestination"])
        if not one.parts("route"):
            one.note("ME-3", "`route` is missing", "route")
        found.append(ConnectionRoute(matches, destinations, one.location))
    return tuple(found)


def _match(match: Part, field: str, hosts: tuple[str, ...], namespace: str) -> ConnectionMatch:
    is_tls = field == "tls"
    only_fields(match, FIELDS["TLSMatchAttributes" if is_tls else "L4MatchAttributes"])
    names = match.texts("sniHosts", required=True) if is_tls else ()
    if is_tls and match.has("sniHosts") and not names:
        match.note("ME-3", "`sniHosts` is empty", "sniHosts")
    for i, name in enumerate(names):
        if not is_host(name):
            match.note("ME-1", f"`{name}` is not a name", f"sniHosts[{i}]", "a DNS name, or `*.example.com`")
        elif not any(is_subset(name, host) for host in hosts):
            help_text = "add it to `hosts`"
            match.note("ME-1", f"`{name}` is none of the VirtualService's hosts", f"sniHosts[{i}]", help_text)
    return ConnectionMatch(
        port=match.port("port"),
        source_labels=match.strings("sourceLabels"),
        source_namespace=read_namespace(match),
        gateways=read_gateways(match, namespace),
        sni_hosts=names,
        location=match.location,
    )

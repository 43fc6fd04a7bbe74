"""Route tables that do not follow VirtualServices: to the application, and outwards."""

from envoy_data_plane.envoy.config.route.v3 import (
    DirectResponseAction,
    HeaderMatcher,
    Route,
    RouteActionUpgradeConfig,
    RouteActionUpgradeConfigConnectConfig,
    RouteConfiguration,
    RouteMatch,
    RouteMatchConnectMatcher,
    VirtualHost,
)
from envoy_data_plane.envoy.type.matcher.v3 import StringMatcher

from authz.envoy import naming
from authz.envoy.http_routes import default_action
from authz.mesh.nouns import Mesh, MeshService, Protocol, Resolution, ServicePort
from authz.mesh.virtual_services import is_wildcard

REFUSED = "block_all"
"""Istio's name of what becomes of hosts that are not described where nothing else may leave."""
_UNWRITTEN = (80, 443)
"""Ports that clients leave out of Host, and that the host outside is therefore not told."""
MAX_DIRECT_RESPONSE_BYTES = 1024 * 1024
"""Istio's bound on the body of a ``directResponse``; Envoy's own is 4 KiB."""


def to_cluster(name: str, cluster: str) -> RouteConfiguration:
    """Everything to one cluster, which is the application's."""
    route = Route(name=name, match=RouteMatch(prefix="/"), route=default_action(cluster))
    return table(name, [VirtualHost(name=name, domains=["*"], routes=[route])])


def forward_proxy(name: str, mesh: Mesh, *, leaves: bool) -> RouteConfiguration:
    """
    Everything to the egress gateway, hosts unchanged, CONNECT as it is.

    Unless ``leaves``, only hosts outside that a ServiceEntry names; every other is answered 502.
    """
    cluster = naming.egress_route(mesh)
    tunnel = Route(name="tunnel", match=_connect(), route=default_action(cluster))
    plain = Route(name="outside", match=RouteMatch(prefix="/"), route=default_action(cluster))
    if leaves:
        return table(name, [VirtualHost(name=name, domains=["*"], routes=[tunnel, plain])])
    known = list(dict.fromkeys(service.host.lower() for service in mesh.services if service.external))
    allowed = [VirtualHost(name=name, domains=known, routes=[tunnel, plain])] if known else []
    refused = [
        Route(name=REFUSED, match=match, direct_response=DirectResponseAction(status=502))
        for match in (_connect(), RouteMatch(prefix="/"))
    ]
    return table(name, [*allowed, VirtualHost(name=REFUSED, domains=["*"], routes=refused)])


def egress_routes(name: str, mesh: Mesh) -> RouteConfiguration:
    """
    Known external hosts to their clusters, every other host to wherever DNS says.

    There is a route for everything, because a request without a route is answered without a check (XA-62): it is the
    policies that decide where a workload may go. Of a host with several ports the one that is asked for in Host is
    called; without a port there, ``outside_port``.
    """
    virtual = [
        VirtualHost(name=service.host, domains=[service.host], routes=_to_host(service))
        for service in mesh.services
        if service.external
    ]
    anywhere = _outwards(naming.ANY_OUTSIDE_TUNNEL, naming.ANY_OUTSIDE)
    return table(name, [*virtual, VirtualHost(name="any", domains=["*"], routes=anywhere)])


def _to_host(service: MeshService) -> list[Route]:
    usual, made = outside_port(service), []
    for port in service.ports:
        if port is usual:
            continue
        tunnel, plain = _outwards(naming.tunnel_cluster(service, port), naming.service_cluster(service, port))
        if port.number in _UNWRITTEN and plain.route is not None and not is_wildcard(service.host):
            plain.route.host_rewrite_literal = service.host
        for route in (tunnel, plain) if port.protocol.is_http else (tunnel,):
            assert route.match is not None
            route.name += f"-{port.number}"
            route.match.headers = [_asked_at(port)]
            made.append(route)
    if usual is None:
        return [*made, *_outwards(naming.ANY_OUTSIDE_TUNNEL, naming.ANY_OUTSIDE)]
    return [*made, *_outwards(naming.tunnel_cluster(service, usual), naming.service_cluster(service, usual))]


def _asked_at(port: ServicePort) -> HeaderMatcher:
    return HeaderMatcher(name=":authority", string_match=StringMatcher(suffix=f":{port.number}"))


def host_outside(service: MeshService, port: ServicePort) -> str:
    """
    The host by which an egress gateway knows a port of a service outside; empty: of many, the one that was asked for.

    As in a URL, a port that is not the usual one is in it; policies see that, too.
    """
    if is_wildcard(service.host):
        return ""
    return service.host if port == outside_port(service) else f"{service.host}:{port.number}"


def outside_port(service: MeshService) -> ServicePort | None:
    """
    The port of an external service that the egress gateway calls where a request names none.

    The first with TLS, else the first HTTP one; None where no port takes requests.
    """
    if not service.external:
        return None
    http = [port for port in service.ports if port.protocol.is_http]
    return next((port for port in http if port.protocol == "HTTPS"), http[0] if http else None)


def passed_through(mesh: Mesh) -> list[tuple[MeshService, ServicePort]]:
    """
    External services with the port for the applications' own TLS: the first HTTPS one, else the first of bytes.

    Not those of many names (``*.example.com``) without addresses: there the DNS is asked for the exact name.
    """
    found = []
    for service in mesh.services:
        https = [port for port in service.ports if port.protocol is Protocol.HTTPS]
        port = next(iter([*https, *(port for port in service.ports if not port.protocol.is_http)]), None)
        if service.external and port is not None and service.resolution is not Resolution.BY_NAME:
            found.append((service, port))
    return found


def table(name: str, virtual_hosts: list[VirtualHost]) -> RouteConfiguration:
    """A route table; the port in a requested host says nothing."""
    return RouteConfiguration(
        name=name,
        virtual_hosts=virtual_hosts,
        ignore_port_in_host_matching=True,
        max_direct_response_body_size_bytes=MAX_DIRECT_RESPONSE_BYTES,
    )


def _outwards(tunnel: str, cluster: str) -> list[Route]:
    connect = default_action(tunnel)
    connect.upgrade_configs = [
        RouteActionUpgradeConfig(upgrade_type="CONNECT", connect_config=RouteActionUpgradeConfigConnectConfig())
    ]
    return [
        Route(name="tunnel", match=_connect(), route=connect),
        Route(name="outside", match=RouteMatch(prefix="/"), route=default_action(cluster)),
    ]


def _connect() -> RouteMatch:
    return RouteMatch(connect_matcher=RouteMatchConnectMatcher())

"""Route tables that do not follow VirtualServices: to the application, and outwards."""

from envoy_data_plane.envoy.config.route.v3 import (
    DirectResponseAction,
    Route,
    RouteActionUpgradeConfig,
    RouteActionUpgradeConfigConnectConfig,
    RouteConfiguration,
    RouteMatch,
    RouteMatchConnectMatcher,
    VirtualHost,
)

from authz.envoy import naming
from authz.envoy.http_routes import default_action
from authz.mesh.nouns import Mesh, MeshService, Protocol, Resolution, ServicePort

REFUSED = "block_all"
"""Istio's name of what becomes of hosts that are not described where nothing else may leave."""
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
    policies that decide where a workload may go.
    """
    virtual = []
    for service in mesh.services:
        port = outside_port(service)
        if port is not None:
            routes = _outwards(naming.tunnel_cluster(service, port), naming.service_cluster(service, port))
            virtual.append(VirtualHost(name=service.host, domains=[service.host], routes=routes))
    anywhere = _outwards(naming.ANY_OUTSIDE_TUNNEL, naming.ANY_OUTSIDE)
    return table(name, [*virtual, VirtualHost(name="any", domains=["*"], routes=anywhere)])


def outside_port(service: MeshService) -> ServicePort | None:
    """The port of an external service that the egress gateway uses: the first with TLS, else the first HTTP one."""
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

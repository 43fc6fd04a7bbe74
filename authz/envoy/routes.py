"""Route tables: to the application, to one service, through a gateway inwards, and outwards."""

from collections.abc import Iterable

from envoy_data_plane.envoy.config.route.v3 import (
    RetryPolicy,
    RetryPolicyRetryHostPredicate,
    Route,
    RouteAction,
    RouteActionUpgradeConfig,
    RouteActionUpgradeConfigConnectConfig,
    RouteConfiguration,
    RouteMatch,
    RouteMatchConnectMatcher,
    VirtualHost,
    WeightedCluster,
    WeightedClusterClusterWeight,
)
from envoy_data_plane.envoy.extensions.retry.host.previous_hosts.v3 import PreviousHostsPredicate

from authz.envoy import naming
from authz.envoy.messages import pack, seconds
from authz.mesh.nouns import GatewayServer, Mesh, MeshService, Protocol, RouteHost, RouteRule, ServicePort


def to_cluster(name: str, cluster: str, host: str | None = None) -> RouteConfiguration:
    """Everything to one cluster; ``host`` replaces the requested one, for applications that call a loopback port."""
    route = Route(name=name, match=RouteMatch(prefix="/"), route=_action(cluster, host))
    return _table(name, [VirtualHost(name=name, domains=["*"], routes=[route])])


def forward_proxy(name: str, cluster: str) -> RouteConfiguration:
    """Everything to the egress gateway, hosts unchanged, CONNECT as it is."""
    tunnel = Route(name="tunnel", match=_connect(), route=_action(cluster))
    plain = Route(name="outside", match=RouteMatch(prefix="/"), route=_action(cluster))
    return _table(name, [VirtualHost(name=name, domains=["*"], routes=[tunnel, plain])])


def gateway_routes(name: str, server: GatewayServer) -> RouteConfiguration:
    """The VirtualServices bound to a gateway's server, those of the same hosts joined in order."""
    by_hosts: dict[tuple[str, ...], list[Route]] = {}
    for route_host in server.routes:
        by_hosts.setdefault(_served(route_host, server), []).extend(_rule(rule) for rule in route_host.rules)
    virtual = [
        VirtualHost(name=f"{name}-{i}", domains=list(hosts), routes=routes)
        for i, (hosts, routes) in enumerate(by_hosts.items())
        if hosts
    ]
    return _table(name, virtual)


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
    return _table(name, [*virtual, VirtualHost(name="any", domains=["*"], routes=anywhere)])


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
        if service.external and port is not None and ("*" not in service.host or port.name in service.endpoints):
            found.append((service, port))
    return found


def _table(name: str, virtual_hosts: list[VirtualHost]) -> RouteConfiguration:
    return RouteConfiguration(name=name, virtual_hosts=virtual_hosts, ignore_port_in_host_matching=True)


def _outwards(tunnel: str, cluster: str) -> list[Route]:
    connect = _action(tunnel)
    connect.upgrade_configs = [
        RouteActionUpgradeConfig(upgrade_type="CONNECT", connect_config=RouteActionUpgradeConfigConnectConfig())
    ]
    return [
        Route(name="tunnel", match=_connect(), route=connect),
        Route(name="outside", match=RouteMatch(prefix="/"), route=_action(cluster)),
    ]


def _served(route_host: RouteHost, server: GatewayServer) -> tuple[str, ...]:
    """The hosts of a VirtualService that the server serves; ``*`` on either side admits the other's."""
    if "*" in server.hosts:
        return route_host.hosts
    if "*" in route_host.hosts:
        return server.hosts
    return tuple(host for host in route_host.hosts if host in server.hosts)


def _rule(rule: RouteRule) -> Route:
    match = RouteMatch(path=rule.path) if rule.match == "exact" else RouteMatch(prefix=rule.path)
    weights = [(f"outbound|{port}||{host}", weight) for host, port, weight in rule.destinations]
    if len(weights) == 1:
        return Route(match=match, route=_action(weights[0][0]))
    action = _action(None)
    action.weighted_clusters = WeightedCluster(
        clusters=[WeightedClusterClusterWeight(name=name, weight=weight) for name, weight in weights]
    )
    return Route(match=match, route=action)


def _connect() -> RouteMatch:
    return RouteMatch(connect_matcher=RouteMatchConnectMatcher())


def _action(cluster: str | None, host: str | None = None) -> RouteAction:
    """
    No overall timeout, as in Istio: streams may last; the idle timeout ends what hangs.

    Retries only what never reached a server.
    """
    return RouteAction(
        cluster=cluster,
        host_rewrite_literal=host,
        timeout=seconds(0),
        retry_policy=RetryPolicy(
            retry_on="connect-failure,refused-stream,reset-before-request",
            num_retries=2,
            retry_host_predicate=[
                RetryPolicyRetryHostPredicate(
                    name="envoy.retry_host_predicates.previous_hosts", typed_config=pack(PreviousHostsPredicate())
                )
            ],
            host_selection_retry_max_attempts=5,
        ),
    )


def called_services(mesh: Mesh, servers: Iterable[GatewayServer]) -> list[tuple[MeshService, ServicePort]]:
    """The service ports to which a gateway's routes lead, in order and once each."""
    found: dict[str, tuple[MeshService, ServicePort]] = {}
    by_host = {service.host: service for service in mesh.services}
    for server in servers:
        for route_host in server.routes:
            for rule in route_host.rules:
                for host, number, _ in rule.destinations:
                    port = by_host[host].port(number) if host in by_host else None
                    if port is not None:
                        found[f"{host}:{number}"] = (by_host[host], port)
    return list(found.values())

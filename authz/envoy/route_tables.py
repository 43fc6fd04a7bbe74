"""
The route tables that follow the description: one for each loopback port of a sidecar, and each server of a gateway.

They are files of their own, so that a changed route touches no listener and drains no connection. What does not follow
the description (to the application, the forward proxy, the egress gateway) stands in its listener.
"""

from envoy_data_plane.envoy.config.route.v3 import RouteConfiguration

from authz.envoy import naming, routes
from authz.mesh.nouns import GatewayServer, Mesh, MeshWorkload, OutboundPort, Protocol


def outbound_name(port: OutboundPort) -> str:
    """Name of the listener of a loopback port, and of its routes."""
    return f"outbound_{port.number}"


def server_name(server: GatewayServer) -> str:
    """Name of the listener of a gateway's server, and of its routes."""
    outwards = server.is_egress or server.is_passthrough
    return f"{'egress' if outwards else 'ingress'}_{server.port}"


def outbound_table(mesh: Mesh, workload: MeshWorkload, port: OutboundPort) -> RouteConfiguration:
    """Routes of a loopback port that leads to a service which speaks HTTP."""
    service = mesh.service(port.host)
    if service.external:
        return routes.to_cluster(outbound_name(port), naming.egress_route(mesh), service.host)
    service_port = service.port(port.service_port)
    assert service_port is not None, "linking resolved every outbound port"
    return routes.to_cluster(outbound_name(port), naming.service_cluster(service, service_port), service.host)


def server_table(mesh: Mesh, workload: MeshWorkload, server: GatewayServer) -> RouteConfiguration:
    """Routes of a gateway's server that leads inwards."""
    return routes.gateway_routes(server_name(server), server)


def route_tables(mesh: Mesh, workload: MeshWorkload) -> list[RouteConfiguration]:
    """Every route table of a proxy that is a file of its own, by port."""
    outbound = [
        outbound_table(mesh, workload, port)
        for port in workload.outbound
        if port.protocol.is_http and port.protocol is not Protocol.HTTP_PROXY
    ]
    inwards = [server for server in workload.servers if not server.is_egress and not server.is_passthrough]
    return outbound + [server_table(mesh, workload, server) for server in inwards]

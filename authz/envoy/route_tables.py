"""
The route tables that follow the description: one for each loopback port of a sidecar, and each server of a gateway.

They are files of their own, so that a changed route touches no listener and drains no connection. What does not follow
the description (to the application, the forward proxy, the egress gateway) stands in its listener.
"""

from envoy_data_plane.envoy.config.route.v3 import RouteConfiguration

from authz.envoy import routes
from authz.envoy.virtual_hosts import server_virtual_hosts, service_virtual_host
from authz.mesh.nouns import GatewayServer, Mesh, MeshWorkload, OutboundPort, Protocol


def outbound_name(port: OutboundPort) -> str:
    """Name of the listener of a loopback port, and of its routes."""
    return f"outbound_{port.number}"


def server_name(server: GatewayServer) -> str:
    """Name of the listener of a gateway's server, and of its routes."""
    return f"{'egress' if server.is_outwards else 'ingress'}_{server.port}"


def outbound_table(mesh: Mesh, workload: MeshWorkload, port: OutboundPort) -> RouteConfiguration:
    """Routes of a loopback port that leads to a service which speaks HTTP."""
    service = mesh.service(port.host)
    service_port = service.port(port.service_port)
    assert service_port is not None, "linking resolved every outbound port"
    only = service_virtual_host(mesh, workload, service, service_port, domains=["*"])
    return routes.table(outbound_name(port), [only])


def server_table(mesh: Mesh, workload: MeshWorkload, server: GatewayServer) -> RouteConfiguration:
    """Routes of a gateway's server that leads inwards."""
    return routes.table(server_name(server), server_virtual_hosts(mesh, workload, server))


def route_tables(mesh: Mesh, workload: MeshWorkload) -> list[RouteConfiguration]:
    """Every route table of a proxy that is a file of its own, by port."""
    outbound = [
        outbound_table(mesh, workload, port)
        for port in workload.outbound
        if port.protocol.is_http and port.protocol is not Protocol.HTTP_PROXY
    ]
    inwards = [server for server in workload.servers if not server.is_outwards]
    return outbound + [server_table(mesh, workload, server) for server in inwards]

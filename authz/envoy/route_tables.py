"""
The route tables that follow the description: one for each loopback port of a sidecar, and for a gateway's servers.

They are files of their own, so that a changed route touches no listener and drains no connection. What does not follow
the description (to the application, the forward proxy, the egress gateway) stands in its listener.
"""

from collections.abc import Sequence

from envoy_data_plane.envoy.config.route.v3 import RouteConfiguration

from authz.envoy import routes
from authz.envoy.virtual_hosts import server_virtual_hosts, service_virtual_host, virtual_hosts_by_host
from authz.mesh.gateway_server import GatewayServer, table_groups
from authz.mesh.nouns import Mesh, MeshWorkload, OutboundPort, Protocol


def outbound_name(port: OutboundPort) -> str:
    """Name of the listener of a loopback port, and of its routes."""
    return f"outbound_{port.number}"


def outbound_table(mesh: Mesh, workload: MeshWorkload, port: OutboundPort) -> RouteConfiguration:
    """Routes of a loopback port for requests to one service, or to several by host."""
    if port.targets is not None:
        made = routes.table(outbound_name(port), virtual_hosts_by_host(mesh, workload, port))
        made.ignore_port_in_host_matching = not port.is_unwritten
        return made
    service = mesh.service(port.host)
    service_port = service.port(port.service_port)
    assert service_port is not None, "linking resolved every outbound port"
    only = service_virtual_host(mesh, workload, service, service_port, domains=["*"])
    return routes.table(outbound_name(port), [only])


def server_table(name: str, mesh: Mesh, workload: MeshWorkload, servers: Sequence[GatewayServer]) -> RouteConfiguration:
    """Routes of a gateway's servers that share a table."""
    return routes.table(name, server_virtual_hosts(mesh, workload, servers))


def route_tables(mesh: Mesh, workload: MeshWorkload) -> list[RouteConfiguration]:
    """Every route table of a proxy that is a file of its own, by port."""
    outbound = [
        outbound_table(mesh, workload, port)
        for port in workload.outbound
        if port.protocol.is_http and port.protocol is not Protocol.HTTP_PROXY
    ]
    return outbound + [server_table(name, mesh, workload, group) for name, group in table_groups(workload.servers)]

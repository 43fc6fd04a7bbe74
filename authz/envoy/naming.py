"""Names of clusters, endpoint files and listeners; Istio's where Istio has them."""

from authz.core.resources import ExtensionProvider
from authz.mesh.nouns import InboundPort, Mesh, MeshService, MeshWorkload, ServicePort
from authz.mesh.telemetry_kind import Collector

ANY_OUTSIDE = "outside-any"
ANY_OUTSIDE_TUNNEL = "outside-any-tunnel"
ANY_OUTSIDE_BY_NAME = "outside-any-by-name"
"""Cluster and listener: from the check of a connection to the listener that asks the DNS for its name."""
DNS_CACHE = "outside"


def provider_cluster(provider: ExtensionProvider) -> str:
    """Two providers may share an address and speak different protocols, so the name is the provider's."""
    return f"provider|{provider.name}"


def collector_cluster(collector: Collector) -> str:
    """Name of the cluster by which a proxy tells a provider of MeshConfig its logs or spans."""
    return f"collector|{collector.port}||{collector.service}"


def app_cluster(port: InboundPort) -> str:
    """Istio's name of the cluster of a sidecar's own application."""
    return f"inbound|{port.number}||"


def service_cluster(service: MeshService, port: ServicePort) -> str:
    """Istio's name of the cluster of a service's port."""
    return f"outbound|{port.number}||{service.host}"


def subset_cluster(host: str, port: int, subset: str) -> str:
    """Istio's name of the cluster of a subset of a service's port; without a subset that of the port."""
    return f"outbound|{port}|{subset}|{host}"


def tunnel_cluster(service: MeshService, port: ServicePort) -> str:
    """The way for CONNECT: bytes to the host; TLS is the application's own."""
    return f"tunnel|{port.number}||{service.host}"


def egress_cluster(gateway: MeshWorkload) -> str:
    """Name of the cluster by which sidecars reach an egress gateway."""
    return f"outbound|{egress_port(gateway)}||{gateway.name}.{gateway.namespace}"


def egress_route(mesh: Mesh) -> str:
    """Name of the cluster by which this mesh's sidecars reach what is outside."""
    gateway = mesh.egress_gateway
    assert gateway is not None, "linking notes a missing egress gateway"
    return egress_cluster(gateway)


def egress_port(gateway: MeshWorkload) -> int:
    """The port at which an egress gateway takes what sidecars send."""
    return next(server.port for server in gateway.servers if server.is_egress)


def app_endpoints(workload: MeshWorkload, port: InboundPort) -> str:
    """Name of the file of endpoints of an application's port."""
    return f"app_{workload.name}_{port.number}"


def service_endpoints(service: MeshService, port: ServicePort) -> str:
    """Name of the file of endpoints of a service's port."""
    return f"{service.host}_{port.number}"


def gateway_endpoints(gateway: MeshWorkload) -> str:
    """Name of the file of endpoints of an egress gateway."""
    return f"{gateway.name}.{gateway.namespace}_{egress_port(gateway)}"

"""The reader of ServiceEntry: a name that workloads call, in the mesh or outside."""

from authz.documents.accessors import Part
from authz.mesh.kind_parts import COMPOSE_ADDRESS, read_ip, read_metadata, read_protocol, read_spec
from authz.mesh.locality_values import WorkloadLocality
from authz.mesh.mesh_documents import Written
from authz.mesh.nouns import Address, MeshService, OutsideEndpoint, Place, ServicePort


def read_service_entry(part: Part, written: Written) -> None:
    """A name that workloads call, in the mesh or outside."""
    name, namespace, annotations = read_metadata(part, COMPOSE_ADDRESS)
    spec = read_spec(part)
    spec.only("hosts", "ports", "location", "resolution", "endpoints", "workloadSelector", "exportTo", "addresses")
    ports = []
    for port in spec.parts("ports"):
        port.only("number", "name", "protocol", "targetPort")
        number, port_name = port.port("number", required=True), port.text("name", required=True)
        ports.append(ServicePort(number, port_name, read_protocol(port)))
    selector = spec.part("workloadSelector")
    external = spec.text("location", "MESH_EXTERNAL") == "MESH_EXTERNAL"
    if not external and selector is None:
        spec.note("ME-3", "`workloadSelector` is missing", help_text="a MESH_INTERNAL service is its workloads")
    compose = annotations.text(COMPOSE_ADDRESS) if annotations else ""
    endpoints = _endpoints(spec, compose) if external else {}
    for host in spec.texts("hosts", required=True):
        service = MeshService(
            name=name,
            namespace=namespace,
            host=host,
            ports=tuple(ports),
            selector=selector.strings("labels") if selector else {},
            external=external,
            endpoints=endpoints,
            location=part.location,
        )
        written.services.append((service, part))


def _endpoints(spec: Part, compose: str) -> dict[str, tuple[OutsideEndpoint, ...]]:
    found: dict[str, tuple[OutsideEndpoint, ...]] = {}
    for endpoint in spec.parts("endpoints"):
        endpoint.only("address", "ports", "labels", "weight", "locality", "network", "serviceAccount")
        labels, locality = endpoint.strings("labels"), WorkloadLocality.from_text(endpoint.text("locality"))
        weight = endpoint.number("weight", 0)
        host, ports = read_ip(endpoint, "address"), endpoint.part("ports", required=True)
        for name in ports.node.entries if ports else ():
            number = ports.port(name) if ports else 0
            place = Place(Address(host, number), Address(compose or host, number))
            found[name] = (*found.get(name, ()), OutsideEndpoint(place, labels, locality, weight))
    return found

"""Which file of endpoints a proxy follows for a destination, and what is in it: shared, unless places matter to it."""

from collections.abc import Callable, Iterator

from envoy_data_plane.envoy.config.core.v3 import Metadata
from envoy_data_plane.envoy.config.endpoint.v3 import ClusterLoadAssignment, LbEndpoint
from envoy_data_plane.google.protobuf import Struct

from authz.envoy.destinations import Callee
from authz.envoy.localities import PlacedEndpoint, effective, placed_assignment, shared_assignment
from authz.envoy.messages import at
from authz.envoy.workload_health import is_probed, not_asked
from authz.mesh.nouns import TLS_MODE, Address, Mesh, MeshWorkload, Place, ServicePort

PLAINTEXT_MARK = {"tlsMode": "disabled"}
"""Endpoint metadata ``envoy.transport_socket_match`` of workloads without mTLS."""
PickAddress = Callable[[Place], Address]
"""Which of the two addresses of a place."""
IsPlaintext = Callable[[MeshWorkload, int], bool]
"""Whether a workload's port has no mTLS."""


def placed_endpoints(
    mesh: Mesh, destination: Callee, pick: PickAddress, is_plaintext: IsPlaintext
) -> Iterator[PlacedEndpoint]:
    """Everything behind a destination: addresses outside, or workloads with the port."""
    wanted, port = destination.labels.items(), destination.port
    for one in destination.service.endpoints.get(port.name, ()):
        if wanted <= one.labels.items():
            labels = {**one.labels, **one.locality.labels()}
            found = at(pick(one.place))
            if not destination.service.external and one.labels.get(TLS_MODE) == "disabled":
                _mark_plaintext(found)
            yield PlacedEndpoint(found, one.locality, labels, one.weight)
    is_asked = is_probed(mesh, destination.service)
    for workload in mesh.workloads_of(destination.service):
        number = receiving_port(workload, port)
        if number is None or not wanted <= workload.labels.items():
            continue
        found = at(pick(proxy_place(workload, number)))
        if is_plaintext(workload, number):
            _mark_plaintext(found)
        if is_asked and (workload.probe is None or is_plaintext(workload, number)):
            not_asked(found)
        yield PlacedEndpoint(found, workload.locality, labels_of(workload), workload.weight)


def _mark_plaintext(endpoint: LbEndpoint) -> None:
    mark = Struct.from_dict(dict(PLAINTEXT_MARK))
    endpoint.metadata = Metadata(filter_metadata={"envoy.transport_socket_match": mark})


def receiving_port(workload: MeshWorkload, port: ServicePort) -> int | None:
    """
    Where a workload's proxy receives what is for a port: as it says, else the service's ``targetPort``.

    A gateway receives at the ports of its servers, so that a service of it need not say it again.
    """
    if port.name in workload.ports:
        return workload.ports[port.name]
    if workload.is_gateway:
        number = port.target or port.number
        return number if number in {server.port for server in workload.servers} else None
    return port.target if port.target in {one.number for one in workload.inbound} else None


def proxy_place(workload: MeshWorkload, port: int) -> Place:
    """Where a workload's proxy receives, in both worlds."""
    return Place(Address(workload.address, port), Address(workload.compose_address, port))


def labels_of(workload: MeshWorkload) -> dict[str, str]:
    """A workload's labels with those of its place."""
    return {**workload.labels, **workload.locality.labels(workload.network)}


def own_assignment(
    workload: MeshWorkload, destination: Callee, endpoints: list[PlacedEndpoint]
) -> ClusterLoadAssignment | None:
    """The endpoints as this workload's proxy takes them; None when it takes them as everybody does."""
    balancing = effective(destination.policy)
    if balancing is None:
        return None
    name = destination.endpoints_for(workload)
    return placed_assignment(name, endpoints, balancing, workload.locality, labels_of(workload))


def looked_up_assignment(mesh: Mesh, workload: MeshWorkload, destination: Callee) -> ClusterLoadAssignment:
    """Written endpoints with names, as this workload's proxy takes them."""
    found = list(placed_endpoints(mesh, destination, _process, _never))
    return own_assignment(workload, destination, found) or shared_assignment(destination.cluster, found)


def endpoints_file(mesh: Mesh, workload: MeshWorkload, destination: Callee) -> str:
    """The name of the file that a proxy follows for a destination."""
    if effective(destination.policy) is None:
        return destination.endpoints
    found = list(placed_endpoints(mesh, destination, _process, _never))
    own = own_assignment(workload, destination, found)
    return destination.endpoints if own is None else destination.endpoints_for(workload)


def _process(place: Place) -> Address:
    return place.process


def _never(_workload: MeshWorkload, _port: int) -> bool:
    return False

"""Which file of endpoints a proxy follows for a destination, and what is in it: shared, unless places matter to it."""

from collections.abc import Callable, Iterator

from envoy_data_plane.envoy.config.core.v3 import Metadata
from envoy_data_plane.envoy.config.endpoint.v3 import ClusterLoadAssignment
from envoy_data_plane.google.protobuf import Struct

from authz.envoy.destinations import Callee
from authz.envoy.localities import PlacedEndpoint, effective, placed_assignment
from authz.envoy.messages import at
from authz.mesh.nouns import Address, Mesh, MeshWorkload, Place

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
            yield PlacedEndpoint(at(pick(one.place)), one.locality, labels, one.weight)
    for workload in mesh.workloads_of(destination.service):
        number = workload.ports.get(port.name)
        if number is None or not wanted <= workload.labels.items():
            continue
        found = at(pick(proxy_place(workload, number)))
        if is_plaintext(workload, number):
            mark = Struct.from_dict(dict(PLAINTEXT_MARK))
            found.metadata = Metadata(filter_metadata={"envoy.transport_socket_match": mark})
        yield PlacedEndpoint(found, workload.locality, labels_of(workload), workload.weight)


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

"""
Endpoint files: the only ones with addresses, and the only ones that differ between processes and containers.

They also carry who is spoken to in plaintext, because that follows PeerAuthentication without a restart.
"""

from collections.abc import Callable, Iterator

from envoy_data_plane.envoy.config.core.v3 import Metadata
from envoy_data_plane.envoy.config.endpoint.v3 import ClusterLoadAssignment, LbEndpoint
from envoy_data_plane.google.protobuf import Struct

from authz.core.resources import MtlsMode
from authz.envoy import naming
from authz.envoy.browser_login import login_endpoints_name, login_place
from authz.envoy.clusters import PLAINTEXT_MARK
from authz.envoy.listeners import MtlsModeOf
from authz.envoy.messages import assignment, at, endpoint, pipe
from authz.envoy.options import AUTHZ_CLUSTER, LIMITS_CLUSTER, OTLP_CLUSTER, SDS_CLUSTER, Authz, RenderOptions, Secrets
from authz.envoy.rate_limit_filters import asks_service
from authz.mesh.nouns import Address, Mesh, MeshService, MeshWorkload, Place, ServicePort

PickAddress = Callable[[Place], Address]
"""Which of the two addresses of a place."""


def endpoint_files(
    mesh: Mesh, mode_of: MtlsModeOf, options: RenderOptions, *, compose: bool
) -> dict[str, ClusterLoadAssignment]:
    """File name below ``eds/`` (or ``eds-compose/``) to its content."""

    def world(place: Place) -> Address:
        return place.compose if compose else place.process

    # Among containers each proxy's run/ is its own; these folders in it are shared with whoever made the sockets.
    sockets = "run/authz" if compose else "run"
    found: dict[str, list[LbEndpoint]] = {}
    if options.authz is Authz.SERVER:
        found[AUTHZ_CLUSTER] = [endpoint(pipe(f"{sockets}/authz-{i}.sock")) for i in range(options.workers)]
    if options.secrets is Secrets.SDS:
        found[SDS_CLUSTER] = [endpoint(pipe("run/ca/sds.sock" if compose else "run/sds.sock"))]
    if any(asks_service(workload, options) for workload in mesh.workloads):
        found[LIMITS_CLUSTER] = [endpoint(pipe(f"{sockets}/limits.sock"))]
    if options.otlp:
        found[OTLP_CLUSTER] = [_collector(options.otlp_compose if compose and options.otlp_compose else options.otlp)]
    for login in mesh.logins:
        if (place := login_place(login, options.logins[login.issuer])) is not None:
            found[login_endpoints_name(login)] = [at(world(place))]
    for workload in mesh.workloads:
        for port in workload.inbound:
            found[naming.app_endpoints(workload, port)] = [at(world(port.app))]
    for service in mesh.services:
        for service_port in service.ports:
            if not service.external or service_port.name in service.endpoints:
                name = naming.service_endpoints(service, service_port)
                found[name] = list(_behind(mesh, service, service_port, mode_of, world))
    gateway = mesh.egress_gateway
    if gateway is not None:
        place = _place(gateway, naming.egress_port(gateway))
        found[naming.gateway_endpoints(gateway)] = [at(world(place))]
    return {f"{name}.yaml": assignment(name, endpoints) for name, endpoints in sorted(found.items())}


def _behind(
    mesh: Mesh, service: MeshService, port: ServicePort, mode_of: MtlsModeOf, world: PickAddress
) -> Iterator[LbEndpoint]:
    for place in service.endpoints.get(port.name, ()):
        yield at(world(place))
    for workload in mesh.workloads_of(service):
        number = workload.ports.get(port.name)
        if number is None:
            continue
        found = at(world(_place(workload, number)))
        if mode_of(workload, number) is MtlsMode.DISABLE:
            mark = Struct.from_dict(dict(PLAINTEXT_MARK))
            found.metadata = Metadata(filter_metadata={"envoy.transport_socket_match": mark})
        yield found


def _place(workload: MeshWorkload, port: int) -> Place:
    return Place(Address(workload.address, port), Address(workload.compose_address, port))


def _collector(written: str) -> LbEndpoint:
    host, _, port = written.rpartition(":")
    return at(Address(host, int(port))) if host and port.isdigit() else endpoint(pipe(written))

"""
Endpoint files: the only ones with addresses, and the only ones that differ between processes and containers.

They also carry who is spoken to in plaintext, because that follows PeerAuthentication without a restart.
"""

from collections.abc import Iterator

from envoy_data_plane.envoy.config.endpoint.v3 import ClusterLoadAssignment, LbEndpoint

from authz.core.resources import MtlsMode
from authz.envoy import naming
from authz.envoy.browser_login import login_endpoints_name, login_place
from authz.envoy.clusters import called_destinations
from authz.envoy.destinations import Callee
from authz.envoy.listeners import MtlsModeOf
from authz.envoy.localities import PlacedEndpoint, effective, shared_assignment
from authz.envoy.messages import assignment, at, endpoint, pipe
from authz.envoy.options import AUTHZ_CLUSTER, LIMITS_CLUSTER, OTLP_CLUSTER, SDS_CLUSTER, Authz, RenderOptions, Secrets
from authz.envoy.placed_endpoints import PickAddress, own_assignment, placed_endpoints, proxy_place
from authz.envoy.rate_limit_filters import asks_service
from authz.envoy.workload_health import at_probed_port
from authz.mesh.nouns import Address, Mesh, MeshWorkload, Place


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
            found[naming.app_endpoints(workload, port)] = [
                at_probed_port(at(world(port.app)), workload.probe, world(port.app).port)
            ]
    gateway = mesh.egress_gateway
    if gateway is not None:
        place = proxy_place(gateway, naming.egress_port(gateway))
        found[naming.gateway_endpoints(gateway)] = [at(world(place))]
    made = {name: assignment(name, endpoints) for name, endpoints in found.items()}
    made |= _of_services(mesh, mode_of, world)
    return {f"{name}.yaml": content for name, content in sorted(made.items())}


def _of_services(mesh: Mesh, mode_of: MtlsModeOf, world: PickAddress) -> Iterator[tuple[str, ClusterLoadAssignment]]:
    """Endpoints of every port of every service, of the subsets that proxies call, and as single proxies take them."""

    def is_plaintext(workload: MeshWorkload, port: int) -> bool:
        if workload.is_gateway:
            return not workload.speaks_mtls_at(port)
        return mode_of(workload, port) is MtlsMode.DISABLE

    def behind(destination: Callee) -> list[PlacedEndpoint]:
        return list(placed_endpoints(mesh, destination, world, is_plaintext))

    for service in mesh.services:
        for port in service.ports:
            if not service.is_looked_up:
                whole = Callee(service, port)
                yield whole.endpoints, shared_assignment(whole.endpoints, behind(whole))
    made: set[str] = set()
    for workload in mesh.workloads:
        for destination in called_destinations(mesh, workload):
            if destination.subset is not None and destination.endpoints not in made:
                made.add(destination.endpoints)
                yield destination.endpoints, shared_assignment(destination.endpoints, behind(destination))
            if effective(destination.policy) is not None:
                own = own_assignment(workload, destination, behind(destination))
                if own is not None:
                    yield own.cluster_name, own


def _collector(written: str) -> LbEndpoint:
    host, _, port = written.rpartition(":")
    return at(Address(host, int(port))) if host and port.isdigit() else endpoint(pipe(written))

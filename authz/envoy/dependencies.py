"""
What the files of one proxy are made of: where all of it is as before, so are the files.

Too much here costs a rendering; too little leaves an old file in force, so a test changes descriptions at random and
compares with rendering everything.
"""

from collections.abc import Iterator

from authz.core.resources import MtlsMode
from authz.envoy.destinations import destinations
from authz.envoy.listeners import MtlsModeOf
from authz.envoy.options import RenderOptions
from authz.envoy.outside_clusters import finds_names
from authz.envoy.proxy_parts import Native
from authz.envoy.render import listener_rules
from authz.mesh.nouns import Mesh, MeshWorkload, Protocol
from authz.mesh.routing import (
    called_by,
    gateway_connections,
    gateway_routes,
    sidecar_routes,
    tcp_route,
    tls_routes,
)

Dependencies = tuple[object, ...]
"""Compared by value; what was read from unchanged documents is the same object, and equal at once."""


def sidecar_surroundings(mesh: Mesh) -> Dependencies:
    """All of a mesh that can be in the files of sidecars: everything but the routes that are for gateways alone."""
    extensions = mesh.envoy_filters, mesh.wasm_plugins
    return mesh.workloads, mesh.services, extensions, mesh.destination_rules, mesh.virtual_services.for_sidecars


def policy_dependencies(
    workload: MeshWorkload, mode_of: MtlsModeOf, options: RenderOptions, native: Native | None
) -> tuple[tuple[MtlsMode, ...], str]:
    """Everything of the policies that is in a proxy's files, filters excepted: modes of its ports, and its rules."""
    modes = tuple(mode_of(workload, port.number) for port in workload.inbound)
    is_native = native is not None and options.is_native(workload)
    return modes, listener_rules(workload, native) if native is not None and is_native else ""


def proxy_dependencies(mesh: Mesh, workload: MeshWorkload, options: RenderOptions) -> tuple[Dependencies, Dependencies]:
    """
    Everything of the mesh that is in a proxy's files.

    Returns:
        What is in its clusters, and what is in its bootstrap, listeners, routes and secrets besides.
    """
    own = tuple(_own(mesh, workload, options))
    called = tuple(_called(mesh, workload))
    return (own, called), tuple(_routes(mesh, workload))


def _own(mesh: Mesh, workload: MeshWorkload, options: RenderOptions) -> Iterator[object]:
    yield workload
    yield mesh.envoy_filters, mesh.wasm_plugins, mesh.egress_gateway
    for collector in workload.telemetry.collectors:
        service = mesh.find_service(collector.service)
        yield service, mesh.workloads_of(service) if service is not None else ()
    if any(port.protocol is Protocol.HTTP_PROXY and not port.leaves for port in workload.outbound):
        yield tuple(service.host for service in mesh.services if service.external)
    if mesh.envoy_filters or mesh.wasm_plugins:  # what guards a proxy is known by all ports and hosts of the mesh
        yield mesh.workloads, mesh.services
    if workload.is_gateway:
        yield mesh.leaves_alone(workload), finds_names(mesh, workload)
    if options.source_addresses:
        yield mesh.workloads.index(workload)


def _routes(mesh: Mesh, workload: MeshWorkload) -> Iterator[object]:
    for host, number in dict.fromkeys(pair for outbound in workload.outbound for pair in outbound.services):
        service = mesh.find_service(host)
        if service is not None:
            yield service, sidecar_routes(mesh, workload, service, number)
            yield tcp_route(mesh, workload, service, number), tls_routes(mesh, workload, service, number)
    for server in workload.servers:
        requests = gateway_routes(mesh, workload, server) if server.takes_requests else {}
        yield requests, gateway_connections(mesh, workload, server)


def _called(mesh: Mesh, workload: MeshWorkload) -> Iterator[object]:
    yield mesh.leaves_alone(workload)
    found = {(service.host, port.number): (service, port) for service, port, _ in called_by(mesh, workload)}
    for service, port in found.values():
        yield tuple(destinations(mesh, workload, service, port)), mesh.workloads_of(service)
    if workload.is_egress_gateway or workload.is_passthrough:
        for service in mesh.services:
            if service.external:
                yield service, mesh.rule_for(workload, service)

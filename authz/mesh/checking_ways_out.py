"""
Whether what proxies send out of the mesh has a way there: hosts outside at the end of routes.

Requests of sidecars go through the egress gateway, which leads by host; their bytes do not leave. A gateway to which
routes lead on purpose, as in Istio's tasks, sends both out by itself.
"""

from dataclasses import replace

from authz.documents.accessors import Part
from authz.mesh.link_sidecars import BYTES_HELP, EGRESS_HELP, SidecarIndex
from authz.mesh.mesh_documents import Written
from authz.mesh.nouns import Mesh, MeshService, MeshWorkload, Resolution
from authz.mesh.routing import called_by_bytes, called_by_requests, requests_of_sidecar
from authz.mesh.virtual_service import MESH, RouteDestination
from authz.mesh.virtual_services import is_subset

_NO_GATEWAY = "external hosts are reached through an egress gateway, and there is none"


def check_ways_out(mesh: Mesh, written: Written, places: dict[int, Part]) -> None:
    """Note each destination outside that a proxy would take and cannot reach, at its place."""
    noted: set[tuple[int, str]] = set()
    for workload in mesh.workloads if any(service.external for service in mesh.services) else ():
        for is_bytes, called in ((False, called_by_requests), (True, called_by_bytes)):
            for service, _, destination in called(mesh, workload):
                found = _problem(mesh, workload, service, destination, is_bytes=is_bytes) if service.external else None
                if found is None:
                    continue
                at, field = _place(written, service, destination, places)
                if at is not None and (id(at.node), found[1]) not in noted:
                    noted.add((id(at.node), found[1]))
                    at.note(found[0], found[1], "subset" if "as a whole" in found[1] else field, found[2])


def with_ways_out(mesh: Mesh, index: SidecarIndex, parts: dict[int, Part]) -> Mesh:
    """
    The mesh in which ports that are not written lead outside only where there is a way, and a warning of the others.

    Who imports every service of a namespace has not asked for each of them. ``parts`` are those of the workloads.
    """
    made: list[MeshWorkload] = []
    for workload in mesh.workloads:
        port = next((one for one in workload.outbound if one.is_unwritten), None)
        lost = (
            [] if port is None or mesh.egress_gateway else [t for t in port.services if _leads_out(mesh, workload, t)]
        )
        if port is None or not lost:
            made.append(workload)
            continue
        kept = replace(port, targets=tuple(target for target in port.services if target not in lost))
        outbound = tuple(kept if one is port else one for one in workload.outbound)
        made.append(replace(workload, outbound=outbound))
        parts[id(made[-1])] = parts[id(workload)]
        listeners = (one for sidecar in index.selecting(workload) for one in sidecar.outbound if one.port.is_unwritten)
        for listener in listeners:
            names = ", ".join(f"`{host}:{number}`" for host, number in lost)
            message = (
                f"{names}: reached through an egress gateway, there is none, and {workload.name} does not get there"
            )
            listener.part.warn("ME-4", message, "hosts", EGRESS_HELP)
    changed = any(one is not other for one, other in zip(made, mesh.workloads, strict=True))
    return replace(mesh, workloads=tuple(made)) if changed else mesh


def _leads_out(mesh: Mesh, workload: MeshWorkload, target: tuple[str, int]) -> bool:
    service = mesh.service(target[0])
    port = service.port(target[1])
    ways = requests_of_sidecar(mesh, workload, service, port) if port else ()
    return any((found := mesh.find_service(one.host)) is not None and found.external for one in ways)


def _problem(
    mesh: Mesh, workload: MeshWorkload, service: MeshService, destination: RouteDestination, *, is_bytes: bool
) -> tuple[str, str, str] | None:
    """The code, what is wrong, and what to do."""
    if is_bytes and not workload.is_gateway:
        return "ME-6", "bytes do not leave the mesh through a sidecar", BYTES_HELP
    if is_bytes and service.resolution is Resolution.BY_NAME:
        help_text = "give the Gateway a server with `PASSTHROUGH` and `*`, where policies decide about names"
        return "ME-6", f"bytes do not say which of the names of `{service.host}` they are for", help_text
    if is_bytes and destination.subset:
        return "ME-6", "the bytes of a host outside are led to it as a whole", "leave `subset` out"
    if is_bytes or mesh.leaves_alone(workload):
        return None
    if mesh.egress_gateway is None:
        return "ME-4", _NO_GATEWAY, "lead to a gateway of your own, or add one with `tls: {mode: ISTIO_MUTUAL}`"
    if destination.subset:
        return "ME-6", "hosts outside are reached through the egress gateway, as a whole", "leave `subset` out"
    return None


def _place(
    written: Written, service: MeshService, destination: RouteDestination, places: dict[int, Part]
) -> tuple[Part | None, str]:
    """Where the destination is written; of one that no route takes elsewhere, the VirtualService that could."""
    if id(destination) in places:
        return places[id(destination)], "host"
    for virtual in written.virtual_services:
        if MESH in virtual.service.gateways and any(is_subset(service.host, host) for host in virtual.service.hosts):
            return virtual.part.part("spec") or virtual.part, "hosts"
    return None, ""

"""
The way of a request from a workload to a service, by the mesh description: what ``authz explain`` follows.

With ``--from WORKLOAD --to HOST`` the routes decide which workloads are reached, and what they are asked.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from authz.analysis.offline.request import OfflineRequest
from authz.cli import policy_files
from authz.cli.question import described_request
from authz.core.attributes import Json
from authz.core.errors import NOWHERE

if TYPE_CHECKING:
    from authz.mesh.nouns import Mesh, MeshService, MeshWorkload
    from authz.mesh.route_following import FollowedRoute, OutgoingRequest, RouteEnd


def route_taken(options: Mapping[str, Any]) -> "tuple[FollowedRoute, OfflineRequest] | None":
    """
    The route of the request that the options describe, and the request; None where ``--to`` names no service.

    Raises:
        LoadError: the description is refused.
        OSError: it cannot be read.
    """
    if not (options["to"] and options["from"] and options["mesh"]):
        return None
    mesh = policy_files.read_workloads(options["mesh"], options["traffic"])
    caller = next((one for one in mesh.workloads if one.name == options["from"]), None)
    if caller is None or any(one.name == options["to"] for one in mesh.workloads):
        return None
    from authz.mesh.read_http_route import full_host
    from authz.mesh.route_following import OutgoingRequest, follow, follow_gateway

    name, _, number = options["to"].partition(":")
    service = mesh.find_service(full_host(name, caller.namespace))
    if service is None and not caller.is_gateway:
        return None
    if options["file"] == policy_files.STDIN:
        raise click.UsageError("to follow a route, give the request file by its name")
    request = described_request(options)
    sent = OutgoingRequest(request.method, name, request.path or "/", request.scheme, request.headers)
    if caller.is_gateway:
        ways = [follow_gateway(mesh, caller, one, sent) for one in caller.servers if one.takes_requests]
        if not ways:
            raise click.UsageError(f"`{caller.name}` has no server that leads inwards")
        # Each server has its own hosts: the first that has this one takes the request.
        return next((way for way in ways if way.virtual_service is not None), ways[0]), request
    assert service is not None, "without one there is no route"
    return follow(mesh, caller, service, _port(mesh, caller, service, number), sent), request


def _port(mesh: "Mesh", caller: "MeshWorkload", service: "MeshService", number: str) -> int:
    """The port that is written, or else that to which the caller's loopback port leads, or else the first."""
    if number:
        if not number.isdigit() or service.port(int(number)) is None:
            known = ", ".join(str(port.number) for port in service.ports)
            raise click.BadParameter(f"`{service.host}` has no port {number}; its ports: {known}", param_hint="--to")
        return int(number)
    called = (called for port in caller.outbound for host, called in port.services if host == service.host)
    return next(called, service.ports[0].number)


def asked_at(request: OfflineRequest, sent: "OutgoingRequest") -> OfflineRequest:
    """The request that arrives, as it would be described."""
    return replace(request, method=sent.method, host=sent.host, path=sent.path, headers=sent.headers)


def way_lines(way: "FollowedRoute", caller: str) -> Iterator[tuple[str, str]]:
    """Name and text of each fact about a route."""
    called = f"{way.service.host}:{way.port}" if way.service else f"port {way.port} of the gateway"
    yield "route", f"from {caller} to {called}" if way.service else f"at {called} {caller}"
    yield "by", _rule(way)
    if way.route is not None and way.route.redirect is not None:
        yield "answer", f"{way.route.redirect.code}, a redirect: nobody is asked"
    elif way.route is not None and way.route.direct_response is not None:
        yield "answer", f"{way.route.direct_response.status}, at once: nobody is asked"
    elif not way.ends:
        yield "answer", "404: no rule takes it"
    for end in way.ends:
        path = end.request.path.partition("?")[0]
        yield f"{end.share:.0%}", f"{_destination(end)}, as {end.request.method} {end.request.host}{path}"
    for note in way.notes:
        yield "note", note


def _rule(way: "FollowedRoute") -> str:
    if way.virtual_service is None:
        return "no VirtualService"
    name = f"VirtualService {way.virtual_service.namespace}/{way.virtual_service.name}"
    place = way.route.location if way.route else way.virtual_service.location
    rule = f", route `{way.route.name}`" if way.route and way.route.name else ""
    return f"{name}{rule}{f' at {place}' if place is not NOWHERE else ''}"


def _destination(end: "RouteEnd") -> str:
    from authz.mesh.route_following import named

    names = ", ".join(reached.workload.name for reached in end.reached)
    return f"{named(end.destination)} ({names or 'no workload of the mesh'})"


def way_json(way: "FollowedRoute") -> dict[str, Json]:
    """The route with the documented fields (docs/traffic.md); never a header value or a query."""
    place = way.route.location if way.route else NOWHERE
    service = way.virtual_service
    return {
        "service": way.service.host if way.service else None,
        "port": way.port,
        "virtual_service": f"{service.namespace}/{service.name}" if service else None,
        "route": way.route.name if way.route else None,
        "file": place.file if place is not NOWHERE else None,
        "line": place.line if place is not NOWHERE else None,
        "destinations": [
            {
                "host": end.destination.host,
                "subset": end.destination.subset,
                "share": end.share,
                "workloads": [reached.workload.name for reached in end.reached],
                "request": {
                    "method": end.request.method,
                    "host": end.request.host,
                    "path": end.request.path.partition("?")[0],
                },
            }
            for end in way.ends
        ],
        "notes": list(way.notes),
    }

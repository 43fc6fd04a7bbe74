"""The reader of VirtualService: where requests lead."""

from authz.documents.accessors import Part
from authz.mesh.kind_parts import read_metadata, read_spec
from authz.mesh.mesh_documents import VirtualService, Written
from authz.mesh.nouns import RouteHost, RouteRule


def read_virtual_service(part: Part, written: Written) -> None:
    """Where an ingress gateway leads."""
    _, namespace, _ = read_metadata(part)
    spec = read_spec(part)
    spec.only("hosts", "gateways", "http", "exportTo")
    gateways = tuple(name if "/" in name else f"{namespace}/{name}" for name in spec.texts("gateways", required=True))
    rules: list[RouteRule] = []
    for http in spec.parts("http"):
        http.only("match", "route", "name")
        destinations = tuple(_destination(route) for route in http.parts("route"))
        if not destinations:
            http.note("ME-3", "`route` is missing", "route")
        matches = [_path_match(match) for match in http.parts("match")] or [("prefix", "/")]
        rules.extend(RouteRule(kind, path, destinations) for kind, path in matches)
    hosts = spec.texts("hosts", required=True)
    written.virtual_services.append(VirtualService(gateways, RouteHost(hosts, tuple(rules)), part))


def _destination(route: Part) -> tuple[str, int, int]:
    route.only("destination", "weight")
    destination = route.part("destination", required=True)
    if destination is None:
        return ("", 0, 1)
    destination.only("host", "port")
    port = destination.part("port")
    number = port.port("number", required=True) if port else 0
    return (destination.text("host", required=True), number, route.number("weight", 1))


def _path_match(match: Part) -> tuple[str, str]:
    match.only("uri", "name")
    uri = match.part("uri", required=True)
    if uri is None:
        return ("prefix", "/")
    uri.only("exact", "prefix")
    return ("exact", uri.text("exact")) if uri.has("exact") else ("prefix", uri.text("prefix", "/"))

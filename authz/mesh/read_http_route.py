"""The reader of ``http[]`` of a VirtualService: what becomes of a request."""

import re

from authz.documents.accessors import Part
from authz.mesh.quantities import read_duration, read_percent, read_whole
from authz.mesh.re2_syntax import substitution_fault
from authz.mesh.read_http_match import authorities, check_regex, read_header_changes, read_http_match
from authz.mesh.read_http_policies import read_cors, read_fault, read_retries
from authz.mesh.read_route_answers import read_direct_response, read_redirect
from authz.mesh.value_parts import is_host, is_label, only_fields, warn_of_deprecated
from authz.mesh.virtual_service import (
    HttpMirror,
    HttpRewrite,
    HttpRoute,
    MatchKind,
    RouteDestination,
    WeightedDestination,
)
from authz.mesh.virtual_service_fields import FIELDS

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
MOST_WEIGHT = 2**32 - 1


def full_host(written: str, namespace: str) -> str:
    """A short name is a service of the VirtualService's own namespace, as Istio resolves it."""
    name = written.lower()
    return f"{name}.{namespace}.svc.cluster.local" if name and not set(name) & set(".*:") else name


class RouteReader:
    """Reads the routes of one VirtualService and remembers where its destinations stand, for those who look them up."""

    def __init__(self, namespace: str, *, is_delegate: bool = False) -> None:
        self.namespace = namespace
        self.is_delegate = is_delegate
        self.destinations: list[tuple[RouteDestination, Part]] = []
        self.delegates: list[tuple[tuple[str, str], Part]] = []
        self.http: list[Part] = []

    def read_http(self, http: Part) -> HttpRoute:
        """One ``http[]``."""
        only_fields(http, FIELDS["HTTPRoute"])
        self.http.append(http)
        mirror = http.part("mirror")
        route = HttpRoute(
            name=http.text("name"),
            matches=tuple(read_http_match(match, self.namespace) for match in http.parts("match")),
            destinations=self.read_weighted(http, FIELDS["HTTPRouteDestination"]),
            redirect=read_redirect(http),
            direct_response=read_direct_response(http),
            delegate=self._delegate(http),
            rewrite=_rewrite(http),
            timeout=read_duration(http, "timeout"),
            retries=read_retries(http),
            fault=read_fault(http),
            mirror=self.read_destination(mirror) if mirror else None,
            mirror_percent=_mirror_percent(http),
            mirrors=self._mirrors(http),
            cors=read_cors(http),
            headers=read_header_changes(http),
            location=http.location,
        )
        self._check(http, route)
        return route

    def read_weighted(self, part: Part, fields: dict[str, str]) -> tuple[WeightedDestination, ...]:
        """``route`` of any sort of route."""
        found = []
        for one in part.parts("route"):
            only_fields(one, fields)
            destination = one.part("destination", required=True)
            headers = read_header_changes(one) if "headers" in fields else None
            if destination is not None:
                read = self.read_destination(destination)
                found.append(WeightedDestination(read, read_whole(one, "weight") or 0, headers))
        total = sum(one.weight for one in found)
        for i, one in enumerate(part.parts("route") if total else ()):
            if len(found) > 1 and not one.has("weight"):
                message = "a destination without `weight` gets nothing beside others"
                part.warn("ME-3", message, f"route[{i}]", "write its share, or `weight: 0`")
        if len(found) > 1 and not total:
            help_text = "give each its share: `weight: 90`, `weight: 10`"
            part.note("ME-1", "the weights of several destinations are all 0", "route", help_text)
        if total > MOST_WEIGHT:
            part.note("ME-1", f"the weights add up to more than {MOST_WEIGHT}", "route")
        return tuple(found)

    def read_destination(self, part: Part) -> RouteDestination:
        """A Destination; whether it exists is seen when all documents are read."""
        only_fields(part, FIELDS["Destination"])
        written, subset, port = part.text("host", required=True), part.text("subset"), part.part("port")
        if port is not None:
            only_fields(port, FIELDS["PortSelector"])
        if part.has("host") and (written == "*" or not is_host(written)):
            part.note("ME-1", f"`{written}` is not the host of a service", "host")
        if subset and not is_label(subset):
            part.note("ME-1", f"`{subset}` is not the name of a subset", "subset")
        number = port.port("number", required=True) if port else 0
        found = RouteDestination(full_host(written, self.namespace), number, subset, part.location)
        if written:
            self.destinations.append((found, part))
        return found

    def _delegate(self, http: Part) -> tuple[str, str] | None:
        part = http.part("delegate")
        if part is None:
            return None
        only_fields(part, FIELDS["Delegate"])
        found = (part.text("namespace") or self.namespace, part.text("name", required=True))
        if part.has("name"):
            self.delegates.append((found, part))
        return found

    def _mirrors(self, http: Part) -> tuple[HttpMirror, ...] | None:
        found = []
        for mirror in http.parts("mirrors"):
            only_fields(mirror, FIELDS["HTTPMirrorPolicy"])
            destination = mirror.part("destination", required=True)
            percent = read_percent(mirror, "percentage")
            if destination:
                found.append(HttpMirror(self.read_destination(destination), percent))
        return tuple(found) or None

    def _check(self, http: Part, route: HttpRoute) -> None:
        """The fields that exclude each other, as in Istio's own validation."""
        if route.delegate is not None:
            if self.is_delegate:
                http.note("ME-1", "a delegate cannot delegate", "delegate", "write the routes here")
            for field in ("redirect", "route"):
                if http.has(field):
                    http.note("ME-1", f"`delegate` and `{field}` exclude each other", field, _DELEGATE_HELP)
            if not self.is_delegate:
                return
        answers = [field for field in ("redirect", "directResponse") if http.has(field)]
        if answers:
            for field in ("route", "fault", "rewrite", *answers[1:]):
                if http.has(field):
                    http.note("ME-1", f"`{answers[0]}` and `{field}` exclude each other", field)
        elif not http.has("route") and not http.has("delegate"):
            http.note("ME-3", "`route`, `redirect`, `directResponse` or `delegate` is missing", "route")
        elif http.has("route") and not http.parts("route"):
            http.note("ME-3", "`route` is empty", "route", "write a destination")
        if http.has("mirror") and route.mirrors:
            http.note("ME-1", "`mirror` and `mirrors` exclude each other", "mirrors", "write one list of `mirrors`")
        hosts = [route.rewrite.authority] if route.rewrite and route.rewrite.authority else []
        if len(hosts) + len(authorities(route.headers)) > 1:
            http.note("ME-1", "the host is changed more than once", "headers", "write `rewrite.authority` alone")
        _check_prefixes(http, route)


_DELEGATE_HELP = "the routes stand in the VirtualService that `delegate` names"


def _check_prefixes(http: Part, route: HttpRoute) -> None:
    others = any(match.uri is not None and match.uri.kind is not MatchKind.PREFIX for match in route.matches)
    if route.redirect is not None and route.redirect.prefix_rewrite and others:
        http.note("ME-1", "`prefixRewrite` replaces a prefix, and a match has another kind of `uri`", "redirect")


def _mirror_percent(http: Part) -> float | None:
    if http.has("mirrorPercentage"):
        return read_percent(http, "mirrorPercentage")
    if not http.has("mirrorPercent"):
        return None
    warn_of_deprecated(http, "mirrorPercent", "`mirrorPercentage: {value: …}`")
    return float(read_whole(http, "mirrorPercent", most=100) or 0)


def _rewrite(http: Part) -> HttpRewrite | None:
    part = http.part("rewrite")
    if part is None:
        return None
    only_fields(part, FIELDS["HTTPRewrite"])
    regex = part.part("uriRegexRewrite")
    pair = None
    if regex is not None:
        only_fields(regex, FIELDS["RegexRewrite"])
        pattern, substitution = regex.text("match", required=True), regex.text("rewrite", required=True)
        pair = (pattern, substitution)
        check_regex(regex, "match", pattern)
        fault = substitution_fault(pattern, substitution)
        if fault or _CONTROL.search(substitution):
            regex.note("ME-1", fault or "it has a control character", "rewrite")
        elif not substitution and regex.has("rewrite"):
            regex.note("ME-1", "`rewrite` is empty", "rewrite", "write what takes the place of the match")
    found = HttpRewrite(part.text("uri"), part.text("authority"), pair)
    for field in ("uri", "authority"):
        if _CONTROL.search(part.text(field)):
            part.note("ME-1", "it has a control character", field)
    if found.uri and pair:
        part.note("ME-1", "`uri` and `uriRegexRewrite` exclude each other", "uriRegexRewrite")
    if found == HttpRewrite():
        part.note("ME-3", "`uri`, `uriRegexRewrite` or `authority` is missing", "uri")
    return found

"""
Delegation: routes of one VirtualService take the place of a route of another, merged as Istio merges them.

A match of the delegate must be narrower than one of the root's. What fits to none is left out with all of its route, as
in Istio (pilot/pkg/model/virtualservice.go).
"""

from collections.abc import Mapping
from dataclasses import replace

from authz.mesh.virtual_service import HttpMatch, HttpRoute, MatchKind, StringMatch, VirtualService


def resolve(service: VirtualService, delegates: Mapping[tuple[str, str], VirtualService]) -> VirtualService:
    """The VirtualService with its delegates' routes in place; of those that are missing or not exported nothing."""
    if not any(route.delegate for route in service.http):
        return service
    routes: list[HttpRoute] = []
    for route in service.http:
        if route.delegate is None:
            routes.append(route)
            continue
        delegate = delegates.get(route.delegate)
        if delegate is not None and delegate.is_exported_to(service.namespace):
            routes += merged(route, delegate.http)
    return replace(service, http=tuple(routes))


def merged(root: HttpRoute, routes: tuple[HttpRoute, ...]) -> list[HttpRoute]:
    """The routes of a delegate below a route that leads to it; those without a match in common are left out."""
    found = []
    for route in routes:
        matches = merged_matches(root.matches, route.matches)
        if matches is not None:
            found.append(_inherited(root, route, matches))
    return found


def merged_matches(root: tuple[HttpMatch, ...], leaf: tuple[HttpMatch, ...]) -> tuple[HttpMatch, ...] | None:
    """Every pair that does not conflict; None if a match of the delegate conflicts with all of the root's."""
    if not root or not leaf:
        return root or leaf
    found: list[HttpMatch] = []
    for inner in leaf:
        fitting = [_merged_match(outer, inner) for outer in root if not _conflict(outer, inner)]
        if not fitting:
            return None
        found += fitting
    return tuple(found)


def _inherited(root: HttpRoute, route: HttpRoute, matches: tuple[HttpMatch, ...]) -> HttpRoute:
    return replace(
        route,
        name="-".join(name for name in (root.name, route.name) if name),
        matches=matches,
        rewrite=route.rewrite or root.rewrite,
        direct_response=route.direct_response or root.direct_response,
        timeout=route.timeout if route.timeout is not None else root.timeout,
        retries=route.retries or root.retries,
        fault=route.fault or root.fault,
        mirror=route.mirror or root.mirror,
        mirror_percent=route.mirror_percent if route.mirror_percent is not None else root.mirror_percent,
        mirrors=route.mirrors or root.mirrors,
        cors=route.cors or root.cors,
        headers=route.headers or root.headers,
    )


def _merged_match(outer: HttpMatch, inner: HttpMatch) -> HttpMatch:
    return replace(
        inner,
        name="-".join(name for name in (outer.name, inner.name) if name),
        uri=inner.uri or outer.uri,
        scheme=inner.scheme or outer.scheme,
        method=inner.method or outer.method,
        authority=inner.authority or outer.authority,
        headers={**outer.headers, **inner.headers},
        without_headers={**outer.without_headers, **inner.without_headers},
        query_params={**outer.query_params, **inner.query_params},
        port=inner.port or outer.port,
        source_labels={**outer.source_labels, **inner.source_labels},
        source_namespace=inner.source_namespace or outer.source_namespace,
        gateways=inner.gateways or outer.gateways,
        stat_prefix=inner.stat_prefix or outer.stat_prefix,
    )


def _conflict(outer: HttpMatch, inner: HttpMatch) -> bool:
    plain = (
        (outer.uri, inner.uri),
        (outer.scheme, inner.scheme),
        (outer.method, inner.method),
        (outer.authority, inner.authority),
    )
    maps = (
        (outer.headers, inner.headers),
        (outer.without_headers, inner.without_headers),
        (outer.query_params, inner.query_params),
    )
    texts = [*plain, *((ours.get(name), match) for ours, theirs in maps for name, match in theirs.items())]
    return (
        any(_texts_conflict(ours, theirs) for ours, theirs in texts)
        or outer.ignore_uri_case != inner.ignore_uri_case
        or (outer.port and inner.port and outer.port != inner.port)
        or outer.source_namespace not in ("", inner.source_namespace)
        or any(outer.source_labels.get(name, value) != value for name, value in inner.source_labels.items())
        or bool(outer.gateways and inner.gateways and not set(inner.gateways) <= set(outer.gateways))
    )


def _texts_conflict(outer: StringMatch | None, inner: StringMatch | None) -> bool:
    """Whether the inner text is not narrower than the outer one; two regular expressions never compare."""
    if outer is None or inner is None:
        return False
    if MatchKind.REGEX in (outer.kind, inner.kind):
        return True
    if outer.kind is MatchKind.EXACT:
        return inner.kind is MatchKind.PREFIX or inner.value != outer.value
    return not inner.value.startswith(outer.value)

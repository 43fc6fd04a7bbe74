"""
One route of a VirtualService as Envoy takes it, in the structure that Istio's own code gives it.

Where the two differ is said in docs/traffic.md: hosts outside the mesh are reached through the egress gateway, which
leads by host; and where nothing is written about retries, only what never reached a server is tried again.
"""

from collections.abc import Callable

from envoy_data_plane.envoy.config.core.v3 import (
    DataSource,
    HeaderValue,
    HeaderValueOption,
    HeaderValueOptionHeaderAppendAction,
    RuntimeFractionalPercent,
)
from envoy_data_plane.envoy.config.route.v3 import (
    DirectResponseAction,
    HeaderMatcher,
    QueryParameterMatcher,
    RedirectAction,
    RedirectActionRedirectResponseCode,
    Route,
    RouteAction,
    RouteActionRequestMirrorPolicy,
    RouteMatch,
    WeightedCluster,
    WeightedClusterClusterWeight,
)
from envoy_data_plane.envoy.type.matcher.v3 import RegexMatchAndSubstitute, RegexMatcher

from authz.envoy.http_faults import route_filters
from authz.envoy.messages import seconds
from authz.envoy.retries import default_retries, retry_policy
from authz.envoy.text_matchers import fractional, string_matcher
from authz.mesh.virtual_service import (
    AUTHORITY,
    DirectResponse,
    HeaderChanges,
    HeaderOperations,
    HttpMatch,
    HttpRedirect,
    HttpRoute,
    MatchKind,
    RouteDestination,
    StringMatch,
    WeightedDestination,
    authority_of,
)

ClusterOfDestination = Callable[[RouteDestination], tuple[str, str]]
"""The cluster of a destination, and the host by which the egress gateway knows it (empty inside the mesh)."""

DEFAULT_ROUTE = "default"
"""Istio's name of the route of a service without a VirtualService."""
_CODES = {
    301: RedirectActionRedirectResponseCode.MOVED_PERMANENTLY,
    302: RedirectActionRedirectResponseCode.FOUND,
    303: RedirectActionRedirectResponseCode.SEE_OTHER,
    307: RedirectActionRedirectResponseCode.TEMPORARY_REDIRECT,
    308: RedirectActionRedirectResponseCode.PERMANENT_REDIRECT,
}


def default_action(cluster: str | None, host: str | None = None) -> RouteAction:
    """
    No overall timeout, as in Istio: streams may last; the idle timeout ends what hangs.

    Retries only what never reached a server.
    """
    return RouteAction(cluster=cluster, host_rewrite_literal=host, timeout=seconds(0), retry_policy=default_retries())


def http_route(
    route: HttpRoute,
    match: HttpMatch | None,
    cluster_of: ClusterOfDestination,
    port: int,
    *,
    host: str = "",
    is_tls: bool = False,
) -> Route:
    """
    One match of one route.

    Args:
        match: None for a route without any.
        port: that of the called service, or of the gateway's server.
        host: what the requested host becomes where nothing rewrites it; empty: it stays.
        is_tls: whether clients reach the port by TLS, for redirects to a port.
    """
    found = Route(
        name=f"{route.name}.{match.name}" if match and match.name else route.name,
        match=route_match(match),
        stat_prefix=match.stat_prefix if match else "",
        typed_per_filter_config=route_filters(route),
    )
    _change_headers(found, route.headers)
    if route.redirect is not None:
        found.redirect = _redirect(route.redirect, port, is_tls)
    elif route.direct_response is not None:
        found.direct_response = _direct_response(route.direct_response)
    else:
        found.route = _action(route, found, cluster_of, host)
    return found


def _action(route: HttpRoute, found: Route, cluster_of: ClusterOfDestination, host: str) -> RouteAction:
    action = RouteAction(
        timeout=seconds(route.timeout or 0),
        retry_policy=retry_policy(route.retries),
        request_mirror_policies=[
            RouteActionRequestMirrorPolicy(
                cluster=cluster_of(mirror.destination)[0],
                runtime_fraction=RuntimeFractionalPercent(
                    default_value=fractional(100 if mirror.percent is None else mirror.percent)
                ),
                trace_sampled=False,
                disable_shadow_host_suffix_append=True,
                # The egress gateway leads by host, so a copy keeps the name of whom it is for.
                host_rewrite_literal=cluster_of(mirror.destination)[1],
            )
            for mirror in route.mirrored_to
        ],
    )
    # Deprecated, but with its successor (max_stream_duration) Envoy no longer looks at the timeout of other requests.
    action.max_grpc_timeout = action.timeout
    authority = authority_of(route.headers)
    if route.rewrite is not None:
        authority = route.rewrite.authority or authority
        if route.rewrite.regex is not None:
            pattern, substitution = route.rewrite.regex
            action.regex_rewrite = RegexMatchAndSubstitute(
                pattern=RegexMatcher(regex=pattern), substitution=substitution
            )
        else:
            action.prefix_rewrite = route.rewrite.uri
    action.host_rewrite_literal = authority or None
    if len(route.destinations) == 1:
        one = route.destinations[0]
        action.cluster, outside = cluster_of(one.destination)
        _change_headers(found, one.headers)
        action.host_rewrite_literal = authority or authority_of(one.headers) or outside or host or None
    else:
        action.weighted_clusters = WeightedCluster(
            clusters=[_weighted(one, cluster_of, host) for one in route.destinations if one.weight]
        )
    return action


def _weighted(one: WeightedDestination, cluster_of: ClusterOfDestination, host: str) -> WeightedClusterClusterWeight:
    cluster, outside = cluster_of(one.destination)
    found = WeightedClusterClusterWeight(name=cluster, weight=one.weight)
    _change_headers(found, one.headers)
    # That of the route, if there is one, goes before it.
    found.host_rewrite_literal = authority_of(one.headers) or outside or host or None
    return found


def _change_headers(found: Route | WeightedClusterClusterWeight, changes: HeaderChanges | None) -> None:
    if changes is None:
        return
    found.request_headers_to_add += _added(changes.request)
    found.request_headers_to_remove += changes.request.remove
    found.response_headers_to_add += _added(changes.response)
    found.response_headers_to_remove += changes.response.remove


def _added(operations: HeaderOperations) -> list[HeaderValueOption]:
    action = HeaderValueOptionHeaderAppendAction
    ways = ((operations.set, action.OVERWRITE_IF_EXISTS_OR_ADD), (operations.add, action.APPEND_IF_EXISTS_OR_ADD))
    return [
        HeaderValueOption(header=HeaderValue(key=name, value=value), append_action=way)
        for values, way in ways
        for name, value in sorted(values.items())
        if name.lower() not in AUTHORITY
    ]


def _redirect(redirect: HttpRedirect, port: int, is_tls: bool) -> RedirectAction:
    found = RedirectAction(host_redirect=redirect.authority, response_code=_CODES[redirect.code])
    if redirect.prefix_rewrite:
        found.prefix_rewrite = redirect.prefix_rewrite
    else:
        found.path_redirect = redirect.uri
    found.scheme_redirect = redirect.scheme or None
    wanted = port if redirect.from_request_port else redirect.port
    standard = {"http": 80, "https": 443}[redirect.scheme or ("https" if is_tls else "http")]
    found.port_redirect = 0 if wanted == standard else wanted
    return found


def _direct_response(response: DirectResponse) -> DirectResponseAction:
    found = DirectResponseAction(status=response.status)
    if response.body:
        try:
            found.body = DataSource(inline_string=response.body.decode())
        except UnicodeDecodeError:
            found.body = DataSource(inline_bytes=response.body)
    return found


def route_match(match: HttpMatch | None) -> RouteMatch:
    """What a request must be like; headers in the order of their names, as Istio sorts them."""
    if match is None:
        return RouteMatch(prefix="/")
    headers = [_header(name, one) for name, one in match.headers.items()]
    headers += [_without(name, one) for name, one in match.without_headers.items()]
    headers.sort(key=lambda one: one.name)
    pseudo = ((":method", match.method), (":authority", match.authority), (":scheme", match.scheme))
    headers += [_header(name, one) for name, one in pseudo if one is not None]
    found = RouteMatch(
        case_sensitive=not match.ignore_uri_case,
        headers=headers,
        query_parameters=[_parameter(name, one) for name, one in sorted(match.query_params.items())],
    )
    if match.uri is None:
        found.prefix = "/"
    elif match.uri.kind is MatchKind.EXACT:
        found.path = match.uri.value
    elif match.uri.kind is MatchKind.PREFIX:
        found.prefix = match.uri.value
    else:
        found.safe_regex = RegexMatcher(regex=match.uri.value)
    return found


def _header(name: str, match: StringMatch | None) -> HeaderMatcher:
    if match is None or _is_any(match):
        return HeaderMatcher(name=name, present_match=True)
    return HeaderMatcher(name=name, string_match=string_matcher(match))


def _without(name: str, match: StringMatch | None) -> HeaderMatcher:
    found = _header(name, match)
    found.invert_match = True
    found.treat_missing_header_as_empty = found.string_match is not None
    return found


def _parameter(name: str, match: StringMatch | None) -> QueryParameterMatcher:
    if match is None or _is_any(match):
        return QueryParameterMatcher(name=name, present_match=True)
    return QueryParameterMatcher(name=name, string_match=string_matcher(match))


def _is_any(match: StringMatch) -> bool:
    """``*`` is no regular expression: Istio takes it for presence."""
    return match.kind is MatchKind.REGEX and match.value == "*"

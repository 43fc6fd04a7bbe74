"""
The contents of a filter chain: the HTTP connection manager in its three roles, and the TCP proxy.

Roles: ``INBOUND`` of a sidecar and ``GATEWAY`` ask the authorization server and normalise paths; ``OUTBOUND`` does
neither, because policies are enforced where a request arrives (EV-9).
"""

from enum import StrEnum
from functools import cache, lru_cache

from envoy_data_plane.envoy.config.core.v3 import (
    ExtensionConfigSource,
    Http2ProtocolOptions,
    HttpProtocolOptions,
    HttpProtocolOptionsHeadersWithUnderscoresAction,
)
from envoy_data_plane.envoy.config.listener.v3 import Filter
from envoy_data_plane.envoy.config.route.v3 import RouteConfiguration
from envoy_data_plane.envoy.extensions.filters.http.router.v3 import Router
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManager,
    HttpConnectionManagerForwardClientCertDetails,
    HttpConnectionManagerPathWithEscapedSlashesAction,
    HttpConnectionManagerSetCurrentClientCertDetails,
    HttpConnectionManagerUpgradeConfig,
    HttpFilter,
    Rds,
)
from envoy_data_plane.envoy.extensions.filters.network.tcp_proxy.v3 import (
    TcpProxy,
    TcpProxyWeightedCluster,
    TcpProxyWeightedClusterClusterWeight,
    UpstreamConnectMode,
)

from authz.core.resources import MeshConfig, PathNormalization
from authz.envoy.check_filter import http_check_filter, network_check_filter
from authz.envoy.listener_logs import http_logs, tcp_logs
from authz.envoy.messages import followed_file, pack, seconds
from authz.envoy.native import slots
from authz.envoy.native.listener_parts import NATIVE_TCP
from authz.envoy.options import RenderOptions, filters_file, routes_file
from authz.envoy.plain import kept
from authz.envoy.rate_limit_filters import rate_limit_filters
from authz.envoy.refusal_log import refusal_logs
from authz.envoy.tracing import request_ids, tracing
from authz.mesh.nouns import MeshWorkload

EARLY_DATA_BYTES = 65536
"""Held back until the check has allowed the connection (XA-165)."""


class Role(StrEnum):
    """Which side of a connection a filter chain stands on."""

    INBOUND = "inbound"
    GATEWAY = "gateway"
    OUTBOUND = "outbound"


def http_filter(
    role: Role,
    routes: RouteConfiguration | str,
    workload: MeshWorkload,
    mesh: MeshConfig,
    options: RenderOptions,
    *,
    first_filters: tuple[HttpFilter, ...] = (),
    answering_filters: tuple[HttpFilter, ...] = (),
    extra_filters: tuple[HttpFilter, ...] = (),
    upgrades: tuple[str, ...] = ("websocket",),
) -> Filter:
    """
    The HTTP connection manager of a listener.

    ``routes`` are a table, or the name of one that is a file of its own.
    ``first_filters`` stand before the check. Behind it ``answering_filters`` may answer in place of the service; then
    requests are counted for rate limits, so that one that is refused or answered before costs nothing;
    ``extra_filters`` are next to the router.
    A gateway names nobody in XFCC, not even workloads on their way out: who they are is of no use outside.
    """
    gateway = role is Role.GATEWAY
    checked = role is not Role.OUTBOUND
    identified = role is Role.INBOUND
    deciding = _deciding(workload, mesh, options) if checked else []
    limiting = rate_limit_filters(workload, options) if checked else []
    mode = mesh.path_normalization if checked else PathNormalization.NONE
    name = routes if isinstance(routes, str) else routes.name
    manager = HttpConnectionManager(
        stat_prefix=name,
        route_config=None if isinstance(routes, str) else routes,
        rds=_followed_routes(workload, routes) if isinstance(routes, str) else None,
        http_filters=[*first_filters, *deciding, *answering_filters, *limiting, *extra_filters, _router()],
        use_remote_address=gateway,  # CS-9, XA-201
        xff_num_trusted_hops=mesh.num_trusted_proxies if gateway else 0,
        normalize_path=mode is not PathNormalization.NONE,
        merge_slashes=mode in (PathNormalization.MERGE_SLASHES, PathNormalization.DECODE_AND_MERGE_SLASHES),
        path_with_escaped_slashes_action=_escaped_slashes(mode),
        # A client's own XFCC never passes (XA-142).
        forward_client_cert_details=_XFCC.SANITIZE_SET if identified else _XFCC.SANITIZE,
        set_current_client_cert_details=(
            HttpConnectionManagerSetCurrentClientCertDetails(uri=True) if identified else None
        ),
        common_http_protocol_options=_common(
            3600 if not gateway else 300,
            # An application's connection to its own sidecar has no certificate that could expire.
            options.max_connection_seconds if checked else None,
            options.refuse_underscores,
        ),
        http2_protocol_options=_http2(gateway),
        request_headers_timeout=seconds(10) if gateway else None,
        upgrade_configs=[_upgrade(name) for name in upgrades],
        access_log=[
            *http_logs(workload, options, outbound=not checked, gateway=gateway),
            *(refusal_logs(workload, name, options) if checked else ()),
        ],
        tracing=tracing(workload, options, inbound=identified),
        request_id_extension=request_ids(workload, inbound=identified),
    )
    return Filter(name="envoy.filters.network.http_connection_manager", typed_config=pack(manager))


def _followed_routes(workload: MeshWorkload, name: str) -> Rds:
    source = followed_file(*routes_file(workload.name, name).split("/"), wait_for_ever=True)
    return Rds(config_source=source, route_config_name=name)


def _deciding(workload: MeshWorkload, mesh: MeshConfig, options: RenderOptions) -> list[HttpFilter]:
    """The filters that decide: the check, or the slots of what Envoy decides by itself."""
    if not options.is_native(workload):
        return [http_check_filter(options, _body_bytes(mesh))]
    # Without its file a proxy opens no port, and one that cannot be used answers 500: nothing is let through.
    return [
        HttpFilter(
            name=slot,
            config_discovery=ExtensionConfigSource(
                config_source=followed_file(*filters_file(workload.name, slot).split("/"), wait_for_ever=True),
                type_urls=list(slots.TYPES),
            ),
        )
        for slot in slots.slot_names(mesh)
    ]


def tcp_filters(
    name: str,
    cluster: str | list[tuple[str, int]],
    workload: MeshWorkload,
    options: RenderOptions,
    *,
    checked: bool,
) -> list[Filter]:
    """
    Forward bytes to a cluster, or to several by weight.

    ``checked`` ones pass only after the authorization server allowed the connection.

    The upstream is then dialled on the client's first bytes, so that a refused client never reaches the server nor
    sees its greeting (XA-164, XA-165). Protocols in which the server speaks first cannot be served this way.
    """
    proxy = TcpProxy(
        stat_prefix=name,
        cluster=cluster if isinstance(cluster, str) else None,
        weighted_clusters=_by_weight(cluster) if isinstance(cluster, list) else None,
        upstream_connect_mode=UpstreamConnectMode.ON_DOWNSTREAM_DATA if checked else UpstreamConnectMode.IMMEDIATE,
        max_early_data_bytes=EARLY_DATA_BYTES if checked else None,
        max_downstream_connection_duration=seconds(options.max_connection_seconds) if checked else None,
        access_log=tcp_logs(workload, options, outbound=not checked),
    )
    last = Filter(name="envoy.filters.network.tcp_proxy", typed_config=pack(proxy))
    if not checked:
        return [last]
    return [Filter(name=NATIVE_TCP) if options.is_native(workload) else network_check_filter(options, name), last]


def _by_weight(clusters: list[tuple[str, int]]) -> TcpProxyWeightedCluster:
    return TcpProxyWeightedCluster(
        clusters=[TcpProxyWeightedClusterClusterWeight(name=name, weight=weight) for name, weight in clusters]
    )


_XFCC = HttpConnectionManagerForwardClientCertDetails


@cache
def _router() -> HttpFilter:
    return kept(HttpFilter(name="envoy.filters.http.router", typed_config=pack(Router())))


@cache
def _upgrade(name: str) -> HttpConnectionManagerUpgradeConfig:
    return kept(HttpConnectionManagerUpgradeConfig(upgrade_type=name))


@lru_cache(maxsize=16)
def _common(idle_seconds: int, longest: float | None, refuses_underscores: bool) -> HttpProtocolOptions:
    made = HttpProtocolOptions(
        idle_timeout=seconds(idle_seconds),
        max_connection_duration=None if longest is None else seconds(longest),
        headers_with_underscores_action=_underscores(refuses_underscores),
    )
    return kept(made)


def _body_bytes(mesh: MeshConfig) -> int:
    """
    The number of bytes that the most demanding provider wants to see of a body, and one more, which shows that there is
    more (AP-83).

    A provider that was not shown the body would accept what it should refuse.
    """
    wanted = max((provider.max_request_bytes for provider in mesh.extension_providers), default=0)
    return min(wanted + 1, 2**32 - 1) if wanted else 0


def _escaped_slashes(mode: PathNormalization) -> HttpConnectionManagerPathWithEscapedSlashesAction:
    if mode is PathNormalization.DECODE_AND_MERGE_SLASHES:
        return HttpConnectionManagerPathWithEscapedSlashesAction.UNESCAPE_AND_FORWARD
    return HttpConnectionManagerPathWithEscapedSlashesAction.KEEP_UNCHANGED


def _underscores(refuse: bool) -> HttpProtocolOptionsHeadersWithUnderscoresAction:
    action = HttpProtocolOptionsHeadersWithUnderscoresAction
    return action.REJECT_REQUEST if refuse else action.ALLOW


@cache
def _http2(gateway: bool) -> Http2ProtocolOptions:
    if not gateway:
        return kept(Http2ProtocolOptions(allow_connect=True))
    # Envoy's own advice for proxies at the edge.
    made = Http2ProtocolOptions(
        allow_connect=True,
        max_concurrent_streams=100,
        initial_stream_window_size=65536,
        initial_connection_window_size=1048576,
    )
    return kept(made)

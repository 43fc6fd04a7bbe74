"""HTTP towards upstreams: protocol and connection options of clusters."""

from functools import lru_cache

from envoy_data_plane.envoy.config.core.v3 import (
    Http1ProtocolOptions,
    Http2ProtocolOptions,
    KeepaliveSettings,
    UpstreamHttpProtocolOptions,
)
from envoy_data_plane.envoy.config.core.v3 import (
    HttpProtocolOptions as CommonHttpOptions,
)
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import (
    HttpProtocolOptions,
    HttpProtocolOptionsExplicitHttpConfig,
)
from envoy_data_plane.google.protobuf import Any as PackedAny

from authz.envoy.messages import pack, seconds
from authz.envoy.plain import kept
from authz.mesh.traffic_policy import ClientTls, ConnectionPool

_NO_POOL, _NO_TLS = ConnectionPool(), ClientTls()
_KEY = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def http2_upstream(
    *, keepalive: bool = False, max_connection_seconds: int = 0, ping_seconds: tuple[int, int] = (10, 2)
) -> dict[str, PackedAny]:
    """
    HTTP/2; ``keepalive`` finds a dead peer within seconds (the server must allow the pings, XA-128).

    CONNECT is allowed, since WebSockets need it on HTTP/2.

    Args:
        keepalive: whether the peer is asked whether it is there.
        max_connection_seconds: how long a connection lives; 0: no bound.
        ping_seconds: how often it is asked, and how long it has to answer.
    """
    return {_KEY: _http2_options(ping_seconds if keepalive else None, max_connection_seconds)}


@lru_cache(maxsize=16)
def _http2_options(ping_seconds: tuple[int, int] | None, max_connection_seconds: int) -> PackedAny:
    ping = None
    if ping_seconds is not None:
        interval, timeout = ping_seconds
        ping = KeepaliveSettings(interval=seconds(interval), timeout=seconds(timeout))
    http2 = Http2ProtocolOptions(allow_connect=True, connection_keepalive=ping)
    return _options(HttpProtocolOptionsExplicitHttpConfig(http2_protocol_options=http2), max_connection_seconds)


@lru_cache(maxsize=256)
def _service_options(pool: ConnectionPool, max_connection_seconds: int) -> PackedAny:
    """Packed once: thousands of services have the same."""
    interval, timeout = pool.ping_seconds or _PINGS
    http2 = Http2ProtocolOptions(
        allow_connect=True,
        connection_keepalive=KeepaliveSettings(interval=seconds(interval), timeout=seconds(timeout)),
        max_concurrent_streams=pool.max_concurrent_streams or None,
    )
    bounds = [bound for bound in (pool.max_connection_seconds, max_connection_seconds) if bound]
    options = HttpProtocolOptions(
        common_http_protocol_options=_common(pool, min(bounds, default=None)),
        explicit_http_config=HttpProtocolOptionsExplicitHttpConfig(http2_protocol_options=http2),
    )
    return kept(pack(options))


def service_upstream(pool: ConnectionPool, max_connection_seconds: int) -> dict[str, PackedAny]:
    """
    HTTP/2 to another proxy, within the bounds of a pool.

    A connection does not outlive ``max_connection_seconds`` (0: no bound), whatever the pool says, because certificates
    do not live much longer.
    """
    return {_KEY: _service_options(pool, max_connection_seconds)}


_PINGS = 10.0, 2.0
"""A dead peer is found within seconds; the server must allow the pings (XA-128)."""


def bytes_upstream(pool: ConnectionPool) -> dict[str, PackedAny]:
    """Bounds of connections that carry bytes; none where the pool says nothing about them."""
    common = _common(pool, pool.max_connection_seconds)
    if common is None:
        return {}
    return {_KEY: pack(HttpProtocolOptions(common_http_protocol_options=common, explicit_http_config=_HTTP1))}


def _common(pool: ConnectionPool, longest: float | None) -> CommonHttpOptions | None:
    idle, requests = pool.idle_seconds, pool.max_requests_per_connection
    if idle is None and not requests and longest is None:
        return None
    return CommonHttpOptions(
        idle_timeout=None if idle is None else seconds(idle),
        max_requests_per_connection=requests or None,
        max_connection_duration=None if longest is None else seconds(longest),
    )


def http1_upstream(*, max_connection_seconds: int = 0) -> dict[str, PackedAny]:
    """Speak HTTP/1.1 to a cluster; 0 seconds sets no bound on the life of a connection."""
    return {_KEY: _http1_options(max_connection_seconds)}


@lru_cache(maxsize=16)
def _http1_options(max_connection_seconds: int) -> PackedAny:
    return _options(_HTTP1, max_connection_seconds)


def outside_upstream(pool: ConnectionPool = _NO_POOL, tls: ClientTls = _NO_TLS) -> dict[str, PackedAny]:
    """
    HTTP to hosts outside: SNI and the name in the certificate follow the requested host (XA-138).

    Unless ``tls`` names them. HTTP/1.1, or HTTP/2 if the pool says so.
    """
    options = HttpProtocolOptions(
        common_http_protocol_options=_common(pool, pool.max_connection_seconds),
        upstream_http_protocol_options=UpstreamHttpProtocolOptions(
            auto_sni=not tls.sni, auto_san_validation=not tls.subject_alt_names
        ),
        explicit_http_config=_http2(pool) if pool.http2 else _HTTP1,
    )
    return {_KEY: pack(options)}


_HTTP1 = HttpProtocolOptionsExplicitHttpConfig(http_protocol_options=Http1ProtocolOptions())


def _http2(pool: ConnectionPool) -> HttpProtocolOptionsExplicitHttpConfig:
    pings = pool.ping_seconds
    keepalive = KeepaliveSettings(interval=seconds(pings[0]), timeout=seconds(pings[1])) if pings else None
    http2 = Http2ProtocolOptions(
        max_concurrent_streams=pool.max_concurrent_streams or None, connection_keepalive=keepalive
    )
    return HttpProtocolOptionsExplicitHttpConfig(http2_protocol_options=http2)


def _options(config: HttpProtocolOptionsExplicitHttpConfig, max_connection_seconds: int) -> PackedAny:
    limit = CommonHttpOptions(max_connection_duration=seconds(max_connection_seconds))
    common = limit if max_connection_seconds else None
    return kept(pack(HttpProtocolOptions(common_http_protocol_options=common, explicit_http_config=config)))

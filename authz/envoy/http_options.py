"""HTTP towards upstreams: protocol and connection options of clusters."""

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

_KEY = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def http2_upstream(*, keepalive: bool = False, max_connection_seconds: int = 0) -> dict[str, PackedAny]:
    """
    HTTP/2; ``keepalive`` finds a dead peer within seconds (the server must allow the pings, XA-128).

    CONNECT is allowed, since WebSockets need it on HTTP/2.
    """
    ping = KeepaliveSettings(interval=seconds(10), timeout=seconds(2)) if keepalive else None
    return _options(
        HttpProtocolOptionsExplicitHttpConfig(
            http2_protocol_options=Http2ProtocolOptions(allow_connect=True, connection_keepalive=ping)
        ),
        max_connection_seconds,
    )


def http1_upstream(*, max_connection_seconds: int = 0) -> dict[str, PackedAny]:
    """Speak HTTP/1.1 to a cluster; 0 seconds sets no bound on the life of a connection."""
    return _options(
        HttpProtocolOptionsExplicitHttpConfig(http_protocol_options=Http1ProtocolOptions()), max_connection_seconds
    )


def outside_upstream() -> dict[str, PackedAny]:
    """HTTP/1.1 to hosts outside: SNI and the name in the certificate follow the requested host (XA-138)."""
    return {
        _KEY: pack(
            HttpProtocolOptions(
                upstream_http_protocol_options=UpstreamHttpProtocolOptions(auto_sni=True, auto_san_validation=True),
                explicit_http_config=HttpProtocolOptionsExplicitHttpConfig(
                    http_protocol_options=Http1ProtocolOptions()
                ),
            )
        )
    }


def _options(config: HttpProtocolOptionsExplicitHttpConfig, max_connection_seconds: int) -> dict[str, PackedAny]:
    limit = CommonHttpOptions(max_connection_duration=seconds(max_connection_seconds))
    return {
        _KEY: pack(
            HttpProtocolOptions(
                common_http_protocol_options=limit if max_connection_seconds else None, explicit_http_config=config
            )
        )
    }

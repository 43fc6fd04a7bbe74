"""How long gRPC connections of the authority's doors live, and when their peers are asked whether they are there."""

MAX_PENDING = 20_000
"""Calls that nobody has taken yet: more than any fleet has proxies."""
OPTIONS = [
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", 1 << 20),
    ("grpc.http2.min_ping_interval_without_data_ms", 5000),  # Envoy's keepalive pings (XA-128)
    ("grpc.http2.max_pings_without_data", 0),  # else a quiet peer is asked twice, and then once a minute
    ("grpc.http2.max_ping_strikes", 0),  # else a quiet stream ends with the fourth ping, and returns for a new SVID
    ("grpc.tsi.max_frame_size", 4096),  # 12 kB of memory less for each connection
    ("grpc.enable_channelz", 0),  # 4 kB less, which nobody asks for
    # Calls that wait for their turn when a whole fleet comes back: by default every one beyond 1000 may be ended.
    ("grpc.server.max_pending_requests", MAX_PENDING),
    ("grpc.server.max_pending_requests_hard_limit", 2 * MAX_PENDING),
    ("grpc.server_max_unrequested_time_in_server", 120),
]
CONNECTION_SECONDS = 300.0
"""
The longest that a remote peer stays connected before it proves again who it is. An Envoy whose SVID expired would
ask over and over on the connection that it opened with that SVID, and would never be served.
"""
SILENCE_SECONDS = 30.0
"""After so much silence a remote peer is asked whether it is there: a machine without power says no farewell."""
SILENCE_GRACE_SECONDS = 10.0
"""The time in which it has to answer."""
CONNECTION_GRACE_SECONDS = 1.0
"""The time that calls still running then are given; streams never end by themselves."""


def options_for(connection_seconds: float, silence_seconds: float) -> list[tuple[str, int]]:
    """Options of a door for remote peers, whose connections live so long, and are silent for so long at most."""
    times = {
        "max_connection_age": connection_seconds,
        "max_connection_age_grace": CONNECTION_GRACE_SECONDS,
        "keepalive_time": silence_seconds,
        "http2.ping_timeout": min(silence_seconds, SILENCE_GRACE_SECONDS),  # keepalive_timeout ends no connection
    }
    return [*OPTIONS, *((f"grpc.{name}_ms", int(seconds * 1000)) for name, seconds in times.items())]

"""How long gRPC connections of the authority's doors live, and when their peers are asked whether they are there."""

from dataclasses import dataclass

from authz.service.ports.dead_machines import UNANSWERED_SECONDS

MAX_PENDING = 20_000
"""Calls that nobody has taken yet: more than any fleet has proxies."""
OPTIONS = [
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", 1 << 20),
    ("grpc.http2.min_ping_interval_without_data_ms", 5000),  # Envoy's keepalive pings (XA-128)
    ("grpc.http2.max_pings_without_data", 0),  # else a quiet peer is asked twice, and then once a minute
    ("grpc.http2.max_ping_strikes", 0),  # else a quiet stream ends with the fourth ping, and returns for a new SVID
    ("grpc.tsi.max_frame_size", 4096),  # 12 kB of memory less for each connection
    # What peers say is short; else each of their answers costs a ping, there and back, and some MB of a stream that
    # sends faster than it is read wait here in place of 64 kB.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.enable_channelz", 0),  # 4 kB less, which nobody asks for
    # Calls that wait for their turn when a whole fleet comes back: by default every one beyond 1000 may be ended.
    ("grpc.server.max_pending_requests", MAX_PENDING),
    ("grpc.server.max_pending_requests_hard_limit", 2 * MAX_PENDING),
    ("grpc.server_max_unrequested_time_in_server", 120),
]
SILENCE_GRACE_SECONDS = 10.0
"""The time that a silent peer has to answer."""
CONNECTION_GRACE_SECONDS = 1.0
"""The time that calls still running then are given; streams never end by themselves."""


@dataclass(frozen=True, slots=True)
class ConnectionLife:
    """How long connections of remote peers live."""

    seconds: float = 1800.0
    """
    The longest that a peer stays connected before it proves again who it is, and may choose another control plane. Each
    time costs a handshake: ten thousand peers that came back every five minutes would take a fifth of a processor. Not
    much longer: an Envoy whose stream was ended, because the SVID that it showed expires, asks over and over on that
    connection, unless its bootstrap is of ours or as in the guide: then a connection that is old takes no new streams.
    """
    silence_seconds: float = 90.0
    """
    After so much silence a peer is asked over HTTP/2 whether it is there: one that hangs says no farewell. Envoys ask
    us more often, so that this is for those that no longer do. Machines that are gone are found by ``dead_machines``.
    """


def options_for(life: ConnectionLife) -> list[tuple[str, int]]:
    """Options of a door for remote peers."""
    times = {
        "max_connection_age": life.seconds,
        "max_connection_age_grace": CONNECTION_GRACE_SECONDS,
        "keepalive_time": life.silence_seconds,
        "http2.ping_timeout": min(life.silence_seconds, SILENCE_GRACE_SECONDS),  # keepalive_timeout ends no connection
        "keepalive_timeout": UNANSWERED_SECONDS,  # but the kernel is told it, for what was sent or asked
    }
    return [*OPTIONS, *((f"grpc.{name}_ms", int(seconds * 1000)) for name, seconds in times.items())]

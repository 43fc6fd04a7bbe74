"""What every listener has: its address, and how long a connection may say nothing."""

from envoy_data_plane.envoy.config.core.v3 import TrafficDirection
from envoy_data_plane.envoy.config.listener.v3 import FilterChain, Listener

from authz.envoy.messages import seconds, socket_address
from authz.envoy.passthrough import HELLO_SECONDS, tls_inspector

ANY_ADDRESS = "0.0.0.0"  # noqa: S104  # one set of files for processes and containers (XA-190); policies guard it
LOOPBACK = "127.0.0.1"


def framed(name: str, host: str, port: int, chains: list[FilterChain], direction: TrafficDirection) -> Listener:
    """A listener at an address with these filter chains."""
    by_name = any(chain.filter_chain_match is not None and chain.filter_chain_match.server_names for chain in chains)
    inspected = direction is TrafficDirection.INBOUND or by_name
    return Listener(
        name=name,
        address=socket_address(host, port),
        listener_filters=[tls_inspector()] if inspected else [],
        # Ends connections that say nothing (XA-135).
        listener_filters_timeout=seconds(HELLO_SECONDS) if inspected else None,
        filter_chains=chains,
        traffic_direction=direction,
        enable_reuse_port=False,  # with it a second process could take the port, and a part of the traffic, unnoticed
    )

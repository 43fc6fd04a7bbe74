"""Which ports are taken on this machine."""

import socket
from collections.abc import Iterable


def busy_ports(ports: Iterable[int]) -> tuple[int, ...]:
    """Return those ports that something on this machine already listens on."""
    busy = []
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("0.0.0.0", port))  # noqa: S104  # proxies bind all addresses; nothing is listened on here
            except OSError:
                busy.append(port)
    return tuple(busy)

"""The kernel asks the peers of a listening socket."""

import socket

from authz.service.ports.dead_machines import SILENT_SECONDS, find_dead_machines


def test_connections_of_the_port_are_asked_by_the_kernel() -> None:
    with socket.create_server(("127.0.0.1", 0)) as door, socket.create_server(("127.0.0.1", 0)) as other:
        assert find_dead_machines(door.getsockname()[1]) == 1
        for listening, asks in ((door, 1), (other, 0)):
            with socket.create_connection(listening.getsockname()), listening.accept()[0] as taken:
                assert taken.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == asks
                is_soon = taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == SILENT_SECONDS
                assert is_soon == bool(asks)


def test_nobody_listens_at_a_port_that_was_closed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]
    assert find_dead_machines(port) == 0

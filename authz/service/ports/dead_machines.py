"""
Machines that are gone without a farewell, found by the kernel: it asks whoever is silent, at no cost of this process.

gRPC's own question is a frame of HTTP/2, encrypted, answered and read in its threads: ten thousand peers that are asked
every half minute take a tenth of a processor. It has no option for the kernel's, but a connection inherits these from
the socket that took it.
"""

import os
import socket
import stat

SILENT_SECONDS = 30
"""After so long the kernel asks."""
AGAIN_SECONDS = 5
UNANSWERED_SECONDS = 40
"""After so long without an answer the connection is given up (``TCP_USER_TIMEOUT``), after two questions at least."""
FOLDER = "/dev/fd"


def find_dead_machines(port: int) -> int:
    """
    Have the kernel ask peers of the sockets that listen on this port in this process, before any has connected.

    Returns:
        How many sockets there are; 0 also where a process cannot see its own.
    """
    try:
        numbers = [int(name) for name in os.listdir(FOLDER)]
    except OSError:
        return 0
    return sum(_asks(number, port) for number in numbers)


def _asks(number: int, port: int) -> bool:
    try:
        if not stat.S_ISSOCK(os.fstat(number).st_mode):
            return False
        copy = os.dup(number)
    except OSError:  # closed meanwhile
        return False
    with socket.socket(fileno=copy) as found:
        try:
            if found.family not in (socket.AF_INET, socket.AF_INET6) or found.getsockname()[1] != port:
                return False
            if not found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                return False
            found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, SILENT_SECONDS)
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, AGAIN_SECONDS)
        except OSError:
            return False
    return True

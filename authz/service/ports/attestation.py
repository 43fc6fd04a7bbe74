"""
Which binary a local peer runs: path and SHA-256, read from ``/proc`` of the very process that connected.

A process number says little: it may be another's by the time it is looked at. So the kernel is asked for the
process itself (SO_PEERPIDFD, Linux 6.5): what is read counts only while that process lives, and as long as it lives its
number is nobody else's. An older kernel gives the number alone; there the process must have begun before the connection
was accepted, which leaves the moment between the two.

What cannot be read is unknown, and no selector holds for it: a process that has ended, one in another PID
namespace, one that we may not look at (another user's, unless we are root), a binary that was deleted or replaced.
"""

import errno
import hashlib
import os
import select
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from authz.identity.registration import UnixPeer

SO_PEERPIDFD = 77
"""Not in Python's ``socket`` yet; Linux's number on the architectures that Envoy runs on."""
DELETED = " (deleted)"
MAX_BINARY_BYTES = 2 << 30
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_START_FIELD = 19
"""Of ``/proc/PID/stat``, counted after the name in brackets: when the process began, in ticks since boot."""
MAX_REMEMBERED = 256
_DIGESTS: dict[tuple[int, ...], str] = {}
"""By the file's identity and times: a file that runs cannot be written to."""
SETTLED_SECONDS = 2.0
"""Digests are remembered only of files unchanged for so long: two changes in one tick of the clock look alike."""


def boot_time() -> float:
    """Seconds since boot, as the kernel dates processes."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def peer_credentials(connection: socket.socket) -> UnixPeer:
    """The credentials the kernel noted when the peer connected. Raises OSError."""
    _, uid, gid = _credentials(connection)
    return UnixPeer(uid, gid)


def attest(connection: socket.socket, wanted: frozenset[str], accepted_at: float) -> UnixPeer:
    """
    The credentials, and what is ``wanted`` of the binary (``path``, ``sha256``) if it can be known.

    Reads a whole binary the first time: not for an event loop. ``accepted_at``: ``boot_time`` when the connection came.
    Raises OSError when the kernel says nothing at all about the peer.
    """
    pid, uid, gid = _credentials(connection)
    peer = UnixPeer(uid, gid)
    if not wanted:
        return peer
    try:
        with _process(connection, pid, accepted_at) as directory:
            path, digest = _binary(directory, "sha256" in wanted)
    except (OSError, ValueError) as error:
        reason = error.strerror or str(error) if isinstance(error, OSError) else str(error)
        return replace(peer, unknown=f"its binary is not known: {reason}")
    return replace(peer, path=path if "path" in wanted else "", sha256=digest)


def _credentials(connection: socket.socket) -> tuple[int, int, int]:
    size = struct.calcsize("3i")
    pid, uid, gid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return pid, uid, gid


@contextmanager
def _process(connection: socket.socket, pid: int, accepted_at: float) -> Iterator[int]:
    """A descriptor of ``/proc/PID`` that is the peer's for sure. Raises OSError, ValueError."""
    if pid <= 0:
        raise ValueError("the process is in another namespace of processes")
    handle, is_the_peers = _handle(connection, pid)
    try:
        directory = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            poll = select.poll()
            poll.register(handle, select.POLLIN)
            if poll.poll(0):
                raise ValueError("the process has ended")
            if not is_the_peers and _started(directory) >= accepted_at:
                raise ValueError("the process began after the connection")
            yield directory
        finally:
            os.close(directory)
    finally:
        os.close(handle)


def _handle(connection: socket.socket, pid: int) -> tuple[int, bool]:
    """A pidfd, and whether the kernel says it is the peer's; otherwise it belongs to whoever has the number now."""
    try:
        (handle,) = struct.unpack("i", connection.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD, struct.calcsize("i")))
    except OSError as error:
        if error.errno != errno.ENOPROTOOPT:
            raise
        return os.pidfd_open(pid), False
    if f"\nPid:\t{pid}\n" in Path(f"/proc/self/fdinfo/{handle}").read_text():
        return handle, True
    os.close(handle)
    raise ValueError("the process has ended")


def _started(directory: int) -> float:
    with os.fdopen(os.open("stat", os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)) as file:
        fields = file.read().rpartition(")")[2].split()
    return int(fields[_START_FIELD]) / _TICKS_PER_SECOND


def _binary(directory: int, with_digest: bool) -> tuple[str, str]:
    """Path and digest of one and the same binary. Raises OSError, ValueError."""
    path = os.readlink("exe", dir_fd=directory)
    if path.endswith(DELETED):
        raise ValueError("its file was deleted or replaced")
    if not path.startswith("/") or not path.isprintable():
        raise ValueError("its path cannot be written as a selector")
    if not with_digest:
        return path, ""
    with os.fdopen(os.open("exe", os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory), "rb") as file:
        status = os.fstat(file.fileno())
        if status.st_size > MAX_BINARY_BYTES:
            raise ValueError(f"it has more than {MAX_BINARY_BYTES} bytes")
        key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        digest = _DIGESTS.get(key)
        if digest is None:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            if time.time() - status.st_ctime > SETTLED_SECONDS:
                if len(_DIGESTS) >= MAX_REMEMBERED:
                    _DIGESTS.clear()
                _DIGESTS[key] = digest
    if os.readlink("exe", dir_fd=directory) != path:
        raise ValueError("the process runs another binary by now")
    return path, digest

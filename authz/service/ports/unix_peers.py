"""
Who is at the other end of a Unix socket, for servers that cannot ask: a relay in front of private sockets.

gRPC for Python hides the connection, so SO_PEERCRED cannot be read inside a handler. Instead this listens on the public
socket, asks the kernel for the credentials of each connection, and relays its bytes to a private socket that belongs to
those credentials alone; whatever arrives there comes from that uid and gid.

Why that is sound: the kernel fixes the credentials at ``connect``, and no later ``exec`` or ``setuid`` changes them.
The private sockets lie in a fresh directory of mode 0700, so nobody else can reach them around the relay (root could,
and root can read every key anyway). A process that hands its connection to another one hands over its own authority, as
it could with the key itself. A uid of another user namespace is translated by the kernel or becomes 65534, which should
have no entry.
"""

import asyncio
import contextlib
import os
import shutil
import socket
import struct
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from authz.core.errors import SettingsError
from authz.identity.registration import UnixPeer
from authz.service.ports.sockets import SocketLock

CHUNK = 65536
MAX_PEERS = 64
"""Different credentials served at once; each has a private socket."""
PUBLIC_SOCKET_MODE = 0o666
"""Everybody may connect: the credentials decide, not the socket's mode (XA-194)."""

Admit = Callable[[UnixPeer], bool]
"""Whether credentials are served at all; it records its own refusals."""
Refuse = Callable[[UnixPeer, str], None]
"""Record that a peer is refused, and why."""
OpenPrivate = Callable[[UnixPeer, str], Awaitable[None]]
"""Start serving one peer at a private path."""


def peer_credentials(connection: socket.socket) -> UnixPeer:
    """The credentials the kernel noted when the peer connected. Raises OSError."""
    size = struct.calcsize("3i")
    _, uid, gid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return UnixPeer(uid, gid)


class UnixPeers:
    """The relay. ``open_private`` starts the server of one peer."""

    def __init__(self, path: Path, admit: Admit, refuse: Refuse, open_private: OpenPrivate) -> None:
        self._path = path
        self._admit = admit
        self._refuse = refuse
        self._open_private = open_private
        self._private: dict[UnixPeer, str] = {}
        self._opening = asyncio.Lock()
        self._server: asyncio.Server | None = None
        self._lock: SocketLock | None = None
        self._directory = ""
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen. A socket that a killed predecessor left behind is replaced. Raises SettingsError."""
        self._lock = SocketLock(self._path, tidy=False)
        self._directory = tempfile.mkdtemp(prefix="authz-sds-")  # mode 0700
        # Bound under another name and renamed: the public path always leads to a listening socket of the right mode.
        unready = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        unready.unlink(missing_ok=True)
        try:
            self._server = await asyncio.start_unix_server(self._accept, path=str(unready))
            unready.chmod(PUBLIC_SOCKET_MODE)
            unready.rename(self._path)
        except OSError as error:
            raise SettingsError(f"cannot listen on `unix:{self._path}`: {error.strerror or error}") from error

    async def stop(self) -> None:
        """Close the public socket and every relayed connection; a second time does nothing."""
        if self._server is not None:
            self._server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        if self._server is not None:
            self._path.unlink(missing_ok=True)
            self._server = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None
        if self._directory:
            shutil.rmtree(self._directory, ignore_errors=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):  # either side may go at any time
                await self._relay(reader, writer)
        finally:
            self._connections.discard(task)
            writer.close()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = peer_credentials(writer.get_extra_info("socket"))
        if not self._admit(peer):
            return
        path = await self._private_socket(peer)
        if path is None:
            self._refuse(peer, f"more than {MAX_PEERS} different Unix peers are served already")
            return
        inner_reader, inner_writer = await asyncio.open_unix_connection(path)
        try:
            pumps = [
                asyncio.create_task(_pump(reader, inner_writer)),
                asyncio.create_task(_pump(inner_reader, writer)),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        finally:
            inner_writer.close()

    async def _private_socket(self, peer: UnixPeer) -> str | None:
        async with self._opening:
            if peer not in self._private:
                if len(self._private) >= MAX_PEERS:
                    return None
                path = f"{self._directory}/{peer.uid}-{peer.gid}.sock"
                await self._open_private(peer, path)
                self._private[peer] = path
            return self._private[peer]


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()

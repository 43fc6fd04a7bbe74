"""
Who is at the other end of a Unix socket, for servers that cannot ask: a relay in front of private sockets.

gRPC for Python hides the connection, so SO_PEERCRED cannot be read inside a handler. Instead this listens on the public
socket, asks the kernel for the credentials of each connection, and relays its bytes to a private socket that belongs to
those credentials alone; whatever arrives there comes from that uid and gid, and, where an entry asks for it, from that
binary (``attestation``). Whoever has no entry is relayed to a socket where everything is refused, so that a client is
told why instead of being hung up on.

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
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from authz.core.errors import SettingsError
from authz.identity.registration import UnixPeer
from authz.service.ports.attestation import attest, boot_time, peer_credentials
from authz.service.ports.sockets import SocketLock

CHUNK = 65536
MAX_PEERS = 64
"""Different credentials served at once; each has a private socket. One that nobody uses makes room for another."""
MAX_STRANGERS = 64
"""The most connections at once from those who have no entry."""
STRANGER_SECONDS = 10.0
"""The time after which such a connection ends: a client that keeps asking comes again, and may have an entry then."""
PUBLIC_SOCKET_MODE = 0o666
"""Everybody may connect: the credentials decide, not the socket's mode (XA-194)."""

Admit = Callable[[UnixPeer], bool]
"""Whether credentials are served at all; it records its own refusals."""
Refuse = Callable[[UnixPeer, str], None]
"""Record that a peer is refused, and why."""
Close = Callable[[], Awaitable[object]]
"""Stop serving at a private path."""
OpenPrivate = Callable[[UnixPeer | None, str], Awaitable[Close]]
"""Start serving one peer, or those who have no entry (None), at a private path."""
Wanted = Callable[[], frozenset[str]]
"""What must be known of a peer's binary: ``path``, ``sha256``."""


@dataclass(slots=True)
class _Private:
    path: str
    close: Close
    connections: int = 0


@dataclass(slots=True, eq=False)
class _Connection:
    """One relayed connection, and as whom its peer was received."""

    task: "asyncio.Task[None]"
    wanted: frozenset[str] = frozenset()
    peer: UnixPeer | None = None
    is_stranger: bool = field(default=False)


class UnixPeers:
    """The relay. ``open_private`` starts the server of one peer."""

    def __init__(
        self, path: Path, admit: Admit, refuse: Refuse, open_private: OpenPrivate, wanted: Wanted = frozenset
    ) -> None:
        self._path = path
        self._admit = admit
        self._refuse = refuse
        self._open_private = open_private
        self._wanted = wanted
        self._private: dict[UnixPeer | None, _Private] = {}
        self._opened = 0
        self._opening = asyncio.Lock()
        self._server: asyncio.Server | None = None
        self._lock: SocketLock | None = None
        self._directory = ""
        self._connections: set[_Connection] = set()

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
        """Close the public socket and every relayed connection; a second call does nothing."""
        if self._server is not None:
            self._server.close()
        connections = [connection.task for connection in self._connections]
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        for private in self._private.values():
            await private.close()
        self._private.clear()
        if self._server is not None:
            self._path.unlink(missing_ok=True)
            self._server = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None
        if self._directory:
            shutil.rmtree(self._directory, ignore_errors=True)

    def recheck(self) -> None:
        """
        End the connections that would be received as somebody else by now; they come again.

        To be called when entries change: a stranger may have one now, and a binary may matter that nobody looked at.
        """
        wanted = self._wanted()
        for connection in self._connections:
            peer = connection.peer
            is_admitted = connection.is_stranger and peer is not None and self._admit(peer)
            if is_admitted or not wanted <= connection.wanted:
                connection.task.cancel()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted_at = boot_time()
        task = asyncio.current_task()
        assert task is not None
        connection = _Connection(task, self._wanted())
        self._connections.add(connection)
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):  # either side may go at any time
                await self._receive(connection, accepted_at, reader, writer)
        finally:
            self._connections.discard(connection)
            writer.close()

    async def _receive(
        self, connection: _Connection, accepted_at: float, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        outer = writer.get_extra_info("socket")
        if connection.wanted:
            peer = await asyncio.to_thread(attest, outer, connection.wanted, accepted_at)
        else:
            peer = peer_credentials(outer)
        connection.peer, connection.is_stranger = peer, not self._admit(peer)
        if connection.is_stranger:
            self._refuse(peer, f"no registration entry is for {peer}{peer.unknown and f'; {peer.unknown}'}")
            if sum(other.is_stranger for other in self._connections) > MAX_STRANGERS:
                return
        private = await self._private_socket(None if connection.is_stranger else peer)
        if private is None:
            self._refuse(peer, f"more than {MAX_PEERS} different Unix peers are served already")
            return
        private.connections += 1
        try:
            async with asyncio.timeout(STRANGER_SECONDS if connection.is_stranger else None):
                await self._relay(private.path, reader, writer)
        except TimeoutError:
            pass
        finally:
            private.connections -= 1

    async def _relay(self, path: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
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

    async def _private_socket(self, peer: UnixPeer | None) -> _Private | None:
        """The private socket of a peer, opened the first time; None when there are too many."""
        async with self._opening:
            if peer in self._private:
                return self._private[peer]
            if peer is not None and len(self._private.keys() - {None}) >= MAX_PEERS:
                idle = next((who for who, one in self._private.items() if who and not one.connections), None)
                if idle is None:
                    return None
                await self._private.pop(idle).close()
            self._opened += 1
            path = f"{self._directory}/{f'{peer.uid}-{peer.gid}-' if peer else ''}{self._opened}.sock"
            self._private[peer] = _Private(path, await self._open_private(peer, path))
            return self._private[peer]


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()

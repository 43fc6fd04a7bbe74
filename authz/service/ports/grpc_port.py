"""A gRPC server's addresses: TCP and Unix sockets bound, locked against a second server, released again."""

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path

import grpc

from authz.core.errors import SettingsError
from authz.service.ports.sockets import SocketLock, owner_alone

OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.so_reuseport", 0),  # a second server on the port must fail, not starve (XA-123)
    ("grpc.http2.min_ping_interval_without_data_ms", 5000),  # Envoy's keepalive pings (XA-128)
    ("grpc.http2.max_ping_strikes", 0),
)


class GrpcPort:
    """One server on all its addresses; made in a running event loop. ``start`` once, then ``stop`` once."""

    def __init__(
        self,
        handlers: "Iterable[grpc.GenericRpcHandler[bytes, bytes]]",
        *,
        max_message_bytes: int,
        credentials: grpc.ServerCredentials | None,
        socket_mode: int,
    ) -> None:
        """``credentials`` None serves plaintext: for Unix sockets and loopback."""
        self._credentials = credentials
        self._socket_mode = socket_mode
        self._server = grpc.aio.server(options=[*OPTIONS, ("grpc.max_receive_message_length", max_message_bytes)])
        self._server.add_generic_rpc_handlers(tuple(handlers))
        self._locks: list[SocketLock] = []

    async def start(self, listen: Sequence[str]) -> tuple[str, ...]:
        """
        Listen on ``host:port``, ``unix:/path`` and ``unix-abstract:name``.

        Returns:
            The addresses, ports chosen by the system filled in.

        Raises:
            SettingsError: an address is taken or unusable; names it.
        """
        try:
            bound = tuple(self._bind(address) for address in listen)
            await self._server.start()
        except BaseException:
            self._release()
            raise
        return bound

    def _bind(self, address: str) -> str:
        path = address.removeprefix("unix:") if address.startswith("unix:") else ""
        if path:
            self._locks.append(SocketLock(Path(path)))
        try:
            with owner_alone() if path else nullcontext():
                port = (
                    self._server.add_insecure_port(address)
                    if self._credentials is None
                    else self._server.add_secure_port(address, self._credentials)
                )
        except RuntimeError as error:
            raise SettingsError(f"cannot listen on `{address}`: it is in use or not an address of this host") from error
        if path:
            Path(path).chmod(self._socket_mode)
        return f"{address.rpartition(':')[0]}:{port}" if address.rpartition(":")[2] == "0" else address

    async def stop(self, grace_seconds: float | None = None) -> None:
        """Stop, waiting that long for running calls, and release the sockets."""
        await self._server.stop(grace_seconds)
        self._release()

    def _release(self) -> None:
        for lock in self._locks:
            lock.release()
        self._locks.clear()

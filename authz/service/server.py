"""
The grpcio asyncio adapter: ``Check`` and health over TCP and Unix sockets, draining, locks on sockets.

It moves bytes between gRPC and ``CheckFunction`` and knows nothing of either's content.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from time import time
from typing import Protocol

import grpc
from google.protobuf.internal import api_implementation

from authz.core.errors import SettingsError
from authz.core.providers import ProviderAnswer
from authz.service.check_function import CheckFunction
from authz.service.pending import Pending
from authz.service.ports.grpc_health import AUTHORIZATION, GrpcHealth
from authz.service.ports.sockets import SocketLock

_log = logging.getLogger("authz.server")

OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.so_reuseport", 0),  # a second server on the port must fail, not starve (XA-123)
    ("grpc.http2.min_ping_interval_without_data_ms", 5000),  # Envoy's keepalive pings (XA-128)
    ("grpc.http2.max_ping_strikes", 0),
)
AskProvider = Callable[[Pending], Awaitable[ProviderAnswer]]
JudgeCaller = Callable[[str, float], str]
"""Why a certificate (PEM), by which somebody asks over mutual TLS, is not answered at this time; empty: it is."""
TakeStream = Callable[[AsyncIterator[bytes]], Awaitable[None]]
"""Takes the messages of one stream of access log entries; raises ValueError for bytes that are none."""
ACCESS_LOG = "envoy.service.accesslog.v3.AccessLogService"
STREAM_ACCESS_LOGS = "StreamAccessLogs"


class Server(Protocol):
    """The server of one worker: grpcio, or the Envoy that hosts it."""

    health: GrpcHealth
    addresses: tuple[str, ...]
    """Where it listens, ports chosen by the system filled in; empty when Envoy does."""

    async def start(self, listen: Sequence[str]) -> None:
        """Listen. Raises SettingsError for an address that is taken or unusable."""

    async def drain(self, delay_seconds: float, grace_seconds: float) -> None:
        """Say NOT_SERVING, let the proxies notice, finish what runs, stop (XA-127)."""

    async def stop(self, grace_seconds: float | None = None) -> None:
        """Stop, waiting so long for the calls that run."""


class CheckServer:
    """
    One worker's server. ``start``, then ``drain`` once; health is told from outside.

    ``credentials`` None serves plaintext: for Unix sockets and loopback.
    ``is_mutual``: the credentials ask for a certificate, whose SPIFFE ID is held against the workload asked for.
    ``socket_mode`` lets members of the group connect to Unix sockets, and no stranger, unless told otherwise.
    """

    def __init__(
        self,
        function: CheckFunction,
        ask: AskProvider,
        *,
        max_message_bytes: int,
        credentials: grpc.ServerCredentials | None = None,
        socket_mode: int = 0o660,
        clock: Callable[[], float] = time,
        judge_caller: JudgeCaller | None = None,
        is_mutual: bool = False,
        take_stream: TakeStream | None = None,
    ) -> None:
        if api_implementation.Type() != "upb":
            raise SettingsError("protobuf runs without its C library, 50 times slower: reinstall `protobuf` (XA-198)")
        self._function = function
        self._ask = ask
        self._clock = clock
        self._credentials = credentials
        self._socket_mode = socket_mode
        self._judge_caller = judge_caller
        self._is_mutual = is_mutual
        self.health = GrpcHealth()
        self._server = grpc.aio.server(
            options=[*OPTIONS, ("grpc.max_receive_message_length", max_message_bytes)],
        )
        check = grpc.unary_unary_rpc_method_handler(self._check)
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(AUTHORIZATION, {"Check": check}), self.health.handler())
        )
        self._take_stream = take_stream
        if take_stream is not None:
            stream = grpc.stream_unary_rpc_method_handler(self._stream)
            self._server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler(ACCESS_LOG, {STREAM_ACCESS_LOGS: stream}),)
            )
        self._locks: list[SocketLock] = []
        self.addresses: tuple[str, ...] = ()
        """Where it listens, ports chosen by the system filled in."""

    async def start(self, listen: Sequence[str]) -> None:
        """
        Listen on ``host:port``, ``unix:/path`` and ``unix-abstract:name``.

        Raises:
            SettingsError: an address is taken or unusable; names it.
        """
        try:
            bound = tuple(self._bind(address) for address in listen)
            await self._server.start()
        except BaseException:
            self._release()
            raise
        self.addresses = bound

    def _bind(self, address: str) -> str:
        path = address.removeprefix("unix:") if address.startswith("unix:") else ""
        if path:
            self._locks.append(SocketLock(Path(path)))
        try:
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

    async def _stream(self, messages: AsyncIterator[bytes], context: "grpc.aio.ServicerContext[bytes, bytes]") -> bytes:
        """Access log entries; the caller must be somebody who may ask."""
        assert self._take_stream is not None
        await self._refuse_caller(context)
        try:
            await self._take_stream(messages)
        except ValueError as error:
            await context.abort(grpc.StatusCode.INTERNAL, str(error))
        return b""

    async def _refuse_caller(self, context: "grpc.aio.ServicerContext[bytes, bytes]") -> None:
        if self._judge_caller is not None:
            for certificate in context.auth_context().get("x509_pem_cert", ()):
                if refusal := self._judge_caller(bytes(certificate).decode("ascii", "replace"), self._clock()):
                    await context.abort(grpc.StatusCode.UNAUTHENTICATED, refusal)

    async def _check(self, message: bytes, context: "grpc.aio.ServicerContext[bytes, bytes]") -> bytes:
        if self._judge_caller is not None:
            await self._refuse_caller(context)
        caller = _caller(context.auth_context().get("peer_uri", ())) if self._is_mutual else ""
        answer = self._function.check(message, context.invocation_metadata() or (), self._clock(), caller)
        while isinstance(answer, Pending):
            try:
                told = await self._ask(answer)
            except asyncio.CancelledError:  # the client is gone (XA-102)
                answer.abandon()
                raise
            answer = answer.resume(told, self._clock())
        return answer

    async def drain(self, delay_seconds: float, grace_seconds: float) -> None:
        """Say NOT_SERVING, let the proxies notice, finish what runs, stop (XA-127)."""
        self.health.set_serving(False)
        await asyncio.sleep(delay_seconds)
        await self.stop(grace_seconds)

    async def stop(self, grace_seconds: float | None = None) -> None:
        """Stop, waiting so long for the calls that run, and release the sockets."""
        await self._server.stop(grace_seconds)
        self._release()

    def _release(self) -> None:
        for lock in self._locks:
            lock.release()
        self._locks.clear()


def _caller(uris: Iterable[bytes]) -> str:
    """The identity in a certificate that the handshake accepted; several make one that is nobody's."""
    return " ".join(uri.decode("utf-8", "replace") for uri in uris if uri.startswith(b"spiffe://"))

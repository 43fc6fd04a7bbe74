"""
The grpcio asyncio adapter: ``Check`` and health over TCP and Unix sockets, draining, locks on sockets.

It moves bytes between gRPC and ``CheckFunction`` and knows nothing of either's content.
"""

import asyncio
import fcntl
import logging
import os
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from time import time
from typing import Protocol

import grpc
from google.protobuf.internal import api_implementation

from authz._proto import health_pb2
from authz.core.errors import SettingsError
from authz.core.pipeline import ProviderAnswer
from authz.service.check import CheckFunction, Pending

_log = logging.getLogger("authz.server")

AUTHORIZATION = "envoy.service.auth.v3.Authorization"
HEALTH = "grpc.health.v1.Health"
OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.so_reuseport", 0),  # a second server on the port must fail, not starve (XA-123)
    ("grpc.http2.min_ping_interval_without_data_ms", 5000),  # Envoy's keepalive pings (XA-128)
    ("grpc.http2.max_ping_strikes", 0),
)
AskProvider = Callable[[Pending], Awaitable[ProviderAnswer]]
_Status = health_pb2.HealthCheckResponse


class Health:
    """``grpc.health.v1`` for the server as a whole and the auth service; NOT_SERVING until told otherwise."""

    def __init__(self) -> None:
        self._serving = False
        self._changed = asyncio.Event()

    @property
    def is_serving(self) -> bool:
        return self._serving

    def set_serving(self, serving: bool) -> None:
        if serving is not self._serving:
            self._serving = serving
            self._changed.set()
            self._changed = asyncio.Event()

    @property
    def changed(self) -> asyncio.Event:
        """Set at the next change, and then replaced."""
        return self._changed

    def answer(self, request: bytes) -> tuple[bytes, bool]:
        """Answer a serialised HealthCheckRequest; False when its service is unknown. Raises DecodeError."""
        is_known = health_pb2.HealthCheckRequest.FromString(request).service in ("", AUTHORIZATION)
        status = _Status.SERVING if self._serving else _Status.NOT_SERVING
        return _Status(status=status if is_known else _Status.SERVICE_UNKNOWN).SerializeToString(), is_known

    async def check(self, request: bytes, context: "grpc.aio.ServicerContext[bytes, bytes]") -> bytes:
        answer, is_known = self.answer(request)
        if not is_known:
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return answer

    async def watch(self, request: bytes, context: "grpc.aio.ServicerContext[bytes, bytes]") -> AsyncIterator[bytes]:
        while True:
            changed = self._changed
            yield self.answer(request)[0]
            await changed.wait()

    def handler(self) -> "grpc.GenericRpcHandler[bytes, bytes]":
        return grpc.method_handlers_generic_handler(
            HEALTH,
            {
                "Check": grpc.unary_unary_rpc_method_handler(self.check),
                "Watch": grpc.unary_stream_rpc_method_handler(self.watch),
            },
        )


class Server(Protocol):
    """What serves one worker: grpcio, or the Envoy that hosts it."""

    health: Health
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
    ``judge_caller`` says of a certificate (PEM), by which somebody asks over mutual TLS, why it is not answered.
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
        judge_caller: Callable[[str, float], str] | None = None,
    ) -> None:
        if api_implementation.Type() != "upb":
            raise SettingsError("protobuf runs without its C library, 50 times slower: reinstall `protobuf` (XA-198)")
        self._function = function
        self._ask = ask
        self._clock = clock
        self._credentials = credentials
        self._socket_mode = socket_mode
        self._judge_caller = judge_caller
        self.health = Health()
        self._server = grpc.aio.server(
            options=[*OPTIONS, ("grpc.max_receive_message_length", max_message_bytes)],
        )
        check = grpc.unary_unary_rpc_method_handler(self._check)
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(AUTHORIZATION, {"Check": check}), self.health.handler())
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

    async def _check(self, message: bytes, context: "grpc.aio.ServicerContext[bytes, bytes]") -> bytes:
        if self._judge_caller is not None:
            for certificate in context.auth_context().get("x509_pem_cert", ()):
                if refusal := self._judge_caller(bytes(certificate).decode("ascii", "replace"), self._clock()):
                    await context.abort(grpc.StatusCode.UNAUTHENTICATED, refusal)
        answer = self._function.check(message, context.invocation_metadata() or (), self._clock())
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
        await self._server.stop(grace_seconds)
        self._release()

    def _release(self) -> None:
        for lock in self._locks:
            lock.release()
        self._locks.clear()


class SocketLock:
    """
    A lock file beside a Unix socket: a second server would silently steal the path (XA-123).

    A socket left by a crashed server is removed; the lock went with its process.
    """

    def __init__(self, path: Path, *, tidy: bool = True) -> None:
        """``tidy`` removes the socket of a crashed server; Envoy does that itself. Raises SettingsError."""
        self._path = path
        self._lock_path = path.with_name(path.name + ".lock")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SettingsError(f"cannot listen on `unix:{path}`: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise SettingsError(f"cannot listen on `unix:{path}`: another server holds it") from error
        try:
            if tidy and stat.S_ISSOCK(path.lstat().st_mode):
                path.unlink()
        except FileNotFoundError:
            pass

    def release(self) -> None:
        """The lock file stays: removing it would let two servers hold locks on different files of one name."""
        os.close(self._lock)

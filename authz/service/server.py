"""
The grpcio asyncio adapter: ``Check`` and health over TCP and Unix sockets, draining, locks on sockets.

It moves bytes between gRPC and ``CheckFunction`` and knows nothing of either's content.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from time import time
from typing import Protocol

import grpc
from google.protobuf.internal import api_implementation

from authz.core.errors import SettingsError
from authz.core.providers import GivenAnswer
from authz.service.check_function import CheckFunction
from authz.service.pending import Pending
from authz.service.ports.grpc_health import AUTHORIZATION, GrpcHealth
from authz.service.ports.grpc_port import GrpcPort
from authz.service.streams import JudgeCaller, TakeStream, caller_of, refuse_caller, stream_handler

AskProvider = Callable[[Pending], Awaitable[GivenAnswer]]
"""Puts the question of a request to whoever answers it: an external authorizer, or the issuer of a token."""


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
        """Stop, waiting that long for running calls."""


class CheckServer:
    """
    One worker's server. ``start``, then ``drain`` once; health is told from outside.

    ``credentials`` None serves plaintext: for Unix sockets and loopback.
    ``is_mutual``: the credentials ask for a certificate, whose SPIFFE ID must match the workload asked for.
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
        self._judge_caller = judge_caller
        self._is_mutual = is_mutual
        self.health = GrpcHealth()
        check = grpc.unary_unary_rpc_method_handler(self._check)
        handlers = [grpc.method_handlers_generic_handler(AUTHORIZATION, {"Check": check}), self.health.handler()]
        if take_stream is not None:
            handlers.append(stream_handler(take_stream, judge_caller, clock))
        self._port = GrpcPort(
            handlers, max_message_bytes=max_message_bytes, credentials=credentials, socket_mode=socket_mode
        )
        self.addresses: tuple[str, ...] = ()
        """Where it listens, ports chosen by the system filled in."""

    async def start(self, listen: Sequence[str]) -> None:
        """
        Listen on ``host:port``, ``unix:/path`` and ``unix-abstract:name``.

        Raises:
            SettingsError: an address is taken or unusable; names it.
        """
        self.addresses = await self._port.start(listen)

    async def _check(self, message: bytes, context: "grpc.aio.ServicerContext[bytes, bytes]") -> bytes:
        if self._judge_caller is not None:
            await refuse_caller(context, self._judge_caller, self._clock())
        caller = caller_of(context) if self._is_mutual else ""
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
        """Stop, waiting that long for running calls, and release the sockets."""
        await self._port.stop(grace_seconds)

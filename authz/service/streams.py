"""
The grpcio port of Envoy's gRPC access log service: beside the check on its addresses, or on addresses of its own.

It moves bytes between gRPC and whoever takes streams, and knows nothing of either's content.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from time import time

import grpc

from authz.service.ports.grpc_port import GrpcPort
from authz.service.ports.log import Announce
from authz.service.ports.server_tls import ServerCertificate
from authz.settings.sections import Sections

JudgeCaller = Callable[[str, float], str]
"""Why a certificate (PEM), by which somebody asks over mutual TLS, is not answered at this time; empty: it is."""
TakeStream = Callable[[AsyncIterator[bytes], str], Awaitable[None]]
"""
Takes the messages of one stream of access log entries, and the identity by which it came, empty where no certificate
was asked for; raises ValueError for bytes that are not such a message.
"""
ACCESS_LOG = "envoy.service.accesslog.v3.AccessLogService"
STREAM_ACCESS_LOGS = "StreamAccessLogs"
STOP_SECONDS = 0.5
"""The time for a message that is being taken: a stream has no end of its own."""


def stream_handler(
    take: TakeStream, judge_caller: JudgeCaller | None, clock: Callable[[], float]
) -> "grpc.GenericRpcHandler[bytes, bytes]":
    """The service as gRPC takes it; the caller must be one who may ask, and may report on itself only."""

    async def stream(messages: AsyncIterator[bytes], context: "grpc.aio.ServicerContext[bytes, bytes]") -> bytes:
        await refuse_caller(context, judge_caller, clock())
        try:
            await take(messages, caller_of(context))
        except ValueError as error:
            await context.abort(grpc.StatusCode.INTERNAL, str(error))
        return b""

    handler = grpc.stream_unary_rpc_method_handler(stream)
    return grpc.method_handlers_generic_handler(ACCESS_LOG, {STREAM_ACCESS_LOGS: handler})


def caller_of(context: "grpc.aio.ServicerContext[bytes, bytes]") -> str:
    """
    The identity in a certificate that the handshake accepted, empty without one; several together are nobody's.
    """
    uris: Iterable[bytes] = context.auth_context().get("peer_uri", ())
    return " ".join(uri.decode("utf-8", "replace") for uri in uris if uri.startswith(b"spiffe://"))


async def refuse_caller(
    context: "grpc.aio.ServicerContext[bytes, bytes]", judge_caller: JudgeCaller | None, now: float
) -> None:
    """Abort a call whose certificate is not answered at this time."""
    if judge_caller is not None:
        for certificate in context.auth_context().get("x509_pem_cert", ()):
            if refusal := judge_caller(bytes(certificate).decode("ascii", "replace"), now):
                await context.abort(grpc.StatusCode.UNAUTHENTICATED, refusal)


class StreamServer:
    """Streams only, on addresses of their own, whatever serves the check. ``start`` once, then ``stop`` once."""

    def __init__(
        self,
        take: TakeStream,
        *,
        max_message_bytes: int,
        credentials: grpc.ServerCredentials | None = None,
        socket_mode: int = 0o660,
        judge_caller: JudgeCaller | None = None,
        clock: Callable[[], float] = time,
    ) -> None:
        """As ``CheckServer``."""
        self._port = GrpcPort(
            [stream_handler(take, judge_caller, clock)],
            max_message_bytes=max_message_bytes,
            credentials=credentials,
            socket_mode=socket_mode,
        )

    async def start(self, listen: Sequence[str], announce: Announce) -> None:
        """Listen and say where, ports chosen by the system filled in. Raises SettingsError as ``GrpcPort.start``."""
        for address in await self._port.start(listen):
            announce(f"records   listening {address}")

    async def stop(self) -> None:
        """End all streams; proxies open others when somebody listens again."""
        await self._port.stop(STOP_SECONDS)


def stream_server(
    settings: Sections,
    take: TakeStream,
    tls: ServerCertificate | None,
    judge_caller: JudgeCaller | None,
    clock: Callable[[], float],
) -> StreamServer | None:
    """The port of access logs beside the check's, and otherwise like it; None where no address is named for it."""
    if not settings.access_logs.listen:
        return None
    return StreamServer(
        take,
        max_message_bytes=settings.server.max_message_bytes,
        credentials=tls.credentials() if tls is not None else None,
        socket_mode=settings.server.socket_permissions,
        judge_caller=judge_caller,
        clock=clock,
    )

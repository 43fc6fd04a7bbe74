"""``grpc.health.v1`` over grpcio: one state for the server as a whole and for the authorization service."""

import asyncio
from collections.abc import AsyncIterator

import grpc

from authz._proto import health_pb2

AUTHORIZATION = "envoy.service.auth.v3.Authorization"
HEALTH = "grpc.health.v1.Health"
_Status = health_pb2.HealthCheckResponse


class GrpcHealth:
    """``grpc.health.v1`` for the server as a whole and the auth service; NOT_SERVING until told otherwise."""

    def __init__(self) -> None:
        self._serving = False
        self._changed = asyncio.Event()

    @property
    def is_serving(self) -> bool:
        """Whether health says SERVING now."""
        return self._serving

    def set_serving(self, serving: bool) -> None:
        """Say SERVING or NOT_SERVING from now on; watchers are told."""
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
        """``grpc.health.v1.Health/Check``; NOT_FOUND for a service that is not here."""
        answer, is_known = self.answer(request)
        if not is_known:
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return answer

    async def watch(self, request: bytes, context: "grpc.aio.ServicerContext[bytes, bytes]") -> AsyncIterator[bytes]:
        """``grpc.health.v1.Health/Watch``: the state now, and again at each change."""
        while True:
            changed = self._changed
            yield self.answer(request)[0]
            await changed.wait()

    def handler(self) -> "grpc.GenericRpcHandler[bytes, bytes]":
        """Both methods, to be added to a grpcio server."""
        return grpc.method_handlers_generic_handler(
            HEALTH,
            {
                "Check": grpc.unary_unary_rpc_method_handler(self.check),
                "Watch": grpc.unary_stream_rpc_method_handler(self.watch),
            },
        )

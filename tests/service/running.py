"""A server on loopback and a channel to it; everything real but the policies."""

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager

import grpc

from authz._proto import health_pb2
from authz.core.providers import ProviderAnswer
from authz.service.check_function import CheckFunction
from authz.service.pending import Pending
from authz.service.ports.grpc_health import AUTHORIZATION, HEALTH
from authz.service.server import AskProvider, CheckServer

NOW = 1_800_000_000.0
Ask = Callable[[bytes], Coroutine[None, None, bytes]]


async def refuse(pending: Pending) -> ProviderAnswer:
    return ProviderAnswer(False)


@asynccontextmanager
async def serving(
    function: CheckFunction,
    address: str = "127.0.0.1:0",
    ask: AskProvider = refuse,
    max_message_bytes: int = 1 << 20,
) -> AsyncIterator[tuple[CheckServer, grpc.aio.Channel]]:
    server = CheckServer(function, ask, max_message_bytes=max_message_bytes, clock=lambda: NOW)
    await server.start([address])
    async with grpc.aio.insecure_channel(server.addresses[0]) as channel:
        try:
            yield server, channel
        finally:
            await server.stop()


def check_call(channel: grpc.aio.Channel) -> Ask:
    call = channel.unary_unary(f"/{AUTHORIZATION}/Check", request_serializer=bytes, response_deserializer=bytes)

    async def ask(message: bytes) -> bytes:
        answer: bytes = await call(message)
        return answer

    return ask


async def health_of(channel: grpc.aio.Channel, service: str = AUTHORIZATION) -> str:
    call = channel.unary_unary(f"/{HEALTH}/Check", request_serializer=bytes, response_deserializer=bytes)
    answer = await call(health_pb2.HealthCheckRequest(service=service).SerializeToString())
    status = health_pb2.HealthCheckResponse.FromString(answer).status
    return health_pb2.HealthCheckResponse.ServingStatus.Name(status)

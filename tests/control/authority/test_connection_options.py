"""What the doors for remote peers hold of a peer that sends faster than it is read."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc

from authz.control.authority.connection_options import ConnectionLife, options_for

MESSAGE = b"x" * 16_000


async def test_hardly_more_of_a_stream_waits_here_than_is_being_read() -> None:
    """By default gRPC lets a fast sender have megabytes of every stream wait in our memory."""
    taken = sent = most = 0

    async def take(messages: AsyncIterator[bytes], _context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
        nonlocal taken
        async for message in messages:
            taken += len(message)
            await asyncio.sleep(0.002)
        return b""

    async def messages() -> AsyncIterator[bytes]:
        nonlocal sent, most
        for _ in range(150):
            yield MESSAGE
            sent += len(MESSAGE)
            most = max(most, sent - taken)

    server = grpc.aio.server(options=options_for(ConnectionLife()))
    method = grpc.stream_unary_rpc_method_handler(take)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("some", {"Take": method}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.stream_unary("/some/Take", request_serializer=bytes, response_deserializer=bytes)
            await asyncio.wait_for(call(messages()), 20)
    finally:
        await server.stop(0)
    assert taken == 150 * len(MESSAGE)
    assert most < 400_000

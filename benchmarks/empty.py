"""Servers without content, to see what the transport costs: an ASGI application, and grpcio when run as a program."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

METHOD = "envoy.service.auth.v3.Authorization"
ALLOW = b"\x0a\x00"
"""A CheckResponse whose status is OK."""


async def application(
    scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    """Receive a message and allow, hosted in Envoy."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-type", b"application/grpc")]
    await send({"type": "http.response.start", "status": 200, "headers": headers, "trailers": True})
    await send({"type": "http.response.body", "body": b"\0\0\0\0\x02" + ALLOW, "more_body": False})
    await send({"type": "http.response.trailers", "headers": [(b"grpc-status", b"0")], "more_trailers": False})


async def serve(address: str) -> None:
    """The same on grpcio asyncio."""

    async def check(message: bytes, context: "grpc.aio.ServicerContext[bytes, bytes]") -> bytes:
        return ALLOW

    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    handlers = {"Check": grpc.unary_unary_rpc_method_handler(check)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(METHOD, handlers),))
    server.add_insecure_port(address)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))

"""What stands around the sidecar: applications, a key server, and CUSTOM providers, all in one event loop."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import NamedTuple

import grpc

from authz._proto import ext_authz_pb2 as pb
from authz.core.resources import ExtensionProvider
from authz.service.ports.grpc_health import AUTHORIZATION

Pairs = list[tuple[str, str]]


class Request(NamedTuple):
    method: str
    target: str
    headers: Pairs
    body: bytes


async def read_request(reader: asyncio.StreamReader) -> Request | None:
    """One HTTP/1.1 request, bytes of its head as surrogate escapes; None at the end."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    first, *lines = head.decode("utf-8", "surrogateescape").removesuffix("\r\n\r\n").split("\r\n")
    method, _, rest = first.partition(" ")
    headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    body = await reader.readexactly(int(dict(headers).get("content-length", "0")))
    return Request(method, rest.rpartition(" ")[0], headers, body)


def answer(status: str, body: bytes, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", *headers, f"content-length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


@dataclass
class Applications:
    """Ports on 127.0.0.1, and what was asked there."""

    http: int = 0
    tcp: int = 0
    keys: int = 0
    key_sets: dict[str, str] = field(default_factory=dict)
    """Path to the text of a JWKS; every other path answers 500."""
    providers: dict[tuple[str, str], int] = field(default_factory=dict)
    """Protocol and answer (``allow``, ``deny``, ``error``) to port."""
    bodies: list[bytes] = field(default_factory=list)
    """Of the requests that arrived at the upstream."""
    asked: list[str] = field(default_factory=list)
    """Targets (HTTP) or methods (gRPC) that providers were asked about."""

    async def echo(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Tell as JSON what arrived."""
        with contextlib.suppress(ConnectionError):
            while (request := await read_request(reader)) is not None:
                self.bodies.append(request.body)
                seen = json.dumps({"method": request.method, "path": request.target, "headers": request.headers})
                told = answer("200 OK", seen.encode(), "content-type: application/json")
                writer.write(told if request.method != "HEAD" else told[: told.index(b"\r\n\r\n") + 4])
                await writer.drain()
        writer.close()

    async def repeat(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve_keys(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while (request := await read_request(reader)) is not None:
                text = self.key_sets.get(request.target)
                writer.write(answer("200 OK", text.encode()) if text is not None else answer("500 Broken", b""))
                await writer.drain()
        writer.close()

    def provider(self, told: str) -> "object":
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError):
                while (request := await read_request(reader)) is not None:
                    self.asked.append(request.target)
                    status = {"allow": "200 OK", "deny": "403 Forbidden"}.get(told, "500 Broken")
                    writer.write(answer(status, b""))
                    await writer.drain()
            writer.close()

        return serve

    def address_of(self, provider: ExtensionProvider, told: str) -> str:
        """Where a provider with this answer listens."""
        return f"127.0.0.1:{self.providers[provider.protocol, told]}"

    def grpc_provider(self, told: str) -> "grpc.GenericRpcHandler[bytes, bytes]":
        async def check(message: bytes, context: "grpc.aio.ServicerContext[bytes, bytes]") -> bytes:
            self.asked.append(pb.CheckRequest.FromString(message).attributes.request.http.path)
            if told == "error":
                await context.abort(grpc.StatusCode.INTERNAL, "the stub cannot be asked")
            response = pb.CheckResponse()
            response.status.code = 0 if told == "allow" else 7
            return response.SerializeToString()

        handler = grpc.unary_unary_rpc_method_handler(check)
        return grpc.method_handlers_generic_handler(AUTHORIZATION, {"Check": handler})


@contextlib.asynccontextmanager
async def applications() -> AsyncIterator[Applications]:
    """Start them all on ports of the system's choice."""
    found = Applications()
    async with contextlib.AsyncExitStack() as stack:

        async def listen(serve: object) -> int:
            server = await asyncio.start_server(serve, "127.0.0.1", 0)  # type: ignore[arg-type]  # a stream callback
            stack.callback(server.close)
            port: int = server.sockets[0].getsockname()[1]
            return port

        found.http = await listen(found.echo)
        found.tcp = await listen(found.repeat)
        found.keys = await listen(found.serve_keys)
        for told in ("allow", "deny", "error"):
            found.providers["http", told] = await listen(found.provider(told))
            server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
            server.add_generic_rpc_handlers((found.grpc_provider(told),))
            found.providers["grpc", told] = server.add_insecure_port("127.0.0.1:0")
            await server.start()
            stack.push_async_callback(server.stop, None)
        yield found

"""A real introspection endpoint (RFC 7662), plain or over TLS, that can be told to misbehave."""

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote_plus

SECRET = "pa:ss wörd+%"
CLIENT = "authz client"
INACTIVE: dict[str, Any] = {"active": False}


@dataclass
class Endpoint:
    """What it says, and what it was asked."""

    url: str = ""
    answers: dict[str, Any] = field(default_factory=dict)
    """What it answers for a token; one that is not here is not active. Bytes are sent as they are."""
    status: int = 200
    content_type: str = "application/json"
    headers: str = ""
    is_silent: bool = False
    """It takes the question and never answers."""
    gate: asyncio.Event | None = None
    """Answers wait for it."""
    asked: list[str] = field(default_factory=list)
    """Tokens in the order of the questions."""
    was_asked: asyncio.Event = field(default_factory=asyncio.Event)
    serving: list["asyncio.Task[Any]"] = field(default_factory=list)
    closes: bool = False
    """It closes a connection after each answer without saying so."""
    problems: list[str] = field(default_factory=list)

    async def until_asked(self, times: int) -> None:
        """Wait for so many questions."""
        async with asyncio.timeout(60):
            while len(self.asked) < times:
                self.was_asked.clear()
                await self.was_asked.wait()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (task := asyncio.current_task()) is not None:
            self.serving.append(task)
        try:
            while await self._answer(reader, writer) and not self.closes:
                pass
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {line.partition(":")[0].lower(): line.partition(":")[2].strip() for line in head[1:] if line}
        form = parse_qs((await reader.readexactly(int(headers["content-length"]))).decode())
        token = form["token"][0]
        self.asked.append(token)
        self.was_asked.set()
        if self.is_silent:
            await asyncio.sleep(3600)
        if self.gate is not None:
            await self.gate.wait()
        told = self.answers.get(token, INACTIVE)
        body = told if isinstance(told, bytes) else json.dumps(told).encode()
        status = self.status if self._is_known(head[0], headers) else 401
        answer = f"HTTP/1.1 {status} X\r\ncontent-type: {self.content_type}\r\n{self.headers}"
        writer.write(f"{answer}content-length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()
        return True

    def _is_known(self, line: str, headers: dict[str, str]) -> bool:
        """RFC 6749, 2.3.1: id and secret are form-encoded within Basic."""
        if not line.startswith("POST /introspect "):
            self.problems.append(line)
        kind, _, text = headers.get("authorization", "").partition(" ")
        name, _, secret = base64.b64decode(text).decode().partition(":")
        return (kind, unquote_plus(name), unquote_plus(secret)) == ("Basic", CLIENT, SECRET)


@asynccontextmanager
async def endpoint(context: ssl.SSLContext | None = None) -> AsyncIterator[Endpoint]:
    made = Endpoint()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    made.url = f"{'https' if context else 'http'}://127.0.0.1:{port}/introspect"
    try:
        yield made
    finally:
        server.close()
        for task in made.serving:
            task.cancel()
        await asyncio.gather(*made.serving, return_exceptions=True)
    assert made.problems == []

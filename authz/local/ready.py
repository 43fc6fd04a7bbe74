"""Is a process ready to serve? Asked again and again until it is, or until it ends, or until patience does."""

import asyncio
import json
import os
import time
from pathlib import Path

from authz.local.children import Child, LocalError, last_lines

LOOPBACK = "127.0.0.1"
PAUSE_SECONDS = 0.05
READ_SECONDS = 2.0


def reached(socket: Path) -> str:
    """The shorter of a socket's two paths: one of more than 107 bytes cannot be connected to (XA-116, unix(7))."""
    return min(str(socket), os.path.relpath(socket), key=len)


async def wait_until_ready(child: Child, state: Path) -> float:
    """
    Wait until the child serves and return how many seconds that took.

    Raises LocalError with the end of its log.
    """
    began = time.monotonic()
    name, question, patience = child.command.name, child.command.ready, child.command.patience_seconds
    why = ""
    while time.monotonic() - began < patience:
        if not child.is_running:
            code = child.process.returncode
            raise LocalError(f"{name} ended with code {code} while it started:\n{last_lines(state, name)}")
        why = await ask_all(question, state)
        if not why:
            return time.monotonic() - began
        await asyncio.sleep(PAUSE_SECONDS)
    raise LocalError(f"{name} is not ready after {patience:.0f} seconds: {why}\n{last_lines(state, name)}")


async def ask_all(questions: str, state: Path) -> str:
    """Ask for every sign that a command is ready; empty when it is, else the first reason why not."""
    for question in questions.split():
        if why := await ask(question, state):
            return why
    return ""


async def ask(question: str, state: Path) -> str:
    """Ask once; empty when ready, else why not."""
    kind, _, rest = question.partition(":")
    try:
        if kind == "tcp":
            await _close(await asyncio.open_connection(LOOPBACK, int(rest)))
        elif kind == "unix":
            await _close(await asyncio.open_unix_connection(reached(state / rest)))
        elif kind == "http":
            port, slash, path = rest.partition("/")
            return await _http(await asyncio.open_connection(LOOPBACK, int(port)), slash + path)
        elif kind in ("envoy", "authz"):
            path = "/ready" if kind == "envoy" else "/readyz"
            return await _http(await asyncio.open_unix_connection(reached(state / rest)), path)
    except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
        return str(error) or type(error).__name__
    return ""


async def get_unix(path: Path, target: str) -> str:
    """GET from a Unix socket and return the body; for Envoy's administration. Raises OSError."""
    reader, writer = await asyncio.open_unix_connection(reached(path))
    writer.write(f"GET {target} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n".encode())
    data = await asyncio.wait_for(reader.read(), READ_SECONDS)
    await _close((reader, writer))
    return data.decode("utf-8", "replace").partition("\r\n\r\n")[2]


async def _http(streams: tuple[asyncio.StreamReader, asyncio.StreamWriter], path: str) -> str:
    reader, writer = streams
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode())
        data = await asyncio.wait_for(reader.read(), READ_SECONDS)
    finally:
        await _close(streams)
    head, _, body = data.partition(b"\r\n\r\n")
    status = head.split(b" ", 2)[1:2]
    return "" if status == [b"200"] else _reason(head, body)


def _reason(head: bytes, body: bytes) -> str:
    line = head.split(b"\r\n", 1)[0].decode("latin-1")
    try:
        return f"{line}: {json.dumps(json.loads(body))[:300]}"
    except ValueError:
        return f"{line}: {body[:200].decode('utf-8', 'replace').strip()}"


async def _close(streams: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
    streams[1].close()
    try:
        await streams[1].wait_closed()
    except OSError:
        return

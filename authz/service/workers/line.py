"""
The conversation between supervisor and worker: the order at the start, then JSON lines over a socket pair.

No part of the server is here, so that a supervisor need not load it.
"""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from authz.settings.settings import Settings

ORDER = "_AUTHZ_WORKER"
"""Environment variable of a worker's order; it lacks the prefix of settings, since it carries them."""
NOT_SERVING, FINISH = "not-serving", "finish"
REOPEN, LOG_LEVEL = "reopen", "log-level"


@dataclass(frozen=True, slots=True)
class Order:
    """The order that the supervisor gives a worker when it starts it."""

    settings: Settings
    """The settings of this worker, with its own addresses and administration."""
    index: int
    control: int
    """Descriptor of the line to the supervisor."""
    stdout_lock: int
    """Descriptor of a file whose lock guards standard output."""
    tls_host: str = ""
    """Directory of the Envoy that hosts the worker and terminates its TLS; empty where none does."""

    def write(self) -> str:
        """As the value of the environment variable ``ORDER``."""
        told = self.settings.model_dump(mode="json")
        return json.dumps([told, self.index, self.control, self.stdout_lock, self.tls_host])

    @classmethod
    def read(cls, text: str) -> "Order":
        """Read what ``write`` wrote."""
        told, *others = json.loads(text)
        return cls(Settings(**told), *others)


class Line:
    """JSON lines between worker and supervisor over a socket pair; either side sees the end of the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, end: socket.socket) -> "Line":
        """Make the line from one end of a socket pair, which it owns from now on."""
        return cls(*await asyncio.open_connection(sock=end))

    def tell(self, word: str, **facts: Any) -> None:
        """Say a word with its facts to the other side; nothing happens when that side is gone."""
        if not self._writer.is_closing():
            self._writer.write(json.dumps({"word": word, **facts}).encode() + b"\n")

    async def told(self) -> AsyncIterator[dict[str, Any]]:
        """Yield what the other side says, until it is gone."""
        with suppress(OSError):
            while line := await self._reader.readline():
                yield json.loads(line)

    async def close(self) -> None:
        """Send what is buffered and close; the other side sees the end."""
        with suppress(OSError):
            await self._writer.drain()
            self._writer.close()
            await self._writer.wait_closed()

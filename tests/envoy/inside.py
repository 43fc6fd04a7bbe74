"""
What the tests let Envoy host: the service's own adapter for hosted workers, with ``Deciding`` behind it.

A test says by a Unix socket what to decide by and reads what was recorded: pickled ``(method, arguments)`` and answers,
each after its length. One test at a time.
"""

import asyncio
import os
import pickle
import struct
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from authz.service.workers.hosted import HostedServer, Receive, Scope, Send
from tests.envoy.deciding import LARGEST_MESSAGE_BYTES, Deciding
from tests.service.recording import Recorder

CONTROL = "TESTS_CONTROL"
"""Environment variable: path of the control socket."""
APPLICATION = "tests.envoy.inside:application"
_LENGTH = struct.Struct("!I")


async def read(reader: asyncio.StreamReader) -> Any:
    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    return pickle.loads(await reader.readexactly(length))  # both sides are this test


def frame(value: object) -> bytes:
    data = pickle.dumps(value)
    return _LENGTH.pack(len(data)) + data


class _Hosted:
    """The server of the test that is connected."""

    def __init__(self) -> None:
        self.server: HostedServer | None = None

    async def listen(self) -> asyncio.Server:
        return await asyncio.start_unix_server(self._obey, Path(os.environ[CONTROL]))

    async def _obey(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        method, (around,) = await read(reader)
        assert method == "begin"
        deciding = Deciding(around, Recorder())
        self.server = HostedServer(deciding.function, deciding.providers.ask, max_message_bytes=LARGEST_MESSAGE_BYTES)
        self.server.health.set_serving(True)
        try:
            while True:
                writer.write(frame(deciding.take()))  # whatever was asked
                method, arguments = await read(reader)
                match method:
                    case "prepare":
                        deciding.prepare(*arguments)
                    case "fetch_keys":
                        await deciding.fetch_keys()
                    case "enforce":
                        deciding.enforce(*arguments)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.server.health.set_serving(False)
        finally:
            await deciding.close()
            writer.close()


def application(scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
    """Serve one call, or the life of the server."""
    if scope["type"] == "http":
        server = scope["state"]["hosted"].server
        assert isinstance(server, HostedServer)
        return server(scope, receive, send)
    return _live(scope, receive, send)


application.__dict__["_asgi_single_callable"] = True  # as ``authz.service.embedded``


async def _live(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()  # lifespan.startup
    hosted = scope["state"]["hosted"] = _Hosted()
    listening = await hosted.listen()
    await send({"type": "lifespan.startup.complete"})
    await receive()  # lifespan.shutdown
    listening.close()
    await send({"type": "lifespan.shutdown.complete"})

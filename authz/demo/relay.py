"""
A way into the loopback of a container, for the check: ``python -m authz.demo.relay /probe/details-v1.sock``.

An application reaches its sidecar by loopback ports; the check, in another container, reaches them through this relay.
The first line of a connection is the port. With ``/probe/x.sock=run/ca/sds.sock``, too, one socket leads to the other:
whoever listens there sees this process's user. docs/compose/check.yaml starts it, and nothing else does.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path

from authz.demo.layout import LOOPBACK

PIECE_BYTES = 65_536


async def serve(places: Sequence[str]) -> None:
    """Serve until cancelled. Raises OSError."""
    async with AsyncExitStack() as opened:
        for place in places:
            path, _, target = place.partition("=")
            server = await asyncio.start_unix_server(partial(_relay, target), path)
            await opened.enter_async_context(server)
        await asyncio.get_running_loop().create_future()


async def _relay(target: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError, ValueError):
        if target:
            inner_reader, inner_writer = await asyncio.open_unix_connection(target)
        else:
            inner_reader, inner_writer = await asyncio.open_connection(LOOPBACK, int(await reader.readline()))
        await asyncio.gather(_pass_on(reader, inner_writer), _pass_on(inner_reader, writer))
    writer.close()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass bytes on until one side closes; then tell the other."""
    with suppress(OSError):
        while piece := await reader.read(PIECE_BYTES):
            writer.write(piece)
            await writer.drain()
    writer.close()


def main(arguments: Sequence[str]) -> None:
    """Relay every ``SOCKET=HOST:PORT`` of the arguments until SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    for place in arguments:
        Path(place.partition("=")[0]).unlink(missing_ok=True)  # of one that was killed
    os.umask(0o117)  # members of the group may connect
    asyncio.run(serve(arguments))


if __name__ == "__main__":
    main(sys.argv[1:])

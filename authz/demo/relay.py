"""
A way into the loopback of a container, for the check: ``python -m authz.demo.relay /probe/details-v1.sock``.

An application reaches its sidecar by loopback ports; the check, in another container, reaches them by this relay. The
first line of a connection is the port. It is started by docs/compose/check.yaml and by nothing else.
"""

import asyncio
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from authz.demo.layout import LOOPBACK

PIECE_BYTES = 65_536


async def serve(path: Path) -> None:
    """Serve until cancelled. Raises OSError."""
    server = await asyncio.start_unix_server(_relay, str(path))
    async with server:
        await server.serve_forever()


async def _relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError, ValueError):
        port = int(await reader.readline())
        inner_reader, inner_writer = await asyncio.open_connection(LOOPBACK, port)
        await asyncio.gather(_pass_on(reader, inner_writer), _pass_on(inner_reader, writer))
    writer.close()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until one side closes; then the other is told."""
    with suppress(OSError):
        while piece := await reader.read(PIECE_BYTES):
            writer.write(piece)
            await writer.drain()
    writer.close()


def main(arguments: Sequence[str]) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    path = Path(arguments[0])
    path.unlink(missing_ok=True)  # of one that was killed
    asyncio.run(serve(path))


if __name__ == "__main__":
    main(sys.argv[1:])

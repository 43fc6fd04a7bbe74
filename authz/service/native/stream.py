"""
The gRPC access log service: proxies on other machines send their entries to the port where they would ask.

A stream is read only while the trail has room; then gRPC's flow control holds the sender back. Envoy never waits for
it: it buffers, and then drops. That is why ``gaps`` counts requests, and not what Envoy says it sent.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from itertools import islice

from authz.service.native.intake import SHOWN, SLICE, Intake
from authz.wire.access_log import LogEntry, NotAnEntry
from authz.wire.access_stream import read_message

LARGE_BYTES = 65_536
"""More than messages have: Envoy sends 16 kB, or one entry that is longer."""


class AccessLogStream:
    """Takes streams of entries, on whichever server they come."""

    def __init__(self, intake: Intake, settle: Callable[[LogEntry], LogEntry | None] | None = None) -> None:
        """
        Args:
            intake: takes the entries.
            settle: for who knows all proxies: the entry with the workload of the proxy that it names; None where that
                proxy is not the caller's. Without it names are believed, where namespace and service account are the
                caller's.
        """
        self._intake = intake
        self._settle = settle

    async def take(self, messages: AsyncIterator[bytes], caller: str = "") -> None:
        """
        Take all messages of a stream, as long as it lives.

        Args:
            messages: serialised StreamAccessLogsMessages.
            caller: the identity by which the stream came over mutual TLS, which may report only about itself; empty
                if no certificate was asked for.

        Raises:
            ValueError: bytes that are not a message.
        """
        async for message in messages:
            entries, taken = read_message(message), SLICE
            try:
                while taken == SLICE:
                    await self._intake.room(is_large=len(message) > LARGE_BYTES)
                    taken = self._take(islice(entries, SLICE), caller)
            except asyncio.CancelledError:  # the stream broke, or we end, while it waited; but this message has come
                with suppress(ValueError):
                    self._take(entries, caller)
                raise

    def _take(self, entries: Iterable[LogEntry | NotAnEntry], caller: str) -> int:
        """Take these; return how many they were. Raises ValueError as ``take``."""
        number = 0
        for number, entry in enumerate(entries, 1):  # noqa: B007  # counted beyond the loop
            if isinstance(entry, NotAnEntry):
                self._intake.refuse("grpc", entry)
                continue
            settled = entry if self._settle is None else self._settle(entry)
            if settled is None:
                self._intake.disbelieve("grpc", f"`{caller}` has no proxy {entry.proxy[:SHOWN]!r} in this mesh")
            else:
                self._intake.take(settled, "grpc", caller)
        return number

"""
The gRPC access log service: proxies on other machines send their entries to the port where they would ask.

A stream is read only while the trail has room; then gRPC's flow control holds the sender back. Envoy never waits for
it: it buffers, and then drops. That is why ``gaps`` counts requests, and not what Envoy says it sent.
"""

from collections.abc import AsyncIterator, Callable

from authz.service.native.intake import SHOWN, SLICE, Intake
from authz.wire.access_log import NotAnEntry
from authz.wire.access_stream import read_message


class AccessLogStream:
    """Takes streams of entries, on whichever server they come."""

    def __init__(self, intake: Intake, is_of_caller: Callable[[str], bool] | None = None) -> None:
        """
        Args:
            intake: takes the entries.
            is_of_caller: whether a proxy of this name is the caller's, for who knows all proxies; None believes the
                name, where namespace and service account are the caller's.
        """
        self._intake = intake
        self._is_of_caller = is_of_caller

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
            for number, entry in enumerate(read_message(message)):
                if number % SLICE == 0:
                    await self._intake.room()
                if isinstance(entry, NotAnEntry):
                    self._intake.refuse("grpc", entry)
                elif self._is_of_caller is not None and not self._is_of_caller(entry.proxy):
                    self._intake.disbelieve("grpc", f"`{caller}` has no proxy {entry.proxy[:SHOWN]!r} in this mesh")
                else:
                    self._intake.take(entry, "grpc", caller)

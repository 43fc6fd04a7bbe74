"""An HTTP/2 client that can misbehave: it sends what it is told, frame by frame."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.events
import h2.exceptions

from authz.service.ports.grpc_health import AUTHORIZATION

CHECK = f"/{AUTHORIZATION}/Check"


@dataclass(slots=True)
class Answer:
    """What came back on one stream."""

    headers: dict[str, str] = field(default_factory=dict)
    trailers: dict[str, str] = field(default_factory=dict)
    data: bytes = b""
    is_reset: bool = False
    is_silent: bool = False

    @property
    def status(self) -> str:
        """The gRPC status, ``reset``, ``silent`` or ``http 415``."""
        if self.is_silent:
            return "silent"
        told = self.trailers.get("grpc-status", self.headers.get("grpc-status"))
        if self.headers.get(":status", "200") != "200":
            return f"http {self.headers[':status']}"
        return told if told is not None else "reset"

    @property
    def message(self) -> bytes:
        assert self.data[0] == 0
        assert int.from_bytes(self.data[1:5], "big") == len(self.data) - 5
        return self.data[5:]


def framed(message: bytes, *, flag: int = 0, length: int | None = None) -> bytes:
    return bytes([flag]) + (len(message) if length is None else length).to_bytes(4, "big") + message


class RawConnection:
    """One connection; streams in any number."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self._h2.initiate_connection()
        self._answers: dict[int, tuple[Answer, asyncio.Event]] = {}
        self._window = asyncio.Event()
        self._flush()
        self._reading = asyncio.create_task(self._read())

    def _flush(self) -> None:
        self._writer.write(self._h2.data_to_send())

    async def _read(self) -> None:
        try:
            while data := await self._reader.read(65536):
                for event in self._h2.receive_data(data):
                    self._take(event)
                self._window.set()
                self._flush()
        except (OSError, h2.exceptions.ProtocolError):
            pass
        for answer, done in self._answers.values():
            answer.is_reset = answer.is_reset or not done.is_set()
            done.set()
        self._window.set()

    def _take(self, event: h2.events.Event) -> None:
        stream = getattr(event, "stream_id", None)
        if stream not in self._answers:
            return
        answer, done = self._answers[stream]
        match event:
            case h2.events.ResponseReceived(headers=headers):
                answer.headers = {str(k): str(v) for k, v in headers or ()}
            case h2.events.TrailersReceived(headers=headers):
                answer.trailers = {str(k): str(v) for k, v in headers or ()}
            case h2.events.DataReceived(data=data, flow_controlled_length=length):
                answer.data += data or b""
                self._h2.acknowledge_received_data(length or 0, stream)
            case h2.events.StreamReset():
                answer.is_reset = True
                done.set()
            case h2.events.StreamEnded():
                done.set()

    def open(self, headers: Sequence[tuple[str, str]]) -> int:
        stream = self._h2.get_next_available_stream_id()
        self._answers[stream] = (Answer(), asyncio.Event())
        self._h2.send_headers(stream, headers)
        self._flush()
        return stream

    async def send(self, stream: int, body: bytes, *, end: bool = True) -> None:
        """As fast as the server reads; stops when it has answered."""
        _, done = self._answers[stream]
        while body and not done.is_set():
            size = min(len(body), self._h2.local_flow_control_window(stream), self._h2.max_outbound_frame_size)
            if not size:
                self._window.clear()
                await self._window.wait()
                continue
            self._h2.send_data(stream, body[:size])
            self._flush()
            await self._writer.drain()
            body = body[size:]
        if end and not done.is_set():
            self._h2.end_stream(stream)
            self._flush()

    def reset(self, stream: int) -> None:
        self._h2.reset_stream(stream, 8)
        self._flush()

    async def answer(self, stream: int, patience_seconds: float = 10.0) -> Answer:
        answer, done = self._answers[stream]
        try:
            await asyncio.wait_for(done.wait(), patience_seconds)
        except TimeoutError:
            answer.is_silent = True
        return answer

    async def call(
        self,
        body: bytes,
        *,
        path: str = CHECK,
        method: str = "POST",
        content_type: str = "application/grpc",
        extra: Sequence[tuple[str, str]] = (),
        patience_seconds: float = 10.0,
    ) -> Answer:
        stream = self.open(
            [
                *((":method", method), (":scheme", "http"), (":authority", "test"), (":path", path)),
                *(("te", "trailers"), ("content-type", content_type), *extra),
            ]
        )
        await self.send(stream, body)
        return await self.answer(stream, patience_seconds)

    async def close(self) -> None:
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        self._writer.close()
        await asyncio.gather(self._writer.wait_closed(), return_exceptions=True)


@asynccontextmanager
async def raw_connection(address: str) -> AsyncIterator[RawConnection]:
    if address.startswith("unix:"):
        streams = await asyncio.open_unix_connection(address.removeprefix("unix:"))
    else:
        host, _, port = address.rpartition(":")
        streams = await asyncio.open_connection(host, int(port))
    connection = RawConnection(*streams)
    try:
        yield connection
    finally:
        await connection.close()

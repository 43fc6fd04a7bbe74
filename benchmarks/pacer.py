"""
Requests at a fixed rate over one HTTP/2 connection, each begun when it is due, whether others were answered or not.

    python -m benchmarks.pacer < orders.json

Nothing a server does puts the next request off, so a stall costs everybody who was due meanwhile, as in wrk2. A latency
counts from the moment of sending, for it is no server's fault when the system wakes this late; and from the moment a
request was due when there was no room for it. Woken late, we do not make up for it by a burst, which would measure how
fast a server works off what we held back: the requests that are left come that much later, and ``slipped`` says how
much. h2load cannot be used: its ``--rps`` sends in bursts every ten milliseconds.

Just enough of HTTP/2 for one prepared request.
"""

import gc
import json
import select
import socket
import struct
import sys
from dataclasses import asdict, dataclass
from time import perf_counter, time

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
STATUS_200 = 0x88
"""``:status: 200`` in HPACK's static table: how every server here writes it first."""
MOST_WINDOW = 2**31 - 1
FIRST_WINDOW = 65_535
LAST_ANSWERS_SECONDS = 2.0


@dataclass(frozen=True)
class Order:
    """One run. ``headers`` begin with the pseudo headers; ``body`` is in hexadecimal and may be empty."""

    port: int
    headers: list[tuple[str, str]]
    body: str
    rate: float
    seconds: float


@dataclass
class Answers:
    """
    ``due`` in seconds since the epoch, ``took`` in milliseconds, of every answered request in order of answers.

    ``slipped``: seconds by which the system woke the load late in all, and by which it is shorter therefore.
    """

    due: list[float]
    took: list[float]
    sent: int = 0
    refused: int = 0
    slipped: float = 0.0


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def header_block(headers: list[tuple[str, str]]) -> bytes:
    """Literals that are neither indexed nor compressed, so that the bytes are the same each time."""
    block = bytearray()
    for name, value in headers:
        block.append(0)
        for text in (name.encode(), value.encode()):
            block += _length(len(text)) + text
    return bytes(block)


def _length(length: int) -> bytes:
    """HPACK's integers with a prefix of seven bits."""
    if length < 127:
        return bytes((length,))
    rest, found = length - 127, bytearray((127,))
    while rest >= 128:
        found.append(rest % 128 + 128)
        rest //= 128
    found.append(rest)
    return bytes(found)


class Connection:
    """One connection to 127.0.0.1; ``run`` once."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._body = bytes.fromhex(order.body)
        self._block = header_block(order.headers)
        self._socket = socket.create_connection(("127.0.0.1", order.port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        settings = frame(SETTINGS, 0, 0, struct.pack(">HI", 4, MOST_WINDOW))  # of streams, for their answers
        self._out = bytearray(PREFACE + settings)
        self._out += frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", MOST_WINDOW - FIRST_WINDOW))
        self._in = bytearray()
        self._window = FIRST_WINDOW
        self._most_streams = 100
        self._stream = 1
        self._due: dict[int, tuple[float, float]] = {}
        """When each stream was due, and since when it has been waited for."""
        self._answers = Answers([], [])

    def run(self) -> Answers:
        """Send and receive until the time is over and the last answers came, or two seconds later."""
        step, number = 1 / self._order.rate, 0
        begin = perf_counter() + 0.05
        epoch = time() - perf_counter()
        end = begin + self._order.seconds
        self._socket.setblocking(False)
        had_room = True
        while True:
            now = perf_counter()
            due = begin + number * step
            if had_room and now - due > step:
                self._answers.slipped += now - due
                begin, due = begin + now - due, now
            while due <= now and due < end and self._may_send():
                self._send(due, perf_counter() if had_room else due)
                number += 1
                due = begin + number * step
            had_room = due > now
            if due >= end and (not self._due or now > end + LAST_ANSWERS_SECONDS):
                break
            wait = max(0.0, due - perf_counter()) if due > now else 0.01  # else it waits for room, not for time
            readable, _, _ = select.select([self._socket], [self._socket] if self._out else [], [], wait)
            if self._out:
                self._flush()
            if readable:
                self._receive(epoch)
        self._socket.close()
        self._answers.sent = number
        return self._answers

    def _may_send(self) -> bool:
        return len(self._due) < self._most_streams and self._window >= len(self._body)

    def _send(self, due: float, since: float) -> None:
        stream, self._stream = self._stream, self._stream + 2
        self._due[stream] = due, since
        self._out += frame(HEADERS, END_HEADERS | (0 if self._body else END_STREAM), stream, self._block)
        if self._body:
            self._out += frame(DATA, END_STREAM, stream, self._body)
            self._window -= len(self._body)
        self._flush()

    def _flush(self) -> None:
        try:
            sent = self._socket.send(self._out)
        except BlockingIOError:
            return
        del self._out[:sent]

    def _receive(self, epoch: float) -> None:
        data = self._socket.recv(1 << 18)
        if not data:
            raise SystemExit("the server closed the connection")
        self._in += data
        now, at = perf_counter(), 0
        while len(self._in) - at >= 9:
            length = int.from_bytes(self._in[at : at + 3], "big")
            if len(self._in) - at - 9 < length:
                break
            kind, flags = self._in[at + 3], self._in[at + 4]
            stream = int.from_bytes(self._in[at + 5 : at + 9], "big")
            self._frame(kind, flags, stream, bytes(self._in[at + 9 : at + 9 + length]), now, epoch)
            at += 9 + length
        del self._in[:at]

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes, now: float, epoch: float) -> None:
        if kind == HEADERS and stream in self._due and not flags & END_STREAM:
            # The first block of an answer may begin by changing the size of HPACK's table.
            first = payload.lstrip(bytes(range(0x20, 0x40)))[:1]
            self._answers.refused += first != bytes((STATUS_200,))
        if kind == RST_STREAM or (kind == HEADERS and flags & END_STREAM and not self._order.body and not payload):
            self._answers.refused += 1
        if kind == RST_STREAM or (kind in (DATA, HEADERS) and flags & END_STREAM):
            sent = self._due.pop(stream, None)
            if sent is not None:
                self._answers.due.append(epoch + sent[0])
                self._answers.took.append((now - sent[1]) * 1e3)
        elif kind == SETTINGS and not flags & ACK:
            for at in range(0, len(payload), 6):
                name, value = struct.unpack_from(">HI", payload, at)
                if name == 3:
                    self._most_streams = min(value, 10_000)
            self._out += frame(SETTINGS, ACK, 0, b"")
        elif kind == PING and not flags & ACK:
            self._out += frame(PING, ACK, 0, payload)
        elif kind == WINDOW_UPDATE and stream == 0:
            self._window += int.from_bytes(payload, "big")
        elif kind == GOAWAY:
            raise SystemExit("the server says goodbye")


def main() -> int:
    gc.disable()
    order = Order(**json.load(sys.stdin))
    print(json.dumps(asdict(Connection(order).run())))
    return 0


if __name__ == "__main__":
    sys.exit(main())

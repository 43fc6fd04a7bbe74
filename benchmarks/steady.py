"""
Mixed requests at a fixed rate over HTTP/1.1 for as long as wanted, where every answer is compared with what it must be.

    python -m benchmarks.steady       orders on standard input, one JSON object a line; a new one replaces the last

A latency counts from the moment a request was due, for here it waits until a connection is free. One JSON line on
standard output tells of every ten seconds; the end of the input ends the run. What is not as ordered is counted, shown,
and never tried again.
"""

import gc
import json
import math
import os
import random
import select
import socket
import sys
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from time import perf_counter, time
from typing import TypeVar

K = TypeVar("K")
CONNECTIONS = 32
TOLD_SECONDS = 10.0
LATE_SECONDS = 10.0
"""An answer that took longer is an error, and its connection is given up."""
STEP = 1.02
"""Latencies are counted in bins, each so much wider than the last: no percentile is off by more."""
SHOWN = 5
"""Wrong answers told in full."""


@dataclass(frozen=True)
class Kind:
    """Requests of one kind: ``requests`` are written out, ``status`` is what each must be answered with."""

    name: str
    status: int
    share: float
    requests: list[str]


@dataclass
class Told:
    """Ten seconds. ``bins`` counts latencies by bin; ``wrong`` by kind, expected and given status."""

    at: float
    sent: int = 0
    errors: int = 0
    bins: dict[int, int] = field(default_factory=dict)
    answers: dict[str, int] = field(default_factory=dict)
    wrong: dict[str, int] = field(default_factory=dict)
    shown: list[str] = field(default_factory=list)


def bin_of(seconds: float) -> int:
    return math.ceil(math.log(max(seconds * 1e3, 0.01), STEP))


def percentile(bins: Mapping[int, int], share: float) -> float:
    """Milliseconds that ``share`` of all counted did not exceed; nan of nothing."""
    left = share * sum(bins.values())
    for number in sorted(bins):
        left -= bins[number]
        if left <= 0:
            return float(STEP**number)
    return math.nan


def together(parts: Iterable[Mapping[K, int]]) -> dict[K, int]:
    """Counts of several times as one."""
    found = Counter[K]()
    for part in parts:
        found.update(part)
    return dict(found)


@dataclass(frozen=True)
class _Request:
    kind: str
    status: int
    data: bytes


@dataclass(slots=True, eq=False)
class _Connection:
    socket: socket.socket
    request: _Request | None = None
    due: float = 0.0
    data: bytes = b""


class Load:
    """The loop: one request at a time on each connection; what finds none free waits and is late."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._poll = select.epoll()
        self._connections: dict[int, _Connection] = {}
        self._free: list[_Connection] = []
        self._waiting: deque[tuple[float, _Request]] = deque()
        self._requests: list[_Request] = []
        self._step = 1.0
        self._told = Told(time())
        self._input = b""

    def run(self) -> None:
        """Until the input ends."""
        os.set_blocking(sys.stdin.fileno(), False)
        self._poll.register(sys.stdin.fileno(), select.EPOLLIN)
        for _ in range(CONNECTIONS):
            self._connect()
        number, due, told = 0, perf_counter(), perf_counter() + TOLD_SECONDS
        while True:
            now = perf_counter()
            while self._requests and due <= now:
                self._waiting.append((due, self._requests[number % len(self._requests)]))
                self._told.sent += 1
                number += 1
                due += self._step
            if not self._requests:
                due = now
            while self._waiting and self._free:
                self._send(self._free.pop(), *self._waiting.popleft())
            if now >= told:
                self._give_up(now)
                self._tell()
                told += TOLD_SECONDS
            wait = max(0.0, due - perf_counter()) if self._requests else 0.05
            for descriptor, _ in self._poll.poll(wait):
                if descriptor == sys.stdin.fileno():
                    if not self._read_orders():
                        self._finish()
                        return
                elif descriptor in self._connections:
                    self._receive(self._connections[descriptor])

    def _finish(self) -> None:
        """Wait for the last answers; what does not come is an error."""
        ends = perf_counter() + LATE_SECONDS
        self._requests = []
        self._poll.unregister(sys.stdin.fileno())
        while perf_counter() < ends and (self._waiting or len(self._free) < CONNECTIONS):
            while self._waiting and self._free:
                self._send(self._free.pop(), *self._waiting.popleft())
            for descriptor, _ in self._poll.poll(0.05):
                if descriptor in self._connections:
                    self._receive(self._connections[descriptor])
        self._told.errors += len(self._waiting) + CONNECTIONS - len(self._free)
        self._tell()

    def _read_orders(self) -> bool:
        data = os.read(sys.stdin.fileno(), 1 << 20)
        self._input += data
        *lines, self._input = self._input.split(b"\n")
        for line in lines:
            order = json.loads(line)
            self._step = 1 / order["rate"]
            self._requests = mixed([Kind(**kind) for kind in order["kinds"]])
        return bool(data)

    def _connect(self) -> None:
        opened = socket.create_connection(("127.0.0.1", self._port))
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opened.setblocking(False)
        connection = self._connections[opened.fileno()] = _Connection(opened)
        self._poll.register(opened.fileno(), select.EPOLLIN)
        self._free.append(connection)

    def _send(self, connection: _Connection, due: float, request: _Request) -> None:
        connection.request, connection.due, connection.data = request, due, b""
        try:
            sent = connection.socket.send(request.data)
        except OSError as error:
            self._lose(connection, str(error))
            return
        if sent < len(request.data):
            self._lose(connection, "the connection takes no more")

    def _receive(self, connection: _Connection) -> None:
        try:
            data = connection.socket.recv(1 << 16)
        except OSError as error:
            self._lose(connection, str(error))
            return
        if not data:
            self._lose(connection, "the server closed the connection")
            return
        connection.data += data
        head, mark, body = connection.data.partition(b"\r\n\r\n")
        if not mark or len(body) < content_length(head):
            return
        request = connection.request
        if request is None:
            self._lose(connection, f"an answer that nobody asked for: {head[:200]!r}")
            return
        self._count(request, int(head[9:12]), perf_counter() - connection.due, head)
        connection.request = None
        self._free.append(connection)

    def _count(self, request: _Request, status: int, took: float, head: bytes) -> None:
        told, number = self._told, bin_of(took)
        told.bins[number] = told.bins.get(number, 0) + 1
        told.answers[request.kind] = told.answers.get(request.kind, 0) + 1
        if status != request.status:
            name = f"{request.kind}: {status} instead of {request.status}"
            told.wrong[name] = told.wrong.get(name, 0) + 1
            if len(told.shown) < SHOWN:
                # Of the request only its first line: a token is nobody's business.
                line = request.data.partition(b"\r\n")[0].decode()
                told.shown.append(f"{request.kind}: {line}: {' | '.join(head.decode('latin-1').splitlines())}")

    def _lose(self, connection: _Connection, why: str) -> None:
        """An error when a request was under way; a server may close an idle connection."""
        self._poll.unregister(connection.socket.fileno())
        del self._connections[connection.socket.fileno()]
        connection.socket.close()
        if connection.request is not None:
            self._told.errors += 1
            if len(self._told.shown) < SHOWN:
                self._told.shown.append(f"{connection.request.kind}: {why}")
        elif connection in self._free:
            self._free.remove(connection)
        self._connect()

    def _give_up(self, now: float) -> None:
        for connection in list(self._connections.values()):
            if connection.request is not None and now - connection.due > LATE_SECONDS:
                self._lose(connection, f"no answer in {LATE_SECONDS:g} s")

    def _tell(self) -> None:
        print(json.dumps(asdict(self._told)), flush=True)
        self._told = Told(time())


def content_length(head: bytes) -> int:
    """Zero when it is not given, as in answers without a body."""
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line[15:])
    return 0


def mixed(kinds: list[Kind]) -> list[_Request]:
    """A few thousand requests with the kinds by their shares, in an order that is the same each time."""
    total, found = sum(kind.share for kind in kinds), []
    for kind in kinds:
        number = max(1, round(4_000 * kind.share / total))
        found += [
            _Request(kind.name, kind.status, kind.requests[at % len(kind.requests)].encode()) for at in range(number)
        ]
    random.Random(7).shuffle(found)  # noqa: S311  # an order, not a secret
    return found


def main() -> int:
    port = int(sys.argv[1])
    gc.disable()
    Load(port).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""
Many proxies in one process, as far as discovery sees them: streams of deltas over mutual TLS, each a connection.

    python -m benchmarks.xds_clients PORT FIRST COUNT DIRECTORY

Run by ``benchmarks.xds``. Prints a line of JSON for everything that comes: the proxy, the short name of the type, the
time, the bytes. The directory has ``chain.pem``, ``key.pem`` and ``bundle.pem``, the same for all: they share an
identity.

A stream is HTTP/2 written by hand on a socket, because a client of grpc costs as much CPU as the server that is
measured beside it: one call, nothing compressed, windows as wide as can be.
"""

import json
import resource
import selectors
import socket
import ssl
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from authz._proto import delta_discovery_pb2 as wire
from authz.control.discovery.discovered import SHORT_NAMES

METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, WINDOW = 0, 1, 3, 4, 6, 7, 8
ACK, END_HEADERS = 1, 4
INITIAL_WINDOW = 4
"""The setting: how much of a stream may come unasked."""
WIDEST = 2**31 - 1
AGAIN_SECONDS = 0.01
"""The pause after a connection that was lost: it must not make things worse."""
PING_EVERY = 60.0
"""Seconds, as in the bootstraps that we print; Envoy's types, which are there, take a second to import."""
AT_ONCE = 20
"""Connections that are begun before answers are looked at."""
HEAD = {
    ":method": "POST", ":scheme": "https", ":path": METHOD, ":authority": "localhost",
    "content-type": "application/grpc", "te": "trailers",
}  # fmt: skip


def frame(kind: int, flags: int, stream: int, content: bytes) -> bytes:
    """A frame of HTTP/2 (RFC 9113, 4.1)."""
    return len(content).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + content


def message(request: wire.DeltaDiscoveryRequest) -> bytes:
    """A message of gRPC as a frame of its only stream."""
    content = request.SerializeToString()
    return frame(DATA, 0, 1, b"\0" + len(content).to_bytes(4) + content)


def opening(name: str) -> bytes:
    """Everything that a proxy says before it hears anything: it wants everything of every type."""
    head = b"".join(b"\0" + bytes((len(n),)) + n.encode() + bytes((len(v),)) + v.encode() for n, v in HEAD.items())
    window = INITIAL_WINDOW.to_bytes(2) + WIDEST.to_bytes(4)
    said = PREFACE + frame(SETTINGS, 0, 0, window) + frame(WINDOW, 0, 0, (WIDEST - 65535).to_bytes(4))
    said += frame(HEADERS, END_HEADERS, 1, head)
    for url in SHORT_NAMES:
        request = wire.DeltaDiscoveryRequest(type_url=url, resource_names_subscribe=["*"])
        request.node.id = name
        said += message(request)
    return said


class Proxy:
    """One connection with one stream."""

    def __init__(self, port: int, name: str, context: ssl.SSLContext) -> None:
        self.name = name
        plain = socket.create_connection(("127.0.0.1", port))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain.setblocking(False)
        self.socket = context.wrap_socket(plain, server_hostname="localhost", do_handshake_on_connect=False)
        self._is_open = False
        self._frames, self._messages = bytearray(), bytearray()

    def go_on(self) -> Iterator[wire.DeltaDiscoveryResponse]:
        """Do what can be done at once; yield what came."""
        try:
            if not self._is_open:
                self.socket.do_handshake()
                self._is_open = True
                self.socket.send(opening(self.name))
            while True:
                data = self.socket.recv(65536)
                if not data:
                    raise ConnectionResetError(f"{self.name}: the server closed the connection")
                self._frames += data
                yield from self._take()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return

    def ping(self) -> None:
        """Ask whether the server is there, as an Envoy does."""
        if self._is_open:
            self.socket.send(frame(PING, 0, 0, bytes(8)))

    def _take(self) -> Iterator[wire.DeltaDiscoveryResponse]:
        while len(self._frames) >= 9 and len(self._frames) >= (end := 9 + int.from_bytes(self._frames[:3])):
            kind, flags, content = self._frames[3], self._frames[4], bytes(self._frames[9:end])
            del self._frames[:end]
            if kind in (SETTINGS, PING) and not flags & ACK:
                self.socket.send(frame(kind, ACK, 0, content if kind == PING else b""))
            elif kind in (RESET, GOAWAY):
                raise ConnectionResetError(f"{self.name}: the server ended the stream: {content!r}")
            elif kind == DATA:
                self._messages += content
        while len(self._messages) >= 5 and len(self._messages) >= (end := 5 + int.from_bytes(self._messages[1:5])):
            response = wire.DeltaDiscoveryResponse.FromString(bytes(self._messages[5:end]))
            del self._messages[:end]
            self.socket.send(
                message(wire.DeltaDiscoveryRequest(type_url=response.type_url, response_nonce=response.nonce))
            )
            yield response


def run(port: int, first: int, count: int, directory: Path) -> None:
    """As many proxies as asked for, all at once, until killed."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    context = ssl.create_default_context(cafile=str(directory / "bundle.pem"))
    context.load_cert_chain(directory / "chain.pem", directory / "key.pem")
    context.set_alpn_protocols(["h2"])
    with selectors.DefaultSelector() as selector:
        waiting = [f"w{number}" for number in range(first + count - 1, first - 1, -1)]
        proxies: dict[int, Proxy] = {}
        began, pinged = time.monotonic(), 0
        while True:
            ready: list[Proxy] = []
            for name in [waiting.pop() for _ in range(min(AT_ONCE, len(waiting)))]:
                ready.append(Proxy(port, name, context))
                proxies[int(name[1:]) - first] = ready[-1]
                selector.register(ready[-1].socket, selectors.EVENT_READ, ready[-1])
            ready += (key.data for key, _ in selector.select(0 if waiting else PING_EVERY / count))
            while pinged < (time.monotonic() - began) / PING_EVERY * count:
                asking = proxies.get(pinged % count)
                pinged += 1
                if asking is not None:
                    with suppress(OSError):  # its end is seen where it is read
                        asking.ping()
            for proxy in dict.fromkeys(ready):
                try:
                    for response in proxy.go_on():
                        short = SHORT_NAMES[response.type_url]
                        print(json.dumps([proxy.name, short, time.time(), response.ByteSize()]), flush=True)
                except OSError as error:  # for instance the age of a connection has come
                    print(error, file=sys.stderr, flush=True)
                    selector.unregister(proxy.socket)
                    proxy.socket.close()
                    time.sleep(AGAIN_SECONDS)
                    waiting.append(proxy.name)


if __name__ == "__main__":
    run(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))

"""
A client that sends exactly the bytes of a case: PROXY header, TLS, then HTTP/1.1, HTTP/2 or plain TCP.

Blocking, because it is used from threads. No ordinary client sends these paths, methods and headers unchanged.
"""

import http.client
import json
import socket
import ssl
from dataclasses import dataclass, field

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, ResponseReceived, StreamEnded, StreamReset

from authz.analysis.offline.request import OfflineRequest
from authz.analysis.verify.proxy import Endpoints
from authz.analysis.verify.trial_certificates import Identities

TIMEOUT = 20
_OVER_HTTP1 = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH")
"""Envoy's HTTP/1.1 refuses the others (XA-72); HTTP/2 carries any."""


@dataclass(frozen=True)
class Answer:
    """What came back. ``status`` 0: the connection was closed without an answer, ``body`` says how."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    forwarded: dict[str, tuple[str, ...]] | None = None
    """Headers that the upstream saw, ``:path`` and ``:method`` among them; None: it saw no request."""
    is_open: bool = field(default=False)
    """Of TCP: bytes went to the upstream and came back."""

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)


def connect(
    address: tuple[str, int],
    ends: Endpoints | None,
    context: ssl.SSLContext | None,
    sni: str,
    source: str = "",
) -> socket.socket:
    """Open a connection; ``source`` binds the client to an address of the loopback network."""
    connection = socket.create_connection(address, TIMEOUT, (source, 0) if source else None)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if ends is not None:
        connection.sendall(ends.header())
    return context.wrap_socket(connection, server_hostname=sni or None) if context is not None else connection


def send(
    address: tuple[str, int], ends: Endpoints | None, identities: Identities, request: OfflineRequest, *, tls: bool
) -> Answer:
    """Send one request as it is described. Broken connections are answers."""
    context = identities.client(request.source_principal) if tls else None
    try:
        with connect(address, ends, context, request.sni) as connection:
            if request.is_tcp:
                return _tcp(connection)
            if request.method not in _OVER_HTTP1:
                return _http2(connection, request)
            return _http1(connection, request)
    except (OSError, http.client.HTTPException) as error:
        return Answer(0, body=f"{type(error).__name__}: {error}".encode())


def _tcp(connection: socket.socket) -> Answer:
    connection.sendall(b"hello")
    return Answer(0, body=b"", is_open=connection.recv(16) == b"hello")


def _wire(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _target(request: OfflineRequest) -> str:
    return request.path if request.path is not None else "/"


def http1_bytes(request: OfflineRequest) -> bytes:
    lines = [f"{request.method} {_target(request)} HTTP/1.1", f"host: {request.host}"]
    lines += [f"{name}: {value}" for name, value in request.headers if name != "host"]
    return _wire("\r\n".join([*lines, "", ""]))


def _http1(connection: socket.socket, request: OfflineRequest) -> Answer:
    connection.sendall(http1_bytes(request))
    return read_http1(connection, request.method)


def read_http1(connection: socket.socket, method: str = "GET") -> Answer:
    response = http.client.HTTPResponse(connection, method=method)
    response.begin()
    headers = tuple((name.lower(), value) for name, value in response.getheaders())
    return _answer(response.status, headers, response.read())


def _http2(connection: socket.socket, request: OfflineRequest) -> Answer:
    config = H2Configuration(header_encoding="utf-8", validate_outbound_headers=False, normalize_outbound_headers=False)
    state = H2Connection(config)
    state.initiate_connection()
    pseudo = ((":method", request.method), (":scheme", request.scheme), (":authority", request.host))
    headers = [*pseudo, (":path", _target(request)), *((name.lower(), value) for name, value in request.headers)]
    state.send_headers(1, [(_wire(name), _wire(value)) for name, value in headers], end_stream=True)
    connection.sendall(state.data_to_send())
    told: list[tuple[str, str]] = []
    body = b""
    while True:
        data = connection.recv(65536)
        if not data:
            raise ConnectionError("closed within an answer")
        for event in state.receive_data(data):
            if isinstance(event, ResponseReceived):
                told = [(str(name), str(value)) for name, value in event.headers]
            elif isinstance(event, DataReceived):
                body += event.data
            elif isinstance(event, StreamReset):
                raise ConnectionError("the stream was reset")
            elif isinstance(event, StreamEnded):
                return _answer(int(dict(told)[":status"]), tuple(told), body)


def _answer(status: int, headers: tuple[tuple[str, str], ...], body: bytes) -> Answer:
    if ("content-type", "application/json") not in headers or not body:
        return Answer(status, headers, body)
    echo = json.loads(body)
    forwarded: dict[str, tuple[str, ...]] = {":path": (echo["path"],), ":method": (echo["method"],)}
    for name, value in echo["headers"]:
        forwarded[name] = (*forwarded.get(name, ()), value)
    return Answer(status, headers, body, forwarded)

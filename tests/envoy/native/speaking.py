"""One client connection of a comparison, over HTTP/1.1 or HTTP/2, that is made anew where Envoy closed it."""

from dataclasses import dataclass

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, ResponseReceived, StreamEnded, StreamReset
from h2.exceptions import ProtocolError

from authz.analysis.offline.request import OfflineRequest
from authz.analysis.verify.proxy import Connection, Endpoints, Running, Told
from tests.envoy.client import connect, http1_bytes


@dataclass
class Line:
    """Requests of one client to one listener; ``tell`` gives None where Envoy closed without an answer."""

    envoy: Running
    listener: str
    ends: Endpoints
    identity: str
    sni: str
    is_http2: bool
    bind: bool = True
    """Whether the client is where ``ends`` says, which must then be an address of this machine."""
    _http1: Connection | None = None
    _http2: "_Http2 | None" = None

    @property
    def _source(self) -> str:
        return self.ends.source if self.bind else ""

    def tell(self, request: OfflineRequest) -> Told | None:
        try:
            return self._over_http2(request) if self.is_http2 else self._over_http1(request)
        except (OSError, ValueError, ProtocolError):  # h2 hears nothing more after GOAWAY
            self.close()
            return None

    def close(self) -> None:
        for one in (self._http1, self._http2):
            if one is not None:
                one.close()
        self._http1 = self._http2 = None

    def _over_http1(self, request: OfflineRequest) -> Told:
        if self._http1 is None:
            self._http1 = self.envoy.connect(
                self.listener, self.ends, identity=self.identity, sni=self.sni, source=self._source
            )
        told = self._http1.send(http1_bytes(request))
        if told.headers.get("connection") == "close":
            self.close()
        return told

    def _over_http2(self, request: OfflineRequest) -> Told:
        if self._http2 is None:
            context = self.envoy.identities.client(self.identity) if self.identity else None
            address = ("127.0.0.1", self.envoy.ports[self.listener])
            self._http2 = _Http2(connect(address, self.ends, context, self.sni, self._source))
        return self._http2.send(request)


class _Http2:
    def __init__(self, connection: object) -> None:
        self._socket = connection
        config = H2Configuration(
            header_encoding="utf-8", validate_outbound_headers=False, normalize_outbound_headers=False
        )
        self._state = H2Connection(config)
        self._state.initiate_connection()

    def close(self) -> None:
        self._socket.close()  # type: ignore[attr-defined]  # a socket, plain or of TLS

    def send(self, request: OfflineRequest) -> Told:
        stream = self._state.get_next_available_stream_id()
        headers = [(":method", request.method), (":authority", request.host)]
        if request.method != "CONNECT":
            headers += [(":scheme", request.scheme), (":path", request.path or "/")]
        headers += [(name.lower(), value) for name, value in request.headers]
        wire = [(name.encode(), value.encode("utf-8", "surrogateescape")) for name, value in headers]
        self._state.send_headers(stream, wire, end_stream=True)
        self._socket.sendall(self._state.data_to_send())  # type: ignore[attr-defined]
        told: dict[str, str] = {}
        body = b""
        while True:
            data: bytes = self._socket.recv(65536)  # type: ignore[attr-defined]
            if not data:
                raise ConnectionError("closed within an answer")
            for event in self._state.receive_data(data):
                if isinstance(event, ResponseReceived):
                    told = {str(name): str(value) for name, value in event.headers or ()}
                elif isinstance(event, DataReceived):
                    body += event.data or b""
                elif isinstance(event, StreamReset | ConnectionTerminated):
                    raise ConnectionError("refused by the codec")
                elif isinstance(event, StreamEnded):
                    return Told(int(told[":status"]), body.decode(), told)

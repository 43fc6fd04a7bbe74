"""
Clients of the check: raw HTTP/1.1 and raw TCP, with any certificate or none, so that nothing is tidied on the way.

Paths go out as written (no library normalises them), and a refused handshake is a result, not an exception.
"""

import http.client
import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from authz.demo.layout import LOOPBACK
from authz.local.ready import reached

TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class ClientPlace:
    """Where something listens, as seen from the check."""

    port: int
    address: str = LOOPBACK
    relay: Path | None = None
    """Socket of a relay (``demo.relay``) beside it: the way to the loopback of another container."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A client certificate: paths of chain and key."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Reply:
    """
    The answer. ``status`` is 0 when there was no HTTP answer; ``failure`` then says how it ended. Header names are
    lower-case, and the last of several headers with one name counts.
    """

    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = ""
    failure: str = ""
    cookies: tuple[str, ...] = ()
    """Every ``set-cookie``."""

    @property
    def decision_id(self) -> str:
        """The id that a denial carries; empty without one."""
        return self.headers.get("x-authz-decision-id", "")


@dataclass(frozen=True, slots=True)
class Tls:
    """How to speak TLS: whom to trust, which name to ask for, and who to be."""

    roots: Path
    server_name: str = ""
    client: Pair | None = None
    is_mesh: bool = False
    """Mesh certificates carry no DNS name: the chain is verified, the name is not."""


def send(
    place: ClientPlace,
    method: str,
    path: str,
    *,
    headers: Sequence[tuple[str, str]] = (),
    host: str = "localhost",
    body: bytes = b"",
    tls: Tls | None = None,
    seconds: float = TIMEOUT_SECONDS,
) -> Reply:
    """Send one request and read the answer, each step within ``seconds``. Never raises because of the other side."""
    connection = http.client.HTTPConnection(place.address, place.port, timeout=seconds)
    try:
        raw = _connect(place)
        raw.settimeout(seconds)
        connection.sock = _wrap(raw, tls) if tls else raw
        # http.client refuses control characters in a target; nothing else is looked at or changed.
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        connection.putheader("Host", host)
        for name, value in headers:
            connection.putheader(name, value)
        if body or method in ("POST", "PUT", "PATCH"):
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body or None)
        response = connection.getresponse()
        content = response.read().decode("utf-8", "replace")
        found = {name.lower(): value for name, value in response.getheaders()}
        return Reply(response.status, found, content, cookies=tuple(response.headers.get_all("set-cookie", ())))
    except (OSError, http.client.HTTPException) as error:
        return Reply(failure=how_it_ended(error))
    finally:
        connection.close()


def exchange(place: ClientPlace, message: bytes, *, tls: Tls | None = None) -> Reply:
    """Send bytes and read until the other side pauses or closes; ``body`` is what came. Never raises as ``send``."""
    try:
        with _connect(place) as raw:
            stream = _wrap(raw, tls) if tls else raw
            with stream:
                stream.sendall(message)
                received = stream.recv(4096)
        return Reply(body=received.decode("utf-8", "replace"), failure="" if received else "closed")
    except OSError as error:
        return Reply(failure=how_it_ended(error))


def shown_certificate(place: ClientPlace, tls: Tls) -> bytes:
    """The other side's certificate as DER; empty when the handshake fails."""
    try:
        with _connect(place) as raw, _wrap(raw, tls) as stream:
            return stream.getpeercert(binary_form=True) or b""
    except OSError:
        return b""


def ask_admin(path: Path, target: str) -> str:
    """Ask the administration of a proxy, on its socket. Raises OSError."""
    connection = http.client.HTTPConnection("admin")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(TIMEOUT_SECONDS)
    try:
        connection.sock.connect(reached(path))
        connection.request("GET", target)
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def how_it_ended(error: Exception) -> str:
    """One or two words that are the same every time."""
    if isinstance(error, ssl.SSLError) and "ACCESS_DENIED" in (error.reason or ""):
        return "access denied"  # the alert that a denied TCP connection ends with (XA-166)
    if isinstance(error, ssl.SSLError):
        return "refused in the handshake"
    if isinstance(error, ConnectionRefusedError):
        return "nobody listens"
    if isinstance(error, TimeoutError):
        return "no answer"
    if isinstance(error, ConnectionError | http.client.RemoteDisconnected | http.client.BadStatusLine):
        return "closed"
    return type(error).__name__


def _connect(place: ClientPlace) -> socket.socket:
    if place.relay is None:
        return socket.create_connection((place.address, place.port), TIMEOUT_SECONDS)
    relayed = socket.socket(socket.AF_UNIX)
    relayed.settimeout(TIMEOUT_SECONDS)
    relayed.connect(reached(place.relay))
    relayed.sendall(f"{place.port}\n".encode())
    return relayed


def _wrap(raw: socket.socket, tls: Tls) -> ssl.SSLSocket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(tls.roots)
    context.check_hostname = not tls.is_mesh
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["http/1.1"])
    if tls.client is not None:
        context.load_cert_chain(tls.client.certificate, tls.client.key)
    return context.wrap_socket(raw, server_hostname=tls.server_name or None)

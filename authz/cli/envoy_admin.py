"""Ask Envoys, by their admin interface, what they serve: an address is a socket's path or ``host:port``."""

import http.client
import socket
from collections.abc import Sequence
from pathlib import Path

from authz.core.errors import FetchError
from authz.identity.drift import Served, read_served

TIMEOUT_SECONDS = 5.0


def read_proxies(addresses: Sequence[str]) -> dict[str, tuple[Served, ...]]:
    """Read what every proxy serves and trusts, by its name. Raises FetchError for the first that cannot be asked."""
    return {proxy_name(address): read_proxy(address) for address in addresses}


def proxy_name(address: str) -> str:
    """``reviews-v2`` for ``run/reviews-v2.admin.sock``; a network address as it is."""
    path = Path(address)
    return path.name.removesuffix(".sock").removesuffix(".admin") if "/" in address or path.exists() else address


def read_proxy(address: str) -> tuple[Served, ...]:
    """Ask one proxy what it serves and trusts. Raises FetchError."""
    try:
        return read_served(get(address, "/certs"))
    except ValueError as error:
        raise FetchError(f"the proxy at `{address}` cannot be asked: {error}") from error


def get(address: str, path: str) -> str:
    """Ask one page of a proxy's admin interface. Raises FetchError."""
    return dated(address, path)[0]


def dated(address: str, path: str) -> tuple[str, str]:
    """The same with the time of the answer, as its ``Date`` says it; empty where it does not. Raises FetchError."""
    try:
        return _get(address, path)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise FetchError(f"the proxy at `{address}` cannot be asked: {error}") from error


def _get(address: str, path: str) -> tuple[str, str]:
    if "/" in address or Path(address).exists():
        connection = http.client.HTTPConnection("localhost", timeout=TIMEOUT_SECONDS)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(TIMEOUT_SECONDS)
    else:
        connection = http.client.HTTPConnection(address, timeout=TIMEOUT_SECONDS)
    try:
        if connection.sock is not None:
            connection.sock.connect(address)
        connection.request("GET", path)
        answer = connection.getresponse()
        if answer.status != http.client.OK:
            raise ValueError(f"status {answer.status}")
        return answer.read().decode(), answer.getheader("date", "")
    finally:
        connection.close()

"""
One guarded HTTP GET of a JSON document, as key retrieval needs it (RA-38, RA-39).

Bounded in time and size; link-local and cloud-metadata addresses are refused after name resolution and after every
redirect, and the connection goes to the very address that was looked at. Proxies of the environment are not used.
Every failure is a ``FetchError`` that says what, from where, and why.
"""

import asyncio
import json
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import httpx

from authz.core.errors import FetchError

MAX_BODY_BYTES = 1024 * 1024
"""Discovery documents and key sets have a few kilobytes."""
MAX_REDIRECTS = 5

_REFUSED_NETWORKS = tuple(
    ip_network(network)
    for network in (
        "169.254.0.0/16",  # link-local; metadata of AWS, Azure, GCP, OpenStack and others
        "fe80::/10",  # link-local
        "fd00:ec2::/32",  # AWS metadata over IPv6
        "fd20:ce::/32",  # GCP metadata over IPv6
        "100.100.100.200/32",  # Alibaba metadata
        "168.63.129.16/32",  # Azure platform
        "192.0.0.192/32",  # Oracle metadata
    )
)
_NAT64 = ip_network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class Document:
    """A fetched text and the response's lower-case headers."""

    text: str
    headers: Mapping[str, str]

    @property
    def content(self) -> Mapping[str, object]:
        """The JSON object of a discovery document; key sets have a reader of their own. Raises FetchError."""
        try:
            content = json.loads(self.text)
        except (ValueError, RecursionError) as error:
            raise FetchError("the body is not JSON") from error
        if not isinstance(content, dict):
            raise FetchError("the body is not a JSON object")
        return content


def is_refused_address(text: str) -> bool:
    """Say whether an address is link-local or a known metadata service, also when written as IPv6 (RA-39)."""
    address: IPv4Address | IPv6Address = ip_address(text.partition("%")[0])
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        elif address in _NAT64:
            address = IPv4Address(int(address) & 0xFFFFFFFF)
        elif address.sixtofour is not None:
            address = address.sixtofour
    return any(address in network for network in _REFUSED_NETWORKS)


async def fetch_json(url: str, ssl_context: ssl.SSLContext) -> Document:
    """
    GET a document, which is not read yet. The caller bounds the time.

    Raises:
        FetchError: no http(s) URL, refused address, no connection, bad certificate, status other than 2xx, a redirect
            from https to http, too large, or not UTF-8.
    """
    try:
        async with httpx.AsyncClient(
            transport=GuardedTransport(ssl_context),
            follow_redirects=True,
            max_redirects=MAX_REDIRECTS,
            timeout=None,  # noqa: S113  the caller bounds the time of all requests together
        ) as client:
            # An encoding could unfold far beyond the size limit in one step.
            request = client.build_request("GET", url, headers={"accept-encoding": "identity"})
            response = await client.send(request, stream=True)
            try:
                body = await _read_body(response)
            finally:
                await response.aclose()
            return _document(body, response)
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        raise FetchError(f"{_shown(url)}: {_cause(error)}") from error


async def _read_body(response: httpx.Response) -> bytes:
    was_https = any(earlier.url.scheme == "https" for earlier in response.history)
    if was_https and response.url.scheme != "https":
        raise ValueError("redirected from https to http")
    if not response.is_success:
        raise ValueError(f"status {response.status_code}, expected 2xx")
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise ValueError("the body is compressed, which was not asked for")
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise ValueError(f"the body has more than {MAX_BODY_BYTES} bytes")
    return bytes(body)


def _document(body: bytes, response: httpx.Response) -> Document:
    try:
        text = body.decode("utf-8")
    except ValueError as error:
        raise ValueError("the body is not JSON") from error
    return Document(text, {name.lower(): value for name, value in response.headers.items()})


async def discover_key_uri(issuer: str, ssl_context: ssl.SSLContext) -> str:
    """Ask an issuer's discovery document where its keys are. Raises FetchError."""
    discovery = await fetch_json(f"{issuer.removesuffix('/')}/.well-known/openid-configuration", ssl_context)
    found = discovery.content.get("jwks_uri")
    if not isinstance(found, str) or not found.startswith(("http://", "https://")):
        raise FetchError(f"the discovery document of {issuer} has no http(s) `jwks_uri`")
    return found


class GuardedTransport(httpx.AsyncBaseTransport):
    """Resolves each host itself, refuses bad addresses, and connects to the address that was checked."""

    def __init__(self, ssl_context: ssl.SSLContext) -> None:
        self._inner = httpx.AsyncHTTPTransport(verify=ssl_context, trust_env=False)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request; redirects come back here, so every hop is checked."""
        if request.url.scheme not in ("http", "https") or not request.url.host:
            raise ValueError("not an http or https URL")
        host = request.url.host
        error: httpx.ConnectError | None = None
        for address in await _resolve(host, request.url.port or (443 if request.url.scheme == "https" else 80)):
            try:
                return await self._inner.handle_async_request(
                    httpx.Request(
                        request.method,
                        request.url.copy_with(host=address),
                        headers=request.headers,
                        stream=request.stream,
                        extensions={**request.extensions, "sni_hostname": host},
                    )
                )
            except httpx.ConnectError as failure:
                error = failure
        raise error or httpx.ConnectError(f"{host} has no address")

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()


async def _resolve(host: str, port: int) -> list[str]:
    """Addresses of a host, each once; refused altogether when one of them is refused."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    for address in addresses:
        if is_refused_address(address):
            raise ValueError(f"{host} has the address {address}, which is link-local or a metadata service: refused")
    return addresses


def _shown(url: str) -> str:
    """A URL without user and query, where secrets would be."""
    try:
        return str(httpx.URL(url).copy_with(userinfo=b"", query=None, fragment=None))
    except (httpx.InvalidURL, ValueError):
        return "invalid URL"


def _cause(error: BaseException) -> str:
    """The deepest system error says most: ``Connection refused`` rather than ``All connection attempts failed``."""
    text, current = str(error) or type(error).__name__, error.__cause__ or error.__context__
    while current is not None:
        if isinstance(current, OSError) and (current.strerror or str(current)):
            text = current.strerror or str(current)
        current = current.__cause__ or current.__context__
    return text

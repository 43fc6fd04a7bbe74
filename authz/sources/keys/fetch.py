"""
One guarded HTTP GET of a JSON document, as key retrieval needs it (RA-38, RA-39).

Bounded in time and size; link-local and cloud-metadata addresses are refused after name resolution and after every
redirect, and the connection goes to the very address that was checked; behind a proxy, which resolves names by
itself, whatever can be checked here is. Every failure is a ``FetchError`` that says what, from where, and why.
"""

import asyncio
import importlib.metadata
import json
import socket
import ssl
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import httpx

from authz.core.errors import FetchError
from authz.sources.keys.http_proxy import NO_PROXIES, Proxies

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
class Fetched:
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


async def fetch_json(
    url: str,
    ssl_context: ssl.SSLContext,
    proxies: Proxies = NO_PROXIES,
    transport: httpx.AsyncBaseTransport | None = None,
) -> Fetched:
    """
    GET a document, which is not yet parsed. The caller bounds the time.

    ``transport``: one that asks more of the server than ``GuardedTransport`` with these arguments, wrapped around it.

    Raises:
        FetchError: not an http(s) URL, refused address, no connection, bad certificate, status other than 2xx, a
            redirect from https to http, too large, or not UTF-8.
    """
    try:
        async with httpx.AsyncClient(
            transport=transport or GuardedTransport(ssl_context, proxies),
            follow_redirects=True,
            max_redirects=MAX_REDIRECTS,
            timeout=None,  # noqa: S113  the caller bounds the time of all requests together
        ) as client:
            headers = {"accept-encoding": "identity", "user-agent": user_agent()}
            request = client.build_request("GET", url, headers=headers)
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
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip", "x-gzip"):
        raise ValueError(f"the body is compressed with `{encoding}`, which was not asked for; gzip is read")
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise ValueError(f"the body has more than {MAX_BODY_BYTES} bytes")
    is_gzip = body.startswith(_GZIP)
    if encoding != "identity" and not is_gzip:
        raise ValueError("the body is said to be compressed with gzip but is not")
    return _unzipped(bytes(body)) if is_gzip else bytes(body)


_GZIP = b"\x1f\x8b"
"""How a gzipped body begins, and JSON never does: some servers always compress, and some do not even say so."""


def _unzipped(body: bytes) -> bytes:
    """One gzip member, up to the size limit: compressed data can expand far beyond it."""
    unzip = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        found = unzip.decompress(body, MAX_BODY_BYTES + 1)
    except zlib.error as error:
        raise ValueError("the body is not valid gzip") from error
    if len(found) > MAX_BODY_BYTES:
        raise ValueError(f"the body has more than {MAX_BODY_BYTES} bytes")
    if not unzip.eof:
        raise ValueError("the gzipped body ends too early")
    return found


@cache
def user_agent() -> str:
    """``authz/VERSION``: firewalls refuse clients that are named after a language."""
    with suppress(importlib.metadata.PackageNotFoundError):
        return f"authz/{importlib.metadata.version('authz')}"
    return "authz/0"


def _document(body: bytes, response: httpx.Response) -> Fetched:
    try:
        text = body.decode("utf-8-sig")  # a byte order mark is not JSON, but some servers send one
    except ValueError as error:
        raise ValueError("the body is not JSON") from error
    return Fetched(text, {name.lower(): value for name, value in response.headers.items()})


def public_roots() -> ssl.SSLContext:
    """Trust what browsers trust. Reading all of it takes tens of milliseconds: not for an event loop."""
    return httpx.create_ssl_context()


async def discover_key_uri(issuer: str, ssl_context: ssl.SSLContext, proxies: Proxies = NO_PROXIES) -> str:
    """Ask an issuer's discovery document where its keys are. Raises FetchError."""
    url = f"{issuer.removesuffix('/')}/.well-known/openid-configuration"
    discovery = await fetch_json(url, ssl_context, proxies)
    found = discovery.content.get("jwks_uri")
    if not isinstance(found, str) or not found.startswith(("http://", "https://")):
        raise FetchError(f"the discovery document of {issuer} has no http(s) `jwks_uri`")
    return found


class GuardedTransport(httpx.AsyncBaseTransport):
    """
    Resolves each host itself, refuses bad addresses, and connects to the address that was checked.

    A proxy is asked for the name: it alone may know where that is.
    """

    def __init__(self, ssl_context: ssl.SSLContext, proxies: Proxies = NO_PROXIES) -> None:
        self._ssl_context = ssl_context
        self._proxies = proxies
        self._inner = httpx.AsyncHTTPTransport(verify=ssl_context, trust_env=False)
        self._outer: dict[str, httpx.AsyncHTTPTransport] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request; redirects come back here, so every hop is checked."""
        if request.url.scheme not in ("http", "https") or not request.url.host:
            raise ValueError("not an http or https URL")
        host, port = request.url.host, request.url.port or (443 if request.url.scheme == "https" else 80)
        if proxy := self._proxies.for_url(request.url):
            with suppress(OSError):  # names of the outer world often have no address behind a proxy
                await _resolve(host, port)
            return await self._by(proxy).handle_async_request(request)
        error: httpx.ConnectError | None = None
        for address in await _resolve(host, port):
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
        for transport in (self._inner, *self._outer.values()):
            await transport.aclose()

    def _by(self, proxy: str) -> httpx.AsyncHTTPTransport:
        if proxy not in self._outer:
            self._outer[proxy] = httpx.AsyncHTTPTransport(
                verify=self._ssl_context, trust_env=False, proxy=httpx.Proxy(proxy)
            )
        return self._outer[proxy]


async def _resolve(host: str, port: int) -> list[str]:
    """Addresses of a host, each once; all are refused if one of them is."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    for address in addresses:
        if is_refused_address(address):
            raise ValueError(f"{host} has the address {address}, which is link-local or a metadata service: refused")
    return addresses


def _shown(url: str) -> str:
    """A URL without user and query, where secrets might be."""
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

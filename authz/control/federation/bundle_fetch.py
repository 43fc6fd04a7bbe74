"""
Fetch a trust bundle from a SPIFFE bundle endpoint, by either profile (SPIFFE Federation 5.2).

    https_web      the endpoint's certificate is judged by the authorities of this system, and by the host's name
    https_spiffe   its certificate is an SVID of one SPIFFE ID, judged by the bundle of that trust domain; the name of
                   the host says nothing

Bounds, refused addresses and redirects are as for key sets; after a redirect the same is asked of the new server.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path

import httpx

from authz.core.errors import FetchError
from authz.core.spiffe import SpiffeId
from authz.identity.bundle import TrustBundle
from authz.identity.federation import Profile, Relationship
from authz.identity.svid_validation import Rejection, identity_of_leaf
from authz.sources.keys.fetch import GuardedTransport, fetch_json
from authz.sources.keys.http_proxy import NO_PROXIES, Proxies

FETCH_SECONDS = 20.0
"""For everything, redirects included."""


def by_environment(environment: Mapping[str, str]) -> Callable[[Relationship, TrustBundle | None], Awaitable[bytes]]:
    """
    ``fetch_document`` through the proxies that ``HTTPS_PROXY`` and its kin name.

    Raises SettingsError for a proxy that is not a URL.
    """
    return partial(fetch_document, proxies=Proxies.of("", environment))


async def fetch_document(
    relationship: Relationship, endpoint_bundle: TrustBundle | None, proxies: Proxies = NO_PROXIES
) -> bytes:
    """
    The document as it came; whoever reads it gives it the trust domain of the relationship.

    ``endpoint_bundle``: what the endpoint's own trust domain is trusted by; None where there is none yet.
    Raises FetchError.
    """
    try:
        async with asyncio.timeout(FETCH_SECONDS):
            if relationship.profile is Profile.WEB:
                context = await asyncio.to_thread(_web_context, relationship.ca_bundle)
                transport: httpx.AsyncBaseTransport = GuardedTransport(context, proxies)
            else:
                assert relationship.endpoint_id is not None
                context = _svid_context(relationship.endpoint_id, endpoint_bundle)
                transport = _SvidTransport(GuardedTransport(context, proxies), relationship.endpoint_id)
            return (await fetch_json(relationship.url, context, transport=transport)).text.encode()
    except TimeoutError as error:
        raise FetchError(f"{relationship.url}: no answer in {FETCH_SECONDS:.0f} seconds") from error


def _web_context(ca_bundle: Path | None) -> ssl.SSLContext:
    """Raises FetchError."""
    try:
        return httpx.create_ssl_context() if ca_bundle is None else ssl.create_default_context(cafile=str(ca_bundle))
    except OSError as error:
        raise FetchError(f"`caBundlePath`: `{ca_bundle}` cannot be used: {error.strerror or error}") from error


def _svid_context(endpoint_id: SpiffeId, bundle: TrustBundle | None) -> ssl.SSLContext:
    """
    Verifies the chain to the roots of one trust domain; whose SVID it is, ``_SvidTransport`` judges.

    Raises FetchError.
    """
    if bundle is None or not bundle.roots:
        domain = endpoint_id.trust_domain
        raise FetchError(f"there is no bundle of `{domain}` to judge `{endpoint_id}` by; bring one by hand first")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False  # "does not rely on network locators": the SPIFFE ID is the name
    context.load_verify_locations(cadata=bundle.pem.decode("ascii"))
    return context


class _SvidTransport(httpx.AsyncBaseTransport):
    """Takes answers only from a server that showed an SVID of ``endpoint_id``. A request tells nothing secret."""

    def __init__(self, inner: httpx.AsyncBaseTransport, endpoint_id: SpiffeId) -> None:
        self._inner = inner
        self._endpoint_id = endpoint_id

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request; redirects come back here, so every hop is judged."""
        if request.url.scheme != "https":
            raise ValueError("redirected from https to http")
        response = await self._inner.handle_async_request(request)
        stream = response.extensions.get("network_stream")
        tls = stream.get_extra_info("ssl_object") if stream is not None else None
        shown = tls.getpeercert(binary_form=True) if tls is not None else None
        answer = identity_of_leaf(shown) if shown else Rejection("the endpoint showed no certificate")
        if isinstance(answer, Rejection) or answer != self._endpoint_id:
            await response.aclose()
            reason = answer.reason if isinstance(answer, Rejection) else f"the endpoint is `{answer}`"
            raise ValueError(f"{reason}, expected `{self._endpoint_id}`")
        return response

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()

"""uvicorn's HTTP/1.1 with the certificate of the caller, which ASGI does not pass on."""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

PEER_CERTIFICATE = "authz.peer_certificate"
"""In the scope: the caller's certificate as DER; not there where none was shown."""
PEER_IDENTITY = "authz.peer_identity"
"""In the scope: its SPIFFE ID, empty without one; several together are nobody's."""


class CertificateProtocol(H11Protocol):
    """A connection whose requests know who connected."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # TLS gives one of these
        """Look at the certificate once for all requests of the connection."""
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        certificate = tls.getpeercert(binary_form=True) if tls is not None else None
        if not certificate:
            return
        names = dict(tls.getpeercert()).get("subjectAltName", ())
        uris = [value for kind, value in names if kind == "URI" and value.startswith("spiffe://")]
        shown = {PEER_CERTIFICATE: certificate, PEER_IDENTITY: " ".join(uris)}
        app = self.app

        async def told(scope: Any, receive: Any, send: Any) -> None:
            await app({**scope, **shown}, receive, send)

        self.app = told

"""
The SPIFFE bundle endpoint: our trust bundle for other trust domains, and our keys for verifiers of tokens.

    /                                    the SPIFFE bundle document (SPIFFE Federation 5.2)
    /keys                                only the keys of JWT-SVIDs, as a JWK Set
    /.well-known/openid-configuration    where ``/keys`` is, if our tokens name an issuer that is a URL

Nobody has to show anything: servers "MUST NOT require client authentication", and all of it is public.
"""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from authz.admin.access import Receive, Scope, Send
from authz.control.authority.authority_files import AuthorityFiles
from authz.core.errors import SettingsError
from authz.identity.bundle_document import write_bundle_document, write_key_set
from authz.identity.registrar import Registrar
from authz.service.ports.http import AdminServer, AdminTls

REFRESH_HINT_SECONDS = 300
"""Spire's default, and what clients assume if they find no hint (SPIFFE Federation 4.1)."""
DISCOVERY = "/.well-known/openid-configuration"


@dataclass(frozen=True, slots=True)
class EndpointDoor:
    """Where the endpoint listens, and how it proves who it is."""

    address: str
    """``host:port``."""
    certificate: Path | None = None
    key: Path | None = None
    """Files of a web server's certificate (https_web); without them our own SVID is shown (https_spiffe)."""

    def server(self, app: "Callable[[Scope, Receive, Send], Awaitable[None]]", own: AdminTls) -> AdminServer:
        """Host the application with the certificate of the profile; ``own`` is our SVID. Raises SettingsError."""
        tls = own if self.certificate is None or self.key is None else AdminTls(self.certificate, self.key)
        try:
            return AdminServer(app, self.address, tls, is_public=True)
        except SettingsError as error:  # which names the setting of another server
            raise SettingsError(f"the bundle endpoint: {str(error).partition(': ')[2] or error}") from error


def make_endpoint(registrar: Registrar, files: AuthorityFiles) -> "Callable[[Scope, Receive, Send], Awaitable[None]]":
    """An ASGI application whose answers are what is in force."""

    def documents() -> dict[str, bytes]:
        bundle = registrar.trust_bundle
        found = {
            "/": write_bundle_document(bundle, sequence(files), REFRESH_HINT_SECONDS),
            "/keys": write_key_set(bundle.jwt_keys, "sig"),
        }
        if registrar.jwt_issuer.startswith("https://"):
            found[DISCOVERY] = _discovery(registrar.jwt_issuer)
        return found

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        status, body = 405, b'{"error": "GET only"}\n'
        if scope["method"] in ("GET", "HEAD"):
            found = documents().get(scope["path"])
            status, body = (404, b'{"error": "not found"}\n') if found is None else (200, found)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    return app


def sequence(files: AuthorityFiles) -> int:
    """
    When the bundle changed last, in milliseconds: it "MUST be a monotonically increasing integer".

    So several processes of one authority say the same without telling each other.
    """
    times = [path.stat().st_mtime_ns for path in (files.state_file, files.jwt_keys) if path.exists()]
    return max(times, default=0) // 1_000_000


def _discovery(issuer: str) -> bytes:
    document = {
        "issuer": issuer,
        "jwks_uri": f"{issuer.removesuffix('/')}/keys",
        "id_token_signing_alg_values_supported": ["ES256"],
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
    }
    return json.dumps(document).encode()

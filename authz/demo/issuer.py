"""
A small OpenID Connect issuer for the demo: discovery, key set, sign-in and tokens for two people, key rotation.

It is test equipment: it believes whoever asks and signs what they ask for, wrong audiences and past expiry included,
so that refusals can be tried by hand; only the sign-in of a browser (``sign_in``) is checked as a provider must. It
listens on loopback unless told otherwise, and must never be more than a demo. It imports ``tokens``, as
signing lives there, beside the verification that it must fit.
"""

import argparse
import secrets
import sys
import time
from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from urllib.parse import parse_qs, unquote_plus

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from authz.demo.sign_in import Client, GrantError, Provider, is_allowed_redirect
from authz.identity.keys import generate_key, read_key, write_key
from authz.identity.secret_files import SECRET_MODE, read_secret, write_file
from authz.tokens.signing import SigningKey, jwks_text, make_token, signing_key

AUDIENCE = "bookinfo"
TTL_SECONDS = 3600
ALGORITHM = "ES256"
PEOPLE: Mapping[str, Mapping[str, object]] = {
    "alice": {"sub": "alice", "name": "Alice Reader", "role": "reader", "roles": ["reader"]},
    "bob": {"sub": "bob", "name": "Bob Moderator", "role": "moderator", "roles": ["reader", "moderator"]},
    "jason": {"sub": "jason", "name": "jason", "role": "reader", "roles": ["reader"]},
}
"""
Name to claims; jason is the user of Istio's tasks on traffic.

``role`` becomes a header (RA-48 wants a simple value), ``roles`` is what policies read.
"""


@dataclass(slots=True)
class TokenIssuer:
    """
    Keys and tokens, without HTTP.

    ``keys`` are published, newest last; the newest signs.
    """

    url: str
    directory: Path | None = None
    """Where keys are kept, so that a browser's token outlives a restart of the demo; None: in memory only."""
    keys: list[SigningKey] = field(default_factory=list)
    audience: str = AUDIENCE
    """The audience of tokens, unless another is asked for."""
    ttl_seconds: int = TTL_SECONDS
    """The life of tokens, unless another is asked for."""

    def __post_init__(self) -> None:
        if self.directory is not None:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            for path in sorted(self.directory.glob("*.key")):
                self.keys.append(signing_key(read_key(read_secret(path)), kid=path.stem, alg=ALGORITHM))
        if not self.keys:
            self.rotate()

    def rotate(self, *, drop_old: bool = False) -> str:
        """Make a new signing key and return its ``kid``; the old ones stay published unless they are dropped."""
        private = generate_key()
        number = int((self.keys[-1].kid or "0-").partition("-")[0]) + 1 if self.keys else 1
        kid = f"{number:04}-{secrets.token_hex(4)}"
        dropped = self.keys if drop_old else []
        self.keys = [*(key for key in self.keys if key not in dropped), signing_key(private, kid=kid, alg=ALGORITHM)]
        if self.directory is not None:
            write_file(self.directory / f"{kid}.key", write_key(private), SECRET_MODE)
            for key in dropped:
                (self.directory / f"{key.kid}.key").unlink(missing_ok=True)
        return kid

    def key_set(self) -> str:
        """Return the published keys as JWKS text."""
        return jwks_text(self.keys)

    def discovery(self) -> dict[str, object]:
        """Return the discovery document (OpenID Connect Discovery 1.0, section 3)."""
        return {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "end_session_endpoint": f"{self.url}/logout",
            "jwks_uri": f"{self.url}/jwks",
            "response_types_supported": ["code"],
            "grant_types_supported": ["authorization_code", "refresh_token", "password"],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["client_secret_post", "client_secret_basic"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": [ALGORITHM],
            "scopes_supported": ["openid"],
            "claims_supported": ["sub", "iss", "aud", "exp", "iat", "name", "role", "roles"],
        }

    def token(
        self, person: str, now: float, *, audience: str = "", ttl_seconds: int | None = None, nonce: str = ""
    ) -> str:
        """
        Sign a token for one of ``PEOPLE``.

        Args:
            ttl_seconds: a negative value makes a token that has expired.

        Raises:
            KeyError: nobody of that name.
        """
        ttl_seconds = self.ttl_seconds if ttl_seconds is None else ttl_seconds
        claims: dict[str, object] = {
            **PEOPLE[person],
            "iss": self.url,
            "aud": audience or self.audience,
            "iat": {"$now": min(0, ttl_seconds) - 1},
            "exp": {"$now": ttl_seconds},
            "scope": "openid",
        }
        if nonce:
            claims["nonce"] = nonce
        return make_token({"key": "current", "alg": ALGORITHM, "claims": claims}, {"current": self.keys[-1]}, now)


def application(
    issuer: TokenIssuer, clock: Callable[[], float] = time.time, provider: Provider | None = None
) -> Starlette:
    """Make the issuer's HTTP side; without a ``provider`` no browser can sign in."""
    sign_in = provider or Provider()

    async def discovery(request: Request) -> Response:
        return JSONResponse(issuer.discovery())

    async def jwks(request: Request) -> Response:
        return Response(issuer.key_set(), media_type="application/json", headers={"cache-control": "max-age=60"})

    async def token(request: Request) -> Response:
        """RFC 6749, sections 4.1.3 and 6; and section 4.3 for the shell, whose password is not looked at."""
        form = _form(await request.body())
        if form.get("grant_type") in ("authorization_code", "refresh_token"):
            try:
                sign_in.authenticate(*_client(request, form))
                person, nonce = sign_in.redeem(form, clock())
            except GrantError as error:
                status = 401 if error.error == "invalid_client" else 400
                return JSONResponse({"error": error.error, "error_description": str(error)}, status)
            id_token = issuer.token(person, clock(), nonce=nonce)
            sign_in.begin_session(id_token, person)
            more = {"id_token": id_token, "refresh_token": sign_in.refresh_token(person)}
            return _tokens(issuer.token(person, clock()), issuer.ttl_seconds, more)
        try:
            ttl_seconds = int(form.get("expires_in", str(issuer.ttl_seconds)))
            audience = form.get("audience", "")
            signed = issuer.token(form.get("username", ""), clock(), audience=audience, ttl_seconds=ttl_seconds)
        except (KeyError, ValueError):
            names = ", ".join(PEOPLE)
            return JSONResponse({"error": "invalid_grant", "error_description": f"`username` is one of {names}"}, 400)
        return _tokens(signed, ttl_seconds, {"id_token": signed})

    async def plain_token(request: Request) -> Response:
        """Answer a token as plain text, for the shell: ``TOKEN=$(curl -s …/token/alice)``."""
        person = request.path_params["person"]
        if person not in PEOPLE:
            return PlainTextResponse(f"nobody is called that; try {' or '.join(PEOPLE)}\n", 404)
        audience = request.query_params.get("audience", "")
        ttl = request.query_params.get("expires_in", "")
        ttl_seconds = int(ttl) if ttl.removeprefix("-").isdecimal() else TTL_SECONDS
        return PlainTextResponse(issuer.token(person, clock(), audience=audience, ttl_seconds=ttl_seconds) + "\n")

    async def authorize(request: Request) -> Response:
        """``GET``: who is it? ``POST``: the person was chosen."""
        given = dict(request.query_params) if request.method == "GET" else _form(await request.body())
        try:
            asked = sign_in.asked(given)
        except GrantError as error:
            return PlainTextResponse(f"{error}\n", 400)
        if request.method == "GET":
            return HTMLResponse(_choose_page(given))
        if given.get("person") not in PEOPLE:
            return PlainTextResponse("nobody is called that\n", 400)
        return RedirectResponse(sign_in.answer(asked, given["person"], clock()), 303, {"cache-control": "no-store"})

    async def logout(request: Request) -> Response:
        """OpenID Connect RP-Initiated Logout 1.0, section 2."""
        sign_in.end_session(request.query_params.get("id_token_hint", ""))
        target = request.query_params.get("post_logout_redirect_uri", "")
        if is_allowed_redirect(target, "/"):
            return RedirectResponse(target, 303)
        return HTMLResponse(_frame("Signed out", "<p>You may close this page.</p>"))

    async def rotate(request: Request) -> Response:
        drop_old = request.query_params.get("drop") in ("1", "true", "yes")
        kid = issuer.rotate(drop_old=drop_old)
        return JSONResponse({"kid": kid, "published": [key.kid for key in issuer.keys]})

    async def life(request: Request) -> Response:
        """Change how long tokens live, so that one can watch a session being refreshed."""
        issuer.ttl_seconds = request.path_params["seconds"]
        return JSONResponse({"ttl_seconds": issuer.ttl_seconds})

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "healthy"})

    return Starlette(
        routes=[
            Route("/.well-known/openid-configuration", discovery),
            Route("/jwks", jwks),
            Route("/token", token, methods=["POST"]),
            Route("/token/{person}", plain_token),
            Route("/authorize", authorize, methods=["GET", "POST"]),
            Route("/logout", logout),
            Route("/rotate", rotate, methods=["POST"]),
            Route("/life/{seconds:int}", life, methods=["POST"]),
            Route("/health", health),
        ]
    )


def _client(request: Request, form: Mapping[str, str]) -> tuple[str, str]:
    """The client's name and secret: form fields, or Basic credentials with encoded parts (RFC 6749, 2.3.1)."""
    scheme, _, written = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return form.get("client_id", ""), form.get("client_secret", "")
    try:
        name, _, secret = b64decode(written).decode().partition(":")
    except ValueError:
        return "", ""
    return unquote_plus(name), unquote_plus(secret)


def _tokens(access: str, ttl_seconds: int, more: Mapping[str, str]) -> Response:
    content = {"access_token": access, "token_type": "Bearer", "expires_in": ttl_seconds, **more}
    return JSONResponse(content, headers={"cache-control": "no-store"})


def _form(body: bytes) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(body.decode("utf-8", "replace")).items()}


_STYLE = (
    ":root{color-scheme:light dark}body{font:1rem/1.6 system-ui,sans-serif;max-width:32rem;margin:3rem auto;"
    "padding:0 1.25rem}button{display:block;width:100%;margin:.75rem 0;padding:.8rem 1rem;font:inherit;"
    "text-align:left;border:1px solid;border-radius:.5rem;background:transparent;cursor:pointer}"
    "button:focus-visible{outline:3px solid Highlight;outline-offset:2px}small{display:block}"
)


def _frame(title: str, body: str) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body><main><h1>{escape(title)}</h1>{body}"
        "</main></body></html>"
    )


def _choose_page(query: Mapping[str, str]) -> str:
    hidden = "".join(
        f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">' for name, value in query.items()
    )
    buttons = "".join(
        f'<button name="person" value="{escape(person)}">{escape(str(claims["name"]))}'
        f"<small>{escape(', '.join(map(str, roles)))}</small></button>"
        for person, claims in PEOPLE.items()
        if isinstance(roles := claims["roles"], list)
    )
    body = f'<p>This is the demo’s own issuer; it asks for no password.</p><form method="post">{hidden}{buttons}</form>'
    return _frame("Who are you?", body)


def main(arguments: Sequence[str]) -> None:
    """Serve until SIGTERM: ``python -m authz.demo.issuer --port 19191``."""
    parser = argparse.ArgumentParser(prog="python -m authz.demo.issuer", description="The demo's OIDC issuer.")
    parser.add_argument("--host", default="127.0.0.1", help="among containers, where a port is published: 0.0.0.0")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--url", help="issuer identifier; default: http://127.0.0.1:PORT")
    parser.add_argument("--audience", default=AUDIENCE, help="for whom tokens are, unless asked for another")
    parser.add_argument("--keys", type=Path, help="directory that keeps the signing keys; default: memory only")
    parser.add_argument("--client", default="bookinfo", help="the client that browsers sign in by")
    parser.add_argument("--client-secret", type=Path, help="file with its secret; without one nobody signs in")
    given = parser.parse_args(arguments)
    client = Client(given.client, given.client_secret.read_text().strip()) if given.client_secret else None
    issuer = TokenIssuer(given.url or f"http://127.0.0.1:{given.port}", given.keys, audience=given.audience)
    uvicorn.run(
        application(issuer, provider=Provider(client)),
        host=given.host,
        port=given.port,
        log_level="warning",
        access_log=False,
        server_header=False,
    )


if __name__ == "__main__":
    main(sys.argv[1:])

"""
A small OpenID Connect issuer for the demo: discovery, key set, tokens for two people, key rotation.

It believes whoever asks and signs what they ask for, wrong audiences and past expiry included, so that refusals can
be tried by hand. It listens on loopback unless told otherwise, and must never be more than a demo.
It imports ``tokens`` beyond the rule for ``demo``: signing lives there, beside the verification that it must fit.
"""

import argparse
import secrets
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from authz.identity.keys import generate_key, read_key, write_key
from authz.identity.secret_files import SECRET_MODE, read_secret, write_file
from authz.tokens.signing import SigningKey, jwks_text, make_token, signing_key

AUDIENCE = "bookinfo"
TTL_SECONDS = 3600
ALGORITHM = "ES256"
PEOPLE: Mapping[str, Mapping[str, object]] = {
    "alice": {"sub": "alice", "name": "Alice Reader", "role": "reader", "roles": ["reader"]},
    "bob": {"sub": "bob", "name": "Bob Moderator", "role": "moderator", "roles": ["reader", "moderator"]},
}
"""Name to claims. ``role`` becomes a header (RA-48 wants a simple value), ``roles`` is what policies read."""


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
    """For whom tokens are, unless asked for another."""

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
            "jwks_uri": f"{self.url}/jwks",
            "response_types_supported": ["id_token"],
            "response_modes_supported": ["form_post"],
            "grant_types_supported": ["password", "implicit"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": [ALGORITHM],
            "scopes_supported": ["openid"],
            "claims_supported": ["sub", "iss", "aud", "exp", "iat", "name", "role", "roles"],
        }

    def token(
        self, person: str, now: float, *, audience: str = "", ttl_seconds: int = TTL_SECONDS, nonce: str = ""
    ) -> str:
        """
        Sign a token for one of ``PEOPLE``.

        Args:
            ttl_seconds: a negative value makes a token that has expired.

        Raises:
            KeyError: nobody of that name.
        """
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


def application(issuer: TokenIssuer, clock: Callable[[], float] = time.time) -> Starlette:
    """Make the issuer's HTTP side."""

    async def discovery(request: Request) -> Response:
        return JSONResponse(issuer.discovery())

    async def jwks(request: Request) -> Response:
        return Response(issuer.key_set(), media_type="application/json", headers={"cache-control": "max-age=60"})

    async def token(request: Request) -> Response:
        """RFC 6749 section 4.3 as far as a demo needs it; the password is not looked at."""
        form = _form(await request.body())
        try:
            ttl_seconds = int(form.get("expires_in", str(TTL_SECONDS)))
            audience = form.get("audience", "")
            signed = issuer.token(form.get("username", ""), clock(), audience=audience, ttl_seconds=ttl_seconds)
        except (KeyError, ValueError):
            names = ", ".join(PEOPLE)
            return JSONResponse({"error": "invalid_grant", "error_description": f"`username` is one of {names}"}, 400)
        return JSONResponse(
            {"access_token": signed, "id_token": signed, "token_type": "Bearer", "expires_in": ttl_seconds},
            headers={"cache-control": "no-store"},
        )

    async def plain_token(request: Request) -> Response:
        """Answer a token as plain text, for the shell: ``TOKEN=$(curl -s …/token/alice)``."""
        person = request.path_params["person"]
        if person not in PEOPLE:
            return PlainTextResponse(f"nobody is called that; try {' or '.join(PEOPLE)}\n", 404)
        audience = request.query_params.get("audience", "")
        ttl = request.query_params.get("expires_in", str(TTL_SECONDS))
        ttl_seconds = int(ttl) if ttl.removeprefix("-").isdecimal() else TTL_SECONDS
        return PlainTextResponse(issuer.token(person, clock(), audience=audience, ttl_seconds=ttl_seconds) + "\n")

    async def authorize(request: Request) -> Response:
        query = dict(request.query_params)
        if not is_allowed_redirect(query.get("redirect_uri", "")):
            return PlainTextResponse("`redirect_uri` must be /login of a loopback address\n", 400)
        return HTMLResponse(_choose_page(query))

    async def signed_in(request: Request) -> Response:
        form = _form(await request.body())
        target = form.get("redirect_uri", "")
        if not is_allowed_redirect(target) or form.get("person") not in PEOPLE:
            return PlainTextResponse("unknown person or `redirect_uri`\n", 400)
        signed = issuer.token(form["person"], clock(), nonce=form.get("nonce", ""))
        headers = {"cache-control": "no-store"}
        return HTMLResponse(_form_post_page(target, signed, form.get("state", "")), headers=headers)

    async def rotate(request: Request) -> Response:
        drop_old = request.query_params.get("drop") in ("1", "true", "yes")
        kid = issuer.rotate(drop_old=drop_old)
        return JSONResponse({"kid": kid, "published": [key.kid for key in issuer.keys]})

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "healthy"})

    return Starlette(
        routes=[
            Route("/.well-known/openid-configuration", discovery),
            Route("/jwks", jwks),
            Route("/token", token, methods=["POST"]),
            Route("/token/{person}", plain_token),
            Route("/authorize", authorize, methods=["GET"]),
            Route("/authorize", signed_in, methods=["POST"]),
            Route("/rotate", rotate, methods=["POST"]),
            Route("/health", health),
        ]
    )


def is_allowed_redirect(target: str) -> bool:
    """Tokens are only handed to ``/login`` on this machine."""
    try:
        place = urlsplit(target)
    except ValueError:
        return False
    local = place.hostname in ("localhost", "127.0.0.1", "::1")
    return place.scheme == "https" and local and place.path == "/login" and not place.username


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
    kept = {name: query[name] for name in ("redirect_uri", "state", "nonce") if name in query}
    hidden = "".join(f'<input type="hidden" name="{name}" value="{escape(value)}">' for name, value in kept.items())
    buttons = "".join(
        f'<button name="person" value="{escape(person)}">{escape(str(claims["name"]))}'
        f"<small>{escape(', '.join(map(str, roles)))}</small></button>"
        for person, claims in PEOPLE.items()
        if isinstance(roles := claims["roles"], list)
    )
    body = f'<p>This is the demo’s own issuer; it asks for no password.</p><form method="post">{hidden}{buttons}</form>'
    return _frame("Who are you?", body)


def _form_post_page(target: str, token: str, state: str) -> str:
    """OAuth 2.0 Form Post Response Mode: the browser carries the token to the application."""
    fields = {"id_token": token, **({"state": state} if state else {})}
    hidden = "".join(f'<input type="hidden" name="{name}" value="{escape(value)}">' for name, value in fields.items())
    body = (
        f'<form method="post" action="{escape(target)}">{hidden}<button>Continue to Bookinfo</button></form>'
        "<script>document.forms[0].submit()</script>"
    )
    return _frame("Signed in", body)


def main(arguments: Sequence[str]) -> None:
    """Serve until SIGTERM: ``python -m authz.demo.issuer --port 19191``."""
    parser = argparse.ArgumentParser(prog="python -m authz.demo.issuer", description="The demo's OIDC issuer.")
    parser.add_argument("--host", default="127.0.0.1", help="among containers, where a port is published: 0.0.0.0")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--url", help="issuer identifier; default: http://127.0.0.1:PORT")
    parser.add_argument("--audience", default=AUDIENCE, help="for whom tokens are, unless asked for another")
    parser.add_argument("--keys", type=Path, help="directory that keeps the signing keys; default: memory only")
    given = parser.parse_args(arguments)
    issuer = TokenIssuer(given.url or f"http://127.0.0.1:{given.port}", given.keys, audience=given.audience)
    uvicorn.run(
        application(issuer),
        host=given.host,
        port=given.port,
        log_level="warning",
        access_log=False,
        server_header=False,
    )


if __name__ == "__main__":
    main(sys.argv[1:])

"""
Who may read the operator's side: everybody on this machine, and from elsewhere only those who show a token or a
certificate.

Read-only: nothing but GET and HEAD is answered. Where no token is required, a host name that does not belong to this
machine is refused as well; otherwise a page of some other site could read ours by pointing its own name at 127.0.0.1
(DNS rebinding).
"""

import base64
import binascii
import hmac
import ipaddress
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from authz.core.errors import SettingsError

MIN_TOKEN_LENGTH = 16
OPEN_PATHS = frozenset({"/livez", "/readyz"})
"""Orchestrators ask for these without a token; the answers hold words and causes, and no decisions."""
OPERATIONS = frozenset({*OPEN_PATHS, "/healthz", "/metrics"})
"""Programs ask for these under any host name; they tell a page in a browser nothing about a request."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content-Security-Policy: everything comes from here and nothing is inline; the graph draws images as ``data:``."""
SECURITY_HEADERS = (
    ("content-security-policy", POLICY),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
)
_HEADERS = [(name.encode(), value.encode()) for name, value in SECURITY_HEADERS]
_NAMES = frozenset(name for name, _ in _HEADERS)

Scope = MutableMapping[str, Any]
_Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[_Message]]
Send = Callable[[_Message], Awaitable[None]]
"""The callables of ASGI. They are typed Any, because their messages are dictionaries of many kinds."""
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Access:
    """The proof that a request must show; an empty ``token`` asks for none."""

    token: str = field(default="", repr=False)
    checks_name: bool = False
    """Whether only names of this machine are answered, as on loopback without a token."""


def judge_access(listen: str, token: str = "", *, asks_certificate: bool = False) -> Access:
    """
    Decide what requests must show, for an address of the setting ``admin``.

    Args:
        token: content of the token file; empty when there is none.
        asks_certificate: clients must show a certificate from a given CA.

    Raises:
        SettingsError: others could read without proving anything, or the token can be guessed.
    """
    token = token.strip()
    if token and (len(token) < MIN_TOKEN_LENGTH or not token.isascii() or not token.isprintable()):
        raise SettingsError(f"setting `admin_token_file`: expected at least {MIN_TOKEN_LENGTH} printable characters")
    is_unix = listen.startswith("unix:")
    is_local = is_unix or is_loopback(listen.rpartition(":")[0])
    if not is_local and not token and not asks_certificate:
        raise SettingsError(
            f"setting `admin`: `{listen}` can be reached from other machines; give a token with `admin_token_file`, "
            "ask for client certificates with `admin_tls_client_ca`, or listen on 127.0.0.1"
        )
    return Access(token, checks_name=is_local and not is_unix and not token and not asks_certificate)


def is_loopback(host: str) -> bool:
    """Whether a host is this machine under an address that no other can reach."""
    host = host.strip("[]").lower()
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """An ASGI application around another: refuses what must not be answered, and adds the headers of all answers."""

    def __init__(self, app: Asgi, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: _Message) -> None:
            if message["type"] == "http.response.start":
                own = [pair for pair in message.get("headers", ()) if pair[0].lower() not in _NAMES]
                message["headers"] = [*own, *_HEADERS]
            await send(message)

        refusal = self._refusal(scope)
        if refusal is None:
            await self._app(scope, receive, guarded)
            return
        status, text, headers = refusal
        body = f"{text}\n".encode()
        told = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode()), *headers]
        await guarded({"type": "http.response.start", "status": status, "headers": told})
        await guarded({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    def _refusal(self, scope: Scope) -> tuple[int, str, list[tuple[bytes, bytes]]] | None:
        if scope["method"] not in ("GET", "HEAD"):
            return 405, "only GET is answered here", [(b"allow", b"GET, HEAD")]
        path, headers = scope["path"], dict(scope["headers"])
        if self._access.token:
            if path not in OPEN_PATHS and not self._shows_token(headers.get(b"authorization", b"")):
                challenge = b'Basic realm="authz: any name, the token as password", charset="UTF-8"'
                return 401, "the token is missing or wrong", [(b"www-authenticate", challenge)]
        elif self._access.checks_name and path not in OPERATIONS and not _is_local_name(headers.get(b"host", b"")):
            return 421, "ask for this page as http://127.0.0.1 or http://localhost", []
        return None

    def _shows_token(self, authorization: bytes) -> bool:
        scheme, _, shown = authorization.partition(b" ")
        if scheme.lower() == b"basic":
            try:
                shown = base64.b64decode(shown.strip(), validate=True).partition(b":")[2]
            except binascii.Error:
                return False
        elif scheme.lower() != b"bearer":
            return False
        return hmac.compare_digest(shown.strip(), self._access.token.encode())


def _is_local_name(host: bytes) -> bool:
    """Whether a Host header names this machine, with or without a port."""
    text = host.decode("latin-1")
    return is_loopback(text if text.endswith("]") or ":" not in text else text.rpartition(":")[0])

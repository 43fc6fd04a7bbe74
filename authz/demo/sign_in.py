"""
The demo issuer's OpenID Provider: authorization code flow with PKCE, refresh and logout for one client, without HTTP.

Test equipment, good enough for Envoy's OAuth2 filter and a browser: it asks for no password and keeps everything in
memory. What it does check it checks as a provider must: the client's secret, the redirect URI, that a code is used once
and by whoever asked for it, that a refresh token is used once.
"""

import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from urllib.parse import urlencode, urlsplit

from authz.tokens.base64url import write_base64url

CODE_SECONDS = 60
REDIRECT_PATH = "/login"


class GrantError(Exception):
    """A request that the provider refuses; ``error`` is the code of RFC 6749, section 5.2 or 4.1.2.1."""

    def __init__(self, error: str, description: str) -> None:
        super().__init__(description)
        self.error = error


@dataclass(frozen=True, slots=True)
class Client:
    """The one client that may use the provider."""

    client_id: str
    secret: str


@dataclass(frozen=True, slots=True)
class CodeRequest:
    """What an authorization request asks for, checked (RFC 6749, section 4.1.1; RFC 7636, section 4.3)."""

    redirect_uri: str
    state: str
    challenge: str
    nonce: str = ""


@dataclass(slots=True)
class Provider:
    """Codes and refresh tokens that were issued and have not been used yet. ``client`` None: there is no sign-in."""

    client: Client | None = None
    _codes: dict[str, tuple[str, CodeRequest, float]] = field(default_factory=dict)
    _refresh: dict[str, str] = field(default_factory=dict)
    _sessions: dict[str, str] = field(default_factory=dict)

    def asked(self, query: Mapping[str, str]) -> CodeRequest:
        """Check an authorization request. Raises GrantError, which must not be sent to its redirect URI."""
        if self.client is None or query.get("client_id") != self.client.client_id:
            raise GrantError("unauthorized_client", "this issuer does not know the client")
        target = query.get("redirect_uri", "")
        if not is_allowed_redirect(target):
            raise GrantError("invalid_request", f"`redirect_uri` must be {REDIRECT_PATH} of a loopback address")
        if query.get("response_type") != "code":
            raise GrantError("unsupported_response_type", "`response_type` is `code`")
        if query.get("code_challenge_method") != "S256" or not query.get("code_challenge"):
            raise GrantError("invalid_request", "a `code_challenge` with the method S256 is needed")
        return CodeRequest(target, query.get("state", ""), query["code_challenge"], query.get("nonce", ""))

    def answer(self, asked: CodeRequest, person: str, now: float) -> str:
        """Where to send the browser of a person who signed in."""
        code = secrets.token_urlsafe(24)
        self._codes = {one: given for one, given in self._codes.items() if given[2] > now}
        self._codes[code] = (person, asked, now + CODE_SECONDS)
        return f"{asked.redirect_uri}?{urlencode({'code': code, 'state': asked.state})}"

    def authenticate(self, client_id: str, secret: str) -> None:
        """Check a client's secret. Raises GrantError."""
        known = self.client
        if known is None or client_id != known.client_id or not hmac.compare_digest(secret, known.secret):
            raise GrantError("invalid_client", "the client or its secret is wrong")

    def redeem(self, form: Mapping[str, str], now: float) -> tuple[str, str]:
        """
        Take a code or a refresh token.

        Returns:
            The person, and the nonce for the ID token. Raises GrantError.
        """
        if form.get("grant_type") == "refresh_token":
            person = self._refresh.pop(form.get("refresh_token", ""), None)
            if person is None:
                raise GrantError("invalid_grant", "the refresh token is unknown or was used")
            return person, ""
        person, asked, ends = self._codes.pop(form.get("code", ""), ("", None, 0.0))
        if asked is None or ends <= now:
            raise GrantError("invalid_grant", "the code is unknown, was used, or is too old")
        if form.get("redirect_uri") != asked.redirect_uri:
            raise GrantError("invalid_grant", "`redirect_uri` is not that of the authorization request")
        proved = write_base64url(sha256(form.get("code_verifier", "").encode()).digest())
        if not hmac.compare_digest(proved, asked.challenge):
            raise GrantError("invalid_grant", "`code_verifier` does not fit the challenge")
        return person, asked.nonce

    def refresh_token(self, person: str) -> str:
        """Make a refresh token, good for one use."""
        token = secrets.token_urlsafe(24)
        self._refresh[token] = person
        return token

    def begin_session(self, id_token: str, person: str) -> None:
        """Remember who signed in, by the token that will be shown at the end of the session."""
        self._sessions[id_token] = person

    def end_session(self, id_token: str) -> None:
        """Forget the refresh tokens of whoever the ID token is about; nothing happens for an unknown one."""
        person = self._sessions.pop(id_token, None)
        self._refresh = {token: owner for token, owner in self._refresh.items() if owner != person}


def is_allowed_redirect(target: str, path: str = REDIRECT_PATH) -> bool:
    """Browsers are only sent back to this machine, and by https."""
    try:
        place = urlsplit(target)
    except ValueError:
        return False
    local = place.hostname in ("localhost", "127.0.0.1", "::1")
    return place.scheme == "https" and local and place.path == path and not place.username and not place.query

"""
A client of Keycloak: tokens by password and by its login page, and what its administrator may do.

Everything goes over plain HTTP to loopback. Keycloak's cookies are marked Secure there, too; a browser sends them to
loopback all the same, and so does this client.
"""

import base64
import hashlib
import html
import http.cookiejar
import json
import re
import secrets
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qs, urlencode, urlsplit

from authz.core.attributes import Json
from authz.demo.checks.credentials import tampered
from authz.demo.keycloak import ADMIN, CLIENT, REALM
from authz.demo.layout import DemoError, Layout
from authz.tokens.base64url import read_base64url

TIMEOUT_SECONDS = 30.0
"""The first password takes seconds on a busy machine: hashing is slow on purpose."""
OTHER_CLIENT = "newsletter"
"""A client of the same realm whose tokens name no audience."""
PROVIDER = "org.keycloak.keys.KeyProvider"
HIGHER = 1000
"""The priority of a new key: above those that a realm begins with."""


@dataclass(frozen=True, slots=True)
class KeycloakReply:
    """What Keycloak answered; ``body`` is text."""

    status: int
    body: str
    location: str = ""

    @property
    def document(self) -> dict[str, Json]:
        """The body as a JSON object. Raises DemoError when it is none."""
        try:
            found = json.loads(self.body)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise DemoError(f"Keycloak answered {self.status} without a JSON object: {self.body[:200]}")
        return found


class _Stay(urllib.request.HTTPRedirectHandler):
    """Redirects are what the login page ends with: they are looked at, not followed."""

    def redirect_request(self, *_: object) -> None:
        return None


class KeycloakClient:
    """One for a whole check; its people have their names as passwords."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._realm = layout.issuer_url
        self._base = layout.issuer_url.removesuffix(f"/realms/{REALM}")
        self._tokens_at = f"{self._realm}/protocol/openid-connect/token"
        self.brief = ""
        """A token whose life was one second when it was made."""

    # --- tokens -----------------------------------------------------------------------------------------------------

    def granted(self, person: str, client: str = CLIENT) -> dict[str, Json]:
        """Get the tokens of a person by password. Raises DemoError."""
        form = {"grant_type": "password", "username": person, "password": person, "scope": "openid"}
        return self._token({**form, "client_id": client})

    def issued(self, person: str) -> str:
        """Get an access token of one of the demo's people. Raises DemoError."""
        return str(self.granted(person)["access_token"])

    def tokens(self) -> dict[str, str]:
        """Get good ones, and those that people confuse with them; ``brief`` is taken on the way. Raises DemoError."""
        alice, bob = self.granted("alice"), self.issued("bob")
        self._change_realm({"accessTokenLifespan": 1})
        self.brief = self.issued("alice")
        self._change_realm({"accessTokenLifespan": 3600})
        good = str(alice["access_token"])
        return {
            "alice": good,
            "bob": bob,
            "alice, identity": str(alice["id_token"]),
            "alice, refresh": str(alice["refresh_token"]),
            "alice, other client": str(self.granted("alice", OTHER_CLIENT)["access_token"]),
            "brief": self.brief,
            "promoted": tampered(good, bob),
        }

    def signed_in(self, person: str) -> str:
        """Sign in at Keycloak's page as a browser does, by code with PKCE: an access token. Raises DemoError."""
        verifier = secrets.token_urlsafe(48)
        digest = hashlib.sha256(verifier.encode()).digest()
        target = f"https://localhost:{self._layout.ingress_port}/login"
        query = {
            "client_id": CLIENT,
            "response_type": "code",
            "scope": "openid",
            "redirect_uri": target,
            "state": secrets.token_urlsafe(8),
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }
        back = self.led_back(f"{self._realm}/protocol/openid-connect/auth?{urlencode(query)}", person)
        returned = parse_qs(urlsplit(back).query)
        if not back.startswith(target) or returned.get("state") != [query["state"]]:
            raise DemoError(f"Keycloak did not send the browser back: {back}")
        form = {"grant_type": "authorization_code", "client_id": CLIENT, "redirect_uri": target}
        answer = self._token({**form, "code": returned["code"][0], "code_verifier": verifier})
        return str(answer["access_token"])

    def led_back(self, page: str, person: str) -> str:
        """Open Keycloak's login page and fill it in: the address to which it sends the browser. Raises DemoError."""
        policy = http.cookiejar.DefaultCookiePolicy(secure_protocols=("http", "https"))
        cookies = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar(policy))
        shown = self._ask(page, None, cookies)
        action = re.search(r'<form[^>]* action="([^"]+)"', shown.body)
        if action is None:
            raise DemoError(f"Keycloak showed no login form: {shown.status}")
        return self._ask(html.unescape(action[1]), {"username": person, "password": person}, cookies).location

    def log_out(self, refresh_token: str) -> int:
        """End the session of a refresh token: a status."""
        form = {"client_id": CLIENT, "refresh_token": refresh_token}
        return self._ask(f"{self._realm}/protocol/openid-connect/logout", form).status

    def refresh(self, refresh_token: str) -> int:
        """Ask for new tokens: a status."""
        form = {"grant_type": "refresh_token", "client_id": CLIENT, "refresh_token": refresh_token}
        return self._ask(self._tokens_at, form).status

    # --- the administrator ------------------------------------------------------------------------------------------

    def rotate(self) -> None:
        """Add a key that signs from now on; the old one stays published. Raises DemoError."""
        settings = {"priority": [str(HIGHER + len(self._key_providers()))], "algorithm": ["RS256"], "keySize": ["2048"]}
        realm = self._admin("GET", f"/admin/realms/{REALM}").document["id"]
        key = {"name": "rotated", "providerId": "rsa-generated", "providerType": PROVIDER, "parentId": realm}
        self._admin("POST", f"/admin/realms/{REALM}/components", {**key, "config": settings})

    def drop_old_keys(self) -> None:
        """Remove every signing key but the one that signs. Raises DemoError."""
        ranked = sorted(self._key_providers(), key=lambda one: int(one["config"].get("priority", ["0"])[0]))
        for provider in ranked[:-1]:
            self._admin("DELETE", f"/admin/realms/{REALM}/components/{provider['id']}")

    def published(self) -> list[str]:
        """The ids of the keys in the key set, whatever they are for."""
        keys = self._ask(f"{self._realm}/protocol/openid-connect/certs").document["keys"]
        assert isinstance(keys, list), "RFC 7517"
        return [str(key["kid"]) for key in keys if isinstance(key, dict)]

    def _key_providers(self) -> list[Mapping[str, Mapping[str, list[str]]]]:
        answer = self._admin("GET", f"/admin/realms/{REALM}/components?type={PROVIDER}")
        return [one for one in json.loads(answer.body) if one["providerId"] in ("rsa-generated", "rsa")]

    def _change_realm(self, changes: Mapping[str, Json]) -> None:
        self._admin("PUT", f"/admin/realms/{REALM}", changes)

    def _admin(self, method: str, path: str, document: Mapping[str, object] | None = None) -> KeycloakReply:
        """Ask as the administrator, with a token of this moment: it lives a minute only."""
        password = self._layout.keycloak_password.read_text(encoding="utf-8")
        form = {"grant_type": "password", "client_id": "admin-cli", "username": ADMIN, "password": password}
        token = self._ask(f"{self._base}/realms/master/protocol/openid-connect/token", form).document
        headers = {"authorization": f"Bearer {token.get('access_token')}", "content-type": "application/json"}
        body = json.dumps(document).encode() if document is not None else None
        request = urllib.request.Request(self._base + path, body, headers, method=method)  # noqa: S310  # our loopback
        answer = self._open(request, urllib.request.build_opener().open)
        if answer.status >= 300:
            raise DemoError(f"Keycloak's administration answered {answer.status} to {method} {path}: {answer.body}")
        return answer

    # --- HTTP -------------------------------------------------------------------------------------------------------

    def _token(self, form: Mapping[str, str]) -> dict[str, Json]:
        answer = self._ask(self._tokens_at, form)
        if answer.status != 200:
            raise DemoError(f"Keycloak gave no token: {answer.status} {answer.body[:200]}")
        return answer.document

    def _ask(
        self, url: str, form: Mapping[str, str] | None = None, *handlers: urllib.request.BaseHandler
    ) -> KeycloakReply:
        request = urllib.request.Request(url, urlencode(form).encode() if form else None)  # noqa: S310  # our loopback
        return self._open(request, urllib.request.build_opener(_Stay(), *handlers).open)

    def _open(self, request: urllib.request.Request, ask: Callable[..., object]) -> KeycloakReply:
        try:
            with ask(request, timeout=TIMEOUT_SECONDS) as reply:  # type: ignore[attr-defined]  # its type is too wide
                return KeycloakReply(reply.status, reply.read().decode("utf-8", "replace"))
        except urllib.error.HTTPError as error:
            body = error.read().decode("utf-8", "replace")
            return KeycloakReply(error.code, body, error.headers.get("location", ""))
        except OSError as error:
            raise DemoError(f"Keycloak does not answer: {error}") from error


def claims_of(token: str) -> dict[str, Json]:
    """What a token says, unverified."""
    found = json.loads(read_base64url(token.split(".")[1]))
    assert isinstance(found, dict), "a token's payload is an object"
    return found

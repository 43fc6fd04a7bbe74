"""Where the check's tokens come from: the demo's own issuer, which signs what it is asked for, or Keycloak."""

import json
from collections.abc import Callable
from typing import Protocol

from authz.demo.checks.clients import ClientPlace, send
from authz.demo.checks.credentials import make_tokens
from authz.demo.layout import DemoError


class Issuing(Protocol):
    """An issuer as the check uses it. Each method raises DemoError when it gets no answer."""

    def issued(self, person: str) -> str:
        """Get a token of one of the demo's people."""

    def tokens(self) -> dict[str, str]:
        """Get or make every token that the scenarios show, by name."""

    def rotate(self) -> None:
        """Let a new key sign from now on; the old one stays published."""


class OwnIssuing:
    """The demo's own issuer."""

    def __init__(self, place: Callable[[], ClientPlace]) -> None:
        self._place = place

    def issued(self, person: str) -> str:
        """Get a token; a query may follow the name: ``alice?audience=other``."""
        reply = send(self._place(), "GET", f"/token/{person}")
        if reply.status != 200:
            raise DemoError(f"the issuer gave no token: {reply.status or reply.failure}")
        return reply.body.strip()

    def tokens(self) -> dict[str, str]:
        """Get good ones, and make bad ones of every sort."""
        published = json.loads(send(self._place(), "GET", "/jwks").body)["keys"][-1]
        return make_tokens(self.issued, published)

    def rotate(self) -> None:
        """Make a new key."""
        send(self._place(), "POST", "/rotate")

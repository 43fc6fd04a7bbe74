"""
Join tokens: good once, for one SPIFFE ID, for a short time; only their digest is kept.

In a directory, a token is a file named by its digest. Whoever renames it away has spent it: a rename succeeds for one
only, so a token cannot be used twice even by two servers at once. Authorities on several machines have another store.
"""

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from authz.core.spiffe import SpiffeId
from authz.identity.secret_files import SECRET_MODE, write_file
from authz.identity.svid_validation import Rejection

TOKENS_DIRECTORY = "join-tokens"
"""Name of their directory, below the authority's."""
UNKNOWN = "the join token is unknown or was used before"
TOKEN_BYTES = 32
TOKEN_TTL_SECONDS = 600.0
"""Spire's default."""


@dataclass(frozen=True, slots=True)
class JoinToken:
    """The part of a token that is kept."""

    digest: str
    """SHA-256, hexadecimal: the token has 256 random bits, so neither salt nor stretching adds anything."""
    spiffe_id: SpiffeId
    expires_at: float


def make_token(random: bytes, spiffe_id: SpiffeId, now: float, ttl_seconds: float) -> tuple[str, JoinToken]:
    """Make the token's text, to be shown once, and what is kept. ``random``: 32 bytes. Raises ValueError."""
    if len(random) != TOKEN_BYTES:
        raise ValueError(f"a join token is made of {TOKEN_BYTES} random bytes, got {len(random)}")
    if not spiffe_id.path:
        raise ValueError(f"`{spiffe_id}` has no path: a workload's SPIFFE ID needs one")
    text = base64.urlsafe_b64encode(random).decode().rstrip("=")
    return text, JoinToken(digest_of(text), spiffe_id, now + ttl_seconds)


@dataclass(frozen=True, slots=True)
class TakenToken:
    """A token that nobody else can take any longer; ``spend`` it, or ``give_back`` if nothing came of it."""

    spiffe_id: SpiffeId
    """The identity that it is for."""
    spend: Callable[[], None]
    """Use the token up for good. Raises OSError, AuthzError."""
    give_back: Callable[[], None]
    """Put the token back, as if it had never been taken. Raises OSError, AuthzError."""


class TokenStore(Protocol):
    """Where tokens are kept until somebody takes them."""

    def store(self, token: JoinToken) -> None:
        """Keep a token. Raises OSError, AuthzError."""

    def take(self, text: str, now: float) -> TakenToken | Rejection:
        """
        Take a token: of several who do so at once, one gets it. One that has expired, or cannot be read, is spent.

        What is taken by a process that dies is spent. Raises OSError, AuthzError when nobody can say whose it is.
        """


@dataclass(frozen=True, slots=True)
class TokenDirectory:
    """A directory of this machine."""

    path: Path

    def store(self, token: JoinToken) -> None:
        """Keep a token. Raises OSError."""
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_file(self.path / token.digest, write_token(token), SECRET_MODE)

    def take(self, text: str, now: float) -> TakenToken | Rejection:
        """Take a token aside, by renaming its file. Raises OSError when the directory cannot be written."""
        place = self.path / digest_of(text)
        aside = place.with_suffix(".spent")
        try:
            place.rename(aside)
        except FileNotFoundError:
            return Rejection(UNKNOWN)
        judged = judge_token(aside.read_bytes(), now)
        if isinstance(judged, Rejection):
            aside.unlink(missing_ok=True)
            return judged
        return TakenToken(judged, lambda: aside.unlink(missing_ok=True), lambda: _rename(aside, place))


def write_token(token: JoinToken) -> bytes:
    """What is kept besides the digest."""
    return json.dumps({"spiffeID": str(token.spiffe_id), "expiresAt": token.expires_at}).encode() + b"\n"


def judge_token(kept: bytes, now: float) -> SpiffeId | Rejection:
    """Whom a kept token is for, if it is good at ``now``."""
    try:
        found = json.loads(kept)
        spiffe_id, expires_at = SpiffeId.parse(found["spiffeID"]), float(found["expiresAt"])
    except (ValueError, KeyError, TypeError):
        return Rejection("the join token's record cannot be read")
    return Rejection("the join token has expired") if now >= expires_at else spiffe_id


def expiry_of(kept: bytes) -> float:
    """When a kept token expires that was judged good; seconds since the epoch."""
    return float(json.loads(kept)["expiresAt"])


def digest_of(text: str) -> str:
    """By what a token is found: SHA-256, hexadecimal."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _rename(aside: Path, place: Path) -> None:
    aside.rename(place)

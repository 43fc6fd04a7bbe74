"""
Join tokens: good once, for one SPIFFE ID, for a short time; only their digest is kept.

A token is a file named by its digest. Whoever renames it away has spent it: a rename succeeds for one only, so a token
cannot be used twice even by two servers at once.
"""

import base64
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from authz.core.spiffe import SpiffeId
from authz.identity.secret_files import SECRET_MODE, write_file
from authz.identity.svid_validation import Rejection

TOKENS_DIRECTORY = "join-tokens"
"""Name of their directory, below the authority's."""
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
    return text, JoinToken(_digest(text), spiffe_id, now + ttl_seconds)


def store_token(directory: Path, token: JoinToken) -> None:
    """Keep a token. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    kept = {"spiffeID": str(token.spiffe_id), "expiresAt": token.expires_at}
    write_file(directory / token.digest, json.dumps(kept).encode() + b"\n", SECRET_MODE)


@dataclass(frozen=True, slots=True)
class TakenToken:
    """A token that nobody else can take any longer; ``spend`` it, or ``give_back`` if nothing came of it."""

    spiffe_id: SpiffeId
    """The identity that it is for."""
    place: Path
    aside: Path

    def spend(self) -> None:
        """Use the token up for good. Raises OSError."""
        self.aside.unlink(missing_ok=True)

    def give_back(self) -> None:
        """Put the token back, as if it had never been taken. Raises OSError."""
        self.aside.rename(self.place)


def take_token(directory: Path, text: str, now: float) -> TakenToken | Rejection:
    """
    Take a token aside. An expired one, and one whose record cannot be read, are thereby spent.

    What is taken by a process that dies is spent. Raises OSError when the directory cannot be written.
    """
    place = directory / _digest(text)
    aside = place.with_suffix(".spent")
    try:
        place.rename(aside)
    except FileNotFoundError:
        return Rejection("the join token is unknown or was used before")
    try:
        kept = json.loads(aside.read_bytes())
        spiffe_id, expires_at = SpiffeId.parse(kept["spiffeID"]), float(kept["expiresAt"])
    except (ValueError, KeyError, TypeError):
        aside.unlink(missing_ok=True)
        return Rejection("the join token's record cannot be read")
    if now >= expires_at:
        aside.unlink(missing_ok=True)
        return Rejection("the join token has expired")
    return TakenToken(spiffe_id, place, aside)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

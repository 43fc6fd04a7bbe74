"""
The keys that sign JWT-SVIDs: each has a life of its own, is published before it signs and as long as its tokens live.

A value of keys that is asked with ``now``; one file holds them all, replaced by rename under a lock, so that several
processes of one authority agree.

    <directory>/jwt_keys.json     private: kid, times and PKCS#8 of each key
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from authz.identity.keys import generate_key, key_bytes, read_key, write_key
from authz.identity.locked import locked
from authz.identity.registration import MAX_JWT_SVID_TTL_SECONDS
from authz.identity.secret_files import SECRET_MODE, read_secret, write_file
from authz.tokens.jwks import Key

JWT_KEYS_FILE = "jwt_keys.json"
_LOCK_FILE = "jwt_keys.lock"
SIGNING_SECONDS = 7 * 24 * 3600.0
"""How long a key signs."""
PUBLISHED_AHEAD_SECONDS = 24 * 3600.0
"""How long before it signs it can be fetched: much longer than any refresh takes (20 minutes in Istio, RA-39)."""
ROTATION_SECONDS = 3600.0
"""The same for a rotation that a person asks for: three refreshes."""
CLOCK_SKEW_SECONDS = 60.0
"""So long after it expired a token is still accepted, by clocks that run late."""
ALGORITHM = "ES256"


@dataclass(frozen=True, slots=True)
class JwtSigningKey:
    """One key: it signs while ``signs_from <= now < signs_until``, seconds since the epoch."""

    key: ec.EllipticCurvePrivateKey = field(repr=False)
    """On P-256."""
    signs_from: float
    signs_until: float

    @property
    def kid(self) -> str:
        """The first 32 hexadecimal digits of the SHA-256 of the public key."""
        return hashlib.sha256(key_bytes(self.key.public_key())).hexdigest()[:32]

    @property
    def public(self) -> Key:
        """The key as verifiers know it."""
        return Key("P-256", self.kid, ALGORITHM, self.key.public_key())

    @property
    def published_until(self) -> float:
        """When the last of its tokens has expired for everybody."""
        return self.signs_until + MAX_JWT_SVID_TTL_SECONDS + CLOCK_SKEW_SECONDS


@dataclass(frozen=True, slots=True)
class JwtKeys:
    """``keys`` in the order in which they sign."""

    keys: tuple[JwtSigningKey, ...] = ()

    def active(self, now: float) -> JwtSigningKey | None:
        """The key that signs now; None when the next one has not been made yet."""
        return next((key for key in reversed(self.keys) if key.signs_from <= now < key.signs_until), None)

    @property
    def public(self) -> tuple[Key, ...]:
        """What verifiers are given."""
        return tuple(key.public for key in self.keys)

    def is_current(self, now: float) -> bool:
        """Whether ``kept_current`` would change nothing."""
        is_ahead = bool(self.keys) and self.keys[-1].signs_until - now > PUBLISHED_AHEAD_SECONDS
        return is_ahead and all(now < key.published_until for key in self.keys)

    def kept_current(self, now: float) -> "JwtKeys":
        """These keys, with the next one where it is due, without those whose tokens have all expired."""
        if self.is_current(now):
            return self
        kept = tuple(key for key in self.keys if now < key.published_until)
        last = kept[-1].signs_until if kept else now
        if last - now > PUBLISHED_AHEAD_SECONDS:
            return JwtKeys(kept)
        return JwtKeys((*kept, _new_key(max(last, now))))

    def rotated(self, now: float, after_seconds: float = ROTATION_SECONDS) -> "JwtKeys":
        """A new key signs in that many seconds; what signs until then stays published as long as its tokens live."""
        begin = now + (after_seconds if self.active(now) is not None else 0.0)
        before = (replace(k, signs_until=min(k.signs_until, begin)) for k in self.keys if k.signs_from < begin)
        return JwtKeys((*(key for key in before if now < key.published_until), _new_key(begin)))

    def revoked(self, now: float) -> "JwtKeys":
        """A new key signs at once, and to those who fetch the new list no token of another key is valid any longer."""
        return JwtKeys((_new_key(now),))


def _new_key(begin: float) -> JwtSigningKey:
    key = generate_key()
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return JwtSigningKey(key, begin, begin + SIGNING_SECONDS)


def read_jwt_keys(directory: Path) -> JwtKeys:
    """Read the keys of an authority; none when there is no file yet. Raises ValueError, OSError."""
    path = directory / JWT_KEYS_FILE
    try:
        data = read_secret(path)
    except FileNotFoundError:
        return JwtKeys()
    try:
        found = [(str(e["key"]), float(e["signsFrom"]), float(e["signsUntil"])) for e in json.loads(data)["keys"]]
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"`{path}` is not a list of keys for JWT-SVIDs") from None  # the cause may quote a key
    keys = []
    for pem, begin, end in found:
        key = read_key(pem.encode())
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
            raise ValueError(f"`{path}` has a key that is not on P-256")
        keys.append(JwtSigningKey(key, begin, end))
    return JwtKeys(tuple(keys))


def change_jwt_keys(directory: Path, change: Callable[[JwtKeys], JwtKeys]) -> JwtKeys:
    """Read, change and write the keys; nobody else does so meanwhile. Raises ValueError, OSError."""
    with locked(directory / _LOCK_FILE):
        before = read_jwt_keys(directory)
        after = change(before)
        if after != before:
            listed = [
                {"kid": k.kid, "signsFrom": k.signs_from, "signsUntil": k.signs_until, "key": write_key(k.key).decode()}
                for k in after.keys
            ]
            write_file(directory / JWT_KEYS_FILE, json.dumps({"keys": listed}, indent=2).encode() + b"\n", SECRET_MODE)
    return after

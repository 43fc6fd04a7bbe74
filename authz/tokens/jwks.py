"""
Key sets: JWKS text → usable keys, prepared once for verification (RA-34 to RA-37).

A key knows which algorithms fit its type exactly; nothing else can be asked of it, so algorithm confusion has no
place to happen. Private members of a JWK are never read, except the secret of an ``oct`` key.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from jwt.algorithms import Algorithm, ECAlgorithm, HMACAlgorithm, OKPAlgorithm, RSAAlgorithm, get_default_algorithms
from jwt.exceptions import InvalidKeyError

from authz.core.attributes import Json
from authz.tokens.strict_json import read_base64url, read_object

MAX_KEY_SET_BYTES = 1024 * 1024
"""Real sets have a few kilobytes."""
MAX_KEYS = 256
"""A token without ``kid`` tries every key, so this also bounds the work one token can cause."""
MAX_RSA_BITS = 8192
"""Verification cost grows with the square; BoringSSL's own bound is 16384."""
ED25519_SIGNATURE_BYTES = 64

SUPPORTED_ALGORITHMS = frozenset(
    {
        *("ES256", "ES384", "ES512", "HS256", "HS384", "HS512", "RS256", "RS384", "RS512"),
        *("PS256", "PS384", "PS512", "EdDSA"),
    }
)
"""RA-22. Everything else, ``none`` in any spelling included, is refused before a key is looked at."""

_ALGORITHMS: Mapping[str, Algorithm] = {
    name: algorithm for name, algorithm in get_default_algorithms().items() if name in SUPPORTED_ALGORITHMS
}
_FITTING: Mapping[str, tuple[str, ...]] = {
    "RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    "P-256": ("ES256",),
    "P-384": ("ES384",),
    "P-521": ("ES512",),
    "Ed25519": ("EdDSA",),
    "oct": ("HS256", "HS384", "HS512"),
}
_ALG_PREFIXES: Mapping[str, tuple[str, ...]] = {
    "RSA": ("RS", "PS"),
    "EC": ("ES",),
    "OKP": ("EdDSA",),
    "oct": ("HS",),
}


@dataclass(frozen=True, slots=True)
class Key:
    """One usable key. ``family`` is ``RSA``, ``oct``, the curve of an EC key, or ``Ed25519``."""

    family: str
    kid: str
    """Empty: the key has none and is tried for every token (RA-34)."""
    alg: str
    """Empty: any algorithm of the family."""
    material: Any = field(repr=False, compare=False)  # one of PyJWT's prepared key types, opaque to everyone else

    def is_tried_for(self, kid: str, alg: str) -> bool:
        """Say whether a token with this ``kid`` (empty: none) and ``alg`` tries the key (RA-34)."""
        return (not kid or not self.kid or kid == self.kid) and (not self.alg or alg == self.alg)

    def verifies(self, signing_input: bytes, alg: str, signature: bytes) -> bool:
        """Verify a raw signature. An algorithm that does not fit the key's type exactly never verifies (RA-35)."""
        if alg not in _FITTING[self.family]:
            return False
        try:
            return bool(_ALGORITHMS[alg].verify(signing_input, self.material, signature))
        except (InvalidSignature, InvalidKeyError, UnsupportedAlgorithm, ValueError, TypeError):
            return False


@dataclass(frozen=True, slots=True)
class KeySet:
    """
    The usable keys of one JWKS in its order; may be empty (RA-37).

    ``digest`` changes with every change of the text; it names the set in cache keys and is not for display, because
    the text may hold a shared secret.
    """

    keys: tuple[Key, ...]
    digest: str = field(repr=False)
    skipped: tuple[str, ...] = ()
    """Why entries were left out, one line each, for warnings."""

    def __len__(self) -> int:
        return len(self.keys)


def read_key_set(text: str) -> KeySet:
    """
    Read a JWKS, or a single JWK. An entry that cannot be used is skipped and noted (RA-37).

    Raises:
        ValueError: the text is no JSON object, has neither a list ``keys`` nor ``kty``, or is absurdly large.
    """
    if len(text) > MAX_KEY_SET_BYTES:
        raise ValueError(f"a key set has at most {MAX_KEY_SET_BYTES} bytes, got {len(text)}")
    try:
        document = read_object(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the key set is not a JSON object: {error}") from error
    entries = document.get("keys", [document] if "kty" in document else None)
    if not isinstance(entries, list):
        raise ValueError("the key set has no list `keys`")
    if len(entries) > MAX_KEYS:
        raise ValueError(f"a key set has at most {MAX_KEYS} keys, got {len(entries)}")
    keys, skipped = [], []
    for index, entry in enumerate(entries):
        try:
            keys.append(_read_key(entry))
        except (ValueError, TypeError, KeyError, InvalidKeyError, UnsupportedAlgorithm) as error:
            skipped.append(f"keys[{index}]: {error}")
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return KeySet(tuple(keys), digest, tuple(skipped))


def _read_key(entry: Json) -> Key:
    if not isinstance(entry, dict):
        raise ValueError("not an object")
    kty, kid, alg = (_string_member(entry, name) for name in ("kty", "kid", "alg"))
    read = _READERS.get(kty)
    if read is None:
        raise ValueError("`kty` is none of RSA, EC, OKP, oct")
    if alg and not alg.startswith(_ALG_PREFIXES[kty]):
        raise ValueError(f"`alg` does not fit the key type {kty}")
    family, material = read(entry)
    return Key(family, kid, alg, material)


def _string_member(entry: dict[str, Json], name: str) -> str:
    value = entry.get(name, "")
    if not isinstance(value, str):
        raise ValueError(f"`{name}` is not a string")
    return value


def _public_members(entry: dict[str, Json], *names: str) -> dict[str, str]:
    """Take the named base64url members only, so that PyJWT never builds a private key."""
    members = {name: _string_member(entry, name) for name in names}
    for name, value in members.items():
        if not value:
            raise ValueError(f"`{name}` is missing")
        # Some issuers pad; the key itself is not what an attacker can choose, so padding is no reason to lose it.
        members[name] = value.rstrip("=")
        read_base64url(members[name])
    return members


def _read_rsa(entry: dict[str, Json]) -> tuple[str, object]:
    key = RSAAlgorithm.from_jwk({"kty": "RSA", **_public_members(entry, "n", "e")})
    if not 1024 <= key.key_size <= MAX_RSA_BITS:
        raise ValueError(f"an RSA key has 1024 to {MAX_RSA_BITS} bits, got {key.key_size}")
    return "RSA", key


def _read_ec(entry: dict[str, Json]) -> tuple[str, object]:
    curve = _string_member(entry, "crv")
    if curve not in ("P-256", "P-384", "P-521"):
        raise ValueError("`crv` is none of P-256, P-384, P-521")
    return curve, ECAlgorithm.from_jwk({"kty": "EC", "crv": curve, **_public_members(entry, "x", "y")})


def _read_okp(entry: dict[str, Json]) -> tuple[str, object]:
    if _string_member(entry, "crv") != "Ed25519":
        raise ValueError("`crv` is not Ed25519")
    return "Ed25519", OKPAlgorithm.from_jwk({"kty": "OKP", "crv": "Ed25519", **_public_members(entry, "x")})


def _read_oct(entry: dict[str, Json]) -> tuple[str, object]:
    return "oct", HMACAlgorithm.from_jwk({"kty": "oct", **_public_members(entry, "k")})


_READERS: Mapping[str, Callable[[dict[str, Json]], tuple[str, object]]] = {
    "RSA": _read_rsa,
    "EC": _read_ec,
    "OKP": _read_okp,
    "oct": _read_oct,
}

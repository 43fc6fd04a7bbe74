"""
Sign tokens: JWT-SVIDs, and for the demo's issuer, ``authz test`` and our own tests. Nothing here verifies.

Keys and tokens are described as in the conformance format: a key is ``{kty, kid, alg, crv}``, a token is
``{raw | key, alg, kid, header, claims, sign}``. Deliberately wrong tokens can be described, so nothing is checked.
"""

import hmac
import json
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import cast

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from authz.core.attributes import Json
from authz.tokens.base64url import write_base64url

Description = Mapping[str, object]
"""One entry of ``keys`` or ``tokens`` in a conformance file."""

_PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | bytes

_CURVES: Mapping[str, Callable[[], ec.EllipticCurve]] = {
    "P-256": ec.SECP256R1,
    "P-384": ec.SECP384R1,
    "P-521": ec.SECP521R1,
}
_HASHES: Mapping[str, Callable[[], hashes.HashAlgorithm]] = {
    "256": hashes.SHA256,
    "384": hashes.SHA384,
    "512": hashes.SHA512,
}


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key with its public JWK (for ``oct`` the JWK holds the secret itself)."""

    kty: str
    private: _PrivateKey = field(repr=False)
    jwk: Mapping[str, str] = field(repr=False)

    @property
    def kid(self) -> str | None:
        """The key's id; None if the JWK has none."""
        return self.jwk.get("kid")


@dataclass(slots=True)
class KeyPool:
    """Generated keys for reuse: making an RSA key costs more than signing a hundred tokens."""

    _made: dict[tuple[str, str], list[_PrivateKey]] = field(default_factory=dict)

    def take(self, kty: str, crv: str, index: int) -> _PrivateKey:
        """Return the ``index``-th key of its kind, generated when first asked for."""
        made = self._made.setdefault((kty, crv), [])
        while len(made) <= index:
            made.append(_generate(kty, crv))
        return made[index]


def _generate(kty: str, crv: str) -> _PrivateKey:
    if kty == "RSA":
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    if kty == "EC":
        return ec.generate_private_key(_CURVES[crv]())
    if kty == "OKP":
        return ed25519.Ed25519PrivateKey.generate()
    if kty == "oct":
        return secrets.token_bytes(64)
    raise ValueError(f"unknown key type `{kty}`: expected RSA, EC, OKP or oct")


def make_keys(descriptions: Mapping[str, Description], pool: KeyPool | None = None) -> dict[str, SigningKey]:
    """
    Make the described keys, all different within one call.

    Args:
        pool: keys to reuse between calls; None generates new ones.

    Raises:
        ValueError: an unknown ``kty`` or ``crv``.
    """
    pool = pool or KeyPool()
    used: dict[tuple[str, str], int] = {}
    keys = {}
    for name, description in descriptions.items():
        kty = str(description.get("kty", "RSA"))
        crv = str(description.get("crv", "P-256")) if kty == "EC" else ""
        if kty == "EC" and crv not in _CURVES:
            raise ValueError(f"unknown curve `{crv}`: expected one of {', '.join(_CURVES)}")
        index = used.get((kty, crv), 0)
        used[kty, crv] = index + 1
        named = {member: str(description[member]) for member in ("kid", "alg") if description.get(member) is not None}
        keys[name] = signing_key(pool.take(kty, crv, index), **named)
    return keys


def signing_key(private: _PrivateKey, *, kid: str | None = None, alg: str | None = None) -> SigningKey:
    """Wrap a private key (bytes are an HMAC secret); ``kid`` and ``alg`` go into the JWK if given."""
    # Here, because it takes a tenth of a second that every command would wait for.
    from jwt.algorithms import ECAlgorithm, HMACAlgorithm, OKPAlgorithm, RSAAlgorithm

    if isinstance(private, bytes):
        kty, jwk = "oct", HMACAlgorithm.to_jwk(private, as_dict=True)
    elif isinstance(private, rsa.RSAPrivateKey):
        kty, jwk = "RSA", RSAAlgorithm.to_jwk(private.public_key(), as_dict=True)
    elif isinstance(private, ec.EllipticCurvePrivateKey):
        kty, jwk = "EC", ECAlgorithm.to_jwk(private.public_key(), as_dict=True)
    else:
        kty, jwk = "OKP", OKPAlgorithm.to_jwk(private.public_key(), as_dict=True)
    members = {name: str(value) for name, value in jwk.items() if name != "key_ops"}
    members |= {name: value for name, value in (("kid", kid), ("alg", alg)) if value is not None}
    return SigningKey(kty, private, members)


def jwks_text(keys: Iterable[SigningKey]) -> str:
    """Write a one-line JWKS with the public keys in the given order."""
    return json.dumps({"keys": [dict(key.jwk) for key in keys]}, separators=(",", ":"))


def make_token(description: Description, keys: Mapping[str, SigningKey], now: float) -> str:
    """
    Make the described token.

    Raises:
        KeyError: the description names a key that is not there.
    """
    if "raw" in description:
        return str(description["raw"])
    key = keys[str(description["key"])]
    alg = str(description.get("alg", "RS256"))
    header: dict[str, object] = {"typ": "JWT", "alg": alg}
    kid = description.get("kid", key.kid)
    if kid is not None:
        header["kid"] = kid
    for name, value in cast("Mapping[str, object]", description.get("header") or {}).items():
        header.pop(name, None)
        if value is not None:
            header[name] = value
    claims = _at(description.get("claims", {}), now)
    how = str(description.get("sign", "normal"))
    return sign_text(_compact(header), _compact(claims), key, alg, how)


def sign_text(header: bytes, payload: bytes, key: SigningKey, alg: str, how: str = "normal") -> str:
    """Sign a header and a payload exactly as given, valid JSON or not; ``how`` is the format's ``sign``."""
    signing_input = f"{write_base64url(header)}.{write_base64url(payload)}"
    if how == "none":
        return signing_input + "."
    data = signing_input.encode("ascii")
    if how == "hmac-with-public-key":
        secret = json.dumps(dict(key.jwk), separators=(",", ":")).encode()
        signature = hmac.digest(secret, data, "sha256")
    else:
        signature = _sign(data, key, alg)
    if how == "corrupt":
        signature = bytes([signature[0] ^ 1]) + signature[1:]
    return f"{signing_input}.{write_base64url(signature)}"


def _sign(data: bytes, key: SigningKey, alg: str) -> bytes:
    """Sign with the hash that ``alg`` names (SHA-256 if none) and the scheme of the key's type."""
    hash_algorithm = _HASHES.get(alg[-3:], hashes.SHA256)()
    private = key.private
    if isinstance(private, bytes):
        return hmac.digest(private, data, hash_algorithm.name)
    if isinstance(private, rsa.RSAPrivateKey):
        if alg.startswith("PS"):
            pss = padding.PSS(mgf=padding.MGF1(hash_algorithm), salt_length=hash_algorithm.digest_size)
            return private.sign(data, pss, hash_algorithm)
        return private.sign(data, padding.PKCS1v15(), hash_algorithm)
    if isinstance(private, ec.EllipticCurvePrivateKey):
        r, s = decode_dss_signature(private.sign(data, ec.ECDSA(hash_algorithm)))
        size = (private.curve.key_size + 7) // 8
        return r.to_bytes(size, "big") + s.to_bytes(size, "big")
    return private.sign(data)


def make_tokens(descriptions: Mapping[str, Description], keys: Mapping[str, SigningKey], now: float) -> dict[str, str]:
    """Make all described tokens by name."""
    return {name: make_token(description, keys, now) for name, description in descriptions.items()}


def _compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _at(value: object, now: float) -> Json:
    """Replace ``{$now: n}`` anywhere in a claim by the integer "now + n"."""
    if isinstance(value, Mapping):
        if set(value) == {"$now"}:
            return int(now) + int(value["$now"])
        return {str(name): _at(member, now) for name, member in value.items()}
    if isinstance(value, list):
        return [_at(member, now) for member in value]
    return cast("Json", value)

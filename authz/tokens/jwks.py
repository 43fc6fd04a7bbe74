"""
Key sets as Envoy reads them: JWKS text → usable keys, prepared once for verification (RA-34 to RA-37, RA-39).

A key knows which algorithms fit its type exactly; nothing else can be asked of it, so there is no place
for algorithm confusion. Private members of a JWK are never read, except the secret of an ``oct`` key.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from authz.core.attributes import Json
from authz.tokens.base64url import read_base64url, write_base64url
from authz.tokens.json_text import read_object
from authz.tokens.signatures import VERIFIERS, Material

MAX_KEY_SET_BYTES = 1024 * 1024
"""Real sets have a few kilobytes."""
MAX_KEYS = 256
"""A token without ``kid`` tries every key, so this also bounds the work one token can cause."""
MIN_RSA_BITS = 1024
"""Envoy verifies with 512 bits, which anybody can factor."""
MAX_RSA_BITS = 16384
"""BoringSSL's bound."""
RSA_EXPONENTS = (3, 65537)
"""Envoy refuses all others, too."""
ED25519_SIGNATURE_BYTES = 64

SUPPORTED_ALGORITHMS = frozenset(name for family in VERIFIERS.values() for name in family)
"""RA-22. Everything else, including ``none`` in any spelling, is refused before a key is looked at."""

_CURVES: Mapping[str, tuple[str, ec.EllipticCurve]] = {
    "P-256": ("ES256", ec.SECP256R1()),
    "P-384": ("ES384", ec.SECP384R1()),
    "P-521": ("ES512", ec.SECP521R1()),
}
_CURVE_OF_ALG = {alg: curve for curve, (alg, _) in _CURVES.items()}
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----\n.*\n-----END CERTIFICATE-----\n", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Key:
    """One usable key. ``family`` is ``RSA``, ``oct``, the curve of an EC key, or ``Ed25519``."""

    family: str
    kid: str
    """Empty: the key has none and is tried for every token (RA-34)."""
    alg: str
    """Empty: any algorithm of the family."""
    material: Material = field(repr=False, compare=False)

    def is_tried_for(self, kid: str, alg: str) -> bool:
        """Say whether the key is tried for a token with this ``kid`` (empty: none) and ``alg`` (RA-34)."""
        return (not kid or not self.kid or kid == self.kid) and (not self.alg or alg == self.alg)

    def verifies(self, signing_input: bytes, alg: str, signature: bytes) -> bool:
        """Verify a raw signature. An algorithm that does not fit the key's type exactly never verifies (RA-35)."""
        verify = VERIFIERS[self.family].get(alg)
        return verify is not None and verify(self.material, signing_input, signature)

    def public_members(self) -> dict[str, Json]:
        """The key as a JWK without ``alg``, in the plainest spelling; the secret of an ``oct`` key included."""
        material = self.material
        found: dict[str, Json]
        if isinstance(material, bytes):
            found = {"kty": "oct", "k": write_base64url(material)}
        elif isinstance(material, rsa.RSAPublicKey):
            rsa_numbers = material.public_numbers()
            found = {"kty": "RSA", "n": _number_text(rsa_numbers.n), "e": _number_text(rsa_numbers.e)}
        elif isinstance(material, ec.EllipticCurvePublicKey):
            numbers, size = material.public_numbers(), (material.key_size + 7) // 8
            found = {"kty": "EC", "crv": self.family}
            found |= {"x": _number_text(numbers.x, size), "y": _number_text(numbers.y, size)}
        else:
            found = {"kty": "OKP", "crv": self.family, "x": write_base64url(material.public_bytes_raw())}
        return found | ({"kid": self.kid} if self.kid else {})


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
    Read a JWKS, or an object of ``kid`` → PEM certificate; an entry that cannot be used is skipped and noted (RA-37).

    A single JWK, which Istio's webhook admits and Envoy does not, is a set without usable keys.

    Raises:
        ValueError: the text is no JSON object, has no list ``keys``, or is absurdly large; or one of its certificates
            cannot be used, as Envoy then takes none.
    """
    if len(text) > MAX_KEY_SET_BYTES:
        raise ValueError(f"a key set has at most {MAX_KEY_SET_BYTES} bytes, got {len(text)}")
    try:
        document = read_object(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the key set is not a JSON object: {error}") from error
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    entries = document.get("keys")
    if "keys" not in document:
        if "kty" in document:
            return KeySet((), digest, ('a single key is not a key set: write it as `{"keys": [...]}`',))
        return KeySet(_read_certificates(document), digest)
    if not isinstance(entries, list):
        raise ValueError("the key set has no `keys` list")
    if len(entries) > MAX_KEYS:
        raise ValueError(f"a key set has at most {MAX_KEYS} keys, got {len(entries)}")
    keys, skipped = [], []
    for index, entry in enumerate(entries):
        try:
            keys.append(_read_key(entry))
        except (ValueError, UnsupportedAlgorithm) as error:
            skipped.append(f"{_name_of(index, entry)}: {error}")
    return KeySet(tuple(keys), digest, tuple(skipped))


def _name_of(index: int, entry: Json) -> str:
    """Where an entry stands and what it is called; never more of it, for it may be a secret."""
    kid = entry.get("kid") if isinstance(entry, dict) else ""
    shown = "".join(letter if letter.isprintable() else "?" for letter in kid[:64]) if isinstance(kid, str) else ""
    return f"keys[{index}] (kid `{shown}`)" if shown else f"keys[{index}]"


def _read_certificates(document: Mapping[str, Json]) -> tuple[Key, ...]:
    """Read Firebase's form (RA-39): every member a PEM certificate with an RSA key."""
    keys = []
    if not document:
        raise ValueError("the key set has no `keys` list")
    for kid, pem in document.items():
        if not kid or not isinstance(pem, str) or not _CERTIFICATE.fullmatch(pem):
            raise ValueError("the key set has no `keys` list")
    if len(document) > MAX_KEYS:
        raise ValueError(f"a key set has at most {MAX_KEYS} keys, got {len(document)}")
    for kid, pem in document.items():
        try:
            public = x509.load_pem_x509_certificate(str(pem).encode()).public_key()
        except (ValueError, UnsupportedAlgorithm) as error:
            raise ValueError(f"the certificate of kid `{kid}` cannot be read: {error}") from error
        if not isinstance(public, rsa.RSAPublicKey):
            raise ValueError(f"the certificate of kid `{kid}` has no RSA key")
        keys.append(Key("RSA", kid, "", _checked_rsa(public)))
    return tuple(keys)


def _read_key(entry: Json) -> Key:
    if not isinstance(entry, dict):
        raise ValueError("not an object")
    kty = entry.get("kty")
    read = _READERS.get(kty) if isinstance(kty, str) else None
    if read is None:
        raise ValueError("`kty` is none of RSA, EC, OKP, oct")
    kid, alg = entry.get("kid"), entry.get("alg")
    # What is not text counts as absent (RA-39).
    name, algorithm = kid if isinstance(kid, str) else "", alg if isinstance(alg, str) else ""
    family, material = read(entry, algorithm)
    return Key(family, name, algorithm, material)


def _text_member(entry: Mapping[str, Json], name: str) -> str:
    value = entry.get(name)
    if not isinstance(value, str):
        raise ValueError(f"`{name}` is not a string" if name in entry else f"`{name}` is missing")
    return value


def _bytes_member(entry: Mapping[str, Json], name: str) -> bytes:
    try:
        return read_base64url(_text_member(entry, name))
    except UnicodeEncodeError as error:
        raise ValueError(f"`{name}`: not base64url") from error
    except ValueError as error:
        raise ValueError(f"{'' if f'`{name}`' in str(error) else f'`{name}`: '}{error}") from error


def _number_text(number: int, size: int = 0) -> str:
    return write_base64url(number.to_bytes(max(size, (number.bit_length() + 7) // 8), "big"))


def _number_member(entry: Mapping[str, Json], name: str) -> int:
    """A number of any length: sloppy issuers drop leading zeros, or add some."""
    return int.from_bytes(_bytes_member(entry, name), "big")


def _check_alg(alg: str, fits: bool, kty: str) -> None:
    if alg and not fits:
        raise ValueError(f"`alg` does not fit the key type {kty}")


def _read_rsa(entry: Mapping[str, Json], alg: str) -> tuple[str, Material]:
    _check_alg(alg, alg.startswith(("RS", "PS")), "RSA")
    modulus, exponent = _number_member(entry, "n"), _number_member(entry, "e")
    if exponent not in RSA_EXPONENTS or not modulus & 1:
        raise ValueError("`e` is neither 3 nor 65537" if modulus & 1 else "`n` is not an RSA modulus: it is even")
    if not MIN_RSA_BITS <= modulus.bit_length() <= MAX_RSA_BITS:
        raise ValueError(f"an RSA key has {MIN_RSA_BITS} to {MAX_RSA_BITS} bits, got {modulus.bit_length()}")
    return "RSA", rsa.RSAPublicNumbers(exponent, modulus).public_key()


def _checked_rsa(public: rsa.RSAPublicKey) -> rsa.RSAPublicKey:
    if not MIN_RSA_BITS <= public.key_size <= MAX_RSA_BITS:
        raise ValueError(f"an RSA key has {MIN_RSA_BITS} to {MAX_RSA_BITS} bits, got {public.key_size}")
    return public


def _read_ec(entry: Mapping[str, Json], alg: str) -> tuple[str, Material]:
    """The curve, or else the algorithm, says which curve it is; without both it is P-256."""
    _check_alg(alg, alg.startswith("ES"), "EC")
    curve = _text_member(entry, "crv") if "crv" in entry else ""
    if curve and alg and _CURVE_OF_ALG.get(alg) != curve:
        raise ValueError("`alg` does not fit `crv`")
    curve = curve or (_CURVE_OF_ALG.get(alg, "") if alg else "P-256")
    if curve not in _CURVES:
        raise ValueError("`crv` is none of P-256, P-384, P-521")
    numbers = ec.EllipticCurvePublicNumbers(_number_member(entry, "x"), _number_member(entry, "y"), _CURVES[curve][1])
    try:
        return curve, numbers.public_key()
    except ValueError as error:
        raise ValueError(f"`x` and `y` are not a point on {curve}") from error


def _read_okp(entry: Mapping[str, Json], alg: str) -> tuple[str, Material]:
    _check_alg(alg, alg == "EdDSA", "OKP")
    if _text_member(entry, "crv") != "Ed25519":
        raise ValueError("`crv` is not Ed25519")
    return "Ed25519", ed25519.Ed25519PublicKey.from_public_bytes(_bytes_member(entry, "x"))


def _read_oct(entry: Mapping[str, Json], alg: str) -> tuple[str, Material]:
    _check_alg(alg, alg in VERIFIERS["oct"], "oct")
    secret = _bytes_member(entry, "k")
    if not secret:
        raise ValueError("`k` is empty")
    return "oct", secret


_READERS: Mapping[str, Callable[[Mapping[str, Json], str], tuple[str, Material]]] = {
    "RSA": _read_rsa,
    "EC": _read_ec,
    "OKP": _read_okp,
    "oct": _read_oct,
}

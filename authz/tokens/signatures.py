"""
Signatures of tokens: which algorithms fit which family of keys, and how each is verified (RA-35).

Answers only yes or no; a key never sees an algorithm that is not of its family.
"""

import hashlib
import hmac
from collections.abc import Callable, Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature

Material = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | bytes
"""A public key, or the secret of an ``oct`` key."""
Verify = Callable[[Any, bytes, bytes], bool]
"""
Key, signed bytes and signature to yes or no. The table below says which material the key has: the classes are
abstract, and asking which one it is costs more than everything around it.
"""

_PKCS1 = padding.PKCS1v15()


def _rsa_pss(hash_algorithm: hashes.HashAlgorithm) -> Verify:
    scheme = padding.PSS(padding.MGF1(hash_algorithm), hash_algorithm.digest_size)

    def verify(key: rsa.RSAPublicKey, signed: bytes, signature: bytes) -> bool:
        try:
            key.verify(signature, signed, scheme, hash_algorithm)
        except (InvalidSignature, UnsupportedAlgorithm, ValueError):
            return False
        return True

    return verify


def _rsa_pkcs1(digest: str, hash_algorithm: hashes.HashAlgorithm) -> Verify:
    """The digest is made by ``hashlib``: the library would look the algorithm up anew, an eighth of the cost."""
    calculate, prehashed = getattr(hashlib, digest), Prehashed(hash_algorithm)

    def verify(key: rsa.RSAPublicKey, signed: bytes, signature: bytes) -> bool:
        try:
            key.verify(signature, calculate(signed).digest(), _PKCS1, prehashed)
        except (InvalidSignature, UnsupportedAlgorithm, ValueError):
            return False
        return True

    return verify


def _ecdsa(hash_algorithm: hashes.HashAlgorithm) -> Verify:
    algorithm = ec.ECDSA(hash_algorithm)

    def verify(key: ec.EllipticCurvePublicKey, signed: bytes, signature: bytes) -> bool:
        """Envoy halves the signature, however long it is; of an odd number of bytes the last one is left over."""
        half = len(signature) // 2
        r, s = int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half : 2 * half], "big")
        try:
            key.verify(encode_dss_signature(r, s), signed, algorithm)
        except (InvalidSignature, UnsupportedAlgorithm, ValueError):
            return False
        return True

    return verify


def _ed25519(key: ed25519.Ed25519PublicKey, signed: bytes, signature: bytes) -> bool:
    try:
        key.verify(signature, signed)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError):
        return False
    return True


def _hmac(digest: str) -> Verify:
    def verify(key: bytes, signed: bytes, signature: bytes) -> bool:
        return hmac.compare_digest(hmac.digest(key, signed, digest), signature)

    return verify


_SHA256, _SHA384, _SHA512 = hashes.SHA256(), hashes.SHA384(), hashes.SHA512()

VERIFIERS: Mapping[str, Mapping[str, Verify]] = {
    "RSA": {
        "RS256": _rsa_pkcs1("sha256", _SHA256),
        "RS384": _rsa_pkcs1("sha384", _SHA384),
        "RS512": _rsa_pkcs1("sha512", _SHA512),
        "PS256": _rsa_pss(_SHA256),
        "PS384": _rsa_pss(_SHA384),
        "PS512": _rsa_pss(_SHA512),
    },
    "P-256": {"ES256": _ecdsa(_SHA256)},
    "P-384": {"ES384": _ecdsa(_SHA384)},
    "P-521": {"ES512": _ecdsa(_SHA512)},
    "Ed25519": {"EdDSA": _ed25519},
    "oct": {"HS256": _hmac("sha256"), "HS384": _hmac("sha384"), "HS512": _hmac("sha512")},
}
"""By family of keys, then by algorithm: the table that makes algorithm confusion impossible."""

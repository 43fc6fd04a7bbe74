"""
Key pairs of the kinds that are issued for, and their PEM forms.

The bytes of a private key leave this room only as ``key_pem`` of something that was issued, whose ``repr`` omits them.
Key generation takes its randomness inside OpenSSL: that library offers no way to pass the bytes in.
"""

from enum import StrEnum

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from authz.identity.pem import is_encrypted_key

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey

MIN_RSA_BITS = 2048
"""Envoy refuses shorter keys."""


class KeyType(StrEnum):
    """``ED25519`` is for authorities: Envoy takes their signatures, but refuses a peer whose own key is Ed25519."""

    ECDSA_P256 = "ecdsa-p256"
    RSA_2048 = "rsa-2048"
    RSA_3072 = "rsa-3072"
    ED25519 = "ed25519"


def generate_key(key_type: KeyType = KeyType.ECDSA_P256) -> PrivateKey:
    """Generate a private key."""
    match key_type:
        case KeyType.ECDSA_P256:
            return ec.generate_private_key(ec.SECP256R1())
        case KeyType.RSA_2048:
            return rsa.generate_private_key(65537, 2048)
        case KeyType.RSA_3072:
            return rsa.generate_private_key(65537, 3072)
        case KeyType.ED25519:
            return ed25519.Ed25519PrivateKey.generate()


def read_key(pem: bytes) -> PrivateKey:
    """
    Read an unencrypted PEM private key.

    Raises ValueError with a reason that repeats nothing of what was given.
    """
    if is_encrypted_key(pem):
        raise ValueError("the private key is encrypted: decrypt it, `openssl pkey -in KEY -out PLAIN`")
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("the private key is not an unencrypted PEM key") from None  # the cause may quote the input
    match key:
        case ec.EllipticCurvePrivateKey() if isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1):
            return key
        case rsa.RSAPrivateKey() if key.key_size >= MIN_RSA_BITS:
            return key
        case ed25519.Ed25519PrivateKey():
            return key
    raise ValueError("the private key is not one of ECDSA P-256, ECDSA P-384, RSA of at least 2048 bits, Ed25519")


def write_key(key: PrivateKey) -> bytes:
    """Write a private key as unencrypted PKCS#8 PEM."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def key_bytes(key: PublicKey) -> bytes:
    """The SubjectPublicKeyInfo in DER: equal for equal keys."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def signature_hash(key: PrivateKey) -> hashes.SHA256 | hashes.SHA384 | None:
    """The digest to sign with; None for Ed25519, which brings its own."""
    match key:
        case ed25519.Ed25519PrivateKey():
            return None
        case ec.EllipticCurvePrivateKey() if isinstance(key.curve, ec.SECP384R1):
            return hashes.SHA384()
        case _:
            return hashes.SHA256()

"""
Signatures of a manifest: Ed25519 over its exact bytes, any number of them, each with the id of its key.

``openssl pkeyutl -verify -rawin`` says the same of ``manifest.json`` and a decoded signature.
"""

import base64
import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from authz.bundles.manifest import BundleRefused
from authz.bundles.strict_json import read_strict_json

BundleKey = Ed25519PrivateKey
"""The kind of key that signs."""
VerifyingKey = Ed25519PublicKey
"""The kind of key by which a signature is judged."""
MAX_SIGNATURES = 16
_KEY_ID = re.compile(r"[0-9a-f]{32}")
_RAW = (serialization.Encoding.Raw, serialization.PublicFormat.Raw)


@dataclass(frozen=True, slots=True)
class BundleSignature:
    """One signature; ``key_id`` only says which key to try."""

    key_id: str
    value: bytes


def read_bundle_key(pem: bytes) -> Ed25519PrivateKey:
    """
    Read the key that signs, PKCS#8 in PEM.

    Raises:
        BundleRefused: it is another kind of key, or encrypted.
    """
    try:
        key = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError):
        raise BundleRefused("is no private key in PEM, or an encrypted one: `authz bundle keygen` makes one") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise BundleRefused("is another kind of key than Ed25519: `authz bundle keygen` makes one")
    return key


def read_verifying_key(pem: bytes) -> Ed25519PublicKey:
    """
    Read a public key in PEM. A private one is refused: it does not belong where bundles are only taken.

    Raises:
        BundleRefused: it is not a public key of Ed25519.
    """
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, TypeError):
        raise BundleRefused("is no public key in PEM") from None
    if not isinstance(key, Ed25519PublicKey):
        raise BundleRefused("is another kind of key than Ed25519")
    return key


def new_key_pair() -> tuple[bytes, bytes]:
    """A new key: PKCS#8 PEM of the private half, and PEM of the public one."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return private, public


def key_id(key: Ed25519PublicKey) -> str:
    """The first half of the SHA-256 of the raw key, in hexadecimal."""
    return hashlib.sha256(key.public_bytes(*_RAW)).hexdigest()[:32]


def sign(manifest: bytes, key: Ed25519PrivateKey) -> BundleSignature:
    """Sign the bytes of a manifest; Ed25519 needs no randomness, so the same bytes come again."""
    return BundleSignature(key_id(key.public_key()), key.sign(manifest))


def signers(
    manifest: bytes, signatures: Iterable[BundleSignature], keys: Iterable[Ed25519PublicKey]
) -> tuple[str, ...]:
    """The ids of those keys that did sign."""
    known = {key_id(key): key for key in keys}
    return tuple(one.key_id for one in signatures if one.key_id in known and _holds(known[one.key_id], one, manifest))


def write_signatures(signatures: Iterable[BundleSignature]) -> bytes:
    """Write them in the order of their key ids, so that it does not matter who signed first."""
    ordered = sorted(signatures, key=lambda one: one.key_id)
    told = [{"key": one.key_id, "signature": base64.b64encode(one.value).decode()} for one in ordered]
    return (json.dumps({"signatures": told}, indent=1) + "\n").encode()


def read_signatures(data: bytes) -> tuple[BundleSignature, ...]:
    """
    Read what ``write_signatures`` wrote; empty for a bundle that nobody signed.

    Raises:
        BundleRefused: it is something else.
    """
    wrong = BundleRefused("the list of signatures is damaged: sign the bundle again")
    try:
        rows = read_strict_json(data)["signatures"]
        pairs = ((str(row["key"]), base64.b64decode(row["signature"], validate=True)) for row in rows)
        found = tuple(BundleSignature(*pair) for pair in pairs)
    except (ValueError, RecursionError, KeyError, TypeError):
        raise wrong from None
    if len(found) > MAX_SIGNATURES or not all(_KEY_ID.fullmatch(one.key_id) for one in found):
        raise wrong
    if len({one.key_id for one in found}) != len(found) or write_signatures(found) != data:
        raise wrong
    return found


def _holds(key: Ed25519PublicKey, signature: BundleSignature, manifest: bytes) -> bool:
    try:
        key.verify(signature.value, manifest)
    except InvalidSignature:
        return False
    return True

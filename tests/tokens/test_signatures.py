"""RSASSA-PKCS1-v1_5 as the library's own ``verify`` judges it, signatures forged by hand included."""

import hashlib
from collections.abc import Callable

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from authz.tokens.signatures import VERIFIERS

SIGNED = b"eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJhIn0"
HASHES = {"RS256": hashes.SHA256(), "RS384": hashes.SHA384(), "RS512": hashes.SHA512()}
KEYS = {bits: rsa.generate_private_key(exponent, bits) for bits, exponent in ((1024, 65537), (2048, 3))}
NULL = bytes.fromhex("0500")
OID = {"sha256": "608648016503040201", "sha384": "608648016503040202", "sha512": "608648016503040203"}


def digest_info(name: str = "sha256", parameters: bytes = NULL, digest: bytes | None = None) -> bytes:
    """The DER of what a signature holds."""
    held = hashlib.new(name, SIGNED).digest() if digest is None else digest
    algorithm = b"\x06\x09" + bytes.fromhex(OID[name]) + parameters
    inside = b"\x30" + bytes([len(algorithm)]) + algorithm + b"\x04" + bytes([len(held)]) + held
    return b"\x30" + bytes([len(inside)]) + inside


def padded(size: int, held: bytes, *, first: bytes = b"\x00\x01", fill: bytes = b"\xff", end: bytes = b"\x00") -> bytes:
    return first + fill * (size - len(first) - len(end) - len(held)) + end + held


def sealed(key: rsa.RSAPrivateKey, message: bytes) -> bytes:
    """Apply the private key to bytes that no library would sign."""
    numbers = key.private_numbers()
    number = pow(int.from_bytes(message, "big"), numbers.d, numbers.public_numbers.n)
    return number.to_bytes(key.key_size // 8, "big")


Forge = Callable[[rsa.RSAPrivateKey, int], bytes]
BY_HAND: dict[str, Forge] = {
    "as it must be": lambda key, size: sealed(key, padded(size, digest_info())),
    "no parameters": lambda key, size: sealed(key, padded(size, digest_info(parameters=b""))),
    "other parameters": lambda key, size: sealed(key, padded(size, digest_info(parameters=b"\x04\x00"))),
    "another digest": lambda key, size: sealed(key, padded(size, digest_info(digest=b"\x00" * 32))),
    "another algorithm": lambda key, size: sealed(key, padded(size, digest_info("sha384"))),
    "the bare digest": lambda key, size: sealed(key, padded(size, hashlib.sha256(SIGNED).digest())),
    "something behind it": lambda key, size: sealed(key, padded(size, digest_info() + b"\x00" * 8)),
    "little padding and much behind it": lambda key, size: sealed(
        key, (b"\x00\x01" + b"\xff" * 8 + b"\x00" + digest_info()).ljust(size, b"\x00")
    ),
    "nothing": lambda key, size: sealed(key, padded(size, b"")),
    "block type 2": lambda key, size: sealed(key, padded(size, digest_info(), first=b"\x00\x02")),
    "block type 0": lambda key, size: sealed(key, padded(size, digest_info(), first=b"\x00\x00", fill=b"\x00")),
    "other padding": lambda key, size: sealed(key, padded(size, digest_info(), fill=b"\xfe")),
    "padding without end": lambda key, size: sealed(key, padded(size, digest_info(), end=b"")),
    "a zero too many": lambda key, size: b"\x00" + sealed(key, padded(size, digest_info())),
    "a zero behind it": lambda key, size: sealed(key, padded(size, digest_info())) + b"\x00",
    "a byte too few": lambda key, size: sealed(key, padded(size, digest_info()))[1:],
    "1 without its leading zeros": lambda key, size: b"\x01",
    "empty": lambda key, size: b"",
    "0": lambda key, size: bytes(size),
    "1": lambda key, size: (1).to_bytes(size, "big"),
    "the modulus": lambda key, size: key.private_numbers().public_numbers.n.to_bytes(size, "big"),
    "the modulus less 1": lambda key, size: (key.private_numbers().public_numbers.n - 1).to_bytes(size, "big"),
    "all ones": lambda key, size: b"\xff" * size,
    "by PSS": lambda key, size: key.sign(SIGNED, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256()),
    "of other bytes": lambda key, size: key.sign(SIGNED + b".", padding.PKCS1v15(), hashes.SHA256()),
}


def by_library(key: rsa.RSAPrivateKey, signature: bytes, algorithm: str) -> bool:
    try:
        key.public_key().verify(signature, SIGNED, padding.PKCS1v15(), HASHES[algorithm])
    except InvalidSignature:
        return False
    return True


@pytest.mark.parametrize("bits", KEYS)
@pytest.mark.parametrize("name", BY_HAND)
def test_a_signature_made_by_hand_is_judged_as_the_library_judges_it(name: str, bits: int) -> None:
    key = KEYS[bits]
    signature = BY_HAND[name](key, bits // 8)
    found = VERIFIERS["RSA"]["RS256"](key.public_key(), SIGNED, signature)
    assert found == by_library(key, signature, "RS256") == (name == "as it must be")


@pytest.mark.parametrize("bits", KEYS)
@pytest.mark.parametrize("verified", HASHES)
@pytest.mark.parametrize("signed", HASHES)
def test_a_signature_is_good_for_its_own_algorithm_only(signed: str, verified: str, bits: int) -> None:
    key = KEYS[bits]
    signature = key.sign(SIGNED, padding.PKCS1v15(), HASHES[signed])
    found = VERIFIERS["RSA"][verified](key.public_key(), SIGNED, signature)
    assert found == by_library(key, signature, verified) == (signed == verified)


@pytest.mark.parametrize("bits", KEYS)
def test_a_signature_with_any_bit_turned_is_bad(bits: int) -> None:
    key = KEYS[bits]
    signature = bytearray(key.sign(SIGNED, padding.PKCS1v15(), hashes.SHA256()))
    verify = VERIFIERS["RSA"]["RS256"]
    assert verify(key.public_key(), SIGNED, bytes(signature))
    for at in range(len(signature) * 8):
        signature[at // 8] ^= 1 << at % 8
        assert not verify(key.public_key(), SIGNED, bytes(signature))
        signature[at // 8] ^= 1 << at % 8

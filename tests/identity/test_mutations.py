"""Bytes from outside, bent at random: nothing raises, nothing is taken."""

import base64
import random

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from authz.core.spiffe import TrustDomain
from authz.identity.bundle import TrustBundle
from authz.identity.keys import generate_key
from authz.identity.peer import judge_peer
from authz.identity.registrar import Refused, read_certificate_request, write_certificate_request
from authz.identity.registration import read_entries
from tests.identity.certificates import INTERMEDIATE, LEAF, NOW, REVIEWS, ROOT, changed, pem

MESH = TrustDomain("mesh.test")
BUNDLES = {MESH: TrustBundle(MESH, (ROOT.certificate(),), (INTERMEDIATE.certificate(),))}
PLAIN = LEAF.certificate().public_bytes(Encoding.DER)
RICH = changed(LEAF, dns=("a.test",), emails=("a@b.test",)).certificate().public_bytes(Encoding.DER)


def bent(data: bytes, chance: random.Random) -> bytes:
    """One to three bytes changed, removed or added."""
    found = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 3))):
        at = chance.randrange(len(found))
        match chance.randrange(4):
            case 0:
                del found[at : at + chance.randrange(1, 5)]
            case 1:
                found[at:at] = chance.randbytes(chance.randrange(1, 4))
            case _:
                found[at] ^= 1 << chance.randrange(8)
    return bytes(found)


def as_pem(der: bytes, what: str) -> bytes:
    return f"-----BEGIN {what}-----\n".encode() + base64.encodebytes(der) + f"-----END {what}-----\n".encode()


@pytest.mark.parametrize("original", [PLAIN, RICH], ids=["plain", "rich"])
def test_a_bent_certificate_is_refused_and_never_raises(original: bytes) -> None:
    chance = random.Random(1)
    for _ in range(1500):
        der = bent(original, chance)
        if der != original:
            assert judge_peer(as_pem(der, "CERTIFICATE").decode(), REVIEWS, BUNDLES, now=NOW) is not None, der.hex()


def test_a_bent_intermediate_is_refused_and_never_raises() -> None:
    chance = random.Random(2)
    original = INTERMEDIATE.certificate().public_bytes(Encoding.DER)
    bundles = {MESH: TrustBundle(MESH, (ROOT.certificate(),))}
    leaf = pem(LEAF.certificate())
    for _ in range(1500):
        der = bent(original, chance)
        if der != original:
            chain = leaf + as_pem(der, "CERTIFICATE")
            assert judge_peer(chain.decode(), REVIEWS, bundles, now=NOW) is not None, der.hex()


def test_a_bent_certificate_request_is_refused_and_never_raises() -> None:
    chance = random.Random(3)
    text = write_certificate_request(generate_key())
    original = base64.b64decode(b"".join(text.splitlines()[1:-1]))
    for _ in range(500):
        der = bent(original, chance)
        if der != original:
            answer = read_certificate_request(as_pem(der, "CERTIFICATE REQUEST"))
            assert isinstance(answer, Refused), der.hex()


ENTRIES = b"""
entries:
- spiffeID: spiffe://mesh.test/a
  selectors: [unix:uid:1]
  x509SVIDTTL: 60
"""


def test_a_bent_file_of_entries_never_raises() -> None:
    chance = random.Random(4)
    for _ in range(1500):
        entries, problems = read_entries("entries.yaml", bent(ENTRIES, chance), MESH)
        assert problems or all(entry.grant.spiffe_id.trust_domain == MESH for entry in entries)

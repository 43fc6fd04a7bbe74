"""SPIFFE bundle documents: ours read back, those of a SPIRE, and what is none (Trust Domain and Bundle 4)."""

import json
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from authz.core.spiffe import SpiffeId, TrustDomain
from authz.identity.bundle import TrustBundle
from authz.identity.bundle_document import (
    read_any_bundle,
    read_bundle_document,
    read_bundle_files,
    write_bundle_document,
    write_key_set,
)
from authz.identity.ca import CertificateAuthority
from authz.identity.jwt_keys import JwtKeys
from authz.identity.keys import KeyType
from authz.identity.svid_validation import Examined, Rejection, validate_svid
from authz.tokens.jwks import read_key_set
from tests.identity.certificates import INTERMEDIATE, LEAF, NOW, ROOT, pem
from tests.identity.spire import spire_authority

MESH, SPIRE = TrustDomain("mesh.test"), TrustDomain("spire.test")
KEYS = JwtKeys().kept_current(NOW)


def document(**changes: object) -> dict[str, Any]:
    written: dict[str, Any] = json.loads(write_bundle_document(ours(), 3, 300))
    return written | changes


def ours(key_type: KeyType = KeyType.ECDSA_P256) -> TrustBundle:
    ca = CertificateAuthority.create(MESH, NOW, key_type=key_type)
    return TrustBundle(MESH, ca.roots, jwt_keys=KEYS.public)


@pytest.mark.parametrize("key_type", list(KeyType))
def test_what_is_written_is_read_back(key_type: KeyType) -> None:
    bundle = ours(key_type)
    found = read_bundle_document(MESH, write_bundle_document(bundle, 3, 300))
    assert (found.sequence, found.refresh_hint_seconds) == (3, 300)
    assert found.bundle.roots == bundle.roots
    assert [key.public_members() for key in found.bundle.jwt_keys] == [key.public_members() for key in bundle.jwt_keys]


def test_roots_and_keys_of_tokens_are_marked() -> None:
    root, token_key = document()["keys"]
    assert (root["use"], set(root)) == ("x509-svid", {"kty", "crv", "x", "y", "use", "x5c"})
    assert (token_key["use"], token_key["kid"]) == ("jwt-svid", KEYS.keys[0].kid)


def test_a_key_set_for_others_has_the_keys_of_tokens_alone() -> None:
    found = read_key_set(write_key_set(KEYS.public, "sig").decode())
    assert [key.kid for key in found.keys] == [key.kid for key in KEYS.keys]


def test_what_is_unknown_is_ignored() -> None:
    entries = document()["keys"]
    assert isinstance(entries, list)
    strange = [{"kty": "EC", "use": "wit-svid"}, {"kty": "new", "use": "jwt-svid"}, {"use": "sig"}]
    found = read_bundle_document(MESH, json.dumps(document(keys=[*entries, *strange], else_="x")).encode())
    assert (len(found.bundle.roots), len(found.bundle.jwt_keys)) == (1, 1)


def test_a_document_without_keys_trusts_nothing() -> None:
    found = read_bundle_document(MESH, b'{"keys": []}')
    assert (found.bundle.roots, found.bundle.jwt_keys, found.sequence) == ((), (), None)


ROOT_ENTRY, KEY_ENTRY = document()["keys"]
BROKEN: list[tuple[bytes, str]] = [
    (b"", "the bundle of `mesh.test` is not a JSON object"),
    (b"[]", "is not a JSON object"),
    (b"<html>", "is not a JSON object"),
    (b'{"keys": [' + b"[" * 2000, "is not a JSON object"),
    (b" " * (1024 * 1024 + 1), "has more than 1048576 bytes"),
    (b"{}", "has no `keys` list of objects"),
    (b'{"keys": {}}', "has no `keys` list of objects"),
    (b'{"keys": [3]}', "has no `keys` list of objects"),
    (b'{"keys": [{"kty": "RSA", "use": "sig"}]}', "is for SVIDs: `use` is neither x509-svid nor jwt-svid"),
    (
        json.dumps(document(spiffe_sequence="3")).encode(),
        "`spiffe_sequence` of the bundle of `mesh.test` is not a whole",
    ),
    (
        json.dumps(document(spiffe_sequence=-1)).encode(),
        "`spiffe_sequence` of the bundle of `mesh.test` is not a whole",
    ),
    (
        json.dumps(document(spiffe_refresh_hint=True)).encode(),
        "`spiffe_refresh_hint` of the bundle of `mesh.test` is not",
    ),
    (json.dumps({"keys": [{**ROOT_ENTRY, "x5c": []}]}).encode(), "has no `x5c` of exactly one certificate"),
    (json.dumps({"keys": [{**ROOT_ENTRY, "x5c": ROOT_ENTRY["x5c"] * 2}]}).encode(), "has no `x5c` of exactly one"),
    (json.dumps({"keys": [{**ROOT_ENTRY, "x5c": ["AAAA"]}]}).encode(), "an `x5c` is not a certificate in base64"),
    (json.dumps({"keys": [{**ROOT_ENTRY, "x5c": ["!"]}]}).encode(), "an `x5c` is not a certificate in base64"),
    (json.dumps({"keys": [{**KEY_ENTRY, "kid": ""}]}).encode(), "a key for JWT-SVIDs has no `kid`"),
    (json.dumps({"keys": [KEY_ENTRY, KEY_ENTRY]}).encode(), "two keys for JWT-SVIDs have the same `kid`"),
    (json.dumps({"keys": [{**KEY_ENTRY, "x": "AAAA"}]}).encode(), "a key for JWT-SVIDs cannot be used: keys[0]"),
]


@pytest.mark.parametrize(("data", "reason"), BROKEN, ids=[reason for _, reason in BROKEN])
def test_what_is_no_bundle_is_refused_whole(data: bytes, reason: str) -> None:
    with pytest.raises(ValueError) as caught:
        read_bundle_document(MESH, data)
    assert reason in str(caught.value)


def test_an_intermediate_among_the_roots_is_refused() -> None:
    import base64

    der = base64.b64encode(INTERMEDIATE.certificate().public_bytes(Encoding.DER)).decode()
    data = json.dumps({"keys": [{**ROOT_ENTRY, "x5c": [der]}]}).encode()
    with pytest.raises(ValueError, match="which is not a root"):
        read_bundle_document(MESH, data)


def test_a_bundle_file_is_pem_or_a_document() -> None:
    root = ROOT.certificate()
    assert read_any_bundle(MESH, pem(root)).roots == (root,)
    assert read_any_bundle(MESH, b"\n " + json.dumps(document()).encode()).jwt_keys


def test_documents_and_pem_together_are_one_bundle_for_judges_of_leaves() -> None:
    """Envoy shows only the leaf (XA-35): the intermediates come in a file of their own."""
    root = TrustBundle(MESH, (ROOT.certificate(),))
    files = [write_bundle_document(root, 1, 300), pem(INTERMEDIATE.certificate())]
    found = read_bundle_files(MESH, files)
    assert isinstance(validate_svid(pem(LEAF.certificate()), {MESH: found}, NOW), Examined)
    assert read_bundle_files(MESH, [b'{"keys": []}']).roots == ()
    with pytest.raises(ValueError, match="holds no root"):
        read_bundle_files(MESH, files[1:])


# SPIRE


@pytest.mark.parametrize("has_upstream", [False, True], ids=["self-signed", "below an upstream authority"])
def test_an_svid_of_a_foreign_spire_is_accepted_by_its_bundle(has_upstream: bool) -> None:
    spire = spire_authority(SPIRE, NOW, has_upstream=has_upstream)
    bundle = read_bundle_document(SPIRE, spire.document).bundle
    chain = spire.svid("/ns/shop/sa/reviews")
    answer = validate_svid(chain, {SPIRE: bundle, MESH: ours()}, NOW)
    assert isinstance(answer, Examined)
    assert answer.spiffe_id == SpiffeId(SPIRE, "/ns/shop/sa/reviews")
    assert len(bundle.jwt_keys) == 1


def test_a_foreign_spire_speaks_for_its_own_trust_domain_only() -> None:
    spire = spire_authority(SPIRE, NOW)
    bundle = read_bundle_document(SPIRE, spire.document).bundle
    forged = spire.svid("/ns/shop/sa/reviews", trust_domain=MESH)
    answer = validate_svid(forged, {SPIRE: bundle, MESH: ours()}, NOW)
    assert isinstance(answer, Rejection)
    assert "which is unknown to `mesh.test`" in answer.reason


def test_the_certificates_of_these_tests_are_shaped_as_spires() -> None:
    spire = spire_authority(SPIRE, NOW)
    leaf = x509.load_pem_x509_certificates(spire.svid("/a"))[0]
    assert leaf.subject.rfc4514_string().endswith("O=SPIRE,C=US")
    assert leaf.subject.get_attributes_for_oid(NameOID.X500_UNIQUE_IDENTIFIER)
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert (usage.value.digital_signature, usage.value.key_encipherment, usage.value.key_agreement) == (True,) * 3
    assert isinstance(leaf.public_key(), ec.EllipticCurvePublicKey)

"""A valid certificate is taken; with one thing broken it is refused for exactly that."""

import base64
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from authz.core.spiffe import SpiffeId, TrustDomain
from authz.identity.bundle import TrustBundle, read_bundle
from authz.identity.keys import write_key
from authz.identity.leaf import digest
from authz.identity.svid_validation import Examined, Rejection, validate_svid
from tests.identity.certificates import (
    CLIENT_AUTH,
    DAY,
    DIGITAL_SIGNATURE,
    INTERMEDIATE,
    KEYS,
    LEAF,
    NOW,
    REVIEWS,
    ROOT,
    SERVER_AUTH,
    Recipe,
    changed,
    pem,
)

MESH = TrustDomain("mesh.test")
UNKNOWN_EXTENSION = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
SPIFFE = "spiffe://mesh.test"


def bundle(*roots: Recipe, domain: TrustDomain = MESH, intermediates: tuple[Recipe, ...] = ()) -> TrustBundle:
    return TrustBundle(domain, tuple(r.certificate() for r in roots), tuple(r.certificate() for r in intermediates))


def judge(leaf: Recipe = LEAF, *chain: Recipe, root: Recipe = ROOT) -> Examined | Rejection:
    given = pem(leaf.certificate(), *(r.certificate() for r in chain))
    return validate_svid(given, {MESH: bundle(root)}, NOW)


def reason(answer: Examined | Rejection) -> str:
    assert isinstance(answer, Rejection), answer
    return answer.reason


VALID: list[tuple[str, dict[str, object]]] = [
    ("as it is issued", {}),
    ("with DNS names", {"dns": ("reviews.shop.svc",)}),
    ("without extended key usage", {"extended": None}),
    ("without basic constraints", {"basic": None}),
    ("key encipherment and agreement too", {"usage": (DIGITAL_SIGNATURE, "key_encipherment", "key_agreement")}),
    ("a non-critical extension nobody knows", {"extra": ((UNKNOWN_EXTENSION, False),)}),
    ("without key identifiers", {"key_ids": False}),
    ("every character that a path may have", {"uris": (f"{SPIFFE}/A-z_0.9/..x/-",)}),
    ("a key of 2048 bits RSA", {"key": rsa.generate_private_key(65537, 2048)}),
    ("a key on P-384", {"key": ec.generate_private_key(ec.SECP384R1())}),
    ("an Ed25519 key", {"key": ed25519.Ed25519PrivateKey.generate()}),
    ("begins this second", {"begin": NOW}),
]


@pytest.mark.parametrize(("what", "changes"), VALID, ids=[what for what, _ in VALID])
def test_a_valid_certificate_is_taken(what: str, changes: dict[str, object]) -> None:
    leaf = changed(LEAF, **changes)
    answer = judge(leaf, INTERMEDIATE)
    assert isinstance(answer, Examined)
    assert answer.spiffe_id == SpiffeId.parse(leaf.uris[0])
    assert answer.serial == leaf.serial
    assert len(answer.windows) == 3


BROKEN_LEAF: list[tuple[dict[str, object], str]] = [
    # what it is for
    ({"basic": (True, None)}, "the certificate is an authority's (CA:TRUE), a workload's is not"),
    ({"basic": (True, 0)}, "the certificate is an authority's (CA:TRUE), a workload's is not"),
    ({"usage": None}, "the certificate has no keyUsage"),
    ({"usage_critical": False}, "the certificate's keyUsage is not critical"),
    (
        {"usage": (DIGITAL_SIGNATURE, "key_cert_sign")},
        "the certificate may sign certificates (keyCertSign), a workload's may not",
    ),
    (
        {"usage": (DIGITAL_SIGNATURE, "crl_sign")},
        "the certificate may sign revocation lists (cRLSign), a workload's may not",
    ),
    ({"usage": ("key_encipherment",)}, "the certificate's keyUsage lacks digitalSignature"),
    ({"extended": (SERVER_AUTH,)}, "the certificate's extendedKeyUsage lacks clientAuth"),
    ({"extended": (CLIENT_AUTH,)}, "the certificate's extendedKeyUsage lacks serverAuth"),
    (
        {"permitted": (x509.UniformResourceIdentifier("mesh.test"),)},
        "the certificate has name constraints, which only an authority has",
    ),
    (
        {"extra": ((UNKNOWN_EXTENSION, True),)},
        "the certificate has the critical extension 1.2.3.4, which is not understood here",
    ),
    # whom it is for
    ({"has_names": False}, "the certificate has no subjectAltName"),
    ({"uris": (), "dns": ("reviews",)}, "the certificate has no URI among its subjectAltNames"),
    ({"uris": (REVIEWS, f"{SPIFFE}/ns/shop/sa/ratings")}, "the certificate has 2 URIs, exactly one is allowed"),
    ({"uris": (REVIEWS, "https://mesh.test/")}, "the certificate has 2 URIs, exactly one is allowed"),
    (
        {"uris": ("https://mesh.test/ns/shop/sa/reviews",)},
        "`https://mesh.test/ns/shop/sa/reviews` is not a SPIFFE ID: expected it to begin with `spiffe://`",
    ),
    (
        {"uris": ("SPIFFE://mesh.test/reviews",)},
        "`SPIFFE://mesh.test/reviews` is not a SPIFFE ID: expected it to begin with `spiffe://`",
    ),
    ({"uris": ("spiffe:mesh.test",)}, "`spiffe:mesh.test` is not a SPIFFE ID: expected it to begin with `spiffe://`"),
    ({"uris": (SPIFFE,)}, "the SPIFFE ID `spiffe://mesh.test` has no path: it is a trust domain's, not a workload's"),
    ({"uris": (f"{SPIFFE}/",)}, "the path `/` of a SPIFFE ID has an empty segment"),
    ({"uris": (f"{SPIFFE}/a/",)}, "the path `/a/` of a SPIFFE ID has an empty segment"),
    ({"uris": (f"{SPIFFE}//a",)}, "the path `//a` of a SPIFFE ID has an empty segment"),
    ({"uris": (f"{SPIFFE}/a/../b",)}, "the path `/a/../b` of a SPIFFE ID has a dot segment"),
    ({"uris": (f"{SPIFFE}/./a",)}, "the path `/./a` of a SPIFFE ID has a dot segment"),
    ({"uris": (f"{SPIFFE}/a?b=c",)}, "the SPIFFE ID `spiffe://mesh.test/a?b=c` has a query"),
    ({"uris": (f"{SPIFFE}/a#b",)}, "the SPIFFE ID `spiffe://mesh.test/a#b` has a fragment"),
    ({"uris": (f"{SPIFFE}/a%2Fb",)}, "the SPIFFE ID `spiffe://mesh.test/a%2Fb` has a percent-encoded character"),
    ({"uris": ("spiffe://mesh.test:8443/a",)}, "the SPIFFE ID `spiffe://mesh.test:8443/a` has a port"),
    ({"uris": ("spiffe://me@mesh.test/a",)}, "the SPIFFE ID `spiffe://me@mesh.test/a` has a user part"),
    (
        {"uris": (f"{SPIFFE}/a,b",)},
        "the path segment `a,b` of a SPIFFE ID has a character outside a-z A-Z 0-9 . - _",
    ),
    (
        {"uris": ("spiffe://Mesh.test/a",)},
        "`Mesh.test` is not a trust domain: expected 1 to 255 of the characters a-z 0-9 . - _",
    ),
    ({"uris": ("spiffe:///a",)}, "`` is not a trust domain: expected 1 to 255 of the characters a-z 0-9 . - _"),
    (
        {"uris": (f"{SPIFFE}/{'a' * 2030}",)},
        "the SPIFFE ID has 2049 bytes, at most 2048 are allowed",
    ),
    ({"uris": ("spiffe://other.test/ns/shop/sa/reviews",)}, "the trust domain `other.test` is not trusted"),
    ({"uris": ("spiffe://sub.mesh.test/a",)}, "the trust domain `sub.mesh.test` is not trusted"),
    # strength and form
    (
        {"key": rsa.generate_private_key(65537, 1024)},
        "the certificate has an RSA key of 1024 bits, at least 2048 are needed",
    ),
    (
        {"key": ec.generate_private_key(ec.SECP256K1())},
        "the certificate has a key on the curve secp256k1, only P-256 and P-384 are taken",
    ),
    (
        {"key": ec.generate_private_key(ec.SECP224R1())},
        "the certificate has a key on the curve secp224r1, only P-256 and P-384 are taken",
    ),
    ({"key": dsa.generate_private_key(2048)}, "the certificate has a key that is neither RSA, ECDSA nor Ed25519"),
    ({"key": ed448.Ed448PrivateKey.generate()}, "the certificate has a key that is neither RSA, ECDSA nor Ed25519"),
    # time
    ({"begin": NOW + 90}, "the certificate is not yet valid: it begins in 1m"),
    ({"end": NOW}, "the certificate expired 0s ago"),
    ({"end": NOW - 7200}, "the certificate expired 2h ago"),
    # signature
    ({"signer": KEYS["other"]}, "the certificate is not signed by the intermediate `CN=intermediate`"),
    ({"signer": KEYS["leaf"]}, "the certificate is not signed by the intermediate `CN=intermediate`"),
    (
        {"issuer": "somebody"},
        "the certificate was issued by `CN=somebody`, but the intermediate `CN=intermediate` follows in the chain",
    ),
    (
        {"issuer": "leaf", "signer": KEYS["leaf"]},
        "the certificate is self-signed and not a root of `mesh.test`",
    ),
    # what the intermediate may sign
    (
        {"emails": ("a@mesh.test",), "uris": (f"{SPIFFE}/a",), "extra": ((UNKNOWN_EXTENSION, True),)},
        "the certificate has the critical extension 1.2.3.4, which is not understood here",
    ),
]


@pytest.mark.parametrize(("changes", "expected"), BROKEN_LEAF)
def test_a_broken_leaf_is_refused_for_its_own_reason(changes: dict[str, object], expected: str) -> None:
    assert reason(judge(changed(LEAF, **changes), INTERMEDIATE)) == expected


NAME = "the intermediate `CN=intermediate`"
BROKEN_INTERMEDIATE: list[tuple[dict[str, object], str]] = [
    ({"basic": None}, f"{NAME} has no basicConstraints"),
    ({"basic": (False, None)}, f"{NAME} is not an authority (CA:FALSE)"),
    ({"usage": None}, f"{NAME} has no keyUsage"),
    ({"usage": ("crl_sign",)}, f"{NAME} may not sign certificates: its keyUsage lacks keyCertSign"),
    ({"uris": (f"{SPIFFE}/ca",)}, f"{NAME} has the SPIFFE ID `spiffe://mesh.test/ca`, an authority's has no path"),
    ({"begin": NOW + 1}, f"{NAME} is not yet valid: it begins in 1s"),
    ({"end": NOW - 3 * DAY}, f"{NAME} expired 3d ago"),
    (
        {"permitted": (x509.UniformResourceIdentifier("other.test"),)},
        f"`{REVIEWS}` is outside the name constraints of {NAME}",
    ),
    (
        {"permitted": (x509.UniformResourceIdentifier(".mesh.test"),)},
        f"`{REVIEWS}` is outside the name constraints of {NAME}",
    ),
    (
        {"permitted": (), "excluded": (x509.UniformResourceIdentifier("mesh.test"),)},
        f"`{REVIEWS}` is excluded by the name constraints of {NAME}",
    ),
    (
        {"extra": ((UNKNOWN_EXTENSION, True),)},
        f"{NAME} has the critical extension 1.2.3.4, which is not understood here",
    ),
    ({"signer": KEYS["other"]}, f"{NAME} carries the name of `CN=root` but not its signature"),
    ({"issuer": "elsewhere"}, f"{NAME} was issued by `CN=elsewhere`, which is unknown to `mesh.test`"),
    (
        {"issuer": "intermediate", "signer": KEYS["intermediate"]},
        f"{NAME} is self-signed and not a root of `mesh.test`",
    ),
]


@pytest.mark.parametrize(("changes", "expected"), BROKEN_INTERMEDIATE)
def test_a_broken_intermediate_is_refused_for_its_own_reason(changes: dict[str, object], expected: str) -> None:
    assert reason(judge(LEAF, changed(INTERMEDIATE, **changes))) == expected


BROKEN_ROOT: list[tuple[dict[str, object], str]] = [
    ({"basic": (True, 0)}, "the root allows 0 authorities below it, the chain has 1"),
    ({"basic": (False, None)}, "the root is not an authority (CA:FALSE)"),
    ({"end": NOW - 1}, "the root expired 1s ago"),
    ({"usage": (DIGITAL_SIGNATURE,)}, "the root may not sign certificates: its keyUsage lacks keyCertSign"),
    ({"key": KEYS["other"], "signer": KEYS["other"]}, f"{NAME} carries the name of `CN=root` but not its signature"),
    ({"name": "else", "issuer": "else"}, f"{NAME} was issued by `CN=root`, which is unknown to `mesh.test`"),
]


@pytest.mark.parametrize(("changes", "expected"), BROKEN_ROOT)
def test_a_broken_root_is_refused_for_its_own_reason(changes: dict[str, object], expected: str) -> None:
    assert reason(judge(LEAF, INTERMEDIATE, root=changed(ROOT, **changes))) == expected


def test_every_row_has_its_own_case_and_there_are_at_least_fifty() -> None:
    rows = [*BROKEN_LEAF, *BROKEN_INTERMEDIATE, *BROKEN_ROOT]
    assert len(rows) >= 50
    assert len({expected for _, expected in rows}) >= 50


def test_dns_and_mail_names_are_kept_to_the_constraints_on_them() -> None:
    narrow = changed(INTERMEDIATE, permitted=(x509.DNSName("shop.svc"), x509.RFC822Name("mesh.test")))
    assert isinstance(judge(changed(LEAF, dns=("reviews.shop.svc",)), narrow), Examined)
    assert reason(judge(changed(LEAF, dns=("notshop.svc",)), narrow)) == (
        f"`notshop.svc` is outside the name constraints of {NAME}"
    )
    assert reason(judge(changed(LEAF, emails=("a@mesh.test",)), narrow)) == (
        f"`a@mesh.test` is outside the name constraints of {NAME}"
    )


def test_a_leaf_may_not_sign_another_leaf() -> None:
    below = changed(LEAF, name="below", issuer="leaf", signer=KEYS["leaf"], key=KEYS["other"])
    assert reason(judge(below, LEAF, INTERMEDIATE)) == "the intermediate `CN=leaf` is not an authority (CA:FALSE)"


def test_a_path_length_counts_the_authorities_below() -> None:
    second = changed(INTERMEDIATE, name="second", key=KEYS["other"], signer=KEYS["intermediate"], issuer="intermediate")
    leaf = changed(LEAF, signer=KEYS["other"], issuer="second")
    assert reason(judge(leaf, second, INTERMEDIATE)) == f"{NAME} allows 0 authorities below it, the chain has 1"
    assert isinstance(judge(leaf, second, changed(INTERMEDIATE, basic=(True, 1))), Examined)


def test_a_weak_digest_is_refused(tmp_path: Path) -> None:
    """Made by openssl: the library that judges here no longer signs with SHA-1."""
    key = rsa.generate_private_key(65537, 2048)
    root = changed(ROOT, key=key, signer=key)
    (tmp_path / "root.crt").write_bytes(pem(root.certificate()))
    (tmp_path / "root.key").write_bytes(write_key(key))
    command = "openssl req -x509 -sha1 -days 1 -key root.key -CA root.crt -CAkey root.key -subj /CN=leaf -out leaf.crt"
    names = ["-addext", f"subjectAltName=URI:{REVIEWS}", "-addext", "keyUsage=critical,digitalSignature"]
    usage = ["-addext", "basicConstraints=critical,CA:FALSE"]
    subprocess.run([*command.split(), *names, *usage], cwd=tmp_path, check=True, capture_output=True)
    answer = validate_svid((tmp_path / "leaf.crt").read_bytes(), {MESH: bundle(root)}, NOW)
    assert reason(answer) == "the certificate is signed with SHA1, which is too weak"


NOT_PEM = [
    b"",
    b"hello",
    b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
    b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
    pem(LEAF.certificate())[:300],
]


@pytest.mark.parametrize("given", NOT_PEM)
def test_what_is_not_a_certificate_is_refused(given: bytes) -> None:
    assert reason(validate_svid(given, {MESH: bundle(ROOT)}, NOW)) == "not a PEM certificate"


def test_text_outside_ascii_is_refused() -> None:
    assert reason(validate_svid("ü", {MESH: bundle(ROOT)}, NOW)) == "not a PEM certificate"


def test_a_certificate_with_any_byte_changed_is_refused() -> None:
    """The signature covers everything but itself; a changed signature fails on its own."""
    der = LEAF.certificate().public_bytes(Encoding.DER)
    rest = pem(INTERMEDIATE.certificate())
    trusted = {MESH: bundle(ROOT)}
    for i in range(0, len(der), 3):
        broken = der[:i] + bytes([der[i] ^ 0x01]) + der[i + 1 :]
        body = base64.encodebytes(broken)
        given = b"-----BEGIN CERTIFICATE-----\n" + body + b"-----END CERTIFICATE-----\n" + rest
        assert isinstance(validate_svid(given, trusted, NOW), Rejection), f"byte {i}"


def test_a_chain_that_is_too_long_is_refused() -> None:
    given = pem(*[LEAF.certificate()] * 7)
    assert (
        reason(validate_svid(given, {MESH: bundle(ROOT)}, NOW)) == "the chain has 7 certificates, at most 6 are taken"
    )


def test_a_leaf_alone_finds_its_intermediate_in_the_bundle() -> None:
    given = pem(LEAF.certificate())
    assert isinstance(validate_svid(given, {MESH: bundle(ROOT, intermediates=(INTERMEDIATE,))}, NOW), Examined)
    assert reason(validate_svid(given, {MESH: bundle(ROOT)}, NOW)) == (
        "the certificate was issued by `CN=intermediate`, which is unknown to `mesh.test`"
    )


def test_a_bundle_speaks_only_for_its_own_trust_domain() -> None:
    other = TrustDomain("other.test")
    other_root = changed(ROOT, key=KEYS["other"], signer=KEYS["other"], name="other root", issuer="other root")
    forged = changed(LEAF, issuer="other root", signer=KEYS["other"])
    bundles = {MESH: bundle(ROOT), other: bundle(other_root, domain=other)}
    assert reason(validate_svid(pem(forged.certificate()), bundles, NOW)) == (
        "the certificate was issued by `CN=other root`, which is unknown to `mesh.test`"
    )
    honest = replace(forged, uris=("spiffe://other.test/ns/a/sa/b",))
    assert isinstance(validate_svid(pem(honest.certificate()), bundles, NOW), Examined)


def test_two_roots_of_one_name_are_told_apart_by_their_keys() -> None:
    twin = changed(ROOT, key=KEYS["other"], signer=KEYS["other"])
    given = pem(LEAF.certificate(), INTERMEDIATE.certificate())
    assert isinstance(validate_svid(given, {MESH: bundle(twin, ROOT)}, NOW), Examined)


def test_a_bundle_takes_roots_only() -> None:
    with pytest.raises(ValueError, match="which is not a root"):
        read_bundle(MESH, pem(INTERMEDIATE.certificate()))
    with pytest.raises(ValueError, match="is empty"):
        read_bundle(MESH, b"")
    with pytest.raises(ValueError, match="is not a list of PEM certificates"):
        read_bundle(MESH, b"nonsense")
    root, intermediate = ROOT.certificate(), INTERMEDIATE.certificate()
    read = read_bundle(MESH, pem(root), pem(intermediate))
    assert read.pem == pem(root)
    assert [digest(c) for c in read.intermediates] == [digest(intermediate)]

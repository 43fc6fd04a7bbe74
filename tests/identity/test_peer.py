"""The peer's certificate as evidence, request by request."""

from dataclasses import replace

import pytest

from authz.core.spiffe import TrustDomain
from authz.identity.bundle import TrustBundle
from authz.identity.peer import judge_peer
from authz.identity.revocation import Revocations, read_revocations
from tests.identity.certificates import DAY, INTERMEDIATE, KEYS, LEAF, NOW, REVIEWS, ROOT, changed, pem

MESH, OTHER = TrustDomain("mesh.test"), TrustDomain("other.test")
CERTIFICATE = pem(LEAF.certificate()).decode()
OTHER_ROOT = changed(ROOT, name="other root", issuer="other root", key=KEYS["other"], signer=KEYS["other"])
OTHER_LEAF = changed(LEAF, uris=("spiffe://other.test/ns/a/sa/b",), issuer="other root", signer=KEYS["other"])
BUNDLES = {
    MESH: TrustBundle(MESH, (ROOT.certificate(),), (INTERMEDIATE.certificate(),)),
    OTHER: TrustBundle(OTHER, (OTHER_ROOT.certificate(),)),
}
ROTATED = changed(ROOT, key=KEYS["leaf"], signer=KEYS["leaf"])


@pytest.mark.parametrize("principal", [REVIEWS, REVIEWS.removeprefix("spiffe://")])
def test_the_rightful_holder_passes(principal: str) -> None:
    assert judge_peer(CERTIFICATE, principal, BUNDLES, now=NOW) is None


def test_a_federated_peer_passes_by_its_own_bundle() -> None:
    other = pem(OTHER_LEAF.certificate()).decode()
    assert judge_peer(other, "spiffe://other.test/ns/a/sa/b", BUNDLES, now=NOW) is None


def test_plaintext_has_nothing_to_judge() -> None:
    assert judge_peer("", "", BUNDLES, now=NOW) is None


def leaf_pem(**changes: object) -> str:
    return pem(changed(LEAF, **changes).certificate()).decode()


REFUSED: list[tuple[str, str, str, float, str]] = [
    ("no certificate", "", REVIEWS, NOW, "the peer's certificate was not sent, so its identity has no evidence"),
    ("no identity", CERTIFICATE, "", NOW, "there is a peer certificate but no peer identity"),
    (
        "another workload's certificate",
        CERTIFICATE,
        "spiffe://mesh.test/ns/shop/sa/ratings",
        NOW,
        f"the peer's certificate is `{REVIEWS}`'s, not `spiffe://mesh.test/ns/shop/sa/ratings`'s",
    ),
    ("expired", CERTIFICATE, REVIEWS, NOW + 2 * DAY, "the certificate expired 1d ago"),
    ("not yet valid", CERTIFICATE, REVIEWS, NOW - 2 * DAY, "the certificate is not yet valid: it begins in 1d"),
    (
        "a trust domain nobody knows",
        leaf_pem(uris=("spiffe://evil.test/ns/shop/sa/reviews",)),
        "spiffe://evil.test/ns/shop/sa/reviews",
        NOW,
        "the trust domain `evil.test` is not trusted",
    ),
    (
        "self-made",
        leaf_pem(issuer="leaf", signer=KEYS["leaf"]),
        REVIEWS,
        NOW,
        "the certificate is self-signed and not a root of `mesh.test`",
    ),
    (
        "signed by a key of one's own under our name",
        leaf_pem(signer=KEYS["other"]),
        REVIEWS,
        NOW,
        "the certificate carries the name of `CN=intermediate` but not its signature",
    ),
    (
        "our identity from a federated authority",
        leaf_pem(issuer="other root", signer=KEYS["other"]),
        REVIEWS,
        NOW,
        "the certificate was issued by `CN=other root`, which is unknown to `mesh.test`",
    ),
    (
        "a federated identity from our authority",
        leaf_pem(uris=("spiffe://other.test/ns/a/sa/b",)),
        "spiffe://other.test/ns/a/sa/b",
        NOW,
        "the certificate was issued by `CN=intermediate`, which is unknown to `other.test`",
    ),
    ("garbage", "garbage", REVIEWS, NOW, "not a PEM certificate"),
    ("a principal that is no SPIFFE ID", CERTIFICATE, "CN=reviews", NOW, "`CN=reviews` is not a trust domain: exp"),
]


@pytest.mark.parametrize(
    ("certificate", "principal", "now", "reason"), [row[1:] for row in REFUSED], ids=[r[0] for r in REFUSED]
)
def test_everybody_else_is_refused(certificate: str, principal: str, now: float, reason: str) -> None:
    answer = judge_peer(certificate, principal, BUNDLES, now=now)
    assert answer is not None
    assert answer.startswith(reason)


def test_revocation_refuses_by_serial_number_and_by_identity() -> None:
    by_serial = Revocations(serials=frozenset({LEAF.serial}))
    by_identity = Revocations(spiffe_ids=frozenset({REVIEWS}))
    assert judge_peer(CERTIFICATE, REVIEWS, BUNDLES, by_serial, NOW) == (
        "the certificate with serial number 1234 is revoked"
    )
    assert judge_peer(CERTIFICATE, REVIEWS, BUNDLES, by_identity, NOW) == f"the identity `{REVIEWS}` is revoked"
    assert judge_peer(CERTIFICATE, REVIEWS, BUNDLES, Revocations(), NOW) is None


def test_a_changed_bundle_is_not_answered_from_the_cache() -> None:
    assert judge_peer(CERTIFICATE, REVIEWS, BUNDLES, now=NOW) is None
    rotated = {MESH: TrustBundle(MESH, (ROTATED.certificate(),), BUNDLES[MESH].intermediates)}
    assert judge_peer(CERTIFICATE, REVIEWS, rotated, now=NOW) == (
        "the intermediate `CN=intermediate` carries the name of `CN=root` but not its signature"
    )


def test_an_expired_intermediate_refuses_too() -> None:
    old = replace(INTERMEDIATE, end=NOW - 1)
    bundles = {MESH: TrustBundle(MESH, (ROOT.certificate(),), (old.certificate(),))}
    assert judge_peer(CERTIFICATE, REVIEWS, bundles, now=NOW) == ("the intermediate `CN=intermediate` expired 1s ago")


LIST = f"""
# left the company
{REVIEWS}   # everything of it
serial:1234
serial: 0A:ff
"""


def test_a_revocation_list_is_read() -> None:
    revocations, problems = read_revocations("revoked.txt", LIST)
    assert problems == ()
    assert revocations == Revocations(frozenset({0x1234, 0xAFF}), frozenset({REVIEWS}))


BROKEN_LISTS = [
    ("serial:xyz", "`serial:xyz` is not a serial number"),
    ("serial:", "`serial:` is not a serial number"),
    ("1234", "`1234` is not a SPIFFE ID: expected it to begin with `spiffe://`"),
    ("spiffe://mesh.test/a/../b", "the path `/a/../b` of a SPIFFE ID has a dot segment"),
]


@pytest.mark.parametrize(("line", "message"), BROKEN_LISTS)
def test_a_revocation_list_that_is_half_understood_is_refused(line: str, message: str) -> None:
    _, (problem,) = read_revocations("revoked.txt", f"# first\n{line}\n")
    assert problem.is_error
    assert (str(problem.location), problem.message) == ("revoked.txt:2:1", message)

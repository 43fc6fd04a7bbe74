"""Who may have which identity: entries, join tokens, the registrar, its limit and its record."""

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from authz.core.spiffe import SpiffeId, TrustDomain
from authz.identity.ca import CertificateAuthority, Issued
from authz.identity.join_tokens import TakenToken, TokenDirectory, make_token
from authz.identity.keys import PublicKey, generate_key, key_bytes
from authz.identity.ledger import Ledger
from authz.identity.registrar import (
    Cause,
    Issuance,
    Refused,
    Registrar,
    SigningLimit,
    read_certificate_request,
    write_certificate_request,
)
from authz.identity.registration import (
    Evidence,
    Grant,
    RegistrationEntry,
    SvidPeer,
    TokenBearer,
    UnixPeer,
    binary_selectors,
    granted,
    read_entries,
)
from authz.identity.revocation import Revocations
from authz.identity.svid_validation import Rejection
from tests.identity.certificates import KEYS, NOW

MESH = TrustDomain("mesh.test")
REVIEWS, RATINGS, NODE = (SpiffeId(MESH, path) for path in ("/ns/shop/sa/reviews", "/ns/shop/sa/ratings", "/node/a"))

FILE = b"""
entries:
- spiffeID: spiffe://mesh.test/ns/shop/sa/reviews
  selectors: [unix:uid:1000, unix:gid:100]
  x509SVIDTTL: 600
  dns: [reviews.shop.svc]
  federatesWith: [other.test, "spiffe://third.test"]
- spiffeID: spiffe://mesh.test/ns/shop/sa/ratings
  parentID: spiffe://mesh.test/node/a
"""


def entries() -> tuple[RegistrationEntry, ...]:
    found, problems = read_entries("entries.yaml", FILE, MESH)
    assert problems == ()
    return found


def test_entries_are_read_as_written() -> None:
    domains = (TrustDomain("other.test"), TrustDomain("third.test"))
    assert entries() == (
        RegistrationEntry(
            Grant(REVIEWS, 600, ("reviews.shop.svc",), domains), frozenset({"unix:uid:1000", "unix:gid:100"})
        ),
        RegistrationEntry(Grant(RATINGS), parent_id=NODE),
    )


GRANTED: list[tuple[Evidence, set[SpiffeId]]] = [
    (UnixPeer(1000, 100), {REVIEWS}),
    (UnixPeer(1000, 101), set()),
    (UnixPeer(100, 1000), set()),
    (UnixPeer(0, 0), set()),
    (UnixPeer(1000, 100, "/usr/bin/reviews", "ab" * 32), {REVIEWS}),
    (SvidPeer(REVIEWS, 1), {REVIEWS}),
    (SvidPeer(NODE, 1), {NODE, RATINGS}),
    (TokenBearer(NODE), {NODE}),
    (TokenBearer(REVIEWS), {REVIEWS}),
]


@pytest.mark.parametrize(("evidence", "expected"), GRANTED)
def test_evidence_is_good_for_exactly_what_the_entries_say(evidence: Evidence, expected: set[SpiffeId]) -> None:
    assert set(granted(entries(), evidence)) == {str(spiffe_id) for spiffe_id in expected}


def test_a_renewal_keeps_the_life_and_names_of_the_entry() -> None:
    assert granted(entries(), SvidPeer(REVIEWS, 1))[str(REVIEWS)].ttl_seconds == 600


def entry(text: str) -> bytes:
    return f"entries:\n- {{ {text} }}\n".encode()


GOOD = "spiffeID: spiffe://mesh.test/a, selectors: ['unix:uid:1']"
BROKEN = [
    (b"entries: [", 2, "not YAML: "),
    (b"\xff", 1, "the file is not UTF-8: byte 0xff is an invalid start byte"),
    (b"[" * 65 + b"]" * 65, 1, "nested deeper than 64 levels"),
    (b"entries: []\n---\nentries: []", 3, "expected one document with one list `entries`"),
    (b"[]", 1, "expected a mapping"),
    (b"entrys: []", 1, "unknown field `entrys`; did you mean `entries`?"),
    (b"entries: 3", 1, "expected a list"),
    (b"entries: [3]", 1, "expected a mapping"),
    (entry("selectors: ['unix:uid:1']"), 2, "`spiffeID` is missing"),
    (
        entry(GOOD + ", spiffeID: spiffe://mesh.test/b"),
        2,
        "the key `spiffeID` is given twice, first at entries.yaml:2:5",
    ),
    (entry(GOOD + ", selector: []"), 2, "unknown field `selector`; did you mean `selectors`?"),
    (entry("spiffeID: spiffe://mesh.test, selectors: ['unix:uid:1']"), 2, "`spiffe://mesh.test` has no path"),
    (
        entry("spiffeID: spiffe://other.test/a, selectors: ['unix:uid:1']"),
        2,
        "`spiffe://other.test/a` is not in the trust domain `mesh.test`",
    ),
    (
        entry("spiffeID: mesh.test/a, selectors: ['unix:uid:1']"),
        2,
        "`mesh.test/a` is not a SPIFFE ID: expected it to begin with `spiffe://`",
    ),
    (
        entry("spiffeID: spiffe://mesh.test/a"),
        2,
        "exactly one of `selectors` (local processes) and `parentID` (a holder of that SVID) is needed",
    ),
    (
        entry(GOOD + ", parentID: spiffe://mesh.test/b"),
        2,
        "exactly one of `selectors` (local processes) and `parentID` (a holder of that SVID) is needed",
    ),
    (entry("spiffeID: spiffe://mesh.test/a, selectors: ['unix:user:me']"), 2, "`unix:user:me` is not a selector kn"),
    (entry("spiffeID: spiffe://mesh.test/a, selectors: ['unix:uid:-1']"), 2, "`unix:uid:-1` is not a selector kn"),
    (entry("spiffeID: spiffe://mesh.test/a, selectors: ['unix:path:bin/a']"), 2, "`unix:path:bin/a` is not a selec"),
    (entry("spiffeID: spiffe://mesh.test/a, selectors: ['unix:path:/a/']"), 2, "`unix:path:/a/` is not a selector"),
    (entry("spiffeID: spiffe://mesh.test/a, selectors: ['unix:sha256:ABC']"), 2, "`unix:sha256:ABC` is not a selec"),
    (entry(GOOD + ", jwtSVIDTTL: 3601"), 2, "expected whole seconds from 1 to 3600"),
    (entry("spiffeID: spiffe://mesh.test/a, selectors: 'unix:uid:1'"), 2, "expected a list of strings"),
    (entry("spiffeID: spiffe://mesh.test/a, selectors: []"), 2, "an empty list would be for nobody"),
    (entry(GOOD + ", x509SVIDTTL: 0"), 2, "expected whole seconds from 1 to 2592000"),
    (entry(GOOD + ", x509SVIDTTL: 1h"), 2, "expected whole seconds from 1 to 2592000"),
    (entry(GOOD + ", dns: ['a b']"), 2, "`a b` is not a DNS name"),
    (entry(GOOD + ", dns: ['a..b']"), 2, "`a..b` is not a DNS name"),
    (entry(GOOD + f", dns: ['{'a' * 64}.b']"), 2, f"`{'a' * 64}.b` is not a DNS name"),
    (entry(GOOD + ", federatesWith: [UPPER]"), 2, "`UPPER` is not a trust domain"),
]


@pytest.mark.parametrize(("data", "line", "message"), BROKEN)
def test_a_broken_file_of_entries_says_where_and_what(data: bytes, line: int, message: str) -> None:
    read, problems = read_entries("entries.yaml", data, MESH)
    assert read == ()
    assert problems[0].message.startswith(message)
    assert problems[0].location.line == line
    assert all(problem.is_error for problem in problems)


def test_every_problem_is_reported_at_once() -> None:
    data = entry(GOOD + ", x509SVIDTTL: 0") + b"- { selectors: [nonsense] }\n"
    _, problems = read_entries("entries.yaml", data, MESH)
    assert [problem.path for problem in problems] == ["entries[0].x509SVIDTTL", "entries[1]", "entries[1].selectors[0]"]


# The registrar


class Desk:
    """A registrar and its record."""

    def __init__(self, limit: SigningLimit | None = None, revocations: Revocations | None = None) -> None:
        self.records: list[Issuance] = []
        self.registrar = Registrar(
            CertificateAuthority.create("mesh.test", NOW),
            entries(),
            revocations or Revocations(),
            limit or SigningLimit(),
            self.records.append,
        )


def test_what_is_granted_is_issued_and_recorded() -> None:
    desk = Desk()
    issued = desk.registrar.issue(UnixPeer(1000, 100), REVIEWS, NOW)
    assert isinstance(issued, Issued)
    assert issued.not_after == NOW + 600
    (record,) = desk.records
    assert (record.evidence, record.spiffe_id, record.is_issued) == ("unix:uid:1000,gid:100", str(REVIEWS), True)
    assert (record.serial, record.authority_id) == (issued.serial, issued.authority_id)


REVOKED = Revocations(frozenset({7}), frozenset({str(REVIEWS)}))
REFUSED: list[tuple[Evidence, SpiffeId, Revocations, str]] = [
    (UnixPeer(1, 1), REVIEWS, Revocations(), f"no registration entry grants `{REVIEWS}` to unix:uid:1,gid:1"),
    (UnixPeer(1000, 100), RATINGS, Revocations(), f"no registration entry grants `{RATINGS}` to unix:uid:1000,gid:100"),
    (SvidPeer(REVIEWS, 1), RATINGS, Revocations(), f"no registration entry grants `{RATINGS}` to {REVIEWS}"),
    (TokenBearer(NODE), RATINGS, Revocations(), f"no registration entry grants `{RATINGS}` to join-token:{NODE}"),
    (SvidPeer(NODE, 7), NODE, REVOKED, "the certificate with serial number 7 is revoked"),
    (UnixPeer(1000, 100), REVIEWS, REVOKED, f"the identity `{REVIEWS}` is revoked"),
]


@pytest.mark.parametrize(("evidence", "wanted", "revocations", "reason"), REFUSED)
def test_everything_else_is_refused_and_recorded(
    evidence: Evidence, wanted: SpiffeId, revocations: Revocations, reason: str
) -> None:
    desk = Desk(revocations=revocations)
    assert desk.registrar.issue(evidence, wanted, NOW) == Refused(reason)
    (record,) = desk.records
    assert (record.is_issued, record.reason, record.spiffe_id) == (False, reason, str(wanted))


def test_an_identity_of_another_trust_domain_is_never_signed() -> None:
    desk = Desk()
    foreign = SpiffeId.parse("spiffe://other.test/a")
    assert desk.registrar.issue(SvidPeer(foreign, 1), foreign, NOW) == Refused(
        "`spiffe://other.test/a` is not in the trust domain `mesh.test`"
    )


def test_signing_is_limited_for_each_peer() -> None:
    desk = Desk(SigningLimit(per_peer=1, burst=2))
    peer = UnixPeer(1000, 100)
    answers = [desk.registrar.issue(peer, REVIEWS, NOW) for _ in range(3)]
    assert [isinstance(answer, Issued) for answer in answers] == [True, True, False]
    assert answers[2] == Refused("too many certificates for unix:uid:1000,gid:100, try again later", Cause.LIMIT)
    assert isinstance(desk.registrar.issue(SvidPeer(REVIEWS, 1), REVIEWS, NOW), Issued)
    assert isinstance(desk.registrar.issue(peer, REVIEWS, NOW + 1), Issued)


def test_signing_is_limited_for_all_together() -> None:
    limit = SigningLimit(per_peer=10, burst=10, total=1, total_burst=2)
    assert [limit.take(str(peer), NOW) for peer in range(3)] == [True, True, False]
    assert limit.take("later", NOW + 1)
    assert not limit.take("a clock that runs backwards fills nothing", NOW)


# Certificate requests


def test_a_request_proves_its_key() -> None:
    key = generate_key()
    read = read_certificate_request(write_certificate_request(key))
    assert not isinstance(read, Refused)
    assert key_bytes(read) == key_bytes(key.public_key())


def tampered() -> bytes:
    """A request whose signature is of another key."""
    name = x509.Name([])
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    one, two = (builder.sign(KEYS[k], hashes.SHA256()).public_bytes(Encoding.DER) for k in ("leaf", "other"))
    keys = [key_bytes(KEYS[k].public_key()) for k in ("leaf", "other")]
    request = x509.load_der_x509_csr(one.replace(keys[0], keys[1]))
    assert two != one
    return request.public_bytes(Encoding.PEM)


def weak() -> bytes:
    key = rsa.generate_private_key(65537, 1024)
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return request.public_bytes(Encoding.PEM)


BAD_REQUESTS = [
    (b"", "not a PEM certificate request"),
    (
        b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
        "not a PEM certificate request",
    ),
    (tampered(), "the certificate request is not signed by its own key"),
    (weak(), "the certificate request has an RSA key of 1024 bits, at least 2048 are needed"),
]


@pytest.mark.parametrize(("request_pem", "reason"), BAD_REQUESTS)
def test_a_bad_request_is_refused(request_pem: bytes, reason: str) -> None:
    answer: PublicKey | Refused = read_certificate_request(request_pem)
    assert answer == Refused(reason, Cause.REQUEST)


# Join tokens


def kept_token(directory: Path, ttl_seconds: float = 60) -> str:
    text, token = make_token(b"r" * 32, REVIEWS, NOW, ttl_seconds)
    TokenDirectory(directory).store(token)
    return text


def test_a_token_is_good_once(tmp_path: Path) -> None:
    text = kept_token(tmp_path)
    taken = TokenDirectory(tmp_path).take(text, NOW)
    assert isinstance(taken, TakenToken)
    assert taken.spiffe_id == REVIEWS
    taken.spend()
    assert TokenDirectory(tmp_path).take(text, NOW) == Rejection("the join token is unknown or was used before")
    assert list(tmp_path.iterdir()) == []


def test_only_the_digest_of_a_token_is_kept(tmp_path: Path) -> None:
    text = kept_token(tmp_path)
    (kept,) = tmp_path.iterdir()
    assert text not in kept.name + kept.read_text()
    assert kept.stat().st_mode & 0o777 == 0o600


def test_an_expired_token_is_spent_by_the_attempt(tmp_path: Path) -> None:
    text = kept_token(tmp_path)
    assert TokenDirectory(tmp_path).take(text, NOW + 60) == Rejection("the join token has expired")
    assert TokenDirectory(tmp_path).take(text, NOW) == Rejection("the join token is unknown or was used before")


@pytest.mark.parametrize("text", ["", "x", "../../etc/passwd", "\ud800", "r" * 10_000])
def test_a_made_up_token_is_unknown(tmp_path: Path, text: str) -> None:
    kept_token(tmp_path)
    assert TokenDirectory(tmp_path).take(text, NOW) == Rejection("the join token is unknown or was used before")
    assert len(list(tmp_path.iterdir())) == 1


def test_a_token_needs_randomness_and_a_workload() -> None:
    with pytest.raises(ValueError, match="32 random bytes"):
        make_token(b"short", REVIEWS, NOW, 60)
    with pytest.raises(ValueError, match="has no path"):
        make_token(b"r" * 32, SpiffeId(MESH), NOW, 60)


# The ledger


def test_the_ledger_gives_back_what_was_recorded_and_skips_torn_lines(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "issued.jsonl")
    first = Issuance(NOW, "unix:uid:1,gid:1", str(REVIEWS), True, serial=0xAB, not_after=NOW + 1, authority_id="x")
    second = Issuance(NOW, "evil", "", False, "no\nnewline")
    ledger.record(first)
    with ledger.path.open("a") as file:
        file.write('{"torn": \n{"unknown": 1}\n')
    ledger.record(second)
    assert list(ledger.read()) == [first, second]


def test_a_long_ledger_begins_a_new_file_and_keeps_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("authz.identity.ledger.MAX_BYTES", 300)
    ledger = Ledger(tmp_path / "issued.jsonl")
    for serial in range(5):
        ledger.record(Issuance(NOW, "unix", str(REVIEWS), True, serial=serial))
    assert [issuance.serial for issuance in ledger.read()][-1] == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["issued.jsonl", "issued.jsonl.1"]


BINARY = "/opt/app: v2/reviews"
DIGEST = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("peer", "is_granted"),
    [
        (UnixPeer(1000, 1, BINARY, DIGEST), True),
        (UnixPeer(1000, 1, BINARY, "f" * 64), False),
        (UnixPeer(1000, 1, "/usr/bin/other", DIGEST), False),
        (UnixPeer(1000, 1, BINARY), False),
        (UnixPeer(1000, 1, "", DIGEST), False),
        (UnixPeer(1000, 1), False),
        (UnixPeer(1001, 1, BINARY, DIGEST), False),
    ],
)
def test_a_binary_that_an_entry_names_must_be_known(peer: UnixPeer, is_granted: bool) -> None:
    text = f"spiffeID: {REVIEWS}, selectors: ['unix:uid:1000', 'unix:path:{BINARY}', 'unix:sha256:{DIGEST}']"
    found, problems = read_entries("entries.yaml", entry(text), TrustDomain("mesh.test"))
    assert problems == ()
    assert binary_selectors(found) == {"path", "sha256"}
    assert bool(granted(found, peer)) is is_granted


def test_nobody_looks_at_binaries_that_no_entry_names() -> None:
    assert binary_selectors(entries()) == frozenset()


def test_a_changed_life_of_tokens_is_no_reason_to_renew_a_certificate() -> None:
    assert Grant(REVIEWS, jwt_ttl_seconds=60) == Grant(REVIEWS)

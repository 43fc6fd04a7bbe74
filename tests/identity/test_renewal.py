"""When certificates are renewed, root rotation step by step, and drift between issued and served."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from authz.core.spiffe import SpiffeId, TrustDomain
from authz.identity.authority import AuthorityState
from authz.identity.ca import CertificateAuthority, Issued
from authz.identity.drift import (
    Expected,
    expected_serials,
    find_drift,
    read_served,
    serials_of_files,
    still_served,
    trusts,
)
from authz.identity.registrar import Issuance, Refused, Registrar, SigningLimit
from authz.identity.registration import Grant, RegistrationEntry, UnixPeer
from authz.identity.renewal import Shelf, renewal_time
from authz.identity.revocation import Revocations
from authz.identity.rotation import activate, prepare, retire, taint
from authz.identity.svid_validation import Examined, Rejection, validate_svid
from tests.identity.certificates import NOW

MESH = TrustDomain("mesh.test")
REVIEWS = SpiffeId(MESH, "/ns/shop/sa/reviews")
PEER = UnixPeer(1000, 100)
HOLDER = (PEER, REVIEWS)


@pytest.mark.parametrize(("jitter", "expected"), [(0.0, 450.0), (0.5, 500.0), (1.0, 550.0)])
def test_renewal_is_at_half_life_give_or_take_a_twentieth(jitter: float, expected: float) -> None:
    assert renewal_time(0.0, 1000.0, jitter) == pytest.approx(expected)


def registrar(ttl_seconds: float = 1000, limit: SigningLimit | None = None) -> Registrar:
    entry = RegistrationEntry(Grant(REVIEWS, ttl_seconds), frozenset({"unix:uid:1000"}))
    return Registrar(CertificateAuthority.create("mesh.test", NOW), (entry,), limit=limit or SigningLimit())


def shelf(of: Registrar) -> Shelf:
    return Shelf(of, lambda: 0.5)


def got(answer: Issued | Refused) -> Issued:
    assert isinstance(answer, Issued)
    return answer


def test_the_same_certificate_is_given_until_it_is_renewed() -> None:
    kept = shelf(registrar())
    first = got(kept.get(PEER, REVIEWS, NOW))
    assert kept.get(PEER, REVIEWS, NOW + 100) is first
    assert kept.renew_due(NOW + 100, {HOLDER}) == ()
    assert kept.next_due() is not None
    assert kept.renew_due(NOW + 500, {HOLDER}) == (HOLDER,)
    second = got(kept.get(PEER, REVIEWS, NOW + 500))
    assert second.serial != first.serial
    assert second.not_after == NOW + 1500


def test_two_peers_never_share_a_key() -> None:
    kept = shelf(registrar())
    one, two = (got(kept.get(UnixPeer(1000, gid), REVIEWS, NOW)) for gid in (1, 2))
    assert one.key_pem != two.key_pem


def test_what_nobody_listens_to_is_not_renewed() -> None:
    kept = shelf(registrar())
    kept.get(PEER, REVIEWS, NOW)
    assert kept.renew_due(NOW + 900, set()) == ()
    assert kept.next_due() is None


def test_a_very_short_life_is_not_due_at_once() -> None:
    kept = shelf(registrar(ttl_seconds=2))
    kept.get(PEER, REVIEWS, NOW)
    assert kept.renew_due(NOW + 0.5, {HOLDER}) == ()
    assert kept.renew_due(NOW + 1, {HOLDER}) == (HOLDER,)


def test_a_failed_renewal_keeps_the_old_certificate_and_is_tried_again() -> None:
    desk = registrar(limit=SigningLimit(per_peer=0.01, burst=1))
    kept = shelf(desk)
    first = got(kept.get(PEER, REVIEWS, NOW))
    desk.limit.take(f"{PEER} {REVIEWS}", NOW + 499)  # spends what had filled up
    assert kept.renew_due(NOW + 500, {HOLDER}) == ()
    assert kept.kept[HOLDER].failure.startswith("too many certificates")
    assert kept.get(PEER, REVIEWS, NOW + 501) is first
    assert kept.renew_due(NOW + 501, {HOLDER}) == ()
    assert kept.renew_due(NOW + 650, {HOLDER}) == (HOLDER,)
    assert kept.kept[HOLDER].failure == ""


def test_an_entry_that_is_gone_ends_the_service() -> None:
    desk = registrar()
    kept = shelf(desk)
    kept.get(PEER, REVIEWS, NOW)
    desk.entries = ()
    assert isinstance(kept.get(PEER, REVIEWS, NOW + 1), Refused)
    assert kept.next_due() is None


def test_a_changed_entry_takes_effect_at_once() -> None:
    desk = registrar()
    kept = shelf(desk)
    first = got(kept.get(PEER, REVIEWS, NOW))
    desk.entries = registrar(ttl_seconds=500).entries
    second = got(kept.get(PEER, REVIEWS, NOW + 1))
    assert (second.serial != first.serial, second.not_after) == (True, NOW + 501)
    assert kept.get(PEER, REVIEWS, NOW + 2) is second


def test_a_changed_entry_waits_for_the_limit_with_the_old_certificate() -> None:
    desk = registrar(limit=SigningLimit(per_peer=0.01, burst=1))
    kept = shelf(desk)
    first = got(kept.get(PEER, REVIEWS, NOW))
    desk.entries = registrar(ttl_seconds=500).entries
    assert kept.get(PEER, REVIEWS, NOW + 1) is first
    assert got(kept.get(PEER, REVIEWS, NOW + 101)).not_after == NOW + 601


def test_a_revoked_serial_number_is_replaced_and_a_revoked_identity_is_not() -> None:
    desk = registrar()
    kept = shelf(desk)
    first = got(kept.get(PEER, REVIEWS, NOW))
    desk.revocations = Revocations(frozenset({first.serial}))
    second = got(kept.get(PEER, REVIEWS, NOW + 1))
    assert second.serial != first.serial
    assert kept.get(PEER, REVIEWS, NOW + 2) is second
    desk.revocations = Revocations(spiffe_ids=frozenset({str(REVIEWS)}))
    assert isinstance(kept.get(PEER, REVIEWS, NOW + 3), Refused)


def test_what_a_tainted_authority_signed_is_renewed_at_once() -> None:
    desk = registrar()
    kept = shelf(desk)
    old = desk.ca.active.id
    kept.get(PEER, REVIEWS, NOW)
    desk.ca = taint(activate(prepare(desk.ca, NOW)))
    assert kept.renew_due(NOW + 1, {HOLDER}, {old}) == (HOLDER,)
    assert got(kept.get(PEER, REVIEWS, NOW + 1)).authority_id == desk.ca.active.id


# Root rotation


def states(ca: CertificateAuthority) -> list[str]:
    return [authority.state.value for authority in ca.authorities]


def test_the_root_changes_in_four_steps_with_overlap() -> None:
    first = CertificateAuthority.create("mesh.test", NOW)
    before = first.issue_svid(REVIEWS, NOW)
    prepared = prepare(first, NOW)
    assert states(prepared) == ["active", "prepared"]
    assert prepared.issue_svid(REVIEWS, NOW).authority_id == first.active.id
    activated = activate(prepared)
    assert states(activated) == ["old", "active"]
    after = activated.issue_svid(REVIEWS, NOW)
    tainted = taint(activated)
    assert states(tainted) == ["tainted", "active"]
    retired = retire(tainted)
    assert states(retired) == ["active"]

    def holds(ca: CertificateAuthority, issued: Issued) -> bool:
        return isinstance(validate_svid(issued.chain_pem, {MESH: ca.trust_bundle}, NOW), Examined)

    assert [holds(ca, before) for ca in (first, prepared, activated, tainted, retired)] == [True] * 4 + [False]
    assert [holds(ca, after) for ca in (first, prepared, activated, tainted, retired)] == [False] + [True] * 4


def test_one_can_go_back_until_the_old_one_is_tainted() -> None:
    prepared = prepare(CertificateAuthority.create("mesh.test", NOW), NOW)
    old = prepared.active.id
    assert activate(activate(prepared), old).active.id == old
    assert states(retire(prepared, prepared.authorities[1].id)) == ["active"]


def test_a_step_out_of_order_is_refused_with_its_reason() -> None:
    ca = CertificateAuthority.create("mesh.test", NOW)
    prepared = prepare(ca, NOW)
    activated = activate(prepared)
    old, new = (authority.id for authority in activated.authorities)
    steps: list[tuple[Callable[[], CertificateAuthority], str]] = [
        (lambda: prepare(prepared, NOW), f"the authority `{new}` is prepared already; activate or retire it first"),
        (lambda: prepare(activated, NOW, adopted=activated.active), f"the authority `{new}` is here already"),
        (lambda: activate(ca), f"no authority is prepared; name one of {ca.active.id} (active)"),
        (lambda: activate(activated, new), f"the authority `{new}` is active already"),
        (lambda: activate(taint(activated), old), f"the authority `{old}` is tainted and cannot sign again"),
        (lambda: taint(ca), f"no authority is old; name one of {ca.active.id} (active)"),
        (lambda: taint(ca, ca.active.id), f"the authority `{old}` is active; only an old one can be tainted"),
        (lambda: retire(ca), f"no authority is tainted; name one of {ca.active.id} (active)"),
        (lambda: retire(ca, ca.active.id), f"the authority `{old}` is active; activate another one first"),
        (
            lambda: retire(activated, old),
            f"the authority `{old}` is old but not tainted; its certificates may still be in use",
        ),
        (lambda: retire(ca, "nobody"), f"there is no authority `nobody`; known are {old}"),
    ]
    for step, message in steps:
        with pytest.raises(ValueError) as caught:
            step()
        assert str(caught.value) == message


def test_a_prepared_authority_does_not_count_as_active() -> None:
    prepared = prepare(CertificateAuthority.create("mesh.test", NOW), NOW)
    assert prepared.authorities[1].state is AuthorityState.PREPARED
    with pytest.raises(ValueError, match="exactly one active authority, got 2"):
        replace(prepared, authorities=tuple(replace(a, state=AuthorityState.ACTIVE) for a in prepared.authorities))


# Drift

LEAF = 0xA1
ROOT = 0xB1


def certs(serial: int = LEAF, end: str = "2027-01-16T08:00:00Z", roots: tuple[int, ...] = (ROOT,)) -> str:
    """An answer of ``/certs``; NOW is 2027-01-15T08:00:00Z."""

    def one(number: int, names: list[dict[str, str]]) -> dict[str, object]:
        times = {"valid_from": "2027-01-14T08:00:00Z", "expiration_time": end, "days_until_expiration": "1"}
        return {"path": "<inline>", "serial_number": f"{number:x}", "subject_alt_names": names, **times}

    entry = {
        "cert_chain": [one(serial, [{"uri": str(REVIEWS)}, {"dns": "reviews"}])],
        "ca_cert": [one(root, [{"uri": "spiffe://mesh.test"}]) for root in roots],
    }
    return json.dumps({"certificates": [entry]})


EXPECTED = Expected({str(REVIEWS): frozenset({LEAF})}, frozenset({ROOT}))
DRIFTS: list[tuple[str, str, Expected, list[str]]] = [
    ("as issued", certs(), EXPECTED, []),
    ("nothing known", certs(), Expected(), []),
    ("expired", certs(end="2027-01-15T07:59:00Z"), EXPECTED, ["serves a certificate that expired 60 s ago"]),
    (
        "a third of the life left, not renewed",
        certs(end="2027-01-15T12:00:00Z"),
        EXPECTED,
        ["serves a certificate that expires in 14400 s and was not renewed"],
    ),
    ("superseded", certs(0xA2), EXPECTED, ["serves serial a2, issued since: a1"]),
    (
        "never issued",
        certs(),
        Expected({}, frozenset({ROOT})),
        ["serves serial a1, which was not issued here"],
    ),
    ("a root missing", certs(roots=()), EXPECTED, ["does not trust the root with serial b1"]),
    (
        "a root too many",
        certs(roots=(ROOT, 0xB2)),
        EXPECTED,
        ["trusts a root with serial b2, which is not in the bundle"],
    ),
    ("nothing", '{"certificates": []}', EXPECTED, ["serves no certificate: secrets have not arrived"]),
]


@pytest.mark.parametrize(("text", "expected", "messages"), [row[1:] for row in DRIFTS], ids=[row[0] for row in DRIFTS])
def test_drift_is_named(text: str, expected: Expected, messages: list[str]) -> None:
    assert [drift.message for drift in find_drift("reviews-v1", read_served(text), expected, NOW)] == messages


def test_a_threshold_in_seconds_may_be_given() -> None:
    served = read_served(certs())
    assert find_drift("p", served, Expected(), NOW, 86_399.0) == ()
    assert [drift.kind for drift in find_drift("p", served, Expected(), NOW, 86_401.0)] == ["expiring"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"certificates": [{"cert_chain": [{}]}]}', '{"certificates": 3}'])
def test_what_is_not_an_answer_of_certs_is_said(text: str) -> None:
    with pytest.raises(ValueError, match="not an answer of Envoy's /certs"):
        read_served(text)


def issuance(serial: int, age: float, authority: str = "new", evidence: str = "unix:uid:1,gid:1") -> Issuance:
    return Issuance(NOW - age, evidence, str(REVIEWS), True, serial=serial, authority_id=authority)


def test_what_was_followed_just_now_may_still_be_served() -> None:
    assert expected_serials([issuance(1, 100), issuance(2, 50)], NOW) == {str(REVIEWS): frozenset({2})}
    assert expected_serials([issuance(1, 100), issuance(2, 5)], NOW) == {str(REVIEWS): frozenset({1, 2})}
    refused = replace(issuance(3, 50), is_issued=False)
    assert expected_serials([issuance(1, 100), refused], NOW) == {str(REVIEWS): frozenset({1})}
    joined = [issuance(1, 100, evidence=f"join-token:{REVIEWS}"), issuance(2, 50, evidence=str(REVIEWS))]
    assert expected_serials(joined, NOW) == {str(REVIEWS): frozenset({2})}


def test_files_say_what_should_be_served() -> None:
    ca = CertificateAuthority.create("mesh.test", NOW)
    one, two = ca.issue_svid(REVIEWS, NOW), ca.issue_svid(REVIEWS, NOW)
    web = ca.issue_server_certificate(("shop.example",), NOW)
    found = serials_of_files([one.chain_pem, two.chain_pem, web.chain_pem, b"nonsense"])
    assert found == {str(REVIEWS): frozenset({one.serial, two.serial})}


def test_a_root_is_trusted_only_if_every_context_trusts_it() -> None:
    served = read_served(certs(roots=(ROOT, 0xB2)))
    assert trusts(served, 0xB2)
    assert not trusts((*served, *read_served(certs())), 0xB2)
    assert not trusts((), 0xB2)


def test_an_authority_is_in_use_while_anything_not_known_to_be_others_is_served() -> None:
    served = read_served(certs())
    assert still_served(served, [issuance(LEAF, 1)], ["new"]) == ()
    assert still_served(served, [issuance(LEAF, 1, "old")], ["new"]) == (str(REVIEWS),)
    assert still_served(served, [], ["new"]) == (str(REVIEWS),)


def test_an_examined_certificate_says_why_not_at_another_time() -> None:
    ca = CertificateAuthority.create("mesh.test", NOW)
    examined = validate_svid(ca.issue_svid(REVIEWS, NOW).chain_pem, {MESH: ca.trust_bundle}, NOW)
    assert isinstance(examined, Examined)
    assert examined.at(NOW - 60) == Rejection("the certificate is not yet valid: it begins in 50s")

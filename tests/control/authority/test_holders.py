"""What holders of SVIDs say that they trust, as an authority remembers and reports it."""

import json

import pytest

from authz.control.authority.holders import (
    ASK_SECONDS,
    SEEN_SECONDS,
    SIGNER_HEADER,
    TRUSTED_HEADER,
    HolderReport,
    Holders,
    read_holder_report,
)
from authz.core.spiffe import SpiffeId
from authz.identity.registration import SvidPeer

OLD, NEW = "a" * 16, "b" * 16
WEB, API = (
    SvidPeer(SpiffeId.parse(f"spiffe://mesh.test/ns/shop/sa/{name}"), number) for number, name in enumerate("xy")
)


def reported(holders: Holders, now: float) -> HolderReport:
    return read_holder_report(json.dumps(holders.report((OLD, NEW), now) | {"at": now}).encode())


def test_who_lacks_a_root_and_who_is_signed_below_one_is_named_until_it_renews_or_is_gone() -> None:
    holders = Holders()
    holders.note(WEB, [(TRUSTED_HEADER, f"{OLD},{NEW}"), (SIGNER_HEADER, NEW)], 0)
    holders.note(API, [(TRUSTED_HEADER, OLD), (SIGNER_HEADER, OLD)], 1)
    found = reported(holders, 2)
    assert found.seen == 2
    assert found.lacking == {OLD: (), NEW: (str(API.spiffe_id),)}
    assert found.signed == {OLD: (str(API.spiffe_id),), NEW: (str(WEB.spiffe_id),)}
    holders.forget(API)
    assert reported(holders, 2).lacking[NEW] == ()
    assert reported(holders, SEEN_SECONDS + 1).seen == 0


def test_what_a_stream_acknowledged_counts_until_a_while_after_its_end() -> None:
    holders = Holders()
    holders.note_stream(1, "web", frozenset((OLD,)), "")
    holders.note_stream(2, "web", None, OLD)  # it asks for a certificate alone
    for now in (0, 10 * SEEN_SECONDS):
        found = reported(holders, now)
        assert (found.seen, found.lacking, found.signed) == (1, {OLD: (), NEW: ("web",)}, {OLD: ("web",), NEW: ()})
    holders.note_stream(1, "web", frozenset((OLD, NEW)), "")
    assert reported(holders, 0).lacking[NEW] == ()
    holders.end_stream(1, 100)
    holders.end_stream(3, 100)
    assert reported(holders, 100 + SEEN_SECONDS).seen == 1
    assert reported(holders, 101 + SEEN_SECONDS).seen == 0


def test_very_many_holders_are_to_ask_less_often_and_are_not_gone_meanwhile() -> None:
    holders = Holders()
    for number in range(250):
        holders.note(SvidPeer(WEB.spiffe_id, number), [(TRUSTED_HEADER, OLD)], 0)
    assert holders.again == ASK_SECONDS
    for number in range(250, 1000):
        holders.note(SvidPeer(WEB.spiffe_id, number), [(TRUSTED_HEADER, OLD)], 0)
    assert holders.again == 20
    assert 0 < reported(holders, SEEN_SECONDS + 20).seen < 250, "who was told to ask soon is gone"
    holders.note(WEB, [(TRUSTED_HEADER, OLD)], 3 * 20 + 1)
    assert holders.again == ASK_SECONDS, "all others are gone"


def test_a_client_that_says_nothing_is_not_counted_and_nonsense_is_no_root() -> None:
    holders = Holders()
    holders.note(WEB, [("user-agent", "x")], 0)
    assert reported(holders, 0).seen == 0
    holders.note(WEB, [(TRUSTED_HEADER, "../../x,A"), (SIGNER_HEADER, "?" * 1000)], 0)
    assert reported(holders, 0).lacking == {OLD: (str(WEB.spiffe_id),), NEW: (str(WEB.spiffe_id),)}


def test_of_very_many_who_are_late_some_are_named_and_the_others_counted() -> None:
    holders = Holders()
    for number in range(30):
        holders.note(SvidPeer(WEB.spiffe_id, number), [(TRUSTED_HEADER, OLD)], 0)
    late = reported(holders, 0).lacking[NEW]
    assert (len(late), late[-1]) == (21, "and 10 more")


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b'{"at": 1, "seen": 1, "roots": {"x": {}}}', b'{"at": 1, "roots": 3}']
)
def test_a_report_that_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        read_holder_report(data)

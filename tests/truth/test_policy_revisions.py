"""Revisions on a real server: archives before heads, compare-and-swap, and what goes when 64 are kept."""

import base64
import hashlib
from dataclasses import replace

import pytest
from nats.js import JetStreamContext

from authz.truth.policy_head import DamagedHead, PolicyHead, write_head
from authz.truth.policy_revisions import HEAD, KeptHead, PolicyRevisions
from authz.truth.truth_bucket import POLICIES, TruthArchives, TruthBucket
from authz.truth.truth_client import TruthChanged, TruthClient, TruthRefused


def made(number: int, archive: bytes) -> PolicyHead:
    return PolicyHead(number, hashlib.sha256(archive).hexdigest(), 1_800_000_000, "ann", "why", 1)


def test_revisions_follow_each_other_and_old_archives_go(client: TruthClient) -> None:
    revisions, archives = PolicyRevisions(client), TruthArchives(client)
    assert revisions.head() is None
    assert revisions.history() == ()
    archives.put("somebody else's", b"1")
    before: KeptHead | None = None
    for number in range(1, 68):
        data = b"archive %d" % number
        revisions.publish(made(number, data), data, before)
        before = revisions.head()
        assert before is not None
    assert [head.number for head in revisions.history()] == list(range(4, 68))
    kept = {head.digest for head in revisions.history()}
    assert set(archives.names()) - kept == {"somebody else's"}
    assert kept <= set(archives.names())
    assert revisions.archive(before.head if before else made(1, b""), 100) == b"archive 67"


def test_of_two_pushes_one_is_in_force_and_the_other_is_told(client: TruthClient) -> None:
    revisions = PolicyRevisions(client)
    before = revisions.head()
    assert before is not None
    first, second = made(68, b"first"), made(68, b"second")
    revisions.publish(first, b"first", before)
    with pytest.raises(TruthChanged):
        revisions.publish(second, b"second", before)
    with pytest.raises(TruthChanged):
        revisions.publish(second, b"second", None)
    assert revisions.is_published(first)
    assert not revisions.is_published(second)


def test_an_archive_that_is_another_or_not_there_is_refused(client: TruthClient) -> None:
    revisions, archives = PolicyRevisions(client), TruthArchives(client)
    forged = made(70, b"good")
    with pytest.raises(TruthRefused, match="is not in the truth"):
        revisions.archive(forged, 100)
    archives.put(forged.digest, b"evil")
    with pytest.raises(TruthRefused, match="another digest"):
        revisions.archive(forged, 100)
    with pytest.raises(TruthRefused, match="more than 3 bytes"):
        revisions.archive(forged, 3)


def test_what_somebody_else_put_among_the_archives_stops_no_push(client: TruthClient) -> None:
    revisions, archives = PolicyRevisions(client), TruthArchives(client)
    head = made(71, b"mine")
    named = base64.urlsafe_b64encode(head.digest.encode()).decode()

    async def put(js: JetStreamContext) -> None:
        for name in ("a", "_", named):  # no base64, no UTF-8, and a name of ours
            await js.publish(f"$O.{archives.name}.M.{name}", b'"damaged"')

    client.call(put)
    assert {"a", "_"} <= set(archives.names())
    with pytest.raises(TruthRefused, match="is damaged"):
        revisions.archive(head, 100)
    before = revisions.head()
    assert before is not None
    other = replace(head, digest=hashlib.sha256(b"other").hexdigest())
    revisions.publish(other, b"other", before)
    assert revisions.archive(other, 100) == b"other"


def test_a_damaged_head_is_said_and_never_taken(client: TruthClient, caplog: pytest.LogCaptureFixture) -> None:
    revisions = PolicyRevisions(client)
    kept = revisions.head()
    assert kept is not None
    TruthBucket(client, POLICIES).put(HEAD, b'{"number": 1}')
    with pytest.raises(DamagedHead, match="is damaged"):
        revisions.head()
    assert revisions.history()[-1] == kept.head
    assert "is damaged" in caplog.text
    with pytest.raises(TruthChanged):
        revisions.publish(replace(kept.head, number=72), b"first", kept)
    with pytest.raises(DamagedHead, match="is damaged"):
        revisions.to_replace()
    damaged = revisions.to_replace(over_damaged=True)
    assert damaged is not None
    assert damaged.head == kept.head
    revisions.publish(replace(kept.head, number=72), b"first", damaged)
    mended = revisions.head()
    assert mended is not None
    assert mended.head.number == 72


@pytest.mark.parametrize(("number", "reserved"), [(2**53 - 1, 0), (100, 2**53 - 1), (3000, 0)])
def test_nobody_who_may_write_uses_up_the_numbers_of_those_who_sign(
    client: TruthClient, number: int, reserved: int
) -> None:
    revisions = PolicyRevisions(client)
    kept = revisions.to_replace()
    assert kept is not None
    TruthBucket(client, POLICIES).put(HEAD, write_head(replace(kept.head, number=number, reserved=reserved)))
    with pytest.raises(DamagedHead, match="does not follow"):
        revisions.to_replace()
    found = revisions.to_replace(over_damaged=True)
    assert found is not None
    assert found.head == kept.head
    following = replace(kept.head, number=kept.head.next_number)
    revisions.publish(following, b"first", found)
    assert revisions.to_replace() == revisions.head()
    assert following in revisions.history()

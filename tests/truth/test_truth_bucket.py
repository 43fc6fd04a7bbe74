"""Values and archives on a real server: compare-and-swap, history, watching, and what happens when it is away."""

import threading
from pathlib import Path

import pytest

from authz.truth.bucket_making import MOST_BYTES, make_buckets
from authz.truth.truth_address import TruthAddress
from authz.truth.truth_bucket import (
    ARCHIVES,
    FLEET,
    KEEPS,
    POLICIES,
    SECURITY,
    TruthArchives,
    TruthBucket,
)
from authz.truth.truth_client import TruthAway, TruthChanged, TruthClient, TruthRefused
from tests.nats_server import NatsServers, truth_servers


def test_a_value_is_created_once_and_changed_by_whoever_knows_its_revision(client: TruthClient) -> None:
    bucket = TruthBucket(client, POLICIES)
    assert bucket.get("swap") is None
    first = bucket.create("swap", b"one")
    with pytest.raises(TruthChanged):
        bucket.create("swap", b"again")
    second = bucket.update("swap", b"two", first)
    with pytest.raises(TruthChanged):
        bucket.update("swap", b"late", first)
    found = bucket.get("swap")
    assert found is not None
    assert (found.value, found.revision) == (b"two", second)
    assert found.created > 1_700_000_000


def test_of_two_who_delete_the_same_revision_one_succeeds(client: TruthClient) -> None:
    bucket = TruthBucket(client, SECURITY)
    revision = bucket.create("token", b"join")
    bucket.delete("token", revision)
    with pytest.raises(TruthChanged):
        bucket.delete("token", revision)
    assert bucket.get("token") is None
    assert bucket.create("token", b"a new one") > revision


def test_values_are_listed_by_pattern_and_without_those_that_are_deleted(client: TruthClient) -> None:
    bucket = TruthBucket(client, FLEET)
    for number in range(70):  # more than are asked for at once
        bucket.put(f"a.{number}", b"%d" % number)
    bucket.delete("a.0", bucket.put("a.0", b"gone"))
    bucket.put("b.c.d", b"deep")
    assert {key: entry.value for key, entry in bucket.entries("a.*").items()} == {
        f"a.{number}": b"%d" % number for number in range(1, 70)
    }
    assert set(bucket.entries("b.*")) == set()
    assert set(bucket.entries("b.>")) == {"b.c.d"}


def test_the_kept_values_of_a_key_are_its_history(client: TruthClient) -> None:
    bucket = TruthBucket(client, POLICIES)
    assert bucket.history("told") == ()
    revision = bucket.create("told", b"0")
    for number in range(1, 70):
        revision = bucket.update("told", b"%d" % number, revision)
    assert [int(entry.value) for entry in bucket.history("told")] == list(range(6, 70))


def test_an_archive_comes_back_whole_and_within_bounds(client: TruthClient) -> None:
    archives = TruthArchives(client)
    data = bytes(range(256)) * 2000  # several parts
    archives.put("big", data)
    assert archives.get("big", len(data)) == data
    with pytest.raises(TruthRefused, match="more than 100 bytes"):
        archives.get("big", 100)
    assert archives.names() == ("big",)
    archives.delete("big")
    archives.delete("big")
    assert archives.get("big", 1 << 20) is None


def test_who_watches_is_woken_by_a_change_after_it_was_kept(servers: NatsServers, client: TruthClient) -> None:
    bucket = TruthBucket(client, POLICIES)
    with servers.client() as other:
        seen: list[int] = []
        woken = threading.Event()

        def wake() -> None:
            seen.append(1)
            woken.set()

        TruthBucket(other, POLICIES).watch("watched", wake)
        revision = bucket.put("watched", b"0")
        for number in range(1, 20):
            assert woken.wait(5)
            found = TruthBucket(client, POLICIES).get("watched")
            assert found is not None
            assert found.revision == revision
            woken.clear()
            revision = bucket.update("watched", b"%d" % number, revision)


def test_a_fleet_without_buckets_is_told_to_make_them(servers: NatsServers) -> None:
    with TruthClient(TruthAddress(servers.address.servers, "other"), servers.access("")) as client:
        bucket = TruthBucket(client, POLICIES)
        for ask in (lambda: bucket.get("a"), lambda: bucket.history("a"), lambda: bucket.put("a", b"1")):
            with pytest.raises(TruthRefused, match="authz truth init"):
                ask()
        assert set(make_buckets(client, 1)) == {f"authz-other-{what}" for what in (*KEEPS, ARCHIVES)}
        assert make_buckets(client, 1) == ()
        assert bucket.get("a") is None


def test_in_a_bucket_that_somebody_filled_others_go_on_as_before(
    servers: NatsServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MOST_BYTES, FLEET, 100_000)
    with TruthClient(TruthAddress(servers.address.servers, "full"), servers.access("")) as client:
        make_buckets(client, 1)
        bucket = TruthBucket(client, FLEET)
        revision = bucket.put("replica.one", b"x" * 1000)
        for number in range(4):
            bucket.put(f"server.flood-{number}", b"x" * 20_000)
        with pytest.raises(TruthAway, match="cannot keep it: maximum bytes exceeded"):
            bucket.put("server.flood", b"x" * 20_000)
        for _ in range(3):
            revision = bucket.update("replica.one", b"y" * 1000, revision)
        bucket.delete("replica.one", revision)


def test_calls_fail_at_once_while_the_server_is_away_and_work_again_after_it_came_back(tmp_path: Path) -> None:
    with truth_servers(tmp_path) as servers, servers.client() as client:
        bucket = TruthBucket(client, POLICIES)
        bucket.put("kept", b"1")
        back = threading.Event()
        client.on_change(back.set)
        servers.kill(0)
        with pytest.raises(TruthAway):
            bucket.get("kept")
        with pytest.raises(TruthAway):
            bucket.put("kept", b"2")
        servers.start(0)
        assert back.wait(10)
        found = bucket.get("kept")
        assert found is not None
        assert found.value == b"1"

"""Policies from the truth of a fleet: a real server, a forged head, and a server that is away."""

import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from authz.core.errors import SettingsError
from authz.sources.published import truth_source
from authz.sources.published.opening import PublishedPolicies
from authz.truth.policy_head import PolicyHead
from authz.truth.policy_revisions import HEAD, PolicyRevisions
from authz.truth.truth_bucket import POLICIES, TruthBucket
from tests.nats_server import NatsServers, truth_servers
from tests.sources.published.published import NOW, POISON, Replica, bundle, in_force, start_refused

pytestmark = pytest.mark.slow  # real servers of the truth


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[NatsServers]:
    with truth_servers(tmp_path / "truth") as running:
        yield running


def push(servers: NatsServers, number: int, data: bytes) -> None:
    with servers.client() as client:
        revisions = PolicyRevisions(client)
        head = PolicyHead(number, hashlib.sha256(data).hexdigest(), NOW, "ann", "why", 1)
        revisions.publish(head, data, revisions.head())


def until(what: str, is_so: Callable[[], bool]) -> None:
    ends = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < ends, what
        time.sleep(0.01)


def test_a_push_is_heard_of_at_once_and_a_bad_one_keeps_the_last_good(servers: NatsServers, tmp_path: Path) -> None:
    replica = Replica(tmp_path / "replica", str(servers.address))
    assert "nothing was pushed yet" in start_refused(replica, "and nothing is kept")
    push(servers, 1, bundle(1, b"one"))
    with replica.running() as (follower, cache):
        assert follower.status.number == 1
        assert follower.ask()
        assert follower.status.successes == 2
        follower.follow()  # asks every half a minute, and the test waits ten seconds
        push(servers, 2, bundle(2, b"two"))
        until("the second is in force", lambda: follower.status.number == 2)
        assert in_force(cache) == b"two"
        for number, data, said in (
            (3, bundle(3, POISON), "its policies are refused"),
            (4, bundle(4, fleet="other"), "for the fleet `other`"),
            (5, bundle(1, b"one"), "is older than 2"),
            (6, bundle(7, b"seven"), "the head says revision 6, and its bundle is 7"),
            (7, b"no bundle", "is not gzip"),
        ):
            push(servers, number, data)
            follower.ask()
            assert said in follower.status.error
            assert in_force(cache) == b"two"
        with servers.client() as client:
            TruthBucket(client, POLICIES).put(HEAD, b"forged")
        follower.ask()
        assert "damaged" in follower.status.error
        assert in_force(cache) == b"two"


def test_without_the_truth_a_replica_starts_from_its_disk_and_takes_up_again(
    servers: NatsServers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(truth_source, "BEGIN_SECONDS", 0.2)
    push(servers, 1, bundle(1, b"one"))
    replica = Replica(tmp_path / "replica", str(servers.address))
    with replica.running():
        pass
    servers.kill(0)
    with replica.running() as (follower, cache):
        assert follower.status.is_kept
        assert in_force(cache) == b"one"
        assert not follower.ask()
        assert "does not answer" in follower.status.error
        follower.follow()
        servers.start(0)
        push(servers, 2, bundle(2, b"two"))
        until("the status says it", lambda: (follower.status.number, follower.status.is_kept) == (2, False))
        assert in_force(cache) == b"two"


def test_a_truth_that_was_away_for_long_is_asked_every_few_seconds_and_what_is_refused_ever_more_rarely(
    servers: NatsServers, tmp_path: Path
) -> None:
    push(servers, 1, bundle(1, b"one"))
    with Replica(tmp_path / "replica", str(servers.address)).running() as (follower, _):
        assert follower.pause() == 30
        push(servers, 2, bundle(2, POISON))
        for _ in range(3):
            assert not follower.ask()
        assert follower.pause() >= 240
        servers.kill(0)
        for _ in range(20):  # after ten minutes it must not be minutes until it is asked again
            assert not follower.ask()
        assert follower.pause() == truth_source.AWAY_SECONDS


def test_the_fleet_of_the_address_is_that_of_the_setting(tmp_path: Path) -> None:
    replica = Replica(tmp_path / "replica", "nats://localhost/other")
    assert "is of the fleet `other`" in start_refused(replica, "policies_fleet")
    far = Replica(tmp_path / "replica", "nats://truth.example/shop", told=PublishedPolicies())
    with pytest.raises(SettingsError, match="needs TLS"), far.running():
        pass

"""A candidate in the truth of a fleet, laid out or not: a real server, and whoever writes there without a key."""

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from authz.bundles.whole_bundle import build_bundle, sign_bundle
from authz.canary.canary_judge import AbortBound
from authz.canary.canary_selection import CanarySelection
from authz.canary.candidate_standing import CandidateStanding, CandidateState
from authz.canary.candidate_terms import CandidateTerms
from authz.sources.published import truth_source
from authz.sources.published.candidate_follower import AGAIN_SECONDS, FOLDER, NOTE, CandidateFollower
from authz.sources.published.policy_follower import PolicyFollower
from authz.truth.policy_head import CandidateAbort, PolicyHead, PushedCandidate
from authz.truth.policy_revisions import KeptHead, PolicyRevisions
from tests.nats_server import NatsServers, shared_servers, truth_servers
from tests.sources.published import published
from tests.sources.published.published import KEY, NOW, POISON, Replica, bundle, in_force, trial

pytestmark = pytest.mark.slow  # real servers of the truth

SELECTION = CanarySelection(Fraction(1, 20), frozenset({"web-v1"}))


servers = shared_servers()


def candidate(number: int, base: int, text: bytes = b"next", **changes: object) -> bytes:
    told = {"fleet": "shop", "created": NOW, "expires": NOW + 1000, "key": KEY} | changes
    key = told.pop("key")
    assert isinstance(key, Ed25519PrivateKey)
    terms = CandidateTerms(number, base, SELECTION, AbortBound(Fraction(1, 10), 30.0))
    made = build_bundle({"policies/a.yaml": text}, revision=number, candidate=terms, **told)  # type: ignore[arg-type]  # of a table
    return sign_bundle(made, key)


class Publisher:
    """Writes whatever it likes to the truth, with a key or without."""

    def __init__(self, revisions: PolicyRevisions) -> None:
        self.revisions = revisions

    @property
    def kept(self) -> KeptHead:
        found = self.revisions.head()
        assert found is not None
        return found

    def push(self) -> int:
        """The next revision, in the place of whatever is there; its number."""
        before = self.revisions.head()
        number = before.head.next_number if before is not None else 1
        data = bundle(number, b"base %d" % number)
        reserved = before.head.reserved if before is not None else 0
        head = PolicyHead(number, _digest(data), NOW, "ann", "", 1, reserved=reserved)
        self.revisions.publish(head, data, before)
        return number

    def add(self, number: int, data: bytes) -> None:
        before = self.kept
        own = PushedCandidate(number, _digest(data), NOW, "ann", "", 1)
        reserved = max(before.head.reserved, number)
        self.revisions.publish(replace(before.head, reserved=reserved, candidate=own), data, before)

    def change(self, change: Callable[[PushedCandidate], PushedCandidate | None]) -> None:
        before = self.kept
        assert before.head.candidate is not None
        self.revisions.amend(replace(before.head, candidate=change(before.head.candidate)), before)


@pytest.fixture
def publisher(servers: NatsServers) -> Iterator[Publisher]:
    with servers.client() as client:
        yield Publisher(PolicyRevisions(client))


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _of(follower: PolicyFollower) -> CandidateFollower:
    assert follower.candidate is not None
    return follower.candidate


def _laid(follower: PolicyFollower) -> bytes | None:
    assert follower.ask()
    path = _of(follower).path / "a.yaml"
    return path.read_bytes() if path.exists() else None


def test_a_candidate_is_laid_out_with_its_terms_until_it_is_over_and_never_again(
    servers: NatsServers, publisher: Publisher, tmp_path: Path
) -> None:
    base = publisher.push()
    replica = Replica(tmp_path / "replica", str(servers.address))
    with replica.running() as (follower, cache):
        assert _laid(follower) is None
        assert _of(follower).standing is None
        first = candidate(base + 1, base)
        publisher.add(base + 1, first)
        assert _laid(follower) == b"next"
        assert _of(follower).standing == CandidateStanding(base + 1, _digest(first), CandidateState.SHADOW)
        terms = _of(follower).terms(_of(follower).path)
        assert terms == CandidateTerms(base + 1, base, SELECTION, AbortBound(Fraction(1, 10), 30.0))
        publisher.add(base + 2, candidate(base + 2, base, b"other"))
        assert _laid(follower) == b"other"
        publisher.add(base + 1, first)
        assert _laid(follower) is None
        assert f"is older than {base + 2}" in follower.status.candidate_problem
        assert in_force(cache) == b"base %d" % base
    with replica.running() as (follower, _):
        publisher.add(base + 2, candidate(base + 2, base, b"other"))
        assert _laid(follower) is None
        assert "is over: push it again" in follower.status.candidate_problem
        publisher.add(base + 3, candidate(base + 3, base))
        assert _laid(follower) == b"next"
        assert follower.status.candidate_problem == ""
        following = publisher.push()
        assert _laid(follower) is None
        publisher.add(following + 1, candidate(following + 1, following, expires=NOW + 10))
        assert _laid(follower) == b"next"
        replica.now += 11
        assert _laid(follower) is None
        assert _state(follower) is CandidateState.REFUSED


def test_what_nobody_signed_as_a_candidate_beside_this_revision_is_none(
    servers: NatsServers, publisher: Publisher, tmp_path: Path
) -> None:
    older, base = publisher.push(), publisher.push()
    stranger = Ed25519PrivateKey.from_private_bytes(b"\1" * 32)
    with Replica(tmp_path / "replica", str(servers.address)).running() as (follower, cache):
        for number, data, said in (
            (base + 1, bundle(base + 1), "it was signed to be in force for all"),
            (base + 2, candidate(base + 2, base, key=stranger), "none of the keys given here signed it"),
            (base + 3, candidate(base + 3, base, fleet="other"), "for the fleet `other`"),
            (base + 4, candidate(base + 4, older), f"compared with revision {older}, and {base} is in force here"),
            (base + 5, candidate(base + 6, base), f"says candidate {base + 5}, and its bundle is {base + 6}"),
            (base + 6, b"none", "is not gzip"),
            (base + 7, candidate(base + 7, base, POISON), "cannot be used, 1 error in the given documents: a.yaml"),
        ):
            publisher.add(number, data)
            assert _laid(follower) is None
            assert said in follower.status.candidate_problem
            assert _of(follower).standing == CandidateStanding(
                number, _digest(data), CandidateState.REFUSED, follower.status.candidate_problem
            )
            assert in_force(cache) == b"base %d" % base
        assert not any((tmp_path / "replica" / "cache" / FOLDER).iterdir())
        before = publisher.kept
        own = candidate(base + 8, base)
        publisher.revisions.publish(PolicyHead(base + 8, _digest(own), NOW, "eve", "", 1), own, before)
        assert not follower.ask()
        assert "it is a candidate, which is not in force for all" in follower.status.error
        assert in_force(cache) == b"base %d" % base


def test_a_candidate_that_one_takes_back_all_take_back(
    servers: NatsServers, publisher: Publisher, tmp_path: Path
) -> None:
    base = publisher.push()
    here, there = (Replica(tmp_path / name, str(servers.address)) for name in ("here", "there"))
    with here.running() as (one, _), there.running() as (other, _):
        publisher.add(base + 1, candidate(base + 1, base))
        assert _laid(one) == _laid(other) == b"next"
        _of(one).by = "control-1"
        for _ in range(2):
            _of(one).abort(base + 1, "refused\n too much")
        assert _laid(one) is None
        assert _laid(other) is None
        assert _of(other).aborted == "control-1: refused too much"
        standing = _of(other).standing
        assert standing is not None
        assert (standing.number, standing.state, standing.reason) == (
            base + 1, CandidateState.ABORTED, "control-1: refused too much",
        )  # fmt: skip
        told = publisher.kept.head.candidate
        assert told is not None
        assert told.aborted == CandidateAbort(NOW, "control-1", "refused too much")
        publisher.change(lambda known: replace(known, aborted=None))
        assert _laid(other) is None
        assert "is over" in other.status.candidate_problem
        _of(one).abort(base + 7, "of another one")
        one.ask()  # whoever has no key cannot have it back
        assert publisher.kept.head.candidate == told


def test_while_the_truth_is_away_a_candidate_stays_and_after_a_restart_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(truth_source, "BEGIN_SECONDS", 0.2)
    with truth_servers(tmp_path / "truth") as servers:
        with servers.client() as client:
            publisher = Publisher(PolicyRevisions(client))
            base = publisher.push()
            publisher.add(base + 1, candidate(base + 1, base))
        replica = Replica(tmp_path / "replica", str(servers.address))
        with replica.running() as (follower, _):
            assert _laid(follower) == b"next"
            servers.kill(0)
            assert not follower.ask()
            assert _of(follower).path.exists()
            assert _state(follower) is CandidateState.SHADOW
        with replica.running() as (follower, cache):
            assert follower.status.is_kept
            assert not _of(follower).path.exists()
            assert in_force(cache) == b"base %d" % base
            servers.start(0)
            _until_laid(follower, b"next")
            servers.kill(0)
            _of(follower).abort(base + 1, "too much")
            assert not follower.ask()
            assert not _of(follower).path.exists()
            assert _of(follower).aborted == "a control plane: too much"
            assert _state(follower) is CandidateState.ABORTED
        servers.start(0)
        with replica.running() as (follower, _), servers.client() as client:
            assert _laid(follower) is None
            told = Publisher(PolicyRevisions(client)).kept.head.candidate
            assert told is not None
            assert told.aborted == CandidateAbort(NOW, "a control plane", "too much")


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        b"[" * 9999,
        b'{"number": "8"}',
        b'{"number": true}',
        b'{"is_over": 1}',
        b'{"odd": 1}',
        b'{"number": 1, "number": 2}',
    ],
)
def test_a_damaged_note_of_what_was_over_keeps_candidates_away_and_nothing_else(
    servers: NatsServers, publisher: Publisher, tmp_path: Path, damage: bytes
) -> None:
    base = publisher.push()
    publisher.add(base + 1, candidate(base + 1, base))
    replica = Replica(tmp_path / "replica", str(servers.address))
    note = tmp_path / "replica" / "cache" / NOTE
    note.parent.mkdir(parents=True)
    note.write_bytes(damage)
    with replica.running() as (follower, cache):
        assert in_force(cache) == b"base %d" % base
        assert _laid(follower) is None
        assert "remove it" in _of(follower).problem
        assert _of(follower).standing == CandidateStanding(0, "", CandidateState.REFUSED, _of(follower).problem)
        note.unlink()
        assert _laid(follower) == b"next"
        assert _of(follower).problem == ""


def test_a_replica_that_never_had_one_knows_that_it_was_taken_back_once_the_truth_has_said_so(
    servers: NatsServers, publisher: Publisher, tmp_path: Path
) -> None:
    """Whoever has no key may take that word away, and so brings it back to those that never heard it."""
    base = publisher.push()
    told = candidate(base + 1, base)
    publisher.add(base + 1, told)
    publisher.change(lambda known: replace(known, aborted=CandidateAbort(NOW, "ann", "locks ops out")))
    replica = Replica(tmp_path / "replica", str(servers.address))
    with replica.running() as (follower, _):
        assert _laid(follower) is None
        aborted = CandidateStanding(base + 1, _digest(told), CandidateState.ABORTED, "ann: locks ops out")
        assert _of(follower).standing == aborted
    publisher.change(lambda known: replace(known, aborted=None))
    with replica.running() as (follower, _), Replica(tmp_path / "new", str(servers.address)).running() as (new, _):
        assert _laid(follower) is None
        assert "is over: push it again" in follower.status.candidate_problem
        assert _laid(new) == b"next", "nobody has told it"


def test_what_nobody_signed_and_is_called_taken_back_uses_up_no_numbers(
    servers: NatsServers, publisher: Publisher, tmp_path: Path
) -> None:
    base = publisher.push()
    with Replica(tmp_path / "replica", str(servers.address)).running() as (follower, _):
        publisher.add(base + 9, b"none")
        publisher.change(lambda known: replace(known, aborted=CandidateAbort(NOW, "eve", "")))
        for _ in range(2):
            assert _laid(follower) is None
            assert _state(follower) is CandidateState.ABORTED
        publisher.add(base + 2, candidate(base + 2, base))
        assert _laid(follower) == b"next"


def test_one_whose_policies_cannot_be_used_is_not_read_again_at_every_asking(
    servers: NatsServers, publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = publisher.push()
    replica, tried = Replica(tmp_path / "replica", str(servers.address)), []

    def counted(folder: Path, in_force: Path | None) -> None:
        tried.append(folder)
        trial(folder, in_force)

    monkeypatch.setattr(published, "trial", counted)
    with replica.running() as (follower, _):
        publisher.add(base + 1, candidate(base + 1, base, POISON))
        tried.clear()
        for seconds, times in ((0.0, 1), (AGAIN_SECONDS - 1, 1), (1.0, 2)):
            replica.now += seconds
            assert _laid(follower) is None
            assert "it is poison" in _of(follower).problem
            assert len(tried) == times


def test_one_beside_a_revision_that_is_not_here_yet_waits_for_it(
    servers: NatsServers, publisher: Publisher, tmp_path: Path
) -> None:
    publisher.push()
    with Replica(tmp_path / "replica", str(servers.address)).running() as (follower, _):
        base = publisher.push()
        publisher.add(base + 1, candidate(base + 1, base))
        _of(follower).look()  # as when it is pushed while what is in force is asked for
        assert _state(follower) is CandidateState.WAITING
        assert _laid(follower) == b"next"
        assert _state(follower) is CandidateState.SHADOW


def _state(follower: PolicyFollower) -> CandidateState | None:
    standing = _of(follower).standing
    return standing.state if standing is not None else None


def _until_laid(follower: PolicyFollower, text: bytes) -> None:
    until = time.monotonic() + 20
    while not follower.ask() or not _of(follower).path.exists():
        assert time.monotonic() < until
        time.sleep(0.05)
    assert (_of(follower).path / "a.yaml").read_bytes() == text

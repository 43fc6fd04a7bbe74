"""What is signed, and what becomes of a push: in force, overtaken, or unknown. Beside a truth that a test plays."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from authz.bundles.whole_bundle import build_bundle
from authz.canary.canary_selection import CanarySelection
from authz.canary.candidate_terms import CandidateTerms
from authz.cli import policy_publishing
from authz.cli.policy_publishing import Pushed, conflict, publish, signed
from authz.core.errors import AuthzError
from authz.truth.policy_head import CandidateAbort, PolicyHead, PushedCandidate
from authz.truth.policy_revisions import KeptHead, PolicyRevisions
from authz.truth.truth_client import TruthAway, TruthChanged, TruthRefused, TruthUntouched
from tests.sources.published.published import KEY

NOW = 1_800_000_000
BEFORE = KeptHead(PolicyHead(6, "a" * 64, NOW, "ann", "lock ops out", 1), 11)
OTHER = KeptHead(PolicyHead(7, "b" * 64, NOW, "bob", "quick", 1), 12)
OWN = Pushed(PolicyHead(7, "c" * 64, NOW, "ann", "", 1), b"archive", BEFORE, {}, None)
TERMS = CandidateTerms(8, 6, CanarySelection(), None)
CANDIDATE = PushedCandidate(8, "0" * 64, NOW, "ann", "", 1)


class Truth:
    """Answers pushes in turn; what stands there is ``found``."""

    def __init__(self, *answers: AuthzError | None, found: KeptHead | None = BEFORE, has_own: bool = False) -> None:
        self.answers, self.found, self.has_own = [*answers], found, has_own

    def publish(self, head: PolicyHead, archive: bytes, before: KeptHead | None) -> None:
        assert (head, archive, before) == (OWN.head, OWN.archive, OWN.before)
        answer = self.answers.pop(0)
        if answer is not None:
            raise answer

    def is_published(self, head: PolicyHead) -> bool:
        return self.has_own and head == OWN.head

    def head(self) -> KeptHead | None:
        return self.found


AWAY, UNTOUCHED, CHANGED = TruthAway("no answer"), TruthUntouched("no connection"), TruthChanged("another head")


@pytest.mark.parametrize(
    ("truth", "said"),
    [
        (Truth(None), ""),
        (Truth(AWAY, None), "no answer; trying again …\n"),
        (Truth(UNTOUCHED, AWAY, None), "no connection; trying again …\n"),
        (Truth(AWAY, CHANGED, has_own=True), "no answer; trying again …\n"),
        (Truth(CHANGED, None), "the servers of the truth do not agree yet; trying again …\n"),
    ],
    ids=["at once", "again", "twice again", "it had arrived", "a server that knows less"],
)
def test_a_push_is_repeated_until_it_is_known_to_be_in_force(
    truth: Truth, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("authz.cli.policy_publishing.time.sleep", lambda _: None)
    publish(cast(PolicyRevisions, truth), OWN)
    assert truth.answers == []
    assert capsys.readouterr().err == said


def test_whoever_was_overtaken_is_told_by_whom(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        publish(cast(PolicyRevisions, Truth(CHANGED, found=OTHER)), OWN)
    assert ended.value.code == 3
    assert "revision 7 is in force, pushed by bob" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ((UNTOUCHED,), "no connection; nothing was pushed"),
        ((AWAY,), "no answer: nobody knows whether revision 7 is in force; `authz policies history` says so"),
        ((TruthRefused("not allowed"),), "not allowed"),
    ],
    ids=["untouched", "unknown", "refused"],
)
def test_what_is_not_known_in_time_is_said_as_it_is(
    answers: tuple[AuthzError, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy_publishing, "SETTLE_SECONDS", -1.0)
    with pytest.raises((TruthAway, TruthRefused)) as raised:
        publish(cast(PolicyRevisions, Truth(*answers)), OWN)
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (None, "nothing is in force; nothing was pushed"),
        (BEFORE.head, ": lock ops out; nothing was pushed"),
        (replace(BEFORE.head, message=""), "Z; nothing was pushed"),
        (replace(BEFORE.head, candidate=CANDIDATE), "; beside it is candidate 8, pushed by ann; nothing was pushed"),
        (
            replace(BEFORE.head, candidate=replace(CANDIDATE, aborted=CandidateAbort(NOW, "eve", "refuses too much"))),
            "candidate 8, pushed by ann, taken back by eve: refuses too much; nothing was pushed",
        ),
    ],
    ids=["nothing", "a reason", "no reason", "a candidate", "one taken back"],
)
def test_a_conflict_says_what_is_in_force_instead(
    head: PolicyHead | None, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        conflict(head)
    assert ended.value.code == 3
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("is_candidate", [False, True])
def test_what_is_signed_is_named_by_its_digest(tmp_path: Path, is_candidate: bool) -> None:
    key = tmp_path / "bundle.key"
    key.write_bytes(KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    key.chmod(0o600)
    files, terms = {"policies/a.yaml": b"{}"}, TERMS if is_candidate else None
    archive = build_bundle(files, fleet="shop", revision=8, created=NOW, candidate=terms)
    head = replace(BEFORE.head, candidate=CANDIDATE) if is_candidate else OWN.head
    pushed = signed(Pushed(head, archive, BEFORE, {}, None, terms), key)
    digest = hashlib.sha256(pushed.archive).hexdigest()
    assert pushed.archive != archive
    if is_candidate:
        assert pushed.head == replace(head, candidate=replace(CANDIDATE, digest=digest))  # what is in force stays
    else:
        assert pushed.head == replace(head, digest=digest)
    assert pushed.shown == ("candidate 8" if is_candidate else "revision 7")

"""``authz candidate``: what is printed, exit codes, and that a refused candidate changes nothing."""

import json
import sys
from pathlib import Path

import pytest

from authz.canary.canary_status import CanaryState, CanaryStatus, canary_json
from tests.cli.conftest import POLICIES, Run

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets two directories change places")


@pytest.fixture
def candidate(policies: Path) -> Path:
    """A candidate beside ``policies``, named ``next``."""
    folder = policies.with_name("next")
    folder.mkdir()
    (folder / "shop.yaml").write_text(POLICIES.replace("/admin*", "/root*"))
    return folder


@linux
def test_a_candidate_is_promoted(run: Run, policies: Path, candidate: Path) -> None:
    result = run("candidate", "promote", "--candidate", "next", "--policies", "policies")
    assert result.exit_code == 0, result.output
    first, second = result.stdout.splitlines()
    assert first.startswith("`policies` is now policy version ")
    kept = Path(second.split("`")[1])
    assert "/root*" in (policies / "shop.yaml").read_text()
    assert "/admin*" in (policies.parent / kept / "shop.yaml").read_text()
    assert not candidate.exists()


@linux
def test_json_says_the_version_that_validate_says(run: Run, policies: Path, candidate: Path) -> None:
    said = json.loads(run("validate", "next", "-o", "json").stdout)
    result = run("candidate", "promote", "--candidate", "next", "--policies", "policies", "-o", "json")
    answer = json.loads(result.stdout)
    assert answer == {
        "promoted": True,
        "policy_version": said["policy_version"],
        "kept": f"policies.before-{said['policy_version']}",
        "problems": [],
    }


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_candidate_with_problems_is_refused_and_nothing_moves(
    run: Run, policies: Path, candidate: Path, form: str
) -> None:
    (candidate / "bad.yaml").write_text(POLICIES.replace("action: DENY", "action: DENI"))
    result = run("candidate", "promote", "--candidate", "next", "--policies", "policies", "-o", form)
    assert result.exit_code == 3
    assert "DENI" in result.output
    assert "/admin*" in (policies / "shop.yaml").read_text()
    assert candidate.is_dir()
    if form == "json":
        answer = json.loads(result.stdout)
        assert (answer["promoted"], answer["problems"][0]["line"]) == (False, 17)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("promote", "--candidate", "next", "--policies", "policies"), "next: No such file or directory"),
        (("promote", "--candidate", "policies", "--policies", "policies"), "is in force already"),
        (("abort", "--candidate", "next"), "next: No such file or directory"),
    ],
)
def test_what_cannot_be_done_is_said(run: Run, policies: Path, arguments: tuple[str, ...], message: str) -> None:
    assert policies.is_dir()
    result = run("candidate", *arguments)
    assert result.exit_code == 1
    assert message in result.stderr


def test_a_candidate_is_aborted(run: Run, candidate: Path) -> None:
    result = run("candidate", "abort", "--candidate", "next", "-o", "json")
    assert (result.exit_code, json.loads(result.stdout)) == (0, {"aborted": True, "kept": "next.aborted"})
    assert not candidate.exists()


COUNTS = {"web-7": {"requests": 40, "refused": 2}}
CHOSEN = CanaryStatus(CanaryState.IN_FORCE, "a1", "", "5% and web-1", ("web-1", "web-7"), ("old-1",), 40)


@pytest.mark.parametrize(
    ("status", "code", "told"),
    [
        (CanaryStatus(), 0, "candidate: none\n"),
        (
            CHOSEN,
            0,
            "candidate version a1: in force for 2 of 40 workloads (5% and web-1)\n  web-1\n"
            "  web-7: refused 2 of 40 requests\n"
            "  not old-1: it asks an authorization server\n",
        ),
        (
            CHOSEN.become(CanaryState.ABORTED, reason="too many denials"),
            3,
            "candidate version a1: aborted\n  too many denials\n",
        ),
    ],
)
def test_who_has_a_candidate_is_told(
    run: Run, monkeypatch: pytest.MonkeyPatch, status: CanaryStatus, code: int, told: str
) -> None:
    monkeypatch.setattr("authz.cli.candidate.ask_control", lambda *_: {**canary_json(status), "counts": COUNTS})
    found = run("candidate", "status")
    assert (found.exit_code, found.stdout) == (code, told)
    assert json.loads(run("candidate", "status", "-o", "json").stdout)["chosen"] == list(status.chosen)


def test_what_a_candidate_changes_is_told_where_records_are_taken(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    rule = {"name": "ns[shop]-policy[api]-rule[0]"}
    difference = {
        "result": "newly_denied", "namespace": "shop", "workload": "api-v1", "rule": rule, "candidate_rule": None,
        "count": 3, "first_at": 1.0, "last_at": 2.0, "decisions": ["d-3", "d-2"],
    }  # fmt: skip
    found = {
        **canary_json(CanaryStatus(CanaryState.IN_FORCE, "v2", selection="5%", chosen=("web-1",), workloads=20)),
        "results": {"same": 40, "newly_denied": 3, "undecided": 0},
        "differences": [difference],
    }
    monkeypatch.setattr("authz.cli.candidate.ask_control", lambda *_: found)
    done = run("candidate", "status")
    assert "  of recorded requests: 40 same, 3 newly denied\n" in done.output
    assert "more kinds" not in done.output
    found["differences"] = [difference] * 12
    assert run("candidate", "status").output.endswith("    and 2 more kinds, in `-o json`\n")
    assert "    newly denied: 3 at shop/api-v1, ns[shop]-policy[api]-rule[0] before, no rule now: d-3\n" in done.output

"""What a candidate changes, by entries of proxies that have it and of proxies that do not."""

from pathlib import Path

import pytest

from authz.canary.canary_engine import CanaryEngine
from authz.control.records.candidate_comparison import CandidateComparison
from authz.core.decided import CandidateResult
from authz.core.engine import Engine
from authz.service.native.judge import Judge
from tests.service.native.test_judge import engine, entry, refused, rule
from tests.wire.lines import SUBJECT, read_line

POLICY = """apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: some, namespace: {namespace}}}
spec: {{rules: [{{to: [{{operation: {{paths: ["{path}"]}}}}]{when}}}]}}
"""
JWT = """---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: jwt, namespace: bookinfo}
spec: {jwtRules: [{issuer: a, jwksUri: "https://a.test/keys"}]}
"""
ASKS = ', when: [{key: "request.headers[x-other]", values: [red]}]'
OURS = SUBJECT.workload.name
OK = entry("/ok", allowed_by=rule("some"))
NEW = entry("/new", allowed_by=rule("some"))


def policy(path: str, namespace: str = "bookinfo", when: str = "") -> str:
    return POLICY.format(path=path, namespace=namespace, when=when)


def engines(folder: Path, base: str, candidate: str) -> tuple[Engine, Engine]:
    found = []
    for name, text in (("base", base), ("next", candidate)):
        (folder / name).mkdir(exist_ok=True)
        found.append(engine(folder / name, text))
    return found[0], found[1]


def compared(chosen: CanaryEngine, *written: bytes) -> tuple[CandidateComparison, list[str | None]]:
    """The comparison after these entries, and what it said of each."""
    judge, comparison = Judge(), CandidateComparison()
    judge.replace(chosen, 0.0)
    comparison.replace(chosen)
    told = []
    for one in written:
        read = read_line(one)
        answer = comparison.take(read, judge.judge(read))
        told.append(str(answer.result) if answer is not None else None)
    return comparison, told


@pytest.mark.parametrize(
    ("candidate", "has_it", "written", "result", "is_told"),
    [
        pytest.param(policy("/new"), False, OK, "newly_denied", True, id="in shadow, it would deny"),
        pytest.param(policy("/new"), False, entry("/new", **refused()), "newly_allowed", True, id="it would allow"),
        pytest.param(policy("/new"), False, entry("/no", **refused()), "same", False, id="both deny"),
        pytest.param(policy("/new"), True, NEW, "newly_allowed", False, id="in force, it allows"),
        pytest.param(policy("/new"), True, entry("/ok", **refused()), "newly_denied", False, id="it denies"),
        pytest.param(policy("/ok"), False, OK, "same", False, id="the same policies"),
        pytest.param(
            policy("/ok") + "---\n" + policy("/new", "elsewhere"), False, OK, "same", False, id="another namespace's"
        ),
        pytest.param(policy("/ok", when=ASKS), False, OK, "undecided", False, id="asks for what the entry lacks"),
        pytest.param(
            policy("/new", when=ASKS), True,
            entry("/new", allowed_by=rule("some"), headers={"x-other": "red"}), "newly_allowed", False,
            id="whose proxy tells what it asks for",
        ),
        pytest.param(policy("/new") + JWT, False, OK, "undecided", False, id="another token would count"),
        pytest.param(
            policy("/new"), False, entry("/ok", allowed_by=rule("some"), version="older"), "undecided", False,
            id="decided by neither",
        ),
        pytest.param(policy("/new"), False, entry("/ok", **refused()), "undecided", False, id="the proxy disagrees"),
    ],
)  # fmt: skip
def test_an_entry_is_decided_by_the_other_policies_too(
    tmp_path: Path, candidate: str, has_it: bool, written: bytes, result: str, is_told: bool
) -> None:
    base, next_one = engines(tmp_path, policy("/ok"), candidate)
    chosen = CanaryEngine(base, next_one, frozenset({OURS} if has_it else ()))
    comparison, told = compared(chosen, written)
    assert {name: number for name, number in comparison.results.items() if number} == {result: 1}
    assert told == [result if is_told else None]
    is_difference = result in set(CandidateResult)
    assert [(one.result, one.workload, one.count) for one in comparison.differences] == (
        [(result, OURS, 1)] if is_difference else []
    )


def test_another_candidate_is_counted_anew_and_none_counts_nothing(tmp_path: Path) -> None:
    base, first = engines(tmp_path, policy("/ok"), policy("/new"))
    comparison, _ = compared(CanaryEngine(base, first, frozenset()), OK, OK)
    assert (comparison.of_version["newly_denied"], comparison.differences[0].count) == (2, 2)
    comparison.replace(CanaryEngine(base, first, frozenset({"other"})))
    assert comparison.of_version["newly_denied"] == 2, "the same candidate, for others"
    _, second = engines(tmp_path, policy("/ok"), policy("/newer"))
    comparison.replace(CanaryEngine(base, second, frozenset()))
    assert (comparison.of_version["newly_denied"], comparison.differences) == (0, ())
    assert comparison.results["newly_denied"] == 2, "a metric only grows"
    comparison.replace(base)
    read, judge = read_line(OK), Judge()
    judge.replace(base, 0.0)
    assert comparison.take(read, judge.judge(read)) is None
    assert sum(comparison.of_version.values()) == 0


def test_a_mistake_of_ours_is_counted_and_costs_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr("authz.control.records.candidate_comparison.again", fail)
    base, candidate = engines(tmp_path, policy("/ok"), policy("/new"))
    comparison, told = compared(CanaryEngine(base, candidate, frozenset()), OK)
    assert (told, comparison.results["failed"]) == ([None], 1)

"""Deciding entries again: agreement, disagreement, and what is neither."""

from pathlib import Path
from typing import Any

import pytest

from authz.core.decision import Effect, Stage
from authz.core.engine import Engine
from authz.envoy.native.filters_version import filters_version
from authz.service.loading.snapshot import load_snapshot
from authz.service.native.intake import Intake
from authz.service.native.judge import GRACE_SECONDS, Judge, Judged, Verdict
from authz.wire.access_line import LineReader
from tests.service.native.test_gaps import Trail
from tests.wire.lines import SUBJECT, line

START = 1_700_000_000.25
"""Of the entries."""
ALLOW = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: some, namespace: bookinfo}
spec:
  action: ALLOW
  rules:
  - to: [{operation: {paths: ["/ok*"]}}]
  - when: [{key: "request.headers[x-team]", values: [red]}]
  - when: [{key: "request.headers[cookie]", values: [red]}]
"""
OTHERS = """
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny, namespace: bookinfo}
spec: {action: DENY, rules: [{to: [{operation: {paths: ["/ok/secret"]}}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: look, namespace: bookinfo}
spec: {action: AUDIT, rules: [{to: [{operation: {paths: ["/ok/audit"]}}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: planned, namespace: bookinfo, annotations: {istio.io/dry-run: "true"}}
spec: {action: DENY, rules: [{to: [{operation: {paths: ["/ok/audit"]}}]}]}
"""


READER = LineReader()


def rule(name: str, index: int = 0) -> str:
    return f"ns[bookinfo]-policy[{name}]-rule[{index}]"


def engine(folder: Path, text: str = ALLOW + OTHERS) -> Engine:
    file = folder / "policies.yaml"
    file.write_text(text)
    return load_snapshot(file, None, 0.0).engine


def entry(path: str = "/ok", allowed_by: str = "", **facts: Any) -> bytes:
    """An entry of which the filters said what Envoy's do; ``allowed_by`` is the ALLOW rule."""
    results = {"istio_dry_run_deny_shadow_engine_result": "allowed", "enforced_engine_result": "allowed"}
    if allowed_by:
        results["enforced_effective_policy_id"] = allowed_by
    return line(**{"path": path, "rbac": results, "hint": False, **facts})


def refused(by: str = "none") -> dict[str, Any]:
    return {"code": 403, "details": f"rbac_access_denied_matched_policy[{by}]"}


@pytest.fixture
def judge(tmp_path: Path) -> Judge:
    judge = Judge()
    judge.replace(engine(tmp_path), 0.0)
    return judge


def judged(judge: Judge, written: bytes) -> Judged:
    return judge.judge(READER.read(written))


AUDITED = {
    "enforced_engine_result": "allowed",
    "enforced_effective_policy_id": rule("some"),
    "istio_dry_run_deny_shadow_engine_result": "denied",
    "istio_dry_run_deny_shadow_effective_policy_id": rule("planned"),
}


@pytest.mark.parametrize(
    ("written", "verdict"),
    [
        (entry(allowed_by=rule("some")), Verdict.AGREED),
        (entry("/no", **refused()), Verdict.AGREED),
        (entry("/ok/secret", **refused(rule("deny"))), Verdict.AGREED),
        (entry("/ok/audit", rbac=AUDITED, hint=True), Verdict.AGREED),
        (entry("/no", allowed_by=rule("some", 1), headers={"x-team": "red"}), Verdict.AGREED),
        # Envoy says otherwise:
        (entry(allowed_by=rule("some", 1), headers={"x-team": "red"}), Verdict.DISAGREED),  # not the first that fires
        (entry("/no", allowed_by=rule("some")), Verdict.DISAGREED),
        (entry(**refused()), Verdict.DISAGREED),
        (entry("/ok/secret", allowed_by=rule("some")), Verdict.DISAGREED),
        (entry(**refused(rule("deny"))), Verdict.DISAGREED),
        (entry(**refused(rule("gone"))), Verdict.DISAGREED),
        (entry(allowed_by=rule("some", 1), headers={"x-team": "blue"}), Verdict.DISAGREED),
        (entry("/ok/audit", allowed_by=rule("some")), Verdict.DISAGREED),  # neither AUDIT nor the dry run fired
        (entry("/no", rbac={}, hint=None), Verdict.DISAGREED),  # the filters are not there at all
        # The entry cannot tell:
        (entry("/no", allowed_by=rule("some", 2)), Verdict.UNKNOWN),
        (entry("/no", allowed_by=rule("some", 1), headers={"x-team": "blue,red"}), Verdict.UNKNOWN),
        (entry("/no", code=401, details="jwt_authn_access_denied{Jwt_is_expired}", rbac=None), Verdict.UNVERIFIED),
    ],
)  # fmt: skip
def test_the_verdict_of_an_entry(judge: Judge, written: bytes, verdict: Verdict) -> None:
    found = judged(judge, written)
    assert found.verdict is verdict
    assert (found.engine is not None) is (verdict in (Verdict.DISAGREED, Verdict.UNKNOWN))


def test_what_agrees_is_recorded_with_file_and_line(judge: Judge) -> None:
    decision = judged(judge, entry("/ok/audit", rbac=AUDITED, hint=True)).offer.decision
    assert decision.rule is not None
    assert decision.rule.location.line > 0
    assert decision.audit_rule is not None
    assert decision.audit_rule.name == rule("look")
    assert decision.dry_run_deny is not None
    assert decision.dry_run_deny.rule is not None
    assert decision.dry_run_deny.rule.name == rule("planned")


def test_what_disagrees_is_recorded_as_it_happened(judge: Judge) -> None:
    found = judged(judge, entry(**refused(rule("gone"))))
    decision = found.offer.decision
    assert (decision.effect, decision.status, decision.rule and decision.rule.name) == ("deny", 403, rule("gone"))
    assert found.engine is not None
    assert found.engine.effect == "allow"


def test_an_unverified_refusal_of_a_token_has_envoys_reason(judge: Judge) -> None:
    written = entry("/no", code=401, details="jwt_authn_access_denied{Jwt_is_expired}", rbac=None)
    decision = judged(judge, written).offer.decision
    assert (decision.stage, decision.reason, decision.status) == ("jwt", "Jwt is expired", 401)


@pytest.mark.parametrize(
    ("reloads", "verdict"),
    [
        (["/new*"], Verdict.AGREED),
        (["/new*", "/newer*"], Verdict.OTHER_VERSION),  # those of the fixture are not known any more
    ],
)
def test_after_a_reload_the_old_policies_count_for_a_minute(
    judge: Judge, tmp_path: Path, reloads: list[str], verdict: Verdict
) -> None:
    for number, path in enumerate(reloads):
        judge.replace(engine(tmp_path, ALLOW.replace("/ok*", path)), START - GRACE_SECONDS + 1 + number)
    assert judged(judge, entry(allowed_by=rule("some"))).verdict is verdict


def test_a_minute_after_a_reload_the_new_policies_count(judge: Judge, tmp_path: Path) -> None:
    judge.replace(engine(tmp_path, ALLOW.replace("/ok*", "/new*")), START - GRACE_SECONDS - 1)
    assert judged(judge, entry(allowed_by=rule("some"))).verdict is Verdict.DISAGREED


def test_an_entry_that_names_its_policies_is_judged_by_them(judge: Judge, tmp_path: Path) -> None:
    before = engine(tmp_path)
    version = filters_version(before, SUBJECT.workload)
    elsewhere = ALLOW.replace("bookinfo", "elsewhere") + "---" + ALLOW + OTHERS
    unconcerned = engine(tmp_path, elsewhere)
    assert filters_version(unconcerned, SUBJECT.workload) == version != ""
    judge.replace(unconcerned, START - 20 * GRACE_SECONDS)
    found = judged(judge, entry(allowed_by=rule("some"), version=version))
    assert (found.verdict, found.offer.decision.policy_version) == (Verdict.AGREED, unconcerned.version)
    judge.replace(engine(tmp_path, ALLOW.replace("/ok*", "/new*")), START - 10 * GRACE_SECONDS)
    found = judged(judge, entry(allowed_by=rule("some"), version=version))
    assert (found.verdict, found.offer.decision.policy_version) == (Verdict.AGREED, unconcerned.version)
    unknown = judged(judge, entry(allowed_by=rule("some"), version="other"))
    assert unknown.verdict is Verdict.OTHER_VERSION
    assert unknown.offer.decision.policy_version == "other"


def test_what_lasts_is_judged_by_the_policies_of_its_begin(judge: Judge, tmp_path: Path) -> None:
    """A stream or a connection is let in once, whatever is in force when it ends."""
    judge.replace(engine(tmp_path, ALLOW.replace("/ok*", "/new*")), START + 10.0)
    lasted = int(1000 * (10.0 + 2 * GRACE_SECONDS))
    assert judged(judge, entry(allowed_by=rule("some"), duration=lasted)).verdict is Verdict.AGREED


def test_what_began_before_all_policies_that_are_known_is_no_disagreement(tmp_path: Path) -> None:
    judge = Judge()
    judge.replace(engine(tmp_path, ALLOW.replace("/ok*", "/new*")), START + 10.0)
    assert judged(judge, entry(allowed_by=rule("some"))).verdict is Verdict.OTHER_VERSION
    assert judged(judge, entry("/new", allowed_by=rule("some"))).verdict is Verdict.AGREED


def test_a_share_is_decided_again_and_the_rest_recorded(tmp_path: Path) -> None:
    judge = Judge(0.25)
    judge.replace(engine(tmp_path), 0.0)
    verdicts = [judged(judge, entry(f"/ok/{number}", allowed_by=rule("some"))) for number in range(101)]
    assert verdicts[0].verdict is Verdict.AGREED  # the first of its kind
    assert sum(one.verdict is Verdict.AGREED for one in verdicts[1:]) == 25
    assert {one.offer.decision.rule and one.offer.decision.rule.name for one in verdicts} == {rule("some")}


def test_denials_and_what_an_audit_policy_chose_are_always_decided_again(tmp_path: Path) -> None:
    judge = Judge(0.0)
    judge.replace(engine(tmp_path), 0.0)
    assert judged(judge, entry("/ok/1", allowed_by=rule("some"))).verdict is Verdict.AGREED
    assert judged(judge, entry("/ok/2", allowed_by=rule("some"))).verdict is Verdict.SKIPPED
    for number in range(3):
        assert judged(judge, entry(f"/no/{number}", **refused())).verdict is Verdict.AGREED
        assert judged(judge, entry(f"/ok/{number}", **refused())).verdict is Verdict.DISAGREED
        audited = judged(judge, entry(f"/ok/{number}", allowed_by=rule("some"), hint=True))
        assert audited.verdict is Verdict.DISAGREED


def test_what_was_decided_once_holds_for_requests_in_which_policies_can_see_no_difference(tmp_path: Path) -> None:
    judge = Judge(0.0)
    judge.replace(engine(tmp_path), 0.0)
    first = judged(judge, entry(allowed_by=rule("some")))
    again = judged(judge, entry(allowed_by=rule("some"), id="other", start="1700000001.000000", trace="t"))
    assert (first.verdict, again.verdict) == (Verdict.AGREED, Verdict.AGREED)
    assert again.offer.decision is first.offer.decision
    assert (again.offer.decision_id, again.offer.started_at) == ("other", 1_700_000_001.0)
    for other in ({"path": "/ok2"}, {"direct": "10.0.0.8:1"}, {"remote": "10.0.0.8:1"}):
        assert judged(judge, entry(**{"allowed_by": rule("some"), **other})).verdict is Verdict.SKIPPED


SECOND: dict[str, Any] = {
    "rbac": {"enforced_effective_policy_id": rule("some", 1), "enforced_engine_result": "allowed"}
}
"""The second rule of ALLOW let it pass."""


@pytest.mark.parametrize(("header", "fact"), [("x-request-id", "id"), ("traceparent", "trace")])
def test_a_rule_that_asks_for_what_is_of_one_request_is_decided_for_each(
    tmp_path: Path, header: str, fact: str
) -> None:
    judge = Judge(1.0)
    judge.replace(engine(tmp_path, ALLOW.replace("x-team", header)), 0.0)
    assert judged(judge, entry("/no", **{fact: "red"}, **SECOND)).verdict is Verdict.AGREED
    assert judged(judge, entry("/no", **{fact: "blue"}, **SECOND)).verdict is Verdict.DISAGREED


def test_what_the_policies_before_a_reload_ask_for_is_of_one_request_as_well(tmp_path: Path) -> None:
    judge = Judge(1.0)
    judge.replace(engine(tmp_path, ALLOW.replace("x-team", "x-request-id")), START - 100)
    judge.replace(engine(tmp_path, ALLOW), START - 1)
    assert judged(judge, entry("/no", id="red", **SECOND)).verdict is Verdict.AGREED
    assert judged(judge, entry("/no", id="blue", **SECOND)).verdict is Verdict.DISAGREED


DRY_RUN = ALLOW + OTHERS[OTHERS.rindex("---") :]


def test_what_a_dry_run_found_is_never_another_requests_answer(tmp_path: Path) -> None:
    judge = Judge(1.0)
    judge.replace(engine(tmp_path, DRY_RUN), 0.0)
    told = {"enforced_engine_result": "allowed", "enforced_effective_policy_id": rule("some")}  # nothing of dry runs
    found = [
        judged(judge, entry(path, rbac=told, hint=None)).offer.decision.dry_run_deny
        for path in ("/ok", "/ok/audit", "/ok", "/ok/audit")
    ]
    assert [result and result.effect.value for result in found] == ["allow", "deny", "allow", "deny"]


@pytest.mark.parametrize("chosen", ["user_agent", "path", "host"])
def test_what_a_client_writes_at_length_is_decided_and_not_remembered(judge: Judge, chosen: str) -> None:
    reader = LineReader()

    for number in range(20):
        facts = {chosen: f"/ok{number}{'x' * 60_000}"}
        written = entry(**{"path": "/ok", "allowed_by": rule("some"), **facts})
        assert judge.judge(reader.read(written)).verdict is Verdict.AGREED
    assert max(len(reader._known), len(judge._judged), len(judge._told)) <= 1
    assert judged(judge, entry("/no" + "x" * 60_000, allowed_by=rule("some"))).verdict is Verdict.DISAGREED


def test_a_claim_that_may_have_been_another_is_no_disagreement(tmp_path: Path) -> None:
    judge = Judge(1.0)
    jwt = """
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: jwt, namespace: bookinfo}
spec: {jwtRules: [{issuer: i, jwks: '{"keys": []}'}]}
---"""
    when = '"request.auth.claims[groups]", values: ["-"]'
    judge.replace(engine(tmp_path, jwt + ALLOW.replace('"request.headers[x-team]", values: [red]', when)), 0.0)
    claims = {"iss": "i", "sub": "s", "exp": 1_900_000_000, "groups": "-"}
    told: dict[str, Any] = {
        "rbac": {"enforced_effective_policy_id": rule("some", 1), "enforced_engine_result": "allowed"}
    }
    assert judged(judge, entry("/no", claims=claims, **told)).verdict is Verdict.UNKNOWN
    assert judged(judge, entry("/no", claims={**claims, "groups": "a"}, **told)).verdict is Verdict.DISAGREED


def test_without_policies_nothing_is_judged() -> None:
    with pytest.raises(LookupError):
        judged(Judge(), entry())


def test_a_disagreement_is_a_note_with_both_answers(tmp_path: Path) -> None:
    trail = Trail()
    intake = Intake(trail)
    intake.judge.replace(engine(tmp_path), 0.0)
    intake.take_lines([entry("/no", allowed_by=rule("some")), b"no entry", entry(allowed_by=rule("some")), b""])
    (note,) = trail.notes
    assert note.record["event"] == "native-disagreement"
    assert (note.record["request"], note.record["proxy"]) == ("38a37674", "reviews-v1")
    assert isinstance(note.record["envoy"], dict)
    assert isinstance(note.record["engine"], dict)
    assert (note.record["envoy"]["rule"], note.record["engine"]["rule"]) == (rule("some"), None)
    assert intake.results == {("file", "recorded"): 2, ("file", "unreadable"): 1}
    assert intake.disagreements == {("bookinfo", "reviews-v1"): 1}
    assert len(trail.entries) == 2


def test_an_entry_of_a_proxy_that_is_somebody_else_is_not_recorded(tmp_path: Path) -> None:
    trail = Trail()
    intake = Intake(trail)
    intake.judge.replace(engine(tmp_path), 0.0)
    intake.take_lines([entry(allowed_by=rule("some"), own="spiffe://cluster.local/ns/other/sa/reviews")])
    assert intake.results == {("file", "refused"): 1}
    assert trail.entries == []


LIMITED: dict[str, Any] = {"code": 429, "details": "request_rate_limited", "limit": "=bookinfo/reviews/global/1"}


@pytest.mark.parametrize(
    ("facts", "reason", "rule_name"),
    [
        (LIMITED, "the limit bookinfo/reviews/1 is used up", "ns[bookinfo]-limit[reviews]-global[1]"),
        ({**LIMITED, "limit": "=-"}, "a rate limit is used up", None),
        ({**LIMITED, "limit": "=nonsense"}, "a rate limit is used up", None),
        ({"code": 429, "details": "local_rate_limited"}, "a limit that the proxy counts by itself is used up", None),
        ({"code": 503, "details": "rate_limiter_error"}, "nobody can count for a limit that fails closed", None),
    ],
)
@pytest.mark.parametrize("tells_version", [True, False])
def test_what_a_rate_limit_refused_is_recorded_as_refused_and_compared_as_allowed(
    tmp_path: Path, facts: dict[str, Any], reason: str, rule_name: str | None, tells_version: bool
) -> None:
    found = engine(tmp_path)
    judge = Judge()
    judge.replace(found, 0.0)
    told = {"version": filters_version(found, SUBJECT.workload)} if tells_version else {}
    for _ in range(2):  # the second time from memory
        answer = judged(judge, entry("/ok", allowed_by=rule("some"), **facts, **told))
        decision = answer.offer.decision
        assert answer.verdict is (Verdict.AGREED if tells_version else Verdict.SKIPPED)
        assert (decision.effect, decision.stage, decision.status) == (Effect.DENY, Stage.RATE_LIMIT, facts["code"])
        assert decision.reason == reason
        assert (decision.rule.name if decision.rule is not None else None) == rule_name


def test_a_status_of_the_application_is_no_rate_limit(judge: Judge) -> None:
    answer = judged(judge, entry("/ok", allowed_by=rule("some"), code=429, details="via_upstream"))
    assert answer.offer.decision.is_allowed

"""The check function: bytes to bytes, with the real engine and no transport."""

import logging
from typing import Any

import pytest

from authz.core import resources as r
from authz.core.compiler import compile_engine
from authz.core.decision import FORBIDDEN_BODY
from authz.core.providers import ProviderAnswer, ProviderQuestion
from authz.service.askers import identity_problem
from authz.service.check_function import CheckFunction
from authz.service.ids import DecisionIds
from authz.service.loading.snapshot import Snapshot
from authz.service.pending import Pending
from tests.service.messages import LABELS, check_request, peer, response, told
from tests.service.recording import Recorder

NOW = 1_800_000_000.0


def rule(**operation: Any) -> r.Rule:
    return r.Rule(operations=(r.Operation(**operation),))


def policy(action: r.Action, *rules: r.Rule, name: str = "p", provider: str = "") -> r.AuthorizationPolicy:
    return r.AuthorizationPolicy(r.Metadata(name, "shop"), r.Target(), action, rules, provider)


def snapshot(*policies: r.AuthorizationPolicy, mesh: r.MeshConfig | None = None, **kinds: Any) -> Snapshot:
    mesh = mesh or r.MeshConfig()
    engine = compile_engine(r.Resources(policies, version="v1", **kinds), mesh)
    return Snapshot(engine, mesh, "v1", NOW)


def function(*policies: r.AuthorizationPolicy, audit: Recorder | None = None, **kinds: Any) -> CheckFunction:
    made = CheckFunction(audit or Recorder(), DecisionIds(NOW, b"abc"))
    made.replace(snapshot(*policies, **kinds))
    return made


ALLOW_OPEN = policy(r.Action.ALLOW, rule(paths=("/open",)))


@pytest.mark.parametrize(
    ("path", "code", "stage", "rule_name"),
    [("/open", 0, "allow", "ns[shop]-policy[p]-rule[0]"), ("/shut", 7, "allow", "")],
)
def test_the_engine_decides(path: str, code: int, stage: str, rule_name: str) -> None:
    answer = response(function(ALLOW_OPEN).check(check_request(path=path), (), NOW))
    assert answer.status.code == code
    facts = told(answer)
    assert (facts["stage"], facts["rule"], facts["policy_version"]) == (stage, rule_name, "v1")


def test_every_decision_is_audited_with_the_id_of_the_answer() -> None:
    audit = Recorder()
    check = function(ALLOW_OPEN, audit=audit)
    answers = [response(check.check(check_request(path=path), (), NOW)) for path in ("/open", "/shut", "/open")]
    assert [told(answer)["decision_id"] for answer in answers] == [entry.decision_id for entry in audit.entries]
    assert [entry.decision.is_allowed for entry in audit.entries] == [True, False, True]
    assert {entry.started_at for entry in audit.entries} == {NOW}
    assert all(entry.duration_seconds > 0 for entry in audit.entries)
    assert {entry.cache_hit for entry in audit.entries} == {None}


def test_decision_ids_sort_in_the_order_of_the_decisions() -> None:
    ids = DecisionIds(NOW, b"\x01\x02\x03")
    made = [ids.next() for _ in range(300)]
    assert made == sorted(set(made))
    assert {len(one) for one in made} == {24}
    assert DecisionIds(NOW + 1, b"\x00\x00\x00").next() > made[-1]


def test_a_full_audit_queue_that_says_deny_denies() -> None:
    answer = response(function(ALLOW_OPEN, audit=Recorder(accepts=False)).check(check_request(path="/open"), (), NOW))
    assert answer.denied_response.status.code == 503
    assert told(answer)["stage"] == "internal"


@pytest.mark.parametrize(
    ("principal", "labels", "extensions", "reason"),
    [
        ("", {}, {}, "does not say which workload"),
        ("spiffe://cluster.local/ns/other/sa/api", LABELS, {}, "claims namespace `shop`"),
        ("spiffe://cluster.local/ns/shop/sa/other", LABELS, {}, "claims service account `api`"),
        ("spiffe://cluster.local/ns/shop/sa/api", LABELS, {"namespace": "other"}, "claims namespace `other`"),
    ],
)
def test_a_sidecar_may_only_ask_for_itself(
    principal: str, labels: dict[str, str], extensions: dict[str, str], reason: str
) -> None:
    audit = Recorder()
    check = function(audit=audit)
    message = check_request(destination=peer(principal, labels=labels), extensions=extensions)
    answer = response(check.check(message, (), NOW))
    assert (answer.denied_response.status.code, answer.denied_response.body) == (403, FORBIDDEN_BODY)
    assert told(answer)["stage"] == "identity"
    assert reason in told(answer)["reason"]
    assert len(audit.entries) == 1


@pytest.mark.parametrize(
    ("principal", "namespace", "account"),
    [
        ("spiffe://td/ns/a/sa/b", "a", "b"),
        ("spiffe://td/ns/a/sa/b", "a", ""),
        ("bookinfo.example", "a", "b"),
        ("", "a", ""),
    ],
)
def test_a_sidecar_is_believed_where_nothing_contradicts(principal: str, namespace: str, account: str) -> None:
    assert identity_problem(principal, namespace, account) == ""


def test_nothing_is_allowed_before_policies_are_loaded() -> None:
    check = CheckFunction(Recorder(), DecisionIds(NOW, b""))
    answer = response(check.check(check_request(), (), NOW))
    assert (answer.status.code, answer.denied_response.status.code) == (13, 503)


@pytest.mark.parametrize("message", [b"\xff\xff", b"\x0a\x05ab", b"\x0a\x02\x12\x7f"])
def test_bytes_that_are_no_request_are_denied(message: bytes) -> None:
    audit = Recorder()
    check = function(audit=audit)
    answer = response(check.check(message, (), NOW))
    assert (answer.status.code, answer.denied_response.status.code) == (13, 503)
    assert answer.WhichOneof("http_response") == "denied_response", "failure_mode_allow must have no say (XA-95)"
    assert check.failures == 1
    assert not audit.entries[0].decision.is_allowed


class Broken(Recorder):
    def record(self, *args: Any, **kwargs: Any) -> bool:
        raise RuntimeError("Bearer eyJhbGciOiJub25lIn0.secret.token")


def test_a_mistake_of_ours_denies_and_logs_the_place_but_no_values(caplog: pytest.LogCaptureFixture) -> None:
    check = function(ALLOW_OPEN, audit=Broken())
    with caplog.at_level(logging.ERROR, "authz.check"):
        answer = response(check.check(check_request(path="/open"), (), NOW))
    assert answer.denied_response.status.code == 503
    assert "RuntimeError at record" in caplog.text
    assert "secret" not in caplog.text
    assert check.failures == 1


def test_tcp_connections_are_decided() -> None:
    deny = policy(r.Action.DENY, rule(ports=("8080",)))
    answer = response(function(deny).check(check_request(tcp=True), (), NOW))
    assert told(answer)["stage"] == "deny"


PROVIDER = r.ExtensionProvider("ext", service="ext.example", port=9000)
MESH = r.MeshConfig(extension_providers=(PROVIDER,))
CUSTOM = policy(r.Action.CUSTOM, rule(paths=("/open",)), name="c", provider="ext")


def test_a_custom_rule_becomes_a_question_and_the_answer_goes_on() -> None:
    audit = Recorder()
    check = function(ALLOW_OPEN, CUSTOM, audit=audit, mesh=MESH)
    message = check_request(path="/open")
    pending = check.check(message, (), NOW)
    assert isinstance(pending, Pending)
    assert isinstance(pending.question, ProviderQuestion)
    assert pending.question.provider is PROVIDER
    assert pending.message == message
    assert audit.entries == []
    answer = response(pending.resume(ProviderAnswer(True, headers_to_set=(("x-user", "alice"),)), NOW + 1))
    assert answer.status.code == 0
    assert [(o.header.key, o.header.value) for o in answer.ok_response.headers] == [("x-user", "alice")]
    timing = audit.entries[0].timings[0]
    assert (timing.name, timing.detail) == ("provider.ask", "ext")


@pytest.mark.parametrize(
    ("answer", "status", "stage"),
    [
        (ProviderAnswer(False, 418, "teapot"), 418, "custom"),
        (ProviderAnswer(False, error="down"), 403, "custom"),
    ],
)
def test_a_provider_may_refuse(answer: ProviderAnswer, status: int, stage: str) -> None:
    pending = function(ALLOW_OPEN, CUSTOM, mesh=MESH).check(check_request(path="/open"), (), NOW)
    assert isinstance(pending, Pending)
    refused = response(pending.resume(answer, NOW))
    assert (refused.denied_response.status.code, told(refused)["stage"]) == (status, stage)


def test_a_request_whose_caller_is_gone_is_forgotten() -> None:
    audit = Recorder()
    pending = function(ALLOW_OPEN, CUSTOM, audit=audit, mesh=MESH).check(check_request(path="/open"), (), NOW)
    assert isinstance(pending, Pending)
    pending.abandon()
    assert audit.entries == []


def test_a_snapshot_replaced_during_a_question_does_not_mix_with_the_old_one() -> None:
    check = function(ALLOW_OPEN, CUSTOM, mesh=MESH)
    pending = check.check(check_request(path="/open"), (), NOW)
    assert isinstance(pending, Pending)
    check.replace(snapshot(policy(r.Action.DENY, rule(paths=("/open",)))))
    assert response(pending.resume(ProviderAnswer(True), NOW)).status.code == 0
    assert response(check.check(check_request(path="/open"), (), NOW)).status.code == 7


def test_a_token_is_judged_with_the_keys_and_time_given() -> None:
    jwt = r.RequestAuthentication(r.Metadata("a", "shop"), r.Target(), (r.JwtRule("https://i", jwks_uri="https://k"),))
    audit = Recorder()
    check = function(audit=audit, request_authentications=(jwt,))
    message = check_request(headers=[("authorization", "Bearer a.b.c")])
    answer = response(check.check(message, (), NOW))
    assert (answer.status.code, answer.denied_response.status.code) == (16, 401)
    assert audit.entries[0].timings[0].name == "token.verify"
    assert response(check.check(check_request(), (), NOW)).status.code == 0

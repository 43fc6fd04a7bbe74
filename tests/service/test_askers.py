"""What sidecars say of themselves, held against certificates and the mesh description; headers that they hide."""

import logging
from typing import Any

import pytest

from authz.core import resources as r
from authz.core.attributes import Workload
from authz.core.compiler import compile_engine
from authz.core.providers import ProviderAnswer
from authz.service.askers import HIDDEN_CAUSE, identity_problem
from authz.service.check_function import CheckFunction
from authz.service.ids import DecisionIds
from authz.service.loading.snapshot import Snapshot
from authz.service.pending import Pending
from authz.tokens.key_sets import KeySetState
from tests.service.messages import OWN, check_request, peer, response, told
from tests.service.recording import Recorder

NOW = 1_800_000_000.0
GET = r.Rule(operations=(r.Operation(methods=("GET",)),))


def policy(name: str, action: r.Action, rule: r.Rule, labels: dict[str, str] | None = None) -> r.AuthorizationPolicy:
    return r.AuthorizationPolicy(r.Metadata(name, "shop"), r.Target(labels or {}), action, (rule,), "")


def when(key: str, *values: str, negated: bool = False) -> r.Rule:
    condition = r.Condition(key, not_values=values) if negated else r.Condition(key, values)
    return r.Rule(conditions=(condition,))


def function(
    *policies: r.AuthorizationPolicy, workloads: tuple[Workload, ...] = (), audit: Recorder | None = None, **kinds: Any
) -> CheckFunction:
    mesh = r.MeshConfig()
    engine = compile_engine(r.Resources(policies, version="v1", **kinds), mesh)
    made = CheckFunction(audit or Recorder(), DecisionIds(NOW, b"abc"))
    made.replace(Snapshot(engine, mesh, "v1", NOW, workloads=workloads))
    return made


def is_allowed(check: CheckFunction, message: bytes, caller: str = "") -> bool:
    return response(check.check(message, (), NOW, caller)).status.code == 0


# --- headers that are not delivered ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "rule", "is_right"),
    [
        (r.Action.DENY, when("request.headers[x-bad]", "*"), False),
        (r.Action.DENY, when("request.headers[x-bad]", "*", negated=True), False),
        (r.Action.DENY, when("request.headers[x-shown]", "no"), True),
        (r.Action.DENY, when("request.headers[x-shown]", "yes"), False),
        (r.Action.ALLOW, when("request.headers[x-good]", "1"), False),
        (r.Action.ALLOW, when("request.headers[x-good]", "1", negated=True), False),
        (r.Action.ALLOW, when("request.headers[x-shown]", "yes"), True),
        (r.Action.ALLOW, when("request.headers[host]", "api.example.com"), True),
        (r.Action.ALLOW, GET, True),
    ],
)
def test_a_hidden_header_is_unknown_and_a_shown_one_is_known(action: r.Action, rule: r.Rule, is_right: bool) -> None:
    check = function(policy("p", action, rule))
    assert is_allowed(check, check_request(merged={"x-shown": "yes"})) is is_right


@pytest.mark.parametrize("left_out", [":path", ":method", ":authority", ":scheme"])
def test_any_missing_pseudo_header_shows_that_headers_are_hidden(left_out: str) -> None:
    shown = {":path": "/", ":method": "GET", ":authority": "api.example.com", ":scheme": "http"}
    check = function(policy("p", r.Action.DENY, when("request.headers[x-bad]", "*")))
    assert is_allowed(check, check_request(merged=shown))
    del shown[left_out]
    assert not is_allowed(check, check_request(merged=shown))


def test_the_record_and_the_log_say_which_setting_hides_headers(caplog: pytest.LogCaptureFixture) -> None:
    audit = Recorder()
    check = function(policy("p", r.Action.DENY, when("request.headers[x-bad]", "*")), audit=audit)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            is_allowed(check, check_request(merged={"x-a": "1"}))
    assert all(entry.decision.reason.endswith(HIDDEN_CAUSE) for entry in audit.entries)
    assert "allowed_headers" in HIDDEN_CAUSE
    assert len([line for line in caplog.messages if "shop/api-v1" in line]) == 1
    assert check.remarks.counts["hidden_headers"] == 3


JWT: dict[str, Any] = {
    "request_authentications": (
        r.RequestAuthentication(
            r.Metadata("jwt", "shop"), r.Target(), (r.JwtRule(issuer="a", jwks_uri="http://a.test/k"),)
        ),
    )
}


@pytest.mark.parametrize(
    ("merged", "stage"),
    [({}, "jwt"), ({"x-other": "1"}, "jwt"), ({"authorization": "Basic x"}, "default")],
)
def test_a_request_that_may_carry_a_hidden_token_is_refused(merged: dict[str, str], stage: str) -> None:
    answer = response(function(**JWT).check(check_request(merged=merged), (), NOW))
    assert told(answer)["stage"] == stage
    assert (answer.status.code == 0) is (stage == "default")


def test_a_provider_is_not_asked_about_headers_that_it_cannot_see() -> None:
    provider = r.ExtensionProvider("ext", "grpc", "ext.test", 9000, fail_open=True)
    mesh = r.MeshConfig(extension_providers=(provider,))
    custom = r.AuthorizationPolicy(r.Metadata("c", "shop"), r.Target(), r.Action.CUSTOM, (r.Rule(),), "ext")
    check = CheckFunction(Recorder(), DecisionIds(NOW, b"abc"))
    check.replace(Snapshot(compile_engine(r.Resources((custom,), version="v1"), mesh), mesh, "v1", NOW))
    assert isinstance(check.check(check_request(), (), NOW), Pending)
    answer = response(check.check(check_request(merged={"x-a": "1"}), (), NOW))
    assert (answer.denied_response.status.code, told(answer)["stage"]) == (403, "custom")


def test_the_client_address_is_unknown_where_the_forwarded_one_may_be_hidden() -> None:
    rule = r.Rule(sources=(r.Source(remote_ip_blocks=("10.9.9.9",)),))
    check = function(policy("p", r.Action.ALLOW, rule))
    assert is_allowed(check, check_request())
    assert not is_allowed(check, check_request(merged={"x-a": "1"}))


# --- labels of the mesh description ------------------------------------------------------------------------------


def described(name: str, account: str = "api", **labels: str) -> Workload:
    return Workload("shop", frozenset(labels.items()), account, name)


def sent(*, name: str = "", account: str = "api", principal: str = OWN, **labels: str) -> bytes:
    said = {"authz/namespace": "shop", **labels}
    if name:
        said["authz/workload"] = name
    if account:
        said["authz/service-account"] = account
    return check_request(destination=peer(principal, "10.1.0.5", 8080, said))


V1, V2, V3 = (described(f"reviews-v{n}", app="reviews", version=str(n)) for n in (1, 2, 3))
ALONE = described("seven", "seven", app="7")
DENY_V2 = policy("v2", r.Action.DENY, r.Rule(), {"version": "2"})
DENY_7 = policy("seven", r.Action.DENY, r.Rule(), {"app": "7"})


@pytest.mark.parametrize(
    ("message", "is_right"),
    [
        pytest.param(sent(account="seven", principal=""), False, id="a label that is no text is not sent"),
        pytest.param(sent(account="seven", principal="", app=""), False, id="it is sent empty"),
        pytest.param(sent(account="", principal="", app=""), False, id="empty, without an account"),
        pytest.param(sent(app="reviews", version=""), False, id="empty where it would tell which"),
        pytest.param(sent(account="seven", principal="", app="8"), False, id="a label says something else"),
        pytest.param(sent(app="reviews", version="1"), True, id="another of the account, by its labels"),
        pytest.param(sent(app="reviews", version="2"), False, id="by its labels"),
        pytest.param(sent(app="reviews", name="reviews-v2"), False, id="by its name, version not sent"),
        pytest.param(sent(app="reviews", name="reviews-v1"), True, id="another by its name, version not sent"),
        pytest.param(sent(app="reviews"), False, id="nothing tells which: they differ"),
        pytest.param(sent(app="reviews", version="9"), False, id="labels of none: they differ"),
        pytest.param(sent(name="reviews-v1", version="2"), False, id="name and labels contradict"),
        pytest.param(sent(name="reviews-v1", version="9"), True, id="labels of none, a name of one"),
        pytest.param(sent(account="other", principal="", app="7"), False, id="unknown: its word counts"),
        pytest.param(sent(account="other", principal=""), True, id="unknown: its word counts, even without labels"),
        pytest.param(sent(account="", principal=""), False, id="no account: it may be any of the namespace"),
        pytest.param(sent(account="", principal="", app="x"), True, id="no account, labels of none"),
    ],
)
def test_a_known_workload_is_what_the_description_says(message: bytes, is_right: bool) -> None:
    check = function(DENY_V2, DENY_7, workloads=(V1, V2, V3, ALONE))
    assert is_allowed(check, message) is is_right


def test_which_of_several_workloads_does_not_matter_where_their_policies_are_the_same() -> None:
    check = function(DENY_7, policy("all", r.Action.ALLOW, GET), workloads=(V1, V2, V3))
    assert is_allowed(check, sent(app="reviews"))


def test_a_refusal_says_how_to_settle_which_workload_it_is() -> None:
    answer = response(function(DENY_V2, workloads=(V1, V2)).check(sent(app="reviews"), (), NOW))
    assert told(answer)["stage"] == "identity"
    assert all(word in told(answer)["reason"] for word in ("reviews-v1, reviews-v2", "authz/workload", "quote"))


def test_labels_that_differ_are_logged_once_counted_and_recorded_as_described(
    caplog: pytest.LogCaptureFixture,
) -> None:
    audit = Recorder()
    check = function(DENY_7, workloads=(ALONE,), audit=audit)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            is_allowed(check, sent(account="seven", principal=""))
    assert len(caplog.messages) == 1
    assert "{app: 7}" in caplog.messages[0]
    assert check.remarks.counts["other_labels"] == 3
    assert {entry.attributes.destination.workload for entry in audit.entries} == {ALONE}


# --- who asks over mutual TLS ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("caller", "own", "namespace", "account", "words"),
    [
        ("", OWN, "shop", "api", ""),
        (OWN, OWN, "shop", "api", ""),
        (OWN, "", "shop", "api", ""),
        (OWN, "", "shop", "", ""),
        (OWN, "gateway.example.com", "shop", "api", ""),
        ("spiffe://cluster.local/ns/web/sa/api", OWN, "shop", "api", "asks for `spiffe://cluster.local/ns/shop"),
        ("spiffe://other/ns/shop/sa/api", OWN, "shop", "api", "asks for"),
        ("spiffe://cluster.local/ns/web/sa/api", "", "shop", "api", "namespace `shop`"),
        ("spiffe://cluster.local/ns/shop/sa/web", "", "shop", "api", "service account `api`"),
        ("spiffe://cluster.local/gateway", "", "shop", "api", "names no workload"),
        (f"{OWN} spiffe://cluster.local/ns/web/sa/x", OWN, "shop", "api", "asks for"),
    ],
)
def test_a_sidecar_asks_for_itself_alone(caller: str, own: str, namespace: str, account: str, words: str) -> None:
    problem = identity_problem(own, namespace, account, caller)
    assert words in problem
    assert bool(problem) is bool(words)


def test_who_asks_for_another_is_refused_and_recorded() -> None:
    audit = Recorder()
    check = function(audit=audit)
    assert is_allowed(check, check_request(), OWN)
    assert not is_allowed(check, check_request(), "spiffe://cluster.local/ns/web/sa/front")
    assert [entry.decision.stage.value for entry in audit.entries] == ["default", "identity"]


def test_the_account_that_a_sidecar_does_not_say_is_that_of_who_asks() -> None:
    check = function(DENY_7, workloads=(ALONE, V1))
    message = check_request(destination=peer("", "10.1.0.5", 8080, {"authz/namespace": "shop"}))
    assert not is_allowed(check, message, "spiffe://cluster.local/ns/shop/sa/seven")
    assert is_allowed(check, message, "spiffe://cluster.local/ns/shop/sa/api")


# --- key sets of a request's beginning ---------------------------------------------------------------------------


def test_refreshed_key_sets_are_for_requests_that_begin_later() -> None:
    source = "uri:http://a.test/k"
    key_sets: list[dict[str, KeySetState]] = [{source: KeySetState(None, error="first")}]
    provider = r.ExtensionProvider("ext", "grpc", "ext.test", 9000)
    mesh = r.MeshConfig(extension_providers=(provider,))
    custom = r.AuthorizationPolicy(r.Metadata("c", "shop"), r.Target(), r.Action.CUSTOM, (r.Rule(),), "ext")
    check = CheckFunction(Recorder(), DecisionIds(NOW, b"abc"), lambda: key_sets[-1])
    check.replace(Snapshot(compile_engine(r.Resources((custom,), version="v1", **JWT), mesh), mesh, "v1", NOW))
    message = check_request(headers=[("authorization", "Bearer eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJhIn0.c2ln")])
    before = check.check(message, (), NOW)
    key_sets.append({source: KeySetState(None, error="second")})
    after = check.check(message, (), NOW)
    for request, error in ((before, "first"), (after, "second")):
        assert isinstance(request, Pending)
        assert error in told(response(request.resume(ProviderAnswer(True), NOW)))["reason"]

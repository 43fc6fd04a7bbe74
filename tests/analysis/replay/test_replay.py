"""What replay says of records is what deciding the request says; what it cannot know it does not say."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authz.analysis.replay.replay import CHANGES, Replay, ReplayOutcome, ReplayReport
from authz.audit.omissions import RecordRules
from authz.audit.writer import RecordWriter
from authz.core import resources as r
from authz.core.attributes import NOT_AUTHENTICATED, AttributeContext, Token, Workload
from authz.core.compiler import compile_engine
from authz.core.decided import Offer, Record
from authz.core.decision import Decision
from authz.core.engine import Engine
from authz.core.pipeline import decide
from authz.core.providers import ProviderAnswer, ProviderQuestion
from tests import build
from tests.build import operation, policy, source, when
from tests.core.test_engine import REQUESTS, RULES

ALLOW, DENY = r.Action.ALLOW, r.Action.DENY
ANY_ISSUER = r.RequestAuthentication(r.Metadata("jwt", build.NAMESPACE), jwt_rules=(r.JwtRule(name="shop/jwt/0"),))
STRICT = r.PeerAuthentication(r.Metadata("strict", build.NAMESPACE), mode=r.MtlsMode.STRICT)
Item = r.AuthorizationPolicy | r.RequestAuthentication | r.PeerAuthentication


def engine(*items: Item, version: str = "new", mesh: r.MeshConfig | None = None) -> Engine:
    resources = r.Resources(
        tuple(item for item in items if isinstance(item, r.AuthorizationPolicy)),
        tuple(item for item in items if isinstance(item, r.RequestAuthentication)),
        tuple(item for item in items if isinstance(item, r.PeerAuthentication)),
        version,
    )
    return compile_engine(resources, mesh or r.MeshConfig())


def allowing(question: ProviderQuestion) -> ProviderAnswer:
    return ProviderAnswer(allowed=True)


def judged(
    by: Engine, attributes: AttributeContext, ask: Callable[[ProviderQuestion], ProviderAnswer] = allowing
) -> tuple[AttributeContext, Decision]:
    """Decide as the service does: without token rules there are no tokens."""
    policies = by.for_workload(attributes.destination.workload)
    return decide(policies, attributes, lambda a, rules: a.authentication if rules else NOT_AUTHENTICATED, ask)


def recorded(by: Engine, attributes: AttributeContext, number: int = 0, redact: tuple[str, ...] = ()) -> Record:
    seen, decision = judged(by, attributes)
    if not by.for_workload(attributes.destination.workload).jwt_rules:
        seen = replace(seen, authentication=NOT_AUTHENTICATED)
    record: Record = json.loads(RecordWriter().write(Offer(seen, decision, f"d-{number}", 1.7e9 + number, 5e-5)))
    return RecordRules.parse(redact).redact(record)


def replayed(by: Engine, *records: Record, **options: Any) -> ReplayReport:
    replay = Replay(lambda version: by, **options)
    replay.take_all(records)
    return replay.report()


def only(report: ReplayReport) -> ReplayOutcome:
    (group,) = report.groups
    return group.key.outcome


def with_issuer(attributes: AttributeContext) -> AttributeContext:
    """A token names its issuer and subject as its claims do."""
    token = attributes.authentication.token
    if token is None:
        return attributes
    issuer, subject = (str(token.claims.get(name) or "") for name in ("iss", "sub"))
    return replace(
        attributes, authentication=replace(attributes.authentication, token=Token(token.claims, issuer, subject))
    )


REDACTIONS = st.sampled_from(
    [
        (),
        ("$.source.ip",),
        ("$.source.principal:hash",),
        ("$.request.path:remove", "$.sni"),
        ("$.request.*",),
        ("$.token.subject",),
    ]
)
POLICIES = st.tuples(st.lists(RULES, max_size=4), st.lists(RULES, max_size=2))


def set_of(rules: tuple[list[r.Rule], list[r.Rule]], version: str) -> Engine:
    allow, deny = rules
    return engine(policy(*allow), policy(*deny, name="d", action=DENY), ANY_ISSUER, version=version)


@settings(max_examples=150)
@given(POLICIES, POLICIES, st.lists(REQUESTS, min_size=1, max_size=3), REDACTIONS, st.booleans())
def test_what_is_said_is_what_deciding_the_request_says(
    then: tuple[list[r.Rule], list[r.Rule]],
    now: tuple[list[r.Rule], list[r.Rule]],
    requests: list[AttributeContext],
    redact: tuple[str, ...],
    is_kept: bool,
) -> None:
    """For any policies and requests, whatever the record lacks: said and wrong never happens, unsaid may."""
    if is_kept:  # some rules stand as they stood
        now = ([*then[0][:2], *now[0][2:]], [*then[1][:1], *now[1][1:]])
    old, new = set_of(then, "old"), set_of(now, "new")
    for number, attributes in enumerate(map(with_issuer, requests)):
        truth = judged(new, attributes)[1]
        record = recorded(old, attributes, number, redact)
        report = replayed(new, record, then=lambda version: old if is_kept else None)
        (group,) = report.groups
        if group.key.outcome in (ReplayOutcome.UNSAID, ReplayOutcome.OUTSIDE):
            continue
        said = group.key.now.effect if group.key.now is not None else record["effect"]
        assert said == truth.effect.value
        if group.key.outcome is ReplayOutcome.OTHER_RULE:
            assert group.key.now is not None
            assert group.key.now.rule == (truth.rule.short if truth.rule else "")


@settings(max_examples=40)
@given(POLICIES, st.lists(REQUESTS, min_size=1, max_size=6))
def test_the_same_policies_change_nothing(
    then: tuple[list[r.Rule], list[r.Rule]], requests: list[AttributeContext]
) -> None:
    by = set_of(then, "v1")
    records = [recorded(by, with_issuer(attributes), at) for at, attributes in enumerate(requests)]
    assert replayed(by, *records).count(ReplayOutcome.SAME, ReplayOutcome.OUTSIDE) == len(records)
    as_of = replayed(by, *records, is_as_of=True)
    assert as_of.count(*CHANGES, ReplayOutcome.OTHER_RULE) == 0


@settings(max_examples=30)
@given(POLICIES, POLICIES, st.lists(REQUESTS, min_size=2, max_size=12))
def test_records_that_are_counted_with_others_get_the_answer_of_their_own(
    then: tuple[list[r.Rule], list[r.Rule]], now: tuple[list[r.Rule], list[r.Rule]], requests: list[AttributeContext]
) -> None:
    old, new = set_of(then, "old"), set_of(now, "new")
    records = [recorded(old, with_issuer(attributes), at) for at, attributes in enumerate(requests)]
    together = replayed(new, *records)
    alone = [only(replayed(new, record)) for record in records]
    assert {one: together.count(one) for one in ReplayOutcome} == {one: alone.count(one) for one in ReplayOutcome}


RED = policy(when("request.headers[x-team]", "red"), source(principals=("cluster.local/ns/web/sa/front",)))
OPEN = engine(version="old")


@pytest.mark.parametrize(
    ("items", "changes", "redact", "facts", "rules"),
    [
        ((policy(when("request.headers[x-team]", "red")),), {}, (), ("request.headers[x-team]",), ("shop/p/0",)),
        ((RED,), {}, (), (), ()),  # another rule admits it, whatever the header was
        ((policy(when("request.headers[x-team]", "red"), action=DENY),), {}, (), ("request.headers[x-team]",),
         ("shop/p/0",)),
        ((policy(when("request.headers[user-agent]", "x")),), {"headers": {"user-agent": ("x",)}}, (), (), ()),
        ((policy(when("request.headers[host]", "api.example.com")),), {}, (), (), ()),
        ((policy(when("request.headers[:path]", "/a?x=1")),), {"path": "/a?x=1"}, (), ("request.headers[:path]",),
         ("shop/p/0",)),
        ((policy(operation(paths=("/a",))),), {"path": "/a?x=1"}, (), (), ()),
        ((policy(operation(paths=("/a*",))),), {"path": "/a" * 700}, (), ("paths",), ("shop/p/0",)),
        ((policy(operation(paths=("/a",))),), {"path": "/a"}, ("$.request.path",), ("paths",), ("shop/p/0",)),
        ((policy(operation(methods=("GET",))),), {}, ("$.request.method:hash",), ("methods",), ("shop/p/0",)),
        ((policy(source(principals=("*",))),), {}, ("$.source.principal",), ("source.principal",), ("shop/p/0",)),
        ((policy(source(ip_blocks=("10.0.0.0/8",))),), {}, ("$.source.ip:remove",), ("source.ip",), ("shop/p/0",)),
        ((policy(operation(ports=("8080",))),), {}, ("$.destination.port",), ("destination.port",), ("shop/p/0",)),
        ((policy(when("connection.sni", "a")),), {"sni": "a"}, ("$.sni",), ("connection.sni",), ("shop/p/0",)),
        ((STRICT,), {"caller": None}, ("$.source.mtls",), ("source.mtls",), ()),
        ((STRICT,), {"caller": None}, ("$.destination.gateway:remove",), ("destination.gateway",), ()),
        ((policy(labels={"app": "api"}),), {}, ("$.destination.labels:remove",), ("destination.labels",), ()),
        ((policy(labels={"app": "api"}, namespace="other"),), {}, ("$.destination.labels:remove",), (), ()),
        ((policy(when("experimental.envoy.filters.a.b[c]", "d")),), {}, (), ("experimental.envoy.filters.a.b[c]",),
         ("shop/p/0",)),
    ],
)  # fmt: skip
def test_what_a_record_lacks_is_named_with_the_rule_that_asks_for_it(
    items: tuple[Item, ...],
    changes: dict[str, Any],
    redact: tuple[str, ...],
    facts: tuple[str, ...],
    rules: tuple[str, ...],
) -> None:
    attributes = build.request(**{"headers": {"x-team": ("red",)}, **changes})
    report = replayed(engine(*items), recorded(OPEN, attributes, redact=redact))
    unsaid = report.of(ReplayOutcome.UNSAID)
    assert [(group.key.facts, group.key.rules) for group in unsaid] == ([(facts, rules)] if facts else [])


CLAIMS: dict[str, Any] = {"iss": "i", "sub": "a", "g": "x"}


def jwt(issuer: str = "i", **fields: Any) -> r.RequestAuthentication:
    return r.RequestAuthentication(
        r.Metadata("jwt", "shop"), jwt_rules=(r.JwtRule(issuer, name="shop/jwt/0", **fields),)
    )


@pytest.mark.parametrize(
    ("then", "now", "is_kept", "claims", "outcome", "is_assumed"),
    [
        ([jwt()], [jwt(), policy(source(request_principals=("i/a",)))], True, CLAIMS, ReplayOutcome.OTHER_RULE, False),
        ([jwt()], [jwt(), policy(source(request_principals=("i/a",)))], False, CLAIMS, ReplayOutcome.OTHER_RULE, True),
        (
            [jwt()],
            [jwt(), policy(source(request_principals=("i/b",)))],
            True,
            CLAIMS,
            ReplayOutcome.NEWLY_DENIED,
            False,
        ),
        ([jwt()], [policy(source(request_principals=("i/a",)))], True, CLAIMS, ReplayOutcome.NEWLY_DENIED, False),
        ([jwt()], [jwt("other")], False, CLAIMS, ReplayOutcome.UNSAID, False),
        ([jwt()], [jwt(audiences=("new",))], True, CLAIMS, ReplayOutcome.UNSAID, False),
        ([], [jwt()], True, CLAIMS, ReplayOutcome.UNSAID, False),  # a token may have been there, and nobody looked
        ([], [jwt()], True, None, ReplayOutcome.UNSAID, False),
        ([], [jwt()], False, None, ReplayOutcome.SAME, True),
        ([jwt()], [jwt(), policy(when("request.auth.claims[g]", "x"))], True, CLAIMS, ReplayOutcome.UNSAID, False),
        ([jwt()], [jwt(), policy(when("request.auth.claims[g]", "x"))], True, None, ReplayOutcome.NEWLY_DENIED, False),
        (
            [jwt()],
            [jwt(), policy(when("request.auth.claims[iss]", "i"))],
            True,
            CLAIMS,
            ReplayOutcome.OTHER_RULE,
            False,
        ),
        ([jwt()], [jwt(presence=r.Presence.REQUIRED)], False, None, ReplayOutcome.NEWLY_DENIED, True),
        ([STRICT, jwt()], [jwt()], True, None, ReplayOutcome.UNSAID, False),  # refused before tokens were looked at
        ([STRICT, jwt()], [], True, None, ReplayOutcome.NEWLY_ALLOWED, False),
    ],
)
def test_tokens_count_as_far_as_the_record_and_the_policies_of_then_show(
    then: list[Item],
    now: list[Item],
    is_kept: bool,
    claims: dict[str, Any] | None,
    outcome: ReplayOutcome,
    is_assumed: bool,
) -> None:
    old = engine(*then, version="old")
    attributes = with_issuer(build.request(claims=claims, caller=None if STRICT in then else build.CALLER))
    report = replayed(engine(*now), recorded(old, attributes), then=lambda version: old if is_kept else None)
    assert (only(report), report.assumed) == (outcome, int(is_assumed))


TEAMS = tuple(when("request.headers[x-team]", name) for name in ("blue", "red", "teal"))


@pytest.mark.parametrize(
    ("then", "now", "is_kept", "outcome"),
    [
        ([policy(TEAMS[1])], [policy(TEAMS[1], TEAMS[2])], True, ReplayOutcome.SAME),  # it fired then, and stands
        ([policy(TEAMS[1])], [policy(TEAMS[1], TEAMS[2])], False, ReplayOutcome.UNSAID),
        ([policy(TEAMS[1])], [policy(TEAMS[0])], True, ReplayOutcome.UNSAID),
        ([policy(TEAMS[0])], [policy(TEAMS[0])], True, ReplayOutcome.SAME),  # it did not fire then, and stands
        ([policy(TEAMS[0])], [policy(TEAMS[0], TEAMS[1])], True, ReplayOutcome.UNSAID),
        ([policy(TEAMS[0], TEAMS[1])], [policy(TEAMS[0])], True, ReplayOutcome.NEWLY_DENIED),
        ([policy(TEAMS[0], action=DENY)], [policy(TEAMS[0], action=DENY)], True, ReplayOutcome.SAME),
        ([policy(TEAMS[1], action=DENY)], [policy(TEAMS[1], action=DENY)], True, ReplayOutcome.SAME),
        ([policy(TEAMS[0])], [policy(TEAMS[0], action=DENY)], True, ReplayOutcome.UNSAID),
    ],
)
def test_a_rule_that_stands_as_it_stood_does_what_it_did(
    then: list[Item], now: list[Item], is_kept: bool, outcome: ReplayOutcome
) -> None:
    old = engine(*then, version="old")
    record = recorded(old, build.request(headers={"x-team": ("red",)}))
    assert only(replayed(engine(*now), record, then=lambda version: old if is_kept else None)) is outcome


PROVIDER = r.MeshConfig(extension_providers=(r.ExtensionProvider("ext", "grpc", "ext.example", 9000),))
CUSTOM = policy(build.ANYTHING, name="c", action=r.Action.CUSTOM, provider="ext")


@pytest.mark.parametrize(
    ("then", "now", "is_kept", "refuses", "outcome"),
    [
        ([CUSTOM], [CUSTOM, policy(build.ANYTHING)], True, False, ReplayOutcome.OTHER_RULE),
        ([CUSTOM], [CUSTOM, policy(build.ANYTHING)], False, False, ReplayOutcome.UNSAID),
        ([], [CUSTOM], True, False, ReplayOutcome.UNSAID),
        ([CUSTOM], [CUSTOM, policy()], False, False, ReplayOutcome.NEWLY_DENIED),  # by whatever the provider says
        ([CUSTOM], [CUSTOM, policy()], False, True, ReplayOutcome.SAME),
        ([CUSTOM], [], False, True, ReplayOutcome.NEWLY_ALLOWED),
    ],
)
def test_a_provider_that_was_not_asked_then_is_not_guessed(
    then: list[Item], now: list[Item], is_kept: bool, refuses: bool, outcome: ReplayOutcome
) -> None:
    old, new = engine(*then, version="old", mesh=PROVIDER), engine(*now, mesh=PROVIDER)
    attributes = build.request()
    seen, decision = judged(old, attributes, lambda question: ProviderAnswer(allowed=not refuses))
    record: Record = json.loads(RecordWriter().write(Offer(seen, decision, "d-1", 1.7e9, 5e-5)))
    report = replayed(new, record, then=lambda version: old if is_kept else None)
    assert only(report) is outcome
    if outcome is ReplayOutcome.UNSAID:
        assert report.groups[0].key.facts == ("answer of provider ext",)


def test_changes_are_counted_by_workload_caller_and_rule_with_their_times_and_an_example() -> None:
    old = engine(policy(build.ANYTHING), version="old")
    new = engine(policy(source(principals=("cluster.local/ns/web/sa/front",))))
    callers = [build.CALLER, "spiffe://cluster.local/ns/web/sa/other", None, "spiffe://cluster.local/ns/web/sa/other"]
    report = replayed(new, *(recorded(old, build.request(caller=one), at) for at, one in enumerate(callers)))
    denied = report.of(ReplayOutcome.NEWLY_DENIED)
    assert [(one.key.caller, one.count, one.first[11:19], one.last[11:19], one.example) for one in denied] == [
        ("cluster.local/ns/web/sa/other", 2, "22:13:21", "22:13:23", "d-1"),
        ("no identity", 1, "22:13:22", "22:13:22", "d-2"),
    ]
    assert str(denied[0].key.then) == "allow, ALLOW rule shop/p/0"
    assert str(denied[0].key.now) == "deny 403, no ALLOW rule matched"
    assert report.count(ReplayOutcome.SAME) == 1


def test_the_labels_of_a_mesh_description_count_in_place_of_those_recorded() -> None:
    workload = Workload("shop", frozenset({("app", "old")}), "api", "api-v1")
    record = recorded(OPEN, build.request(workload=workload))
    new = engine(policy(labels={"app": "new"}))
    assert only(replayed(new, record)) is ReplayOutcome.SAME
    described = {("shop", "api-v1"): replace(workload, labels=frozenset({("app", "new")}))}
    assert only(replayed(new, record, described=described)) is ReplayOutcome.NEWLY_DENIED


@pytest.mark.parametrize(
    "items",
    [
        (policy(source(principals=("*",))),),
        (policy(source(not_principals=("*",))),),
        (policy(source(namespaces=("web",)), action=DENY),),
        (STRICT,),
        (policy(build.ANYTHING),),
    ],
)
def test_a_certificate_that_nobody_vouched_for_is_unknown_again(items: tuple[Item, ...]) -> None:
    """As a field that is null was not delivered then: the answer is certain."""
    attributes = build.request(caller=None)
    attributes = replace(attributes, source=replace(attributes.source, is_unproven=True))
    report = replayed(engine(*items), recorded(OPEN, attributes))
    (group,) = report.groups
    said = group.key.now.effect if group.key.now is not None else "allow"
    assert said == judged(engine(*items), attributes)[1].effect.value
    assert report.count(ReplayOutcome.UNSAID) == 0


@pytest.mark.parametrize("stage", ["identity", "internal", "normalization", "rate-limit"])
def test_what_no_policy_decided_stays(stage: str) -> None:
    record = recorded(OPEN, build.request())
    assert only(replayed(engine(policy()), {**record, "stage": stage, "effect": "deny"})) is ReplayOutcome.OUTSIDE


def test_a_decision_by_policies_that_are_not_kept_is_said_so_and_one_that_differs_is_found() -> None:
    old = engine(policy(operation(paths=("/a",))), version="old")
    record = recorded(old, build.request(path="/a"))
    assert only(replayed(old, record, is_as_of=True)) is ReplayOutcome.SAME
    assert (
        only(replayed(old, {**record, "effect": "deny", "status": 403}, is_as_of=True)) is ReplayOutcome.NEWLY_ALLOWED
    )
    replay = Replay(lambda version: None, is_as_of=True)
    replay.take(record)
    (group,) = replay.report().groups
    assert (group.key.outcome, group.key.facts) == (ReplayOutcome.NOT_KEPT, ("old",))


@pytest.mark.parametrize(
    "record",
    [
        {"decision_id": "x", "time": "t", "effect": "deny", "stage": "internal", "policy_version": "v"},
        {"decision_id": "x", "source": [], "destination": {}},
        {"decision_id": "x", "source": {}, "destination": {}, "request": 7},
        {"decision_id": "x", "source": {}, "destination": {"labels": 3}, "request": None, "rule": "r"},
        {"decision_id": "x", "source": {"principal": ["a"]}, "destination": {}, "request": None, "effect": "allow"},
    ],
)
def test_what_is_no_whole_record_is_counted_as_not_said(record: Record) -> None:
    report = replayed(engine(policy()), record)
    assert report.count(ReplayOutcome.UNSAID) == report.records == 1


def test_memory_of_what_was_seen_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("authz.analysis.replay.replay.MAX_ALIKE", 3)
    new = engine(policy(operation(paths=("/1*",))))
    replay = Replay(lambda version: new)
    replay.take_all(recorded(OPEN, build.request(path=f"/{at}"), at) for at in range(20))
    assert replay.report().count(ReplayOutcome.NEWLY_DENIED) == 9
    assert sum(len(one.known) for one in replay._prepared.values()) <= 4

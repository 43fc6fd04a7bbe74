from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authz.core import resources as r
from authz.core.attributes import UNKNOWN, AttributeContext
from authz.core.errors import Location
from authz.core.explain import HIDDEN, Explanation, explain, nearest_miss
from authz.core.pipeline import decide
from tests import build
from tests.build import policy, when
from tests.core.test_engine import REQUESTS, RULES


def explained(attributes: AttributeContext, *items: r.AuthorizationPolicy) -> Explanation:
    found = build.policies_for(*items, workload=attributes.destination.workload)
    return explain(found, attributes, build.keep_token, build.refuse_everything)


@settings(max_examples=150)
@given(
    st.lists(RULES, max_size=4),
    st.lists(RULES, min_size=1, max_size=3),
    REQUESTS,
    st.sampled_from([r.Action.AUDIT, r.Action.CUSTOM]),
)
def test_explain_decides_as_decide_does(
    allow: list[r.Rule], deny: list[r.Rule], attributes: AttributeContext, other: r.Action
) -> None:
    items = (
        policy(*allow),
        policy(*deny, name="d", action=r.Action.DENY),
        policy(*deny, name="o", action=other, provider="nowhere"),
    )
    found = build.policies_for(*items)
    _, decision = decide(found, attributes, build.keep_token, build.refuse_everything)

    assert explained(attributes, *items).decision == decision


def test_the_nearest_miss_is_the_rule_that_failed_in_the_fewest_fields() -> None:
    far = r.Rule((r.Source(principals=("td/ns/x/sa/y",)),), (r.Operation(paths=("/no",), methods=("POST",)),))
    near = r.Rule(
        (r.Source(namespaces=("db",)), r.Source(namespaces=("web",), principals=("cluster.local/ns/web/sa/front",))),
        (r.Operation(paths=("/data*",), methods=("GET",)),),
    )
    found = explained(build.request(path="/data/1", method="PUT"), policy(far, near))

    assert found.nearest is not None
    assert found.nearest.reference.short == "shop/p/1"
    assert [str(note) for note in found.nearest.failed] == [
        "to[0].operation.methods (methods): expected one of `GET`, got `PUT`"
    ]


@pytest.mark.parametrize("signed_in", [False, True])
def test_a_missing_token_is_one_reason_however_many_fields_need_it(signed_in: bool) -> None:
    """A rule for this operation that only wants a token is closer than a rule for another operation."""
    readers = r.Rule(
        (r.Source(request_principals=("issuer/*",)),),
        (r.Operation(paths=("/page",), methods=("GET",)),),
        (r.Condition("request.auth.claims[role]", ("reader",)),),
    )
    other = r.Rule((), (r.Operation(paths=("/health",)),))
    asked = build.request(
        path="/page", claims={"iss": "issuer", "sub": "alice", "role": "guest"} if signed_in else None
    )
    found = nearest_miss(build.policies_for(policy(other, readers)), asked)

    assert found is not None
    assert found.reference.short == "shop/p/1"
    assert len(found.failed) == (1 if signed_in else 2)


def _rule(path: str = "", method: str = "", caller: str = "nobody", **more: str) -> r.Rule:
    fields = {name: (value,) for name, value in (("paths", path), ("methods", method), *more.items()) if value}
    return r.Rule((r.Source(principals=(caller,)),), (r.Operation(**fields),) if fields else ())


@pytest.mark.parametrize(
    ("nearer", "farther"),
    [
        (_rule("/exp"), _rule("/svid-any")),
        (_rule("/exp"), _rule()),
        (_rule("/exp", "PUT"), _rule(method="GET")),
        (_rule("/exp", "GET"), _rule("/exp", "PUT", caller="cluster.local/ns/web/sa/front")),
        (_rule("/exp", "GET"), _rule("/exp")),
        (_rule("/exp", hosts="api.example.com"), _rule("/exp", hosts="other.example")),
        (_rule("/e*"), _rule("/exp", ports="9")),
        (_rule("/exp"), _rule("/*")),
        (_rule("/export"), _rule("/other")),
        (_rule("/exp"), _rule(not_paths="/a")),
        (_rule(), _rule("/other")),
    ],
)
def test_the_nearest_rule_shares_most_with_the_request(nearer: r.Rule, farther: r.Rule) -> None:
    """The path first, then method and host, then the number of failures."""
    for rules in ((nearer, farther), (farther, nearer)):
        found = nearest_miss(build.policies_for(policy(*rules)), build.request(path="/exp"))
        assert found is not None
        assert rules[found.reference.index] is nearer


def test_of_equal_rules_the_first_of_the_file_is_nearest() -> None:
    """Not the first by name: ``rule[10]`` comes before ``rule[2]`` there."""
    rules = [replace(_rule("/exp"), location=Location("p.yaml", line)) for line in range(1, 13)]
    found = nearest_miss(
        build.policies_for(policy(*rules[2:], name="a"), policy(*rules[:2], name="z")), build.request(path="/exp")
    )
    assert found is not None
    assert found.reference.location.line == 1
    asked = nearest_miss(build.policies_for(policy(*rules)), build.request(path="/exp", caller="nobody"))
    assert asked is not None
    assert asked.reference.index == 0


def test_nearest_miss_answers_without_a_full_explanation() -> None:
    found = nearest_miss(build.policies_for(policy(when("request.headers[x-role]", "admin"))), build.request())

    assert found is not None
    assert str(found.failed[0]) == "when[0] (request.headers[x-role]): expected one of `admin`, got no value"


def test_there_is_no_nearest_miss_without_rules() -> None:
    assert explained(build.request(), policy()).nearest is None


def test_every_stage_is_told_in_order_and_unreached_ones_are_marked() -> None:
    deny = policy(r.Rule(), name="d", action=r.Action.DENY)
    found = explained(build.request(), policy(r.Rule()), deny)

    assert [(stage.name, stage.reached, stage.outcome) for stage in found.stages] == [
        ("PeerAuthentication", True, "mode PERMISSIVE, identity cluster.local/ns/web/sa/front"),
        ("RequestAuthentication", True, "no policy applies"),
        ("AUDIT", True, "no policy applies"),
        ("DENY (dry run)", True, "no policy applies"),
        ("DENY", True, "shop/d/0 fired"),
        ("ALLOW (dry run)", False, "no policy applies"),
        ("ALLOW", False, "no rule fired"),
    ]


def test_credentials_are_hidden() -> None:
    attributes = build.request(headers={"authorization": ("Bearer secret",)})
    found = explained(attributes, policy(when("request.headers[Authorization]", "Basic x")))

    assert found.nearest is not None
    assert found.nearest.failed[0].actual == (HIDDEN,)
    assert "secret" not in str(found.nearest.failed[0])


def test_exclusions_and_undelivered_facts_are_said() -> None:
    attributes = build.request(sni=UNKNOWN, metadata={"envoy.filters.a": {"k": ["v"]}})
    items = policy(
        when("connection.sni", none_of=("a",)),
        when("experimental.envoy.filters.a[k]", "x"),
        when("request.auth.principal", "i/s"),
    )
    notes = {
        note.key: str(note)
        for stage in explained(attributes, items).stages
        for rule in stage.rules
        for note in rule.failed
    }

    assert notes == {
        "connection.sni": "when[0] (connection.sni): expected none of `a`, "
        "the value is not delivered by this deployment",
        "experimental.envoy.filters.a[k]": "when[0] (experimental.envoy.filters.a[k]): expected one of `x`, got `[v]`",
        "request.auth.principal": "when[0] (request.auth.principal): expected one of `i/s`, "
        "got no value: the request has no accepted token",
    }

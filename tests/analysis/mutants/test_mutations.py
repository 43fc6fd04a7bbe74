"""Which faults resources may have, and what an engine with one of them holds."""

import pytest

from authz.analysis.mutants.mutant import mutated
from authz.analysis.mutants.mutations import mutants_of
from authz.core.attributes import Workload
from authz.core.compiler import compile_engine
from authz.core.engine import Engine
from authz.core.resources import MeshConfig
from authz.policy.reader import read_policies

HEAD = "apiVersion: security.istio.io/v1\nkind: {}\nmetadata: {{name: p, namespace: shop{}}}\nspec: {}\n"
WHOLE = "the whole resource dropped"
CART = Workload("shop", frozenset({("app", "cart")}))


def engine_of(kind: str, spec: str, more: str = "") -> Engine:
    read = read_policies([("p.yaml", HEAD.format(kind, more, spec).encode())])
    assert not read.has_errors, read.problems
    return compile_engine(read.resources, MeshConfig())


@pytest.mark.parametrize(
    ("kind", "spec", "changes"),
    [
        ("AuthorizationPolicy", "{}", [WHOLE, "action: ALLOW replaced by DENY"]),
        (
            "AuthorizationPolicy",
            "{action: DENY, rules: [{}]}",
            [WHOLE, "action: DENY replaced by ALLOW", "rules[0] dropped"],
        ),
        ("AuthorizationPolicy", "{action: CUSTOM, provider: {name: x}, rules: [{}]}", [WHOLE, "rules[0] dropped"]),
        ("AuthorizationPolicy", "{action: AUDIT, rules: [{}]}", []),
        ("PeerAuthentication", "{mtls: {mode: STRICT}}", [WHOLE, "mtls.mode: STRICT replaced by PERMISSIVE"]),
        (
            "PeerAuthentication",
            "{selector: {matchLabels: {app: cart}}, portLevelMtls: {80: {mode: DISABLE}}}",
            [WHOLE, "portLevelMtls.80 dropped", "portLevelMtls.80.mode: DISABLE replaced by STRICT"],
        ),
        (
            "RequestAuthentication",
            "{jwtRules: [{issuer: https://i, audiences: [a, b], "
            "fromHeaders: [{name: x}], fromParams: [q], fromCookies: [z]}]}",
            [
                WHOLE,
                "jwtRules[0].issuer: `https://i` replaced by another",
                "jwtRules[0].audiences dropped",
                "jwtRules[0].audiences: `a` dropped",
                "jwtRules[0].audiences: `b` dropped",
                "jwtRules[0].fromHeaders: `x` dropped",
                "jwtRules[0].fromParams: `q` dropped",
                "jwtRules[0].fromCookies: `z` dropped",
            ],
        ),
    ],
)
def test_a_resource_has_these_mutants(kind: str, spec: str, changes: list[str]) -> None:
    assert [mutant.change for mutant in mutants_of(engine_of(kind, spec).resources)] == changes


def test_a_dry_run_has_no_mutants() -> None:
    engine = engine_of("AuthorizationPolicy", "{rules: [{}]}", ', annotations: {istio.io/dry-run: "true"}')
    assert list(mutants_of(engine.resources)) == []


def test_the_rules_after_a_dropped_one_keep_their_names() -> None:
    spec = "{rules: [{to: [{operation: {paths: [/a]}}]}, {to: [{operation: {ports: ['80']}}]}]}"
    engine = engine_of("AuthorizationPolicy", spec)
    mutant = next(one for one in mutants_of(engine.resources) if one.change == "rules[0] dropped")
    policies = mutated(engine, mutant).for_workload(CART)
    for sets in (policies.http, policies.tcp):
        assert sets.allow is not None
        assert [rule.reference.short for rule in sets.allow.rules] == ["shop/p/1"]


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("AuthorizationPolicy", "{action: DENY, rules: [{from: [{source: {principals: [a/b]}}]}]}"),
        ("RequestAuthentication", "{jwtRules: [{issuer: https://i}]}"),
        ("PeerAuthentication", "{mtls: {mode: STRICT}}"),
    ],
)
def test_every_mutant_changes_what_applies_to_a_workload(kind: str, spec: str) -> None:
    engine = engine_of(kind, spec)
    before = engine.for_workload(CART)
    mutants = list(mutants_of(engine.resources))
    assert len(mutants) >= 2
    for mutant in mutants:
        after = mutated(engine, mutant).for_workload(CART)
        assert (before.policies, before.jwt_rules, before.base_mode) != (
            after.policies,
            after.jwt_rules,
            after.base_mode,
        ), mutant.change

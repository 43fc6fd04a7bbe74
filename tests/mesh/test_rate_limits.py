"""Rate limits in a mesh description: what is read, for whom it is, and what is refused with its place."""

import pytest

from authz.core.errors import Problem
from authz.mesh.description import read_mesh_description
from authz.mesh.nouns import Mesh
from authz.mesh.rate_limits import (
    AddressSelector,
    AppliedLimit,
    AttributeSelector,
    HeaderSelector,
    LimitScope,
    LimitUnit,
    MethodSelector,
    PathMatch,
    PathSelector,
    ValueMatch,
)
from authz.mesh.read_rate_limits import NOT_DONE
from tests.mesh.meshes import Ports, description

FORM = """
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: BackendTrafficPolicy
metadata: {name: quota, namespace: NAMESPACE}
spec:
  TARGET
  rateLimit: RATE
"""
SERVER = "targetRefs: [{group: networking.istio.io, kind: ServiceEntry, name: server}]"
ONCE = "{requests: 1, unit: Minute}"


def policy(rate: str, target: str = SERVER, namespace: str = "app") -> str:
    return FORM.replace("TARGET", target).replace("RATE", rate).replace("NAMESPACE", namespace)


def selecting(selector: str, scope: str = "global") -> str:
    return policy(f"{{{scope}: {{rules: [{{clientSelectors: [{selector}], limit: {ONCE}}}]}}}}")


def matching(pattern: str) -> str:
    return selecting(f"{{headers: [{{name: a, type: RegularExpression, value: '{pattern}'}}]}}")


def read(*texts: str) -> tuple[Mesh, tuple[Problem, ...]]:
    return read_mesh_description([("mesh.yaml", description(Ports()) + "".join(texts).encode())])


def of(mesh: Mesh, workload: str) -> tuple[AppliedLimit, ...]:
    return mesh.workload(workload).limits


def test_a_rule_is_read_with_all_its_selectors() -> None:
    mesh, problems = read(
        policy("""
    type: Global
    global:
      failClosed: true
      rules:
      - clientSelectors:
        - headers: [{name: X-Key, value: a, invert: true}, {name: x-any, type: Distinct}]
          methods: [{value: GET}, {value: POST}]
          path: {type: Template, value: "/books/{*}"}
          sourceCIDR: {value: 192.0.2.7/24}
          attributes: [{name: source.principal, type: Distinct, default: nobody}]
        - attributes: [{name: "request.auth.claims[realm][name]", value: books}]
        limit: {requests: 7, unit: Month}
        cost: {request: {from: Number, number: 3}}
        shadowMode: true
""")
    )
    assert problems == ()
    (applied,) = of(mesh, "server-v1")
    rule = applied.rule
    assert rule.selectors == (
        HeaderSelector("x-key", ValueMatch.EXACT, "a", invert=True),
        HeaderSelector("x-any", ValueMatch.DISTINCT),
        MethodSelector(("GET", "POST")),
        PathSelector(PathMatch.TEMPLATE, "/books/{*}"),
        AddressSelector("192.0.2.0", 24),
        AttributeSelector("source.principal", ValueMatch.DISTINCT, default="nobody"),
        AttributeSelector("request.auth.claims[realm][name]", ValueMatch.EXACT, "books"),
    )
    assert (rule.requests, rule.unit, rule.cost, rule.scope) == (7, LimitUnit.MONTH, 3, LimitScope.GLOBAL)
    assert rule.is_shadow
    assert rule.fails_closed
    assert list(rule.claims) == [("realm", "name")]
    assert (rule.id, rule.reference.location.file) == ("app/quota/global/0", "mesh.yaml")


def test_both_scopes_stand_in_one_policy() -> None:
    mesh, problems = read(policy(f"{{global: {{rules: [{{limit: {ONCE}}}]}}, local: {{rules: [{{limit: {ONCE}}}]}}}}"))
    assert problems == ()
    assert sorted(one.rule.id for one in of(mesh, "server-v1")) == ["app/quota/global/0", "app/quota/local/0"]
    assert of(mesh, "client-v1") == ()


@pytest.mark.parametrize(
    ("target", "namespace", "chosen"),
    [
        (SERVER, "app", {"server-v1"}),
        ("targetRefs: [{kind: WorkloadEntry, name: server-v1}]", "app", {"server-v1"}),
        ("targetRefs: [{kind: Gateway, name: web}]", "istio-system", {"ingress"}),
        ("targetSelectors: [{kind: WorkloadEntry, matchLabels: {app: server, version: v1}}]", "app", {"server-v1"}),
    ],
)
def test_a_target_chooses_workloads(target: str, namespace: str, chosen: set[str]) -> None:
    mesh, problems = read(policy(f"{{local: {{rules: [{{limit: {ONCE}}}]}}}}", target, namespace))
    assert problems == ()
    assert {workload.name for workload in mesh.workloads if workload.limits} == chosen


def test_targets_have_counters_of_their_own_unless_they_share_them() -> None:
    both = "targetRefs: [{kind: WorkloadEntry, name: ingress}, {kind: WorkloadEntry, name: egress}]"
    rules = f"{{global: {{rules: [{{limit: {ONCE}}}, {{limit: {ONCE}, shared: true}}]}}}}"
    mesh, problems = read(policy(rules, both, "istio-system"))
    assert problems == ()
    assert [one.target for one in of(mesh, "ingress")] == ["0", ""]
    assert [one.target for one in of(mesh, "egress")] == ["1", ""]


def test_all_policies_of_a_workload_hold() -> None:
    one = policy(f"{{global: {{rules: [{{limit: {ONCE}}}]}}}}")
    mesh, problems = read(one, one.replace("quota", "another"))
    assert problems == ()
    assert [applied.rule.reference.policy for applied in of(mesh, "server-v1")] == ["another", "quota"]


GLOBAL = f"{{global: {{rules: [{{limit: {ONCE}}}]}}}}"


def with_rule(rule: str, scope: str = "global") -> str:
    return policy(f"{{{scope}: {{rules: [{rule}]}}}}")


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        (policy(GLOBAL, ""), "ME-3", "neither `targetRefs` nor `targetSelectors`"),
        (policy(GLOBAL, SERVER.replace("name: server", "name: servr")), "ME-4", "no ServiceEntry called `servr`"),
        (policy(GLOBAL, namespace="other"), "ME-4", "in the namespace `other`"),
        (policy(GLOBAL, SERVER.replace("ServiceEntry", "HTTPRoute")), "ME-6", "the kind `HTTPRoute`"),
        (policy(GLOBAL, SERVER.replace("networking.istio.io", "gateway.networking.k8s.io")), "ME-6", "the group"),
        (policy(GLOBAL, SERVER.replace("name:", "sectionName: x, name:")), "ME-6", "whole workload"),
        (policy(GLOBAL, "targetSelectors: [{kind: WorkloadEntry}]"), "ME-3", "`matchLabels` is missing"),
        (policy(GLOBAL, "targetSelectors: [{kind: WorkloadEntry, matchExpressions: []}]"), "ME-6", "matchExpressions"),
        (policy(GLOBAL, "targetSelectors: [{kind: WorkloadEntry, matchLabels: {a: b}}]"), "ME-4", "with these labels"),
        (policy(GLOBAL) + policy(GLOBAL), "ME-5", "given twice, first at"),
        (policy("{type: Global}"), "ME-3", "`global` is missing"),
        (policy("{type: Planet, global: {rules: []}}"), "ME-1", "`Planet` is not one of"),
        (policy("{global: {}}"), "ME-3", "there is no rule"),
        (policy("{globl: {}}"), "ME-2", "unknown field `globl`"),
        (with_rule("{}"), "ME-3", "`limit` is missing"),
        (with_rule("{limit: {requests: 1}}"), "ME-3", "`unit` is missing"),
        (with_rule("{limit: {requests: 1, unit: Week}}"), "ME-1", "`Week` is not one of Second, Minute"),
        (with_rule("{limit: {requests: -1, unit: Day}}"), "ME-1", "expected a whole number"),
        (with_rule("{limit: {requests: 0, unit: Day}}", "local"), "ME-6", "at least one request"),
        (with_rule(f"{{limit: {ONCE}, shared: yes please}}"), "ME-1", "expected true or false"),
        (with_rule(f"{{limit: {ONCE}, shared: true}}", "local"), "ME-6", "nothing is shared"),
        (with_rule(f"{{limit: {ONCE}, shadowMode: true}}", "local"), "ME-6", "`shadowMode` is for global limits"),
        (with_rule(f"{{limit: {ONCE}, cost: {{response: {{from: Number}}}}}}"), "ME-6", "what a response costs"),
        (with_rule(f"{{limit: {ONCE}, cost: {{request: {{from: Metadata}}}}}}"), "ME-6", "a cost from metadata"),
        (with_rule(f"{{limit: {ONCE}, cost: {{request: {{from: Number, number: 0}}}}}}", "local"), "ME-6", "look"),
        (selecting("{}"), "ME-3", "selects by nothing"),
        (selecting("{queryParams: [{name: a}]}"), "ME-6", "the query is not looked at"),
        (selecting("{headers: [{value: a}]}"), "ME-3", "`name` is missing"),
        (selecting("{headers: [{name: a}]}"), "ME-3", "`value` is missing"),
        (selecting("{headers: [{name: ':path', value: a}]}"), "ME-6", "no header of the client's"),
        (selecting("{headers: [{name: a, type: Distinct, value: b}]}"), "ME-1", "takes every value"),
        (matching("("), "ME-1", "not a regular expression"),
        (matching("(?=a)"), "ME-1", "not a regular expression"),
        (matching(r"(a)\1"), "ME-1", "not a regular expression"),
        (matching("a{1001}"), "ME-1", "it repeats more than 1000 times"),
        (matching("(?>a)b"), "ME-1", "not a regular expression"),
        (matching("a++"), "ME-1", "not a regular expression"),
        (matching(r"\Qa"), "ME-1", "not a regular expression"),  # it would quote what stands behind it, too
        (selecting("{path: {type: RegularExpression, value: '/a++'}}"), "ME-1", "not a regular expression"),
        (selecting("{methods: [{value: get}]}"), "ME-1", "`get` is not a method"),
        (selecting("{methods: [{value: GET, invert: true}, {value: PUT}]}"), "ME-6", "is every method"),
        (selecting("{path: {value: a}}"), "ME-1", "`a` is not a path"),
        (selecting("{path: {value: '/a?b=c'}}"), "ME-1", "`/a?b=c` is not a path"),
        (selecting("{path: {type: Template, value: '//{*}'}}"), "ME-1", "exactly one slash"),
        (selecting("{path: {type: Glob, value: /a}}"), "ME-1", "`Glob` is not one of"),
        (selecting("{sourceCIDR: {value: 10.0.0.0/33}}"), "ME-1", "not a range of addresses"),
        (selecting("{sourceCIDR: {value: 10.0.0.0/8, invert: true}}"), "ME-6", "cannot be inverted"),
        (selecting("{sourceCIDR: {value: '::/0'}}, {sourceCIDR: {value: 10.0.0.0/8}}"), "ME-6", "one `sourceCIDR`"),
        (selecting("{attributes: [{name: source.ip, type: Distinct}]}"), "ME-1", "not proven of a caller"),
        (selecting("{attributes: [{name: source.principal, type: RegularExpression, value: a}]}"), "ME-6", "a whole"),
        (selecting("{attributes: [{name: source.namespace, value: a}]}", "local"), "ME-6", "cannot tell the namespace"),
        (
            selecting("{attributes: [{name: source.principal, type: Distinct, default: a}]}", "local"),
            "ME-6",
            "`default`",
        ),
    ],
)
def test_what_cannot_be_done_is_refused_with_its_place(text: str, code: str, said: str) -> None:
    _, problems = read(text)
    found = [problem for problem in problems if said in problem.message]
    assert found, problems
    assert {problem.code for problem in found} == {code}
    assert all(problem.location.line > 90 and problem.resource.startswith("BackendTrafficPolicy") for problem in found)


@pytest.mark.parametrize("pattern", [r"\pL+", "(?i)a", r"\Qa.b\E", "a{1000}", "a?b"])
def test_regular_expressions_are_those_of_re2(pattern: str) -> None:
    assert read(matching(pattern))[1] == ()


@pytest.mark.parametrize("field", NOT_DONE)
def test_the_other_fields_of_the_kind_are_refused_by_name(field: str) -> None:
    _, problems = read(policy(GLOBAL, f"{SERVER}\n  {field}: {{}}"))
    assert [(problem.code, field in problem.message, bool(problem.help)) for problem in problems] == [
        ("ME-6", True, True)
    ]


def test_the_limit_of_a_workload_that_receives_bytes_only_is_refused() -> None:
    text = (
        description(Ports())
        .decode()
        .replace("protocol: HTTP, name: http}, default", "protocol: TCP, name: http}, default")
    )
    _, problems = read_mesh_description([("mesh.yaml", (text + policy(GLOBAL)).encode())])
    assert any("bytes are not counted" in problem.message for problem in problems)

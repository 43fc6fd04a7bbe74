"""Traps are found where they are, and only there."""

from pathlib import Path

import pytest

from authz.analysis.traps.cover import covered_rules
from authz.analysis.traps.findings import CHECKS, find
from authz.core.attributes import Workload
from authz.core.compiler import compile_engine
from authz.core.errors import Problem
from authz.core.resources import MeshConfig, PathNormalization
from authz.policy.reader import read_policies

MERGE = MeshConfig(path_normalization=PathNormalization.MERGE_SLASHES)
WORKLOADS = (Workload("shop", frozenset({("app", "cart")})), Workload("web", frozenset({("app", "front")})))


def allow(rules: str, name: str = "p", namespace: str = "shop", action: str = "ALLOW", more: str = "") -> str:
    return (
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n"
        f"metadata: {{name: {name}, namespace: {namespace}}}\nspec: {{action: {action}, rules: [{rules}]{more}}}\n---\n"
    )


def deny(rules: str, name: str = "d", namespace: str = "shop", more: str = "") -> str:
    return allow(rules, name, namespace, "DENY", more)


def other(kind: str, spec: str, namespace: str = "shop") -> str:
    return (
        f"apiVersion: security.istio.io/v1\nkind: {kind}\n"
        f"metadata: {{name: x, namespace: {namespace}}}\nspec: {spec}\n---\n"
    )


JWT = other("RequestAuthentication", "{jwtRules: [{issuer: i, outputClaimToHeaders: [{header: x-role, claim: role}]}]}")
STRICT = other("PeerAuthentication", "{mtls: {mode: STRICT}}")
SELECT = ", selector: {matchLabels: {app: cart}}"


def findings(text: str, mesh: MeshConfig = MERGE, workloads: tuple[Workload, ...] = ()) -> tuple[Problem, ...]:
    result = read_policies([("p.yaml", text.encode())])
    return find(compile_engine(result.resources, mesh), workloads)


@pytest.mark.parametrize(
    ("code", "text", "path"),
    [
        ("AN-1", allow('{when: [{key: "request.headers[x-role]", values: [admin]}]}'), "spec.rules[0].when[0]"),
        ("AN-3", deny("{to: [{operation: {hosts: [a.example]}}]}"), "spec.rules[0].to[0].operation.hosts"),
        ("AN-3", deny('{to: [{operation: {hosts: ["*.example"]}}]}'), "spec.rules[0].to[0].operation.hosts"),
        ("AN-3", allow("{to: [{operation: {notHosts: [a.example]}}]}"), "spec.rules[0].to[0].operation.hosts"),
        ("AN-4", allow("{to: [{operation: {ports: ['1']}}]}, {}"), "spec.rules[0]"),
        ("AN-4", allow("{to: [{operation: {ports: ['1']}}]}, {to: [{operation: {ports: ['1']}}]}"), "spec.rules[1]"),
        ("AN-4", allow("{to: [{operation: {ports: ['1']}}]}") + allow("{}", "q", "istio-system"), "spec.rules[0]"),
        (
            "AN-6",
            allow('{from: [{source: {requestPrincipals: ["*"]}}]}'),
            "spec.rules[0].from[0].source.requestPrincipals",
        ),
        (
            "AN-6",
            allow('{when: [{key: "request.auth.claims[a]", values: [b]}]}') + JWT.replace("shop", "web"),
            "spec.rules[0].when[0]",
        ),
        (
            "AN-7",
            JWT + allow('{from: [{source: {notRequestPrincipals: ["i/bad"]}}]}'),
            "spec.rules[0].from[0].source.requestPrincipals",
        ),
        ("AN-7", allow("{from: [{source: {notNamespaces: [evil]}}]}"), "spec.rules[0].from[0].source.namespaces"),
        ("AN-8", deny("{from: [{source: {namespaces: [evil]}}]}"), "spec.rules[0].from[0].source.namespaces"),
        ("AN-9", allow("{}") + allow("", "lock"), "spec.rules[0]"),
    ],
)
def test_a_trap_is_found(code: str, text: str, path: str) -> None:
    assert [(problem.code, problem.path) for problem in findings(text)] == [(code, path)]


@pytest.mark.parametrize(
    "text",
    [
        allow("{from: [{source: {namespaces: [web]}}], when: [{key: 'request.headers[x-role]', values: [admin]}]}"),
        JWT + allow('{when: [{key: "request.headers[X-Role]", values: [admin]}]}'),
        allow('{when: [{key: "request.headers[x-debug]", notValues: ["*"]}]}'),
        deny('{when: [{key: "request.headers[x-role]", values: [admin]}]}'),
        deny('{to: [{operation: {hosts: [a.example, "a.example:*", "b.*"]}}]}'),
        allow("{to: [{operation: {hosts: [a.example]}}]}"),
        allow("{to: [{operation: {ports: ['1']}}]}, {to: [{operation: {ports: ['2']}}]}"),
        allow("{to: [{operation: {ports: ['1']}}]}") + deny("{}"),
        allow("{to: [{operation: {ports: ['1']}}]}") + allow("{}", "q", "web"),
        allow("{to: [{operation: {ports: ['1']}}]}") + allow("{}", "q", more=SELECT),
        JWT + allow('{from: [{source: {requestPrincipals: ["*"], notRequestPrincipals: ["i/bad"]}}]}'),
        STRICT + deny("{from: [{source: {namespaces: [evil]}}]}"),
        allow("{}") + allow("", "lock", "web"),
        allow("{}", more=SELECT) + allow("", "lock"),
    ],
)
def test_what_is_meant_is_no_finding(text: str) -> None:
    assert findings(text) == ()


@pytest.mark.parametrize(("mode", "count"), [("NONE", 1), ("BASE", 1), ("MERGE_SLASHES", 0)])
def test_deny_on_paths_needs_merged_slashes(mode: str, count: int) -> None:
    mesh = MeshConfig(path_normalization=PathNormalization(mode))
    found = findings(deny('{to: [{operation: {paths: ["/admin*"], ports: ["80"]}}]}'), mesh)
    assert [problem.code for problem in found] == ["AN-2"] * count
    assert findings(allow('{to: [{operation: {paths: ["/admin*"]}}]}'), mesh) == ()
    assert findings(deny('{to: [{operation: {paths: ["*"], ports: ["80"]}}]}'), mesh) == ()


@pytest.mark.parametrize(
    ("text", "count"),
    [
        (allow("{}", more=SELECT), 0),
        (allow("{}", more=SELECT.replace("cart", "crat")), 1),
        (allow("{}", namespace="web", more=SELECT), 1),
        (allow("{}", namespace="istio-system", more=SELECT), 0),
        (allow("{}", namespace="nowhere"), 1),
    ],
)
def test_selectors_are_compared_with_workloads_that_are_known(text: str, count: int) -> None:
    assert [problem.code for problem in findings(text, workloads=WORKLOADS)] == ["AN-5"] * count
    assert findings(text) == ()


def test_a_rule_is_covered_by_many_without_being_compared_with_all() -> None:
    rules = ", ".join(f"{{to: [{{operation: {{ports: ['{number}']}}}}]}}" for number in range(500))
    policies = read_policies([("p.yaml", allow(rules + ", {}").encode())]).resources.authorization_policies
    assert len(list(covered_rules(policies, "istio-system"))) == 500


def test_every_finding_is_documented() -> None:
    text = (Path(__file__).parents[3] / "docs" / "findings.md").read_text()
    assert [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")] == list(CHECKS)

"""``authz analyze``: findings, their suppression, exit codes."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run


def test_findings_end_with_three(run: Run, policies: Path) -> None:
    result = run("analyze", "policies")
    assert result.exit_code == 3
    assert result.stdout == (
        "policies/shop.yaml:9:5: AuthorizationPolicy shop/reads:\n"
        "  warning: spec.rules[1].from[0].source.requestPrincipals: "
        "no RequestAuthentication applies where this rule does, so no request ever has claims: "
        "no request matches this rule (proved) [AN-6]\n"
        "  help: add a RequestAuthentication for the same workloads\n"
        "policies/shop.yaml:19:5: AuthorizationPolicy shop/no-admin:\n"
        "  warning: spec.rules[0].to[0].operation.paths: `/admin*` written with two slashes escapes this DENY rule, "
        "because the mesh's path normalisation is BASE [AN-2]\n"
        "  help: set `pathNormalization: {normalization: MERGE_SLASHES}` or stronger\n"
        "\n"
        "2 AuthorizationPolicies: 2 findings\n"
    )


@pytest.mark.parametrize(
    ("suppressed", "codes"),
    [
        (["AN-2"], ["AN-6"]),
        (["AN-2", "AN-6=shop/re*"], []),
        (["AN-2=other/*"], ["AN-6", "AN-2"]),
    ],
)
def test_findings_can_be_suppressed(run: Run, policies: Path, suppressed: list[str], codes: list[str]) -> None:
    arguments = [part for text in suppressed for part in ("--suppress", text)]
    result = run("analyze", "policies", "-o", "json", *arguments)
    answer = json.loads(result.stdout)
    assert [finding["code"] for finding in answer["findings"]] == codes
    assert (answer["ok"], result.exit_code) == ((False, 3) if codes else (True, 0))


def test_a_code_that_is_none_is_wrong_usage(run: Run, policies: Path) -> None:
    result = run("analyze", "policies", "--suppress", "AN-99")
    assert result.exit_code == 2
    assert "there is no finding `AN-99`" in result.stderr


def test_mesh_settings_alone_describe_no_workloads(run: Run, policies: Path, tmp_path: Path) -> None:
    (tmp_path / "mesh.yaml").write_text("pathNormalization: {normalization: MERGE_SLASHES}\n")
    result = run("analyze", "policies", "--mesh", "mesh.yaml", "-o", "json")
    assert [finding["code"] for finding in json.loads(result.stdout)["findings"]] == ["AN-6"]


NOTED = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: reads, namespace: shop}
spec: {rules: [{to: [{operation: {methods: [GET]}}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: writes, namespace: shop}
spec: {action: DENY, rules: [{to: [{operation: {methods: [POST], ports: ["80"]}}]}]}
"""
UNDECIDED = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: odd, namespace: shop}
spec: {rules: [{when: [{key: "request.headers[:path]", values: [/a]}], from: [{source: {namespaces: [a]}}]}]}
"""


def test_a_note_is_no_finding(run: Run, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(NOTED)
    result = run("analyze", "p.yaml")
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "2 AuthorizationPolicies: no findings, 1 note")
    answer = json.loads(run("analyze", "p.yaml", "-o", "json").stdout)
    found = [(one["code"], one["severity"], one["proved"]) for one in answer["findings"]]
    assert (answer["ok"], found, answer["not_decided"]) == (True, [("AN-31", "info", True)], [])


def test_what_is_not_decided_is_said_with_the_reason(run: Run, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(UNDECIDED)
    reason = "policies ask for the header `:path`, which depends on other facts"
    result = run("analyze", "p.yaml")
    assert f"not decided whether they are needed: shop/odd/0: {reason}" in result.stdout
    answer = json.loads(run("analyze", "p.yaml", "-o", "json").stdout)
    assert answer["not_decided"] == [{"rule": "shop/odd/0", "reason": reason}]

"""``authz validate``: every problem at once, with its place."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import POLICIES, Run

BROKEN = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p, namespace: n}
spec:
  rules:
  - from: [{source: {ipBlocks: ["10.0.0.0/33"], ipBlock: ["::1"]}}]
"""
WARNED = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p, namespace: n}
spec:
  action: DENY
  rules:
  - to: [{operation: {paths: ["/admin*"]}}]
"""


def test_good_policies_are_ok(run: Run, policies: Path) -> None:
    result = run("validate", "policies")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "2 policies in 1 file: ok\n", "")


def test_every_problem_is_printed_with_its_place_and_what_to_do(run: Run, policies: Path) -> None:
    (policies / "broken.yaml").write_text(BROKEN)
    result = run("validate", "policies")
    assert result.exit_code == 3
    assert result.stdout == (
        "policies/broken.yaml:6:33: document 1, AuthorizationPolicy n/p:\n"
        "  error: spec.rules[0].from[0].source.ipBlocks[0]: `10.0.0.0/33` is not a CIDR block [VA-24]\n"
        "  help: a prefix length is 0 to 32, got `33`\n"
        "policies/broken.yaml:6:49: document 1, AuthorizationPolicy n/p:\n"
        "  error: spec.rules[0].from[0].source.ipBlock: unknown field `ipBlock`; did you mean `ipBlocks`? [RE-6]\n"
        "\n"
        "3 policies in 2 files: 2 errors\n"
    )


def test_warnings_pass_unless_asked_not_to(run: Run, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(WARNED)
    assert run("validate", "p.yaml").exit_code == 0
    result = run("validate", "p.yaml", "--fail-on", "warning")
    assert result.exit_code == 3
    assert result.stdout.endswith("1 policy in 1 file: 1 warning\n")


def test_stdin_is_read_for_a_dash(run: Run) -> None:
    result = run("validate", "-", stdin=BROKEN)
    assert result.exit_code == 3
    assert result.stdout.startswith("<stdin>:6:33: ")


def test_verbose_lists_what_was_read(run: Run, policies: Path) -> None:
    assert run("validate", "policies", "-v").stdout == (
        "KIND                 NAME           ACTION  RULES  PLACE\n"
        "AuthorizationPolicy  shop/no-admin  DENY    1      policies/shop.yaml:13\n"
        "AuthorizationPolicy  shop/reads     ALLOW   2      policies/shop.yaml:1\n"
        "\n"
        "2 policies in 1 file: ok\n"
    )


def test_json_has_the_documented_fields(run: Run, policies: Path) -> None:
    (policies / "broken.yaml").write_text(BROKEN.replace(', ipBlock: ["::1"]', ""))
    result = run("validate", "policies", "-o", "json")
    answer = json.loads(result.stdout)
    assert result.exit_code == 3
    assert (answer["ok"], answer["files"], answer["policy_version"]) == (False, 2, None)
    assert answer["problems"] == [
        {
            "severity": "error",
            "code": "VA-24",
            "message": "`10.0.0.0/33` is not a CIDR block",
            "file": "policies/broken.yaml",
            "line": 6,
            "column": 33,
            "document": 1,
            "resource": "AuthorizationPolicy n/p",
            "path": "spec.rules[0].from[0].source.ipBlocks[0]",
            "help": "a prefix length is 0 to 32, got `33`",
        }
    ]


def test_the_mesh_file_is_checked_too(run: Run, policies: Path, tmp_path: Path) -> None:
    (tmp_path / "mesh.yaml").write_text("trustDomian: td\n")
    result = run("validate", "policies", "--mesh", "mesh.yaml")
    assert result.exit_code == 3
    assert result.stdout.startswith("mesh.yaml:1:1: ")
    assert "did you mean `trustDomain`?" in result.stdout


def test_a_deny_that_reaches_no_described_workload_is_a_warning(run: Run, policies: Path, tmp_path: Path) -> None:
    entry = "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\n"
    entry += "metadata: {name: cart, namespace: shop}\nspec: {address: 10.0.0.1, labels: {app: cart}}\n"
    (tmp_path / "mesh.yaml").write_text(f"rootNamespace: istio-system\n---\n{entry}")
    deny = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: NAME, namespace: shop}\n"
    deny += "spec: {action: DENY, selector: {matchLabels: {app: APP}}, rules: [{}]}\n"
    good, lost = (deny.replace("NAME", app).replace("APP", app) for app in ("cart", "crat"))
    (tmp_path / "p.yaml").write_text(f"{good}---\n{lost}")
    result = run("validate", "p.yaml", "--mesh", "mesh.yaml")
    assert result.exit_code == 0
    assert "AuthorizationPolicy shop/crat" in result.stdout
    assert "nothing is denied by this policy [AN-5]" in result.stdout
    assert "1 warning" in result.stdout
    assert run("validate", "p.yaml").stdout == "2 policies in 1 file: ok\n"


@pytest.mark.parametrize(
    "content", ["", "# nothing", "---\n---\n", "{", "\t", "\xff", "[1, 2]", "a: &a [*a]", POLICIES[:200], "\x00"]
)
def test_whatever_a_file_holds_it_is_never_a_traceback(run: Run, tmp_path: Path, content: str) -> None:
    (tmp_path / "p.yaml").write_bytes(content.encode("latin-1"))
    result = run("validate", "p.yaml")
    assert result.exit_code in (0, 3)
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)


@pytest.mark.parametrize("command", [("validate",), ("analyze",), ("check", "-p")])
def test_a_directory_without_policies_is_refused_as_the_service_does(
    run: Run, tmp_path: Path, command: tuple[str, ...]
) -> None:
    (tmp_path / "unmounted").mkdir()
    result = run(*command, "unmounted")
    assert result.exit_code == (3 if command == ("validate",) else 1)
    assert "unmounted:\n  error: there is no policy file" in result.output

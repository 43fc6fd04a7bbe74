"""``authz prove``: the invariants that are shipped, what is printed, exit codes."""

import json
import shlex
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Run

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples" / "invariants"
MESH = str(ROOT / "envoy-configs" / "mesh.yaml")
INVARIANTS = """\
format: 1
policyFiles: [policies]
invariants:
- id: web-reads
  never:
    to: {namespace: shop, labels: {app: cart}}
    when: {path: /cart*, method: GET}
    unless: {sourcePrincipal: "*/sa/web"}
- id: nobody-else
  never:
    to: {namespace: shop, labels: {app: cart}}
    unless: {sourcePrincipal: "*/sa/api"}
"""


@pytest.fixture
def invariants(policies: Path, tmp_path: Path) -> str:
    assert policies.is_dir()
    (tmp_path / "invariants.yaml").write_text(INVARIANTS)
    return "invariants.yaml"


def test_the_invariants_of_bookinfo_hold(run: Run) -> None:
    result = run("prove", str(EXAMPLES / "bookinfo.yaml"))
    assert result.exit_code == 0, result.output
    assert result.stdout.endswith("5 proved\n")


def test_bookinfo_keeps_the_baseline(run: Run) -> None:
    result = run("prove", str(EXAMPLES / "baseline.yaml"), "-p", str(ROOT / "policies"), "--mesh", MESH)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("file", "before", "after", "broken"),
    [
        ("00-mesh.yaml", "STRICT", "PERMISSIVE", "strict-mutual-tls"),
        ("10-ingress.yaml", "/static/*", "/static*", "anonymous-callers-see-public-paths-only"),
        ("10-ingress.yaml", "values: [moderator]", "values: [moderator, reader]", "admin-needs-a-role"),
    ],
)
def test_a_change_that_breaks_the_baseline_is_refuted(
    run: Run, tmp_path: Path, file: str, before: str, after: str, broken: str
) -> None:
    shutil.copytree(ROOT / "policies", tmp_path / "policies")
    path = tmp_path / "policies" / file
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after))
    if after == "PERMISSIVE":
        everywhere = "spec:\n  rules: [{}]\n"
        path.write_text(path.read_text().replace("spec: {}\n", everywhere))
    result = run("prove", str(EXAMPLES / "baseline.yaml"), "-p", "policies", "--mesh", MESH, "-o", "json")
    assert result.exit_code == 3, result.output
    refuted = [one for one in json.loads(result.stdout)["proofs"] if one["result"] == "refuted"]
    assert broken in {one["invariant"] for one in refuted}
    for one in refuted:
        done = run(*shlex.split(one["command"].replace("\\\n", ""))[1:])
        assert done.exit_code == (0 if one["decision"]["effect"] == "allow" else 3), done.output


def test_proofs_and_refutations_are_printed(run: Run, invariants: str) -> None:
    result = run("prove", invariants, "-v")
    assert result.exit_code == 3
    assert result.stdout.startswith(
        "proved       web-reads: shop (app=cart)\n"
        "refuted      nobody-else: shop (app=cart)  invariants.yaml:9:3\n"
        "  request: GET api.example.com/cart to port 9080, from cluster.local/ns/shop/sa/web\n"
        "  answer:  allowed: ALLOW rule shop/reads/0 at policies/shop.yaml:7\n"
        "    authz check \\\n"
        "      --policies policies \\\n"
    )
    assert result.stdout.endswith("1 proved, 1 refuted\n")


def test_json_has_the_documented_fields(run: Run, invariants: str) -> None:
    answer = json.loads(run("prove", invariants, "-o", "json").stdout)
    assert answer["format"] == 1
    assert answer["ok"] is False
    assert list(answer["proofs"][0]) == [
        *("invariant", "file", "line", "workload", "result", "request", "decision", "command", "not_decided"),
    ]


def test_what_is_not_decided_ends_with_one(run: Run, policies: Path, invariants: str) -> None:
    file = policies / "shop.yaml"
    file.write_text(file.read_text().replace("request.headers[x-team]", "request.headers[:path]"))
    result = run("prove", invariants)
    assert result.exit_code == 1
    assert "not decided  nobody-else: shop (app=cart): policies ask for the header `:path`" in result.stdout


@pytest.mark.parametrize(
    ("to", "said"),
    [
        ("ratings-v1", "`i`: no workload is meant [INVARIANT]"),
        ("{kind: gateway}", "help: names need --mesh or `meshFile`"),
    ],
)
def test_an_invariant_of_no_workload_proves_nothing(
    run: Run, policies: Path, tmp_path: Path, to: str, said: str
) -> None:
    (tmp_path / "i.yaml").write_text(f"format: 1\ninvariants:\n- {{id: i, never: {{to: {to}}}}}\n")
    result = run("prove", "i.yaml", "-p", "policies")
    assert result.exit_code == 1
    assert said in result.stderr


def test_every_workload_that_policies_tell_apart_is_asked_about_without_a_description(
    run: Run, policies: Path, tmp_path: Path
) -> None:
    (tmp_path / "i.yaml").write_text(
        "format: 1\ninvariants:\n- {id: i, never: {to: '*', when: {path: /admin/x, destinationPort: 8080}}}\n"
    )
    result = run("prove", "i.yaml", "-p", "policies", "-v")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("proved       i: shop (no label that a selector names), shop (app=cart)\n")


def test_policies_must_be_named_somewhere(run: Run, tmp_path: Path) -> None:
    (tmp_path / "i.yaml").write_text("format: 1\ninvariants:\n- {id: i, never: {to: a}}\n")
    result = run("prove", "i.yaml")
    assert result.exit_code == 2
    assert "names no `policyFiles`" in result.stderr


def test_a_mistake_in_the_file_is_told_with_its_place(run: Run, tmp_path: Path) -> None:
    (tmp_path / "i.yaml").write_text("format: 1\ninvariants:\n- {id: i, nevr: {to: a}}\n")
    result = run("prove", "i.yaml")
    assert result.exit_code == 1
    assert "did you mean `never`?" in result.stderr

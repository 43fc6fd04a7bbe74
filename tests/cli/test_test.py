"""``authz test``: reports, exit codes, selection, coverage."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.cli.conftest import POLICIES, Run

SUITE = """\
format: 1
policyFiles: [policies]
groups:
- id: cart
  workload: {namespace: shop, labels: {app: cart}, port: 8080}
  cases:
  - {id: web-reads, request: {path: /cart, sourcePrincipal: "spiffe://cluster.local/ns/shop/sa/web"}, expect: {decision: allow, by: shop/reads/0}}
  - {id: others-do-not, request: {path: /cart}, expect: {decision: deny, status: 403, stage: allow, by: null}}
- id: admin
  workload: {namespace: shop, labels: {app: cart}, port: 8080}
  cases:
  - {id: closed, request: {path: /admin}, expect: {decision: deny, by: shop/no-admin/0}}
documents:
- {id: empty, expect: ok, yaml: ""}
"""  # noqa: E501  # one case a line, as people write them
WRONG = SUITE.replace("status: 403", "status: 401")


@pytest.fixture
def suite(policies: Path) -> Path:
    file = policies.parent / "suite.yaml"
    file.write_text(SUITE)
    return file


def test_a_suite_that_passes_ends_with_zero(run: Run, suite: Path) -> None:
    result = run("test", "suite.yaml")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == "suite.yaml: 4 passed\n3 of 3 requests passed; 1 of 1 document passed\n"


def test_a_failure_ends_with_three_and_is_explained(run: Run, suite: Path) -> None:
    suite.write_text(WRONG)
    result = run("test", "suite.yaml")
    assert result.exit_code == 3
    assert result.stdout == (
        "FAIL cart/others-do-not  suite.yaml:8\n"
        "  status: expected `401`, got `403`\n"
        "  because: no ALLOW rule matched\n"
        "  closest: shop/reads/0 at policies/shop.yaml:7\n"
        "    from[0].source.principals (source.principal): "
        "expected one of `cluster.local/ns/shop/sa/web`, got no value: the caller has no mTLS identity\n"
        "suite.yaml: 3 passed, 1 failed\n"
        "2 of 3 requests passed; 1 of 1 document passed\n"
    )


def test_a_malformed_suite_ends_with_one_and_the_rest_is_run(run: Run, suite: Path) -> None:
    suite.write_text(SUITE.replace("status: 403", "statsu: 403"))
    result = run("test", "suite.yaml")
    assert result.exit_code == 1
    assert result.stderr == (
        "suite.yaml:8:74:\n"
        "  error: groups[0].cases[1].expect.statsu: unknown key of expect `statsu`; did you mean `status`? [SUITE]\n"
    )
    assert result.stdout == (
        "ERROR cart/others-do-not  suite.yaml:8\n"
        "  the case is malformed\n"
        "suite.yaml: 3 passed, 1 could not be run\n"
        "2 of 3 requests passed; 1 of 1 document passed\n"
    )


def test_refused_policies_are_named_once(run: Run, suite: Path, policies: Path) -> None:
    (policies / "shop.yaml").write_text(POLICIES.replace("methods", "method", 1))
    result = run("test", "suite.yaml")
    assert result.exit_code == 1
    assert result.stdout.count("did you mean `methods`?") == 1
    assert "suite.yaml: 1 passed, 3 could not be run\n" in result.stdout


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("cart/", ["web-reads", "others-do-not"]),
        ("/closed$", ["closed"]),
        ("documents", ["empty"]),
        ("suite.yaml/(cart|admin)/.*s", ["web-reads", "others-do-not", "closed"]),
    ],
)
def test_run_selects_by_pattern(run: Run, suite: Path, pattern: str, names: list[str]) -> None:
    result = run("test", "suite.yaml", "--run", pattern, "-o", "json")
    assert [case["case"] for case in json.loads(result.stdout)["cases"]] == names


def test_a_pattern_that_selects_nothing_proves_nothing(run: Run, suite: Path) -> None:
    result = run("test", "suite.yaml", "--run", "xyzzy")
    assert (result.exit_code, result.stderr) == (1, "error: no case was run\n")


def test_coverage_names_the_rules_that_never_fired(run: Run, suite: Path) -> None:
    result = run("test", "suite.yaml", "--coverage")
    assert result.exit_code == 0
    assert result.stdout == (
        "suite.yaml: 4 passed\n"
        "coverage: 2 of 3 rules fired (66.7 %)\n"
        "RULE          ACTION  CONSIDERED  FIRED  PLACE\n"
        "shop/reads/1  ALLOW   2           never  policies/shop.yaml:9\n"
        "3 of 3 requests passed; 1 of 1 document passed\n"
    )


def test_coverage_below_the_threshold_ends_with_three(run: Run, suite: Path) -> None:
    assert run("test", "suite.yaml", "--threshold", "66").exit_code == 0
    result = run("test", "suite.yaml", "--threshold", "70")
    assert (result.exit_code, result.stderr) == (3, "coverage 66.7 % is below 70 %\n")


def test_verbose_names_every_case(run: Run, suite: Path) -> None:
    assert run("test", "suite.yaml", "-v").stdout.splitlines()[:2] == [
        "PASS cart/web-reads  suite.yaml:7",
        "PASS cart/others-do-not  suite.yaml:8",
    ]


def test_json_has_the_documented_fields(run: Run, suite: Path) -> None:
    suite.write_text(WRONG)
    result = run("test", "suite.yaml", "-o", "json", "--coverage")
    answer = json.loads(result.stdout)
    assert result.exit_code == 3
    assert answer["requests"] == {"passed": 2, "failed": 1, "errors": 0, "total": 3}
    assert answer["documents"] == {"passed": 1, "failed": 0, "errors": 0, "total": 1}
    failed = answer["cases"][1]
    assert (failed["file"], failed["line"], failed["result"]) == ("suite.yaml", 8, "fail")
    assert failed["differences"] == [{"key": "status", "expected": 401, "actual": 403}]
    assert answer["coverage"]["by_rule"][1] == {
        "rule": "shop/reads/1",
        "action": "ALLOW",
        "dry_run": False,
        "considered": 2,
        "fired": 0,
        "file": "policies/shop.yaml",
        "line": 9,
    }


def test_junit_is_xml_that_counts_failures_and_malformed_suites(run: Run, suite: Path) -> None:
    suite.write_text(WRONG.replace("id: closed", "id: closed, idd: 1"))
    result = run("test", "suite.yaml", "-o", "junit")
    assert result.exit_code == 1
    root = ElementTree.fromstring(result.stdout.split("\n", 1)[1])
    assert root.attrib["tests"] == "4"
    assert [(s.attrib["name"], s.attrib["failures"], s.attrib["errors"]) for s in root] == [
        ("suite.yaml", "1", "1"),
        ("suites", "0", "1"),
    ]
    failure = root.find("./testsuite/testcase[@name='others-do-not']/failure")
    assert failure is not None
    assert failure.attrib["message"] == "status: expected `401`, got `403`"


def test_in_a_directory_only_suites_are_suites(run: Run, suite: Path) -> None:
    assert run("test", ".").stdout == "./suite.yaml: 4 passed\n3 of 3 requests passed; 1 of 1 document passed\n"


def test_a_suite_may_come_from_stdin(run: Run, policies: Path) -> None:
    assert run("test", "-", stdin=SUITE).stdout.startswith("<stdin>: 4 passed\n")


@pytest.mark.slow
def test_watching_runs_again_at_a_change_of_the_policies(suite: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "authz", "test", "suite.yaml", "--watch"],
        cwd=suite.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert _until_waiting(process.stdout)[-2] == "3 of 3 requests passed; 1 of 1 document passed\n"
        (suite.parent / "policies" / "shop.yaml").write_text(POLICIES.replace("/admin*", "/root*"))
        said = _until_waiting(process.stdout)
        assert "FAIL admin/closed  suite.yaml:12\n" in said
        assert said[-2] == "2 of 3 requests passed; 1 of 1 document passed\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 3
    finally:
        process.kill()
        process.communicate()


def _until_waiting(lines: Iterable[str]) -> list[str]:
    said = []
    for line in lines:
        said.append(line)
        if line.startswith("waiting"):
            return said
    raise AssertionError(f"it ended: {said}")


@pytest.mark.parametrize("arguments", [("suite.yaml", "-o", "json"), ("-",)])
def test_watching_is_for_people_and_files(run: Run, suite: Path, arguments: tuple[str, ...]) -> None:
    result = run("test", "--watch", *arguments, stdin=SUITE)
    assert result.exit_code == 2
    assert "--watch cannot be combined" in result.stderr

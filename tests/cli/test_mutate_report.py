"""``authz test --mutate``: what it prints, its JSON, its exit codes."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.cli.test_test import SUITE, WRONG


@pytest.fixture
def suite(policies: Path) -> Path:
    file = policies.parent / "suite.yaml"
    file.write_text(SUITE)
    return file


def test_survivors_are_told_with_place_request_and_new_case(run: Run, suite: Path) -> None:
    result = run("test", "suite.yaml", "--mutate")
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    web = "cluster.local/ns/shop/sa/web"
    at = lines.index(f"  rules[0].from[0].source.principals: `{web}` widened to `{web}*`")
    assert lines[at - 1] == "SURVIVED policies/shop.yaml:7  AuthorizationPolicy shop/reads"
    assert lines[at + 1].startswith("  newly allowed in shop (app=cart): GET ")
    assert lines[at + 2] == "  `new-1` below notices it"
    assert "# `cases` of group `cart` in suite.yaml, if the answers are meant:" in lines
    assert "- id: new-1" in lines
    assert lines[-1].startswith("mutants: ")
    assert not any(line.startswith(("KILLED", "EQUAL")) for line in lines)


def test_all_mutants_are_told_with_verbose(run: Run, suite: Path) -> None:
    lines = run("test", "suite.yaml", "--mutate", "-v").stdout.splitlines()
    killed = lines.index("  noticed by suite.yaml/cart/web-reads")
    assert lines[killed - 2].startswith("KILLED policies/shop.yaml:")


@pytest.mark.parametrize(("threshold", "code"), [("1", 0), ("100", 3)])
def test_the_threshold_is_of_mutants(run: Run, suite: Path, threshold: str, code: int) -> None:
    result = run("test", "suite.yaml", "--mutate", "--threshold", threshold)
    assert result.exit_code == code
    assert ("of the mutants are noticed, which is below 100 %" in result.stderr) is (code == 3)


def test_only_suites_that_pass_judge(run: Run, suite: Path) -> None:
    suite.write_text(WRONG)
    result = run("test", "suite.yaml", "--mutate")
    assert result.exit_code == 3
    assert result.stderr == "error: no mutant was judged, because only suites that pass can notice one\n"


def test_a_suite_without_policies_judges_nothing(run: Run, suite: Path) -> None:
    suite.write_text('format: 1\ndocuments:\n- {id: empty, expect: ok, yaml: ""}\n')
    result = run("test", "suite.yaml", "--mutate", "--threshold", "50")
    assert result.exit_code == 1
    assert result.stderr == "error: no mutant was judged: the suites have no policy that could be changed\n"


def test_json_holds_every_mutant(run: Run, suite: Path) -> None:
    found = json.loads(run("test", "suite.yaml", "--mutate", "-o", "json").stdout)["mutation"]
    results = [mutant["result"] for mutant in found["mutants"]]
    assert found["total"] == len(results)
    for fate in ("killed", "survived", "equal", "undecided"):
        assert found[fate] == results.count(fate)
    survivor = next(mutant for mutant in found["mutants"] if mutant["noticed_by"])
    assert survivor["noticed_by"] in [case["id"] for case in found["new_cases"]]
    assert (survivor["file"], survivor["resource"]) == ("policies/shop.yaml", "AuthorizationPolicy shop/reads")
    assert json.loads(run("test", "suite.yaml", "-o", "json").stdout)["mutation"] is None


def test_junit_has_no_place_for_mutants(run: Run, suite: Path) -> None:
    assert run("test", "suite.yaml", "--mutate", "-o", "junit").exit_code == 2

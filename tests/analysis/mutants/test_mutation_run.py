"""Which mutants suites notice, which change nothing, and which cases are offered for the rest."""

from pathlib import Path

import pytest

from authz.analysis.mutants.mutation_run import MutantFate, MutantVerdict, MutationScore, judge_mutant, plan_mutation
from authz.analysis.mutants.new_case import NewCase
from authz.analysis.suites.run import Select, run_suite
from authz.analysis.suites.suite_reader import read_suite
from authz.sources.policies.directory import read_directory
from authz.tokens.signing import KeyPool

NOW = 1_800_000_000.0
SHOP = Path(__file__).parents[3] / "docs" / "examples" / "shop"
SUITE = """\
format: 1
groups:
- id: cart
  workload: {namespace: shop, labels: {app: cart}, port: 8080}
  request: {method: PUT, headers: {x-a: b}}
  policies: |
    apiVersion: security.istio.io/v1
    kind: AuthorizationPolicy
    metadata: {name: p, namespace: shop}
    spec:
      selector: {matchLabels: {app: cart}}
      rules:
      - to: [{operation: {paths: [/a, /b]}}]
      - to: [{operation: {paths: [/b]}}]
  cases:
  - {id: open, request: {path: /a}, expect: {decision: allow}}
  - {id: shut, request: {path: /c}, expect: {decision: deny}}
"""


def judged(text: str, file: str = "s.yaml", select: Select | None = None) -> MutationScore:
    suite = read_suite(file, text.encode(), lambda name: read_directory(SHOP / name))
    assert not suite.problems
    pool, score = KeyPool(), MutationScore()
    known: list[NewCase] = []
    for mutant, groups in plan_mutation([suite], NOW, pool, select).mutants:
        verdict = judge_mutant(mutant, groups, pool, lambda: lambda: False, known)
        if verdict is not None:
            score.verdicts.append(verdict)
    return score


def by_change(score: MutationScore) -> dict[str, MutantVerdict]:
    return {verdict.mutant.change: verdict for verdict in score.verdicts}


def test_each_mutant_is_killed_or_survives_or_is_equal() -> None:
    found = {change: verdict.fate.value for change, verdict in by_change(judged(SUITE)).items()}
    assert found == {
        "the whole resource dropped": "killed",
        "action: ALLOW replaced by DENY": "killed",
        "rules[0] dropped": "killed",
        "rules[0].to[0] dropped": "killed",
        "rules[0].to[0].operation: `paths` and `notPaths` exchanged": "killed",
        "rules[0].to[0].operation.paths: `/a` dropped": "killed",
        "rules[0].to[0].operation.paths: `/a` widened to `/a*`": "survived",
        "rules[0].to[0].operation.paths: `/b` dropped": "equal",
        "rules[0].to[0].operation.paths: `/b` widened to `/b*`": "survived",
        "rules[1] dropped": "equal",
        "rules[1].to[0] dropped": "killed",
        "rules[1].to[0].operation: `paths` and `notPaths` exchanged": "killed",
        "rules[1].to[0].operation.paths: `/b` widened to `/b*`": "survived",
    }


def test_the_score_counts_what_is_not_equal() -> None:
    score = judged(SUITE)
    assert (len(score.verdicts), score.counted, len(score.of(MutantFate.KILLED))) == (13, 11, 8)
    assert score.percent == pytest.approx(100 * 8 / 11)
    assert MutationScore().percent == 100


def test_a_kill_names_the_case() -> None:
    assert by_change(judged(SUITE))["rules[0].to[0] dropped"].killed_by == "s.yaml/cart/shut"


def test_one_new_case_serves_several_mutants_and_says_all_that_its_group_would_give() -> None:
    found = by_change(judged(SUITE))
    first = found["rules[0].to[0].operation.paths: `/b` widened to `/b*`"].case
    second = found["rules[1].to[0].operation.paths: `/b` widened to `/b*`"].case
    assert first is not None
    assert first is second
    assert first.text == (
        "- id: new-2\n"
        "  workload: {namespace: shop, labels: {app: cart}, port: 8080}\n"
        "  request: {method: GET, path: /bx, headers: {}}\n"
        "  expect: {decision: deny, status: 403}"
    )


def test_a_new_case_has_a_name_of_its_own() -> None:
    text = SUITE.replace("id: open", "id: new-1").replace("id: shut", "id: new-3")
    names = {one.case.case.id for one in judged(text).of(MutantFate.SURVIVED) if one.case is not None}
    assert names == {"new-2", "new-4"}


def test_a_mutant_that_is_not_decided_counts() -> None:
    score = judged(
        SUITE.replace("to: [{operation: {paths: [/b]}}]", "when: [{key: 'request.headers[:path]', values: [/b]}]")
    )
    undecided = score.of(MutantFate.UNDECIDED)
    assert {verdict.reasons for verdict in undecided} == {
        ("policies ask for the header `:path`, which depends on other facts",)
    }
    assert score.counted == len(score.verdicts)


def test_only_selected_cases_kill() -> None:
    assert by_change(judged(SUITE, select=Select("/open$")))["rules[0].to[0] dropped"].fate is MutantFate.SURVIVED


def test_policies_of_several_groups_are_changed_once_and_any_of_them_may_notice() -> None:
    head, _, cases = (SHOP / "suite.yaml").read_text().partition("  cases:\n")
    one, _, rest = cases.partition("  - id: others-do-not-read")
    group = head[head.index("- id: cart") :].replace("- id: cart", "- id: again")
    text = f"{head}  cases:\n{one}{group}  cases:\n  - id: others-do-not-read{rest}"
    whole, split = judged((SHOP / "suite.yaml").read_text()), judged(text)
    fates = [{change: one.fate for change, one in by_change(score).items()} for score in (whole, split)]
    assert fates[0] == fates[1]
    assert {one.killed_by.split("/")[1] for one in split.of(MutantFate.KILLED)} == {"cart", "again"}


def test_with_the_new_cases_pasted_every_mutant_is_noticed() -> None:
    text = (SHOP / "suite.yaml").read_text()
    score = judged(text)
    cases = {one.case.case.id: one.case for one in score.of(MutantFate.SURVIVED) if one.case is not None}
    assert len(cases) > 10
    tokens = "".join(f"    {case.tokens}\n" for case in cases.values() if case.tokens)
    assert tokens
    text = text.replace("  request: {path", f"{tokens}  request: {{path", 1)
    text += "".join(f"  {line}\n" for case in cases.values() for line in case.text.splitlines())
    suite = read_suite("s.yaml", text.encode(), lambda name: read_directory(SHOP / name))
    assert [result.name for result in run_suite(suite, NOW) if not result.passed] == []
    after = judged(text)
    assert (after.percent, len(after.of(MutantFate.SURVIVED))) == (100, 0)


@pytest.mark.parametrize(("action", "status"), [("ALLOW", "status: 403"), ("DENY", "by: shop/p/0")])
def test_a_new_case_names_the_deciding_rule_or_the_status(action: str, status: str) -> None:
    text = SUITE.replace("      rules:", f"      action: {action}\n      rules:").split("  cases:")[0]
    text += "  cases:\n  - {id: any, request: {path: /zzz}, expect: {}}\n".replace(
        "expect: {}", "expect: {audit: null}"
    )
    found = [one.case.text for one in judged(text).of(MutantFate.SURVIVED) if one.case is not None]
    assert any(status in text for text in found)

"""The conformance corpus, whole, through the offline engine: the contract of this product."""

from functools import cache
from pathlib import Path

import pytest

from authz.analysis.suites.run import CaseResult, run_suite
from authz.analysis.suites.suite import Suite
from authz.analysis.suites.suite_reader import read_suite
from authz.cli.report import lines
from authz.tokens.signing import KeyPool

NOW = 1_800_000_000.0
CORPUS = Path(__file__).parents[2] / "conformance"
POOL = KeyPool()


@cache
def suites() -> dict[str, Suite]:
    return {file.name: read_suite(file.name, file.read_bytes()) for file in sorted(CORPUS.glob("*.yaml"))}


@cache
def results(name: str) -> dict[str, list[CaseResult]]:
    found: dict[str, list[CaseResult]] = {}
    for result in run_suite(suites()[name], NOW, POOL):
        found.setdefault(result.group, []).append(result)
    return found


GROUPS = [(name, group.id) for name, suite in suites().items() for group in suite.groups]


@pytest.mark.parametrize(("file", "group"), GROUPS)
def test_every_case_of_the_group_is_decided_as_istio_decides(file: str, group: str) -> None:
    assert [(result.name, list(lines(result))) for result in results(file)[group] if not result.passed] == []


def test_every_document_validates_as_istio_validates_it() -> None:
    found = results("validation.yaml")["documents"]
    assert [(result.name, list(lines(result))) for result in found if not result.passed] == []


def test_the_corpus_is_complete_and_nothing_is_left_out() -> None:
    everything = [result for name in suites() for group in results(name).values() for result in group]
    assert sum(result.decision is not None for result in everything) == 663
    assert sum(result.is_document for result in everything) == 230
    assert len(everything) == 893


def test_every_key_that_is_expected_is_compared() -> None:
    by_name = {(name, group.id): group for name, suite in suites().items() for group in suite.groups}
    for (name, group_id), group in by_name.items():
        for case, result in zip(group.cases, results(name)[group_id], strict=True):
            headers = len(case.upstream.present) + len(case.upstream.absent) if case.upstream else 0
            assert len(result.comparisons) == len(case.expect) + headers >= 3


@pytest.mark.parametrize("name", sorted(suites()))
def test_the_corpus_is_read_without_a_problem(name: str) -> None:
    assert suites()[name].problems == ()

"""The conformance corpus on both servers, through a real Envoy with real certificates, tokens, keys and providers."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from authz.analysis.suites.suite_reader import read_suite
from tests.envoy.corpus import Bench, MakeBench, name_of, run
from tests.envoy.hosting import HostedBench, hosting
from tests.service.test_both_servers import SERVERS, needs_hosting

pytestmark = [pytest.mark.envoy, pytest.mark.slow]

CORPUS = Path(__file__).parents[1] / "conformance"
FILES = sorted(path.name for path in CORPUS.glob("[0-9]*.yaml"))

NOT_RUNNABLE = {
    "12-jwt-conditions/claims/metadata-absent-negative": (
        "an Envoy that was told of no metadata namespace sends the same empty message as one where no filter wrote "
        "any: the service takes it for unknown and fails closed (CS-8, CS-12)"
    ),
}
"""Case (file/group/case) to the reason why it cannot be sent through an Envoy."""
ALL_CASES = 663


def names(file: str) -> set[str]:
    suite = read_suite(file, (CORPUS / file).read_bytes())
    return {name_of(suite, group, case) for group in suite.groups for case in group.cases}


@pytest.fixture(scope="module", params=[pytest.param(k, marks=needs_hosting if k == "envoy" else ()) for k in SERVERS])
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeBench]:
    """What answers the checks: grpcio in this process, or one worker hosted in Envoy for all files."""
    pytest.importorskip("envoy")
    if request.param == "grpcio":
        yield Bench
        return
    with hosting(tmp_path_factory.mktemp("host")) as directory:
        yield partial(HostedBench, directory=directory)


@pytest.mark.parametrize("file", FILES)
async def test_real_envoy_answers_as_expected(file: str, service: MakeBench, tmp_path: Path) -> None:
    suite = read_suite(file, (CORPUS / file).read_bytes())
    assert suite.problems == ()
    outcomes = await run(suite, tmp_path, NOT_RUNNABLE, service)
    wrong = [f"{one.name}: {difference}" for one in outcomes for difference in one.differences]
    assert wrong == []
    assert {one.name for one in outcomes} == names(file) - NOT_RUNNABLE.keys()


def test_every_case_runs_but_those_with_a_reason() -> None:
    cases = {name for file in FILES for name in names(file)}
    assert cases >= NOT_RUNNABLE.keys()
    assert len(cases - NOT_RUNNABLE.keys()) >= ALL_CASES - 1

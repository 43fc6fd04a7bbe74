"""Who has a candidate, of the reports of all: by tables, and waiting for it by a clock that is set."""

from collections.abc import Callable

import pytest

from authz.canary.candidate_standing import CandidateStanding, CandidateState
from authz.core.errors import AuthzError
from authz.truth.fleet_candidate import FleetCandidate
from authz.truth.fleet_merge import FleetView, merge_reports
from authz.truth.fleet_report import SERVE, ProxyReport, Reported
from authz.truth.fleet_waiting import await_candidate
from tests.truth.test_fleet_merge import NOW, late, left, proxy, replica

DIGEST = "cd" * 32
CANDIDATE = FleetCandidate(8, DIGEST)


def has(name: str, state: CandidateState, *proxies: ProxyReport, number: int = 8, **more: object) -> Reported:
    digest = DIGEST if number else ""
    return replica(name, "7", *proxies, candidate=CandidateStanding(number, digest, state), **more)  # type: ignore[arg-type]  # fields by name


def chosen(name: str) -> ProxyReport:
    return proxy(name, candidate=8)


@pytest.mark.parametrize(
    ("reports", "without", "refusing"),
    [
        pytest.param([], [], [], id="nobody is there"),
        pytest.param(
            [has("a", CandidateState.IN_FORCE, chosen("p"), proxy("q")), has("b", CandidateState.SHADOW, kind=SERVE)],
            [],
            [],
            id="all",
        ),
        pytest.param(
            [has("a", CandidateState.IN_FORCE, chosen("p"), late("q", 900.0))],
            [],
            [],
            id="proxies that it is not for are not waited for",
        ),
        pytest.param(
            [has("a", CandidateState.IN_FORCE, proxy("p", candidate=8, is_current=False, revision="7"))],
            ["p"],
            [],
            id="acknowledged all of the revision, and not yet the candidate",
        ),
        pytest.param(
            [has("a", CandidateState.IN_FORCE, proxy("p", candidate=8, is_connected=False, is_current=False))],
            [],
            [],
            id="who is connected nowhere is not waited for",
        ),
        pytest.param(
            [has("a", CandidateState.IN_FORCE, left("p")), has("b", CandidateState.IN_FORCE, chosen("p"))],
            [],
            [],
            id="moved to another replica",
        ),
        pytest.param([has("a", CandidateState.WAITING), replica("b", "7")], ["a", "b"], [], id="not yet, or untold"),
        pytest.param(
            [has("a", CandidateState.REFUSED), has("b", CandidateState.ABORTED)], ["a", "b"], ["a", "b"], id="refused"
        ),
        pytest.param([has("a", CandidateState.REFUSED, number=0)], ["a"], ["a"], id="whatever it is"),
        pytest.param([has("a", CandidateState.IN_FORCE, number=9)], ["a"], [], id="another one"),
        pytest.param(
            [has("a", CandidateState.REFUSED, age=60.0), has("b", CandidateState.SHADOW)], ["a"], [], id="silent"
        ),
        pytest.param(
            [has("a", CandidateState.IN_FORCE, chosen("p"), age=60.0), has("b", CandidateState.SHADOW)],
            ["a", "p"],
            [],
            id="at a silent one",
        ),
    ],
)
def test_who_has_not_taken_a_candidate_and_who_will_not(
    reports: list[Reported], without: list[str], refusing: list[str]
) -> None:
    view = merge_reports(reports, NOW)
    assert [one.name for one in CANDIDATE.without(view)] == without
    assert [one.name for one in CANDIDATE.refusing(view)] == refusing
    assert CANDIDATE.is_taken(view) is (bool(reports) and not without)


def test_an_archive_of_the_same_number_is_another_candidate() -> None:
    view = merge_reports([has("a", CandidateState.SHADOW)], NOW)
    assert not FleetCandidate(8, "ab" * 32).is_taken(view)


WAITING, TAKEN, REFUSED = (
    merge_reports([has("a", state)], NOW)
    for state in (CandidateState.WAITING, CandidateState.SHADOW, CandidateState.REFUSED)
)


@pytest.mark.parametrize(
    ("seen", "gone_at", "ended", "seconds"),
    [
        pytest.param([WAITING, None, TAKEN], None, TAKEN, 1.0, id="taken"),
        pytest.param([WAITING, REFUSED, TAKEN], None, REFUSED, 0.5, id="a refusal ends it at once"),
        pytest.param([WAITING] * 9, 2, WAITING, 1.0, id="it is over"),
        pytest.param([WAITING] * 9, None, WAITING, 3.0, id="the time is over"),
    ],
)
def test_waiting_ends_when_all_have_it_or_it_is_known_that_they_will_not(
    seen: list[FleetView | None], gone_at: int | None, ended: FleetView, seconds: float
) -> None:
    now, looks = 0.0, 0

    def look() -> FleetView:
        nonlocal looks
        looks += 1
        if (view := seen[looks - 1]) is None:
            raise AuthzError("no answer")
        return view

    def sleep(pause: float) -> None:
        nonlocal now
        now += pause

    is_there: Callable[[], bool] = lambda: gone_at is None or looks <= gone_at  # noqa: E731  # reads as a table
    found = await_candidate(look, CANDIDATE, 3.0, is_there=is_there, clock=lambda: now, sleep=sleep)
    assert (found, now) == (ended, seconds)

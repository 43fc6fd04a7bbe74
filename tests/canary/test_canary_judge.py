"""When a candidate is taken back."""

from fractions import Fraction

import pytest

from authz.canary.canary_judge import LEAST_SECONDS, AbortBound, CanaryJudge, RequestCounts

BOUND = AbortBound(Fraction(1, 20))


def judge(
    bound: AbortBound | None = BOUND, before: tuple[tuple[float, int, int], ...] = ((0, 0, 0), (50, 100, 10))
) -> CanaryJudge:
    """One that has heard of ``web-1`` until it got the candidate at 50 s; reports are time, requests, refused."""
    made = CanaryJudge(bound)
    for now, requests, refused in before:
        made.report("web-1", RequestCounts(requests, refused), now)
    made.begin("a1", {"web-1"}, 50.0)
    return made


@pytest.mark.parametrize(
    ("requests", "refused", "is_against"),
    [
        (100, 15, False),
        (100, 16, True),
        (19, 19, False),
        (20, 20, True),
        (0, 0, False),
    ],
)
def test_a_candidate_is_taken_back_when_more_than_the_bound_is_refused_above_what_was_before(
    requests: int, refused: int, is_against: bool
) -> None:
    judged = judge()
    judged.report("web-1", RequestCounts(100 + requests, 10 + refused), 60.0)
    assert bool(judged.verdict(60.0)) is is_against


def test_the_verdict_says_who_and_how_much() -> None:
    judged = judge()
    judged.report("web-1", RequestCounts(150, 60), 60.0)
    told = "`web-1` refused 50 of 50 requests, 100% (10% before): more than 5% above that"
    assert judged.verdict(60.0) == told


def test_of_whom_nothing_was_known_is_taken_to_have_refused_nothing() -> None:
    judged = judge(before=())
    judged.report("web-1", RequestCounts(1000, 500), 55.0)
    assert judged.verdict(55.0) == ""
    judged.report("web-1", RequestCounts(1100, 506), 65.0)
    assert "nothing known of before" in judged.verdict(65.0)


def test_what_is_older_than_the_window_does_not_count() -> None:
    judged = judge()
    judged.report("web-1", RequestCounts(200, 30), 60.0)
    assert judged.verdict(60.0)
    for now in (80.0, 100.0, 120.0, 130.0):
        judged.report("web-1", RequestCounts(200 + int(now), 30), now)
    assert judged.verdict(130.0) == ""


def test_a_proxy_that_was_started_again_counts_from_nothing() -> None:
    judged = judge()
    judged.report("web-1", RequestCounts(30, 1), 60.0)
    assert judged.verdict(60.0) == ""
    judged.report("web-1", RequestCounts(60, 25), 65.0)
    assert judged.verdict(65.0)


def test_others_and_those_without_a_candidate_are_not_judged() -> None:
    judged = judge()
    judged.report("api-1", RequestCounts(1000, 1000), 60.0)
    assert judged.verdict(60.0) == ""
    judged.begin("", (), 61.0)
    judged.report("web-1", RequestCounts(1000, 910), 62.0)
    assert judged.verdict(62.0) == ""


def test_without_a_bound_it_counts_only() -> None:
    judged = judge(bound=None)
    judged.report("web-1", RequestCounts(200, 110), 60.0)
    assert judged.verdict(60.0) == ""
    assert judged.counted(60.0) == {"web-1": (RequestCounts(100, 100), Fraction(1, 10))}
    judged.forget(["api-1"])
    assert judged.counted(60.0) == {}


def test_a_larger_share_keeps_what_was_known_of_those_that_had_the_candidate() -> None:
    judged = judge()
    judged.report("web-1", RequestCounts(200, 20), 60.0)
    judged.report("web-2", RequestCounts(0, 0), 1.0)
    judged.report("web-2", RequestCounts(10, 5), 60.0)
    judged.begin("a1", {"web-1", "web-2"}, 60.0)
    counted = judged.counted(60.0)
    assert counted["web-1"][1] == Fraction(1, 10)
    assert counted["web-2"][1] == Fraction(1, 2)


def test_a_proxy_that_reports_in_a_loop_fills_no_memory_and_is_judged_all_the_same() -> None:
    judged = judge()
    for number in range(20_000):
        judged.report("web-1", RequestCounts(100 + number, 10 + number), 50.0 + number / 1000)
    assert len(judged._reported["web-1"].said) <= 60 / LEAST_SECONDS + 2
    assert judged.counted(70.0)["web-1"][0] == RequestCounts(19_999, 19_999)
    assert judged.verdict(70.0)

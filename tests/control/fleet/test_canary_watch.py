"""Reports of proxies lead to a candidate being taken back."""

from fractions import Fraction
from typing import Any

import pytest

from authz.canary.canary_judge import AbortBound, RequestCounts
from authz.canary.canary_status import CanaryState, CanaryStatus
from authz.control.fleet.canary_watch import CanaryWatch


class Candidate:
    """In the place of a ``CanaryFollower``."""

    def __init__(self) -> None:
        self.status = CanaryStatus(CanaryState.IN_FORCE, "a1", chosen=("web-1",))
        self.bound: AbortBound | None = AbortBound(Fraction(1, 20))
        self.cannot_keep = False

    def abort(self, reason: str) -> None:
        self.status = self.status.become(CanaryState.ABORTED, reason=reason)
        if self.cannot_keep:
            raise OSError("disk full")


@pytest.mark.parametrize("cannot_keep", [False, True])
def test_a_candidate_of_which_a_workload_refuses_too_much_is_aborted_once(cannot_keep: bool) -> None:
    candidate, now = Candidate(), 100.0
    candidate.cannot_keep = cannot_keep
    followed: Any = candidate
    watch = CanaryWatch(lambda: followed, lambda: now)
    watch.take("web-1", RequestCounts(0, 0))
    now = 110.0
    watch.take("web-2", RequestCounts(100, 100))
    before = candidate.status.state
    watch.take("web-1", RequestCounts(100, 50))
    assert (before, candidate.status.state) == (CanaryState.IN_FORCE, CanaryState.ABORTED)
    assert candidate.status.reason.startswith("`web-1` refused 50 of 100 requests")
    watch.take("web-1", RequestCounts(200, 150))
    assert watch.shown()["counts"] == {}


def test_without_a_bound_reports_are_shown() -> None:
    candidate = Candidate()
    candidate.bound = None
    followed: Any = candidate
    times = iter([100.0, 110.0, 110.0, 110.0])
    watch = CanaryWatch(lambda: followed, lambda: next(times))
    watch.take("web-1", RequestCounts(10, 0))
    watch.take("web-1", RequestCounts(20, 5))
    assert watch.shown()["counts"] == {
        "web-1": {"requests": 10, "refused": 5, "refused_share": 0.5, "refused_share_before": None}
    }
    assert {metric.name: value for metric, value in watch.figures()}["authz_canary_refused"] == 5

"""What the fleet is told of a candidate: a table."""

from dataclasses import replace

import pytest

from authz.canary.canary_status import CanaryState, CanaryStatus
from authz.canary.candidate_standing import CandidateStanding, CandidateState
from authz.control.told_candidate import told_standing

LAID = CandidateStanding(8, "cd" * 32, CandidateState.SHADOW)
NOTHING = CanaryStatus()
REFUSED = replace(LAID, state=CandidateState.REFUSED, reason="nobody signed it")


def delivered(state: CanaryState, reason: str = "", number: int = 8) -> CanaryStatus:
    return CanaryStatus(state, "a1", reason, number=number)


@pytest.mark.parametrize(
    ("pushed", "in_shadow", "status", "told"),
    [
        pytest.param(None, 0, delivered(CanaryState.IN_FORCE), None, id="there is none any more"),
        pytest.param(REFUSED, 0, delivered(CanaryState.IN_FORCE), REFUSED, id="refused before it was laid out"),
        pytest.param(LAID, 8, NOTHING, LAID, id="for nobody"),
        pytest.param(LAID, 7, NOTHING, replace(LAID, state=CandidateState.WAITING), id="another one was for nobody"),
        pytest.param(LAID, 0, NOTHING, replace(LAID, state=CandidateState.WAITING), id="not read yet"),
        pytest.param(
            LAID, 0, delivered(CanaryState.IN_FORCE, number=7), replace(LAID, state=CandidateState.WAITING),
            id="the one before is still delivered",
        ),
        pytest.param(
            LAID, 0, delivered(CanaryState.IN_FORCE), replace(LAID, state=CandidateState.IN_FORCE), id="delivered"
        ),
        pytest.param(LAID, 0, delivered(CanaryState.SHADOW), LAID, id="decided in shadow here"),
        pytest.param(
            LAID, 0, delivered(CanaryState.NONE), replace(LAID, state=CandidateState.IN_FORCE),
            id="the same as what is in force for all",
        ),
        pytest.param(
            LAID, 0, delivered(CanaryState.REFUSED, "no such workload"),
            replace(LAID, state=CandidateState.REFUSED, reason="no such workload"), id="refused",
        ),
        pytest.param(
            LAID, 0, delivered(CanaryState.ABORTED, "too much"),
            replace(LAID, state=CandidateState.ABORTED, reason="too much"), id="taken back here",
        ),
    ],
)  # fmt: skip
def test_the_fleet_is_told_what_was_delivered(
    pushed: CandidateStanding | None, in_shadow: int, status: CanaryStatus, told: CandidateStanding | None
) -> None:
    assert told_standing(pushed, in_shadow, status) == told

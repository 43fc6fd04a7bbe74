"""What a control plane tells its fleet of a candidate that was pushed: what it delivered, not what it is about to."""

from dataclasses import replace

from authz.canary.canary_status import CanaryState, CanaryStatus
from authz.canary.candidate_standing import CandidateStanding, CandidateState

_TOLD = {
    CanaryState.NONE: CandidateState.IN_FORCE,  # it is what is in force for all
    CanaryState.IN_FORCE: CandidateState.IN_FORCE,
    CanaryState.SHADOW: CandidateState.SHADOW,
    CanaryState.REFUSED: CandidateState.REFUSED,
    CanaryState.ABORTED: CandidateState.ABORTED,
}


def told_standing(
    pushed: CandidateStanding | None, in_shadow: int, delivered: CanaryStatus
) -> CandidateStanding | None:
    """
    How it stands here.

    Args:
        pushed: as it was laid out; None: there is none.
        in_shadow: the number of the one that was read, and chooses nobody.
        delivered: the one with which everything was made that proxies have been told.
    """
    if pushed is None or pushed.state is not CandidateState.SHADOW or in_shadow == pushed.number:
        return pushed
    if delivered.number != pushed.number:
        return replace(pushed, state=CandidateState.WAITING)
    return replace(pushed, state=_TOLD[delivered.state], reason=delivered.reason)

"""
A candidate's standing as a part of a replica's report.

    {"number": 8, "digest": "…", "state": "refused", "reason": "candidate 8 is refused: …"}
"""

import re
from collections.abc import Mapping
from typing import Any

from authz.canary.candidate_standing import CandidateStanding, CandidateState

MAX_WORDS = 400
"""Characters of a reason."""
MAX_CANDIDATE = 2**53
_DIGEST = re.compile(r"[0-9a-f]{64}|")
_MEMBERS = ("number", "digest", "state", "reason")


def candidate_json(standing: CandidateStanding) -> dict[str, Any]:
    """As it is written and shown."""
    return {
        "number": standing.number,
        "digest": standing.digest,
        "state": str(standing.state),
        "reason": standing.reason[:MAX_WORDS],
    }


def read_candidate(told: object) -> CandidateStanding | None:
    """
    What anybody wrote; None is none. What a newer replica says besides is left out.

    Raises ValueError.
    """
    if told is None:
        return None
    if not isinstance(told, Mapping) or not set(told).issuperset(_MEMBERS):
        raise ValueError("`candidate` is not what it should be")
    digest, state, reason = (told[name] if isinstance(told[name], str) else None for name in _MEMBERS[1:])
    is_right = digest is not None and _DIGEST.fullmatch(digest) and reason is not None and len(reason) <= MAX_WORDS
    if not is_right or state not in tuple(CandidateState):
        raise ValueError("`candidate` is not what it should be")
    return CandidateStanding(candidate_number(told["number"]), digest or "", CandidateState(state), reason or "")


def candidate_number(told: object) -> int:
    """The number as it is, 0 for none. Raises ValueError: it is none."""
    if not isinstance(told, int) or isinstance(told, bool) or not 0 <= told <= MAX_CANDIDATE:
        raise ValueError("the number of a candidate is not what it should be")
    return told

"""
A decision that was made, with what it was made of: what the check hands to the record, counters and spans.

References only; nothing is copied or formatted here.
"""

from enum import StrEnum
from typing import NamedTuple

from authz.core.attributes import (
    AttributeContext,
    Json,
)
from authz.core.decision import Decision, Effect, RuleReference

Record = dict[str, Json]
"""One audit record; keys in the order of the documentation."""


class Timing(NamedTuple):
    """Something that took time within a decision: token verification, a provider call, a stage."""

    name: str
    """``token.verify``, ``provider.ask``, ``introspection.ask``, ``stage.deny``."""
    started_at: float
    """Seconds since the epoch."""
    duration_seconds: float
    detail: str = ""
    """One word for people: the provider's name, the stage's result."""


class CandidateResult(StrEnum):
    """How the answer of the candidate policies differs."""

    NEWLY_DENIED = "newly_denied"
    NEWLY_ALLOWED = "newly_allowed"
    OTHER_STATUS = "other_status"
    """Denied by both, with another status."""
    OTHER_RULE = "other_rule"
    """The same answer, for another reason: another rule, or none."""


class CandidateAnswer(NamedTuple):
    """What the candidate policies would have answered, where that differs."""

    result: CandidateResult
    effect: Effect
    rule: RuleReference | None
    status: int = 0
    """Of a denial with another status."""


class Offer(NamedTuple):
    """The offer that the check path hands over: references only, because nothing is copied or formatted there."""

    attributes: AttributeContext
    decision: Decision
    decision_id: str
    started_at: float
    """Seconds since the epoch."""
    duration_seconds: float
    cache_hit: bool | None = None
    """Whether the token cache knew the token; None without a token."""
    timings: tuple[Timing, ...] = ()
    candidate: CandidateAnswer | None = None
    """Only where the candidate policies would have answered otherwise."""


class TraceIds(NamedTuple):
    """Lower-case hexadecimal ids; empty when there is no trace."""

    trace_id: str = ""
    span_id: str = ""
    """Id of our own span when it is sampled, else of Envoy's Check span."""
    parent_id: str = ""
    is_sampled: bool = False


NO_TRACE = TraceIds()

"""
A trail of records against policies: what would have changed, what would not, and what cannot be said.

Records are gone through one by one and kept by none: requests that are alike in all that the policies ask for are
decided once, and counted. So a trail may be longer than the memory.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from authz.analysis.replay.alike import AlikeRequests, place_of
from authz.analysis.replay.recorded_request import (
    OUTSIDE,
    DescribedWorkloads,
    RecordedAnswer,
    RecordedRequest,
    moment_of,
    read_recorded,
)
from authz.analysis.replay.redecide import LABELS, DecidedAgain, Then, decide_again, providers_asked
from authz.core.attributes import Json
from authz.core.decided import Record
from authz.core.engine import Engine

EngineOf = Callable[[str], Engine | None]
"""The policies of a version (`policy_version` of a record), or None where they are not kept."""
MAX_ALIKE = 200_000
"""Requests of which the answer is remembered; beyond, remembering begins anew."""
MAX_WORKLOADS = 10_000
"""Workloads and versions of policies that are prepared at once."""
_WHOLE = "the whole record"


class ReplayOutcome(StrEnum):
    """What came of a record."""

    SAME = "same"
    OTHER_RULE = "other rule"
    """The same answer, by another rule."""
    NEWLY_DENIED = "newly denied"
    NEWLY_ALLOWED = "newly allowed"
    OTHER_STATUS = "other status"
    UNSAID = "cannot be said"
    NOT_KEPT = "policies not kept"
    """The version that decided is not in the archive."""
    OUTSIDE = "not decided by policies"


CHANGES = (ReplayOutcome.NEWLY_DENIED, ReplayOutcome.NEWLY_ALLOWED, ReplayOutcome.OTHER_STATUS)
_ORDER = list(ReplayOutcome)


class GroupKey(NamedTuple):
    """What records of a group have in common."""

    outcome: ReplayOutcome
    workload: str
    """``namespace/name``; empty where it does not matter."""
    caller: str = ""
    then: RecordedAnswer | None = None
    now: RecordedAnswer | None = None
    facts: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()


@dataclass(slots=True)
class ReplayGroup:
    """Records that changed, or did not, alike."""

    key: GroupKey
    request: RecordedRequest | None
    """The first of them."""
    count: int = 0
    first: str = "~"
    """Time of the earliest record, RFC 3339."""
    last: str = ""
    example: str = ""
    """Decision id of the first record that was read."""


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """The result. Groups come by kind, then the largest first."""

    records: int
    groups: tuple[ReplayGroup, ...]
    assumed: int
    """Records whose answer rests on tokens being found by the same rules as then."""

    def of(self, *outcomes: ReplayOutcome) -> tuple[ReplayGroup, ...]:
        """The groups of some kinds."""
        return tuple(group for group in self.groups if group.key.outcome in outcomes)

    def count(self, *outcomes: ReplayOutcome) -> int:
        """The number of records of some kinds."""
        return sum(group.count for group in self.of(*outcomes))


_Alike = AlikeRequests[tuple[ReplayGroup, bool]]


@dataclass(slots=True)
class Replay:
    """
    Takes records, then reports.

    Args:
        engine_of: which policies decide again, by the version of the record: a candidate for all, or those of then.
        described: labels of workloads, which count in place of the record's.
        then: the policies of then, where they are kept: they show how tokens were judged and which providers asked.
        is_as_of: the policies of then decide again: the answer must be the recorded one, its rule included.
    """

    engine_of: EngineOf
    described: DescribedWorkloads = field(default_factory=dict)
    then: EngineOf = lambda version: None
    is_as_of: bool = False
    records: int = 0
    assumed: int = 0
    _prepared: dict[tuple[object, ...], _Alike] = field(default_factory=dict)
    _groups: dict[GroupKey, ReplayGroup] = field(default_factory=dict)
    _remembered: int = 0

    def take_all(self, records: Iterable[Record]) -> None:
        """Take every record in turn."""
        for record in records:
            self.take(record)

    def take(self, record: Record) -> None:
        """Decide one record again, or count it with those that are alike."""
        group, is_assumed = self._group(record)
        self.records += 1
        self.assumed += is_assumed
        group.count += 1
        time = moment_of(record)
        if time:
            if time < group.first:
                group.first = time
            if time > group.last:
                group.last = time
        if not group.example:
            group.example = str(record.get("decision_id"))

    def report(self) -> ReplayReport:
        """What came of all records so far."""
        groups = sorted(self._groups.values(), key=lambda one: (_ORDER.index(one.key.outcome), -one.count, one.first))
        return ReplayReport(self.records, tuple(groups), self.assumed)

    def _group(self, record: Record) -> tuple[ReplayGroup, bool]:
        try:
            place = place_of(record)
            alike = self._prepared.get(place)
        except (AttributeError, KeyError, TypeError):  # a part is not what it should be
            return self._broken()
        if alike is None:
            request = read_recorded(record, self.described)
            if request is None:
                return self._broken()
            engine = self.engine_of(str(place[0]))
            if engine is None:
                return self._of(GroupKey(ReplayOutcome.NOT_KEPT, "", facts=(str(place[0]),)), None), False
            if len(self._prepared) >= MAX_WORKLOADS:
                self._prepared.clear()
            alike = self._prepared[place] = AlikeRequests(engine, self.then(str(place[0])), request)
        try:
            key = alike.key(record)
            found = alike.known.get(key)
        except (AttributeError, KeyError, TypeError):
            return self._broken()
        if found is None:
            found = self._decide(alike, record)
            self._remembered += 1
            if self._remembered > MAX_ALIKE:
                for one in self._prepared.values():
                    one.known.clear()
                self._remembered = 0
            alike.known[key] = found
        return found

    def _broken(self) -> tuple[ReplayGroup, bool]:
        return self._of(GroupKey(ReplayOutcome.UNSAID, "", facts=(_WHOLE,)), None), False

    def _decide(self, alike: _Alike, record: Record) -> tuple[ReplayGroup, bool]:
        request = read_recorded(record, self.described, alike.first)
        if request is None or request.answer.effect not in ("allow", "deny"):
            return self._broken()
        workload = request.attributes.destination.workload
        name = f"{workload.namespace}/{workload.name or workload.service_account or '?'}"
        then = request.answer
        if then.stage in OUTSIDE:
            return self._of(GroupKey(ReplayOutcome.OUTSIDE, "", facts=(then.stage,)), request), False
        if alike.is_labelled and not request.has_labels:
            again = DecidedAgain(None, (LABELS,))
        else:
            again = decide_again(alike.bounded, request, self._then(request, alike))
            if again.answer is None and not self.is_as_of and request.version == alike.bounded.exact.version:
                again = DecidedAgain(then)  # the same policies, whatever the facts were
        if again.answer is None:
            key = GroupKey(ReplayOutcome.UNSAID, name, facts=again.facts, rules=again.rules)
            return self._of(key, request), False
        outcome = self._compared(then, again)
        if outcome is ReplayOutcome.SAME:
            return self._of(GroupKey(outcome, name), request), again.is_assumed
        return self._of(GroupKey(outcome, name, caller_of(request), then, again.answer), request), again.is_assumed

    def _compared(self, then: RecordedAnswer, again: DecidedAgain) -> ReplayOutcome:
        now = again.answer
        assert now is not None, "what cannot be said is not compared"
        if now.effect != then.effect:
            return ReplayOutcome.NEWLY_DENIED if now.effect == "deny" else ReplayOutcome.NEWLY_ALLOWED
        if not again.is_exact:
            return ReplayOutcome.SAME
        if now.status != then.status:
            return ReplayOutcome.OTHER_STATUS
        return ReplayOutcome.SAME if now.rule == then.rule else ReplayOutcome.OTHER_RULE

    def _then(self, request: RecordedRequest, alike: _Alike) -> Then:
        if self.is_as_of or request.version == alike.bounded.exact.version:
            return Then(is_same=True)
        if alike.then is None:
            return Then()
        return Then(alike.then.exact, providers_asked(alike.then, request))

    def _of(self, key: GroupKey, request: RecordedRequest | None) -> ReplayGroup:
        found = self._groups.get(key)
        if found is None:
            found = self._groups[key] = ReplayGroup(key, request)
        return found


def caller_of(request: RecordedRequest) -> str:
    """Whom the record names: the principal, else the issuer of the token, else nobody."""
    principal = request.attributes.source.principal
    if request.lacks("source.principal"):
        return "identity not recorded"
    if principal:
        return principal
    return f"no identity, token of {request.token.issuer}" if request.token is not None else "no identity"


def group_json(group: ReplayGroup) -> dict[str, Json]:
    """A group with the documented fields (docs/replay.md)."""
    key = group.key
    return {
        "outcome": key.outcome.value,
        "workload": key.workload or None,
        "caller": key.caller or None,
        "then": answer_json(key.then),
        "now": answer_json(key.now),
        "facts": list(key.facts),
        "rules": list(key.rules),
        "count": group.count,
        "first": group.first if group.last else None,
        "last": group.last or None,
        "example": group.example,
    }


def answer_json(answer: RecordedAnswer | None) -> Json:
    """An answer with the documented fields; None for none."""
    if answer is None:
        return None
    return {
        "effect": answer.effect,
        "status": answer.status or None,
        "stage": answer.stage,
        "rule": answer.rule or None,
        "place": answer.place or None,
    }

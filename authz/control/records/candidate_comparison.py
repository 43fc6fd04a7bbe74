"""
What a candidate changes, counted by the requests of proxies: in force for some workloads, in shadow for all others.

Each entry of a log is decided by the policies that its workload does not have as well. The proxy's own answer is one of
the two. What only a provider, the issuer of another token, or a header that the entry does not hold could tell, is
undecided: nothing is guessed.
"""

import logging
from dataclasses import dataclass

from authz.canary.canary_engine import CanaryEngine
from authz.core.asked import asked_of, blind_rules
from authz.core.decided import CandidateAnswer, CandidateResult
from authz.core.decision import Decision
from authz.core.engine import WorkloadPolicies
from authz.envoy.native.record_log import loggable_headers
from authz.service.candidate_differences import CandidateDifferences, difference
from authz.service.native.agreement import again
from authz.service.native.judge import Judged, Verdict
from authz.service.ports.failure import where_it_failed
from authz.service.same_rules import SameRules
from authz.telemetry.status import CandidateDifference
from authz.wire.access_log import LogEntry

_log = logging.getLogger("authz.candidate")
UNDECIDED, FAILED, SAME = "undecided", "failed", "same"
MAX_PAIRS = 4096
_OTHERS = frozenset({Verdict.OTHER_VERSION, Verdict.DISAGREED, Verdict.UNKNOWN})
"""Entries of requests that were decided by neither side, or nobody knows by which."""


@dataclass(frozen=True, slots=True)
class _Pair:
    """The policies that a workload has, and those that it does not have."""

    own: WorkloadPolicies
    other: WorkloadPolicies
    is_same: bool
    is_tokens_same: bool
    is_visible: bool
    """Whether an entry holds all that the other ones ask for."""


class CandidateComparison:
    """Counts in bounded memory. Used by one thread."""

    def __init__(self) -> None:
        self.results = dict.fromkeys((SAME, *map(str, CandidateResult), UNDECIDED, FAILED), 0)
        """Since the start; numbers only ever grow."""
        self._before = dict(self.results)
        self._version = ""
        self._differences = CandidateDifferences()
        self._engine: CanaryEngine | None = None
        self._pairs: dict[tuple[int, int], _Pair] = {}
        self._same_rules = SameRules()

    def replace(self, policies: object) -> None:
        """Compare by these from now on; policies without a candidate compare nothing. Another one is counted anew."""
        self._engine = policies if isinstance(policies, CanaryEngine) else None
        self._pairs.clear()
        self._same_rules = SameRules()
        version = self._engine.candidate.version if self._engine is not None else ""
        if version != self._version:
            self._version, self._before, self._differences = version, dict(self.results), CandidateDifferences()

    @property
    def of_version(self) -> dict[str, int]:
        """What came of this candidate: numbers by result."""
        return {name: number - self._before[name] for name, number in self.results.items()}

    @property
    def differences(self) -> tuple[CandidateDifference, ...]:
        """Those of this candidate, the most frequent first."""
        return self._differences.found

    def take(self, entry: LogEntry, judged: Judged) -> CandidateAnswer | None:
        """
        Decide an entry by the other policies, compare and count. Never raises.

        Returns:
            What the candidate would have answered, where its workload does not have it and that differs.
        """
        engine = self._engine
        if engine is None:
            return None
        try:
            return self._take(engine, entry, judged)
        except Exception as error:  # a mistake of ours must not cost the record
            self.results[FAILED] += 1
            _log.error("the candidate failed at decision %s: %s", entry.decision_id, where_it_failed(error))
            return None

    def _take(self, engine: CanaryEngine, entry: LogEntry, judged: Judged) -> CandidateAnswer | None:
        workload = entry.attributes.destination.workload
        has_it = workload.name in engine.names
        both = [one.for_workload(workload) for one in (engine.base, engine.candidate)]
        own, other = reversed(both) if has_it else both
        pair = self._pair(engine, own, other)
        if pair.is_same:
            self.results[SAME] += 1
            return None
        attributes = judged.offer.attributes
        is_tcp = attributes.http is None
        is_settled = is_tcp or (pair.is_tokens_same and pair.is_visible)
        if judged.verdict in _OTHERS or not is_settled or (pair.other.tcp if is_tcp else pair.other.http).custom:
            self.results[UNDECIDED] += 1
            return None
        happened = _happened(pair.own, entry, judged)
        decided = again(pair.other, attributes, entry.enforced)
        base, candidate = (decided, happened) if has_it else (happened, decided)
        answer = difference(base, candidate)
        if answer is None:
            self.results[SAME] += 1
            return None
        self.results[str(answer.result)] += 1
        self._differences.add(workload, base.rule, answer, entry.decision_id, entry.started_at)
        return None if has_it else answer

    def _pair(self, engine: CanaryEngine, own: WorkloadPolicies, other: WorkloadPolicies) -> _Pair:
        found = self._pairs.get((id(own), id(other)))  # the references that are kept make the ids unique
        if found is None:
            if len(self._pairs) >= MAX_PAIRS:
                self._pairs.clear()
            texts = [one.digests_for(own.workload) for one in (engine.base, engine.candidate)]
            found = self._pairs[id(own), id(other)] = _Pair(
                own,
                other,
                is_same=bool(texts[0]) and texts[0] == texts[1],
                is_tokens_same=self._same_rules(own.jwt_rules, other.jwt_rules),
                is_visible=not blind_rules(other, loggable_headers(asked_of(own))),
            )
        return found


def _happened(own: WorkloadPolicies, entry: LogEntry, judged: Judged) -> Decision:
    """The answer of the policies that the workload has, with its rule; that of a rate limit is none."""
    if judged.verdict is Verdict.AGREED and not entry.enforced.limited_by:
        return judged.offer.decision
    return again(own, judged.offer.attributes, entry.enforced)

"""What one version of the candidate policies would have answered otherwise, by workload and rules, with examples."""

from dataclasses import dataclass

from authz.core.attributes import Workload
from authz.core.decided import CandidateAnswer, CandidateResult
from authz.core.decision import Decision, Effect, RuleReference
from authz.telemetry.status import CandidateDifference

MAX_KINDS = 200
EXAMPLES = 3
_Key = tuple[str, str, str, str, str]


@dataclass(slots=True)
class _Kind:
    """Edited in place, because each request that differs comes here."""

    rule: RuleReference | None
    candidate_rule: RuleReference | None
    first_at: float
    last_at: float = 0.0
    count: int = 0
    decision_ids: tuple[str, ...] = ()


def difference(decision: Decision, decided: Decision) -> CandidateAnswer | None:
    """How the candidate's decision, the second one, differs from that of the policies in force; None: it does not."""
    effect, is_denied = decided.effect, decided.effect is Effect.DENY
    if effect is not decision.effect:
        result = CandidateResult.NEWLY_DENIED if is_denied else CandidateResult.NEWLY_ALLOWED
    elif is_denied and decided.status != decision.status:
        result = CandidateResult.OTHER_STATUS
    elif decided.stage is not decision.stage or _name(decided.rule) != _name(decision.rule):
        result = CandidateResult.OTHER_RULE
    else:
        return None
    return CandidateAnswer(result, effect, decided.rule, decided.status if is_denied else 0)


def _name(rule: RuleReference | None) -> str:
    return rule.name if rule is not None else ""


class CandidateDifferences:
    """Counts differences in bounded memory. Written by one thread, read from any."""

    def __init__(self) -> None:
        self._kinds: dict[_Key, _Kind] = {}
        self.uncounted = 0

    def add(
        self, workload: Workload, rule: RuleReference | None, answer: CandidateAnswer, decision_id: str, now: float
    ) -> None:
        """Note one decision."""
        own = answer.rule
        key = (
            answer.result.value,
            workload.namespace,
            workload.name or workload.service_account,
            rule.name if rule is not None else "",
            own.name if own is not None else "",
        )
        kind = self._kinds.get(key)
        if kind is None:
            if len(self._kinds) >= MAX_KINDS:
                self.uncounted += 1
                return
            kind = self._kinds[key] = _Kind(rule, own, now)
        kind.last_at = now
        kind.count += 1
        kind.decision_ids = (decision_id, *kind.decision_ids[: EXAMPLES - 1])

    @property
    def found(self) -> tuple[CandidateDifference, ...]:
        """All kinds, the most frequent first."""
        found = [
            CandidateDifference(
                result,
                namespace,
                workload,
                kind.rule,
                kind.candidate_rule,
                kind.count,
                kind.first_at,
                kind.last_at,
                kind.decision_ids,
            )
            for (result, namespace, workload, _, _), kind in list(self._kinds.items())
        ]
        return tuple(sorted(found, key=lambda one: -one.count))

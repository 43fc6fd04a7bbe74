"""
One kept decision, explained on demand with the policies in force.

The request is replayed as the last stage saw it: the token was judged then and is not judged again, and a provider is
taken to have said what the decision says it did.
"""

from dataclasses import dataclass

from authz.admin.watch import Kept
from authz.analysis.offline.as_json import explanation_json, rule_note_json
from authz.analysis.offline.command import check_command
from authz.audit.request_fields import clean
from authz.audit.writer import build_record
from authz.core.attributes import AttributeContext, Authentication, Json
from authz.core.decision import Decision, Effect, Stage
from authz.core.engine import Engine
from authz.core.explain import Explanation, RuleNote, explain, nearest_miss
from authz.core.providers import ProviderAnswer, ProviderQuestion
from authz.core.resources import JwtRule

MAX_RULES_IN_LISTS = 200
"""Where policies have more rules, only the full explanation names the nearest one."""
_NOT_EVALUATED = (Stage.IDENTITY, Stage.INTERNAL, Stage.RATE_LIMIT)


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the policies came from, for the command that repeats a decision."""

    policies: str = "policies"
    mesh: str = ""
    candidate: str = ""


def row_json(kept: Kept, engine: Engine | None) -> dict[str, Json]:
    """A decision as a line of the list: its audit record, with the rule that came closest."""
    return {**build_record(kept.offer, kept.trace, nearest=_nearest(kept, engine)), "sequence": kept.sequence}


def decision_json(kept: Kept, engine: Engine | None, sources: Sources) -> dict[str, Json]:
    """
    A decision with everything that led to it.

    ``explained`` is None when nothing can be replayed: no policies, or a sidecar whose identity was not believed.
    Its ``agrees`` is False where the policies in force, or what is kept of the request, would decide otherwise.
    """
    offer = kept.offer
    attributes, decision = offer.attributes, offer.decision
    http = attributes.http
    found: dict[str, Json] = row_json(kept, None)
    found["labels"] = dict(sorted(attributes.destination.workload.labels))
    found["is_gateway"] = attributes.destination.is_gateway
    found["header_names"] = [*sorted(http.headers)] if http is not None else []
    found["timings"] = [
        {"name": timing.name, "detail": timing.detail, "duration_us": round(timing.duration_seconds * 1e6, 1)}
        for timing in offer.timings
    ]
    found["authentication"] = {
        "outcome": attributes.authentication.outcome.value,
        "reason": clean(attributes.authentication.reason),
    }
    found["policy_version_in_force"] = engine.version if engine is not None else None
    found["explained"] = None
    found["command"] = None
    if engine is None or decision.stage in _NOT_EVALUATED:
        return found
    policies = engine.for_workload(attributes.destination.workload)
    explanation = explain(policies, attributes, _as_judged, _AsAnswered(decision))
    found["explained"] = _explained(explanation, decision)
    nearest = explanation.nearest
    found["nearest_rule"] = rule_note_json(nearest) if nearest is not None else None
    found["command"] = check_command(
        policies,
        attributes,
        policy_paths=(sources.policies,),
        mesh_path=sources.mesh,
        answers={t.detail: _said(decision) for t in offer.timings if t.name == "provider.ask"},
    )
    return found


def _explained(explanation: Explanation, decision: Decision) -> dict[str, Json]:
    now = explanation.decision
    agrees = (now.effect, now.stage, now.rule) == (decision.effect, decision.stage, decision.rule)
    told = explanation_json(explanation)
    return {
        "agrees": agrees,
        "policy_version": now.policy_version,
        "effect": now.effect.value,
        "reason": now.reason,
        "stages": told["stages"],
    }


def _nearest(kept: Kept, engine: Engine | None) -> RuleNote | None:
    decision, attributes = kept.offer.decision, kept.offer.attributes
    if engine is None or decision.effect is not Effect.DENY or decision.stage is not Stage.ALLOW:
        return None
    policies = engine.for_workload(attributes.destination.workload)
    sets = policies.http if attributes.http is not None else policies.tcp
    if sets.allow is None or len(sets.allow.rules) > MAX_RULES_IN_LISTS:
        return None
    return nearest_miss(policies, attributes)


def _as_judged(attributes: AttributeContext, rules: tuple[JwtRule, ...]) -> Authentication:
    return attributes.authentication


@dataclass(frozen=True, slots=True)
class _AsAnswered:
    """
    The answers of providers: the one that a refusal by the CUSTOM stage names refused, all others let the request
    go on.
    """

    decision: Decision

    def __call__(self, question: ProviderQuestion) -> ProviderAnswer:
        decision = self.decision
        refused = decision.stage is Stage.CUSTOM and decision.rule == question.rule
        return ProviderAnswer(not refused, decision.status or 403, decision.body)


def _said(decision: Decision) -> str:
    """Of several providers all but the last allowed; one answer for each name is all the command can give."""
    return "deny" if decision.stage is Stage.CUSTOM else "allow"

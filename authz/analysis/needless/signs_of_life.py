"""
A request that a rule alone decides: the quick proof that the rule is needed.

Most rules have one, and it is found without the others: a request that the rule matches is made, and the engine decides
it with all policies, and again without the rule. Whatever is proved elsewhere is confirmed in the same way.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from authz.analysis.needless.guessed_requests import guessed_requests
from authz.analysis.needless.staged_rules import CUSTOM, StagedRule, sets_of, with_only, without
from authz.analysis.needless.verdict import RuleId
from authz.analysis.sets.boxes import OutOfTime
from authz.analysis.sets.model import Model, PolicyPair
from authz.analysis.sets.request_variables import Variables
from authz.analysis.sets.situations import Situation
from authz.analysis.sets.views import TooLarge, boxes_of
from authz.analysis.sets.witness import Witness, attributes_of, judge, witness_of
from authz.core.rules import CompiledRule

TOGETHER = 48
"""Rules whose values are told apart in one model."""
MAX_TRIES = 12
"""Requests of one rule that are tried."""


@dataclass(slots=True)
class Deciding:
    """Tells of requests whether a rule decides them, for one workload."""

    pair: PolicyPair
    """Twice the policies in question."""
    _without: dict[RuleId, PolicyPair] = field(default_factory=dict)

    def is_decided_by(self, rule: StagedRule, witness: Witness) -> bool:
        """
        Whether the request is answered differently without the rule.

        Of a rule that only asks, audits, or would decide: whether it fires, and no other of its stage does.
        """
        answers = {custom.provider.name: "allow" for custom in self.pair.new.http.custom if custom.provider is not None}
        witness = replace(witness, answers=answers | dict(witness.answers))
        if rule.decides_alone:
            pair = self._without.get(rule.id)
            if pair is None:
                pair = self._without[rule.id] = replace(self.pair, old=without(self.pair.new, rule))
            return judge(pair, witness, of_old=True).effect is not judge(pair, witness, of_old=False).effect
        policies = self.pair.new
        result = 0 if rule.stage.startswith(CUSTOM) else witness.token.new
        attributes = attributes_of(self.pair, witness, policies, result)
        own = dict(sets_of(policies.http if attributes.http is not None else policies.tcp)).get(rule.stage)
        return own is not None and [one.reference for one in own.firing(attributes)] == [rule.reference]


def is_asked(rule: StagedRule, situation: Situation) -> bool:
    """Whether the stage of a rule is asked about the requests of a situation (PA-9, RA-40)."""
    seen = situation.new
    if not situation.has_path:
        return False
    return not seen.status or (seen.is_token_refused and (rule.stage.startswith(CUSTOM)))


def form_in(rule: StagedRule, situation: Situation) -> CompiledRule | None:
    """The rule as it is asked of what the proxy sees."""
    return rule.http if situation.new.is_http else rule.tcp


def living(pair: PolicyPair, rules: Sequence[StagedRule], expired: Callable[[], bool]) -> set[RuleId]:
    """The rules for which a request is found at once that they alone decide; nothing is said of the others."""
    deciding = Deciding(pair)
    found = {
        rule.id for rule in rules if any(deciding.is_decided_by(rule, guess) for guess in guessed_requests(pair, rule))
    }
    rules = [rule for rule in rules if rule.id not in found]
    for begin in range(0, len(rules), TOGETHER):
        try:
            found |= _living(deciding, rules[begin : begin + TOGETHER], expired)
        except (OutOfTime, TooLarge):
            continue  # they are looked at one by one
    return found


def _living(deciding: Deciding, rules: Sequence[StagedRule], expired: Callable[[], bool]) -> set[RuleId]:
    lone = with_only(deciding.pair.new, rules)
    about = tuple(form for rule in rules for form in rule.compiled)
    model = Model(replace(deciding.pair, old=lone, new=lone), expired, about)
    found: set[RuleId] = set()
    if model.undecided:
        return found
    tries = dict.fromkeys((rule.id for rule in rules), MAX_TRIES)
    for situation in model.situations():
        for rule in rules:
            form = form_in(rule, situation)
            if form is None or rule.id in found or not is_asked(rule, situation):
                continue
            for witness in _witnesses(model, situation, form, model.variables):
                if not tries[rule.id]:
                    break
                tries[rule.id] -= 1
                if deciding.is_decided_by(rule, witness):
                    found.add(rule.id)
                    break
    return found


def _witnesses(model: Model, situation: Situation, form: CompiledRule, variables: Variables) -> list[Witness]:
    boxes = list(boxes_of(form, situation.new, situation.base, variables))
    return [witness_of(model, situation, box) for box in boxes[: MAX_TRIES // 3]]

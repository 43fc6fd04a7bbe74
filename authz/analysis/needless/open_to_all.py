"""
ALLOW rules that together let every HTTP request of every caller through, though none of them says so.

What a port's mode of mutual TLS refuses before is not left out: a rule that asks for an identity is no open one just
because STRICT lets nobody else in. Nor does it count that CONNECT has no path.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from authz.analysis.needless.guessed_requests import anonymous_request
from authz.analysis.needless.staged_rules import ALLOW, StagedRule
from authz.analysis.sets.boxes import Box, OutOfTime
from authz.analysis.sets.model import Model, PolicyPair
from authz.analysis.sets.request_variables import PATH
from authz.analysis.sets.situations import Situation
from authz.analysis.sets.views import TooLarge, boxes_of
from authz.analysis.sets.witness import attributes_of
from authz.core.decision import RuleReference
from authz.core.rules import CompiledRule

MAX_RULES = 300
"""ALLOW rules of a workload up to which it is asked."""


def open_to_all(pair: PolicyPair, rules: Sequence[StagedRule], expired: Callable[[], bool]) -> list[RuleReference]:
    """
    Find the fewest ALLOW rules of a workload that together let every request through.

    Args:
        pair: twice the policies in question.
        rules: all rules of the workload.

    Returns:
        The rules; none where some request is refused, some rule is open as written, or it is not known in time.
    """
    allow = [rule.http for rule in rules if rule.stage == ALLOW and rule.http is not None]
    if not 0 < len(allow) <= MAX_RULES or any(_is_open(rule) for rule in allow):
        return []
    attributes = attributes_of(pair, anonymous_request(pair), pair.new)
    if attributes.http is not None and not any(rule.fires(attributes) for rule in allow):
        return []  # nearly always
    try:
        return _open(pair, allow, expired)
    except (OutOfTime, TooLarge):
        return []


def _is_open(rule: CompiledRule) -> bool:
    return not (rule.sources or rule.operations or rule.conditions)


def _open(pair: PolicyPair, allow: list[CompiledRule], expired: Callable[[], bool]) -> list[RuleReference]:
    extra = tuple(p for rule in allow for entry in (*rule.sources, *rule.operations, rule.conditions) for p in entry)
    model = Model(pair, expired, tuple(allow), extra)
    if model.undecided:
        return []
    matched: list[tuple[Box, list[list[Box]]]] = []
    space = model.space
    for situation in model.situations():
        if _is_counted(model, situation):
            seen = replace(situation.new, status=0)
            boxes = [list(boxes_of(rule, seen, situation.base, model.variables)) for rule in allow]
            if space.minus_all([situation.base], (box for own in boxes for box in own)):
                return []
            matched.append((situation.base, boxes))
    kept = list(range(len(allow))) if matched else []
    for number in reversed(tuple(kept)):
        fewer = [other for other in kept if other != number]
        if not any(space.minus_all([base], (box for at in fewer for box in boxes[at])) for base, boxes in matched):
            kept = fewer
    return [allow[number].reference for number in kept]


def _is_counted(model: Model, situation: Situation) -> bool:
    """HTTP requests with a path, whose token, if they have one, is accepted."""
    path = model.variables.names[PATH]
    base = situation.base.get(path)
    values = model.variables.values[path]
    has_path = not isinstance(base, int) or any(base >> at & 1 for at, value in enumerate(values) if value is not None)
    return situation.new.is_http and situation.has_path and has_path and not situation.new.is_token_refused

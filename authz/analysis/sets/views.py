"""
What the policies of one side do with the requests of a situation: boxes that are let through, boxes that are refused.

A rule is a union of products, one for each source and operation. DENY and CUSTOM come before ALLOW (EV-1, EV-4); AUDIT
and dry-run rules change no answer.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from authz.analysis.sets.boxes import Box, BoxKey, Constraint, Literal, key_of
from authz.analysis.sets.request_variables import ANSWERS, PROVIDER, SeenRequest, Variables
from authz.core.engine import WorkloadPolicies
from authz.core.rule_sets import CustomSet
from authz.core.rules import CompiledRule, Predicates

MAX_BOXES = 50_000
"""Boxes of one rule before it counts as too large."""


class TooLarge(Exception):
    """A rule is a union of too many products."""


FORBIDDEN = 403
"""The status of nearly every refusal."""


@dataclass(slots=True)
class View:
    """One side in one situation."""

    is_closed: bool
    """Every request is refused, whatever ``allow`` and ``deny`` say."""
    allow: list[Box] = field(default_factory=list)
    """Let through, unless ``deny`` has it."""
    deny: list[Box] = field(default_factory=list)
    special: list[tuple[Box, int]] = field(default_factory=list)
    """Refused with another status than 403; they do not overlap."""
    allow_keys: frozenset[BoxKey] = frozenset()
    deny_keys: frozenset[BoxKey] = frozenset()


def view_of(policies: WorkloadPolicies, seen: SeenRequest, base: Box, variables: Variables) -> View:
    """
    Translate the compiled policies of a workload.

    Raises:
        TooLarge: a rule has too many products.
    """
    if seen.status and not seen.is_token_refused:
        return View(is_closed=True, special=[(base, seen.status)] if seen.status != FORBIDDEN else [])
    space = variables.space
    sets = policies.http if seen.is_http else policies.tcp
    refused: dict[BoxKey, Box] = {}
    special: list[tuple[Box, int]] = []
    for custom in sets.custom:
        own = _refused_by(custom, seen, base, variables, special, list(refused.values()))
        refused |= {key_of(box): box for box in own}
    if seen.is_token_refused:
        if seen.status != FORBIDDEN:
            special += [(box, seen.status) for box in space.minus_all([base], refused.values())]
        return View(is_closed=True, special=special)
    if sets.deny is not None:
        refused |= _unions(sets.deny.rules, seen, base, variables)
    allow = {key_of(base): base} if sets.allow is None else _unions(sets.allow.rules, seen, base, variables)
    return View(False, list(allow.values()), list(refused.values()), special, frozenset(allow), frozenset(refused))


def _refused_by(
    custom: CustomSet,
    seen: SeenRequest,
    base: Box,
    variables: Variables,
    special: list[tuple[Box, int]],
    before: list[Box],
) -> list[Box]:
    """What the CUSTOM rules of a provider refuse; what has another status than 403 goes to ``special`` (AP-83)."""
    provider, space = custom.provider, variables.space
    if provider is None:
        return list(_unions(custom.rules.rules, seen, base, variables).values())
    number = variables.names[PROVIDER + provider.name]
    found: list[Box] = []
    answers = [(ANSWERS.index("deny"), FORBIDDEN)]
    if not provider.fail_open:
        answers.append((ANSWERS.index("error"), provider.status_on_error))
    for answer, status in answers:
        within = space.narrow(base, Literal(number, 1 << answer))
        if within is not None:
            boxes = list(_unions(custom.rules.rules, seen, within, variables).values())
            if status != FORBIDDEN:
                known = [box for box, _ in special]
                for box in boxes:
                    parts = space.minus_all([box], [*before, *known])
                    special += [(part, status) for part in parts]
                    known += parts
            found += boxes
    return found


def _unions(rules: Iterable[CompiledRule], seen: SeenRequest, base: Box, variables: Variables) -> dict[BoxKey, Box]:
    return {key_of(box): box for rule in rules for box in boxes_of(rule, seen, base, variables)}


def boxes_of(rule: CompiledRule, seen: SeenRequest, base: Box, variables: Variables) -> Iterator[Box]:
    """The requests of ``base`` for which a rule fires."""
    space = variables.space
    space.tick()
    begin = product_of(rule.conditions, seen, base, variables)
    if begin is None:
        return
    boxes = [begin]
    for entries in (rule.operations, rule.sources):
        if entries:
            literals = _alternatives(entries, seen, variables)
            boxes = [box for one in boxes for asked in literals if (box := space.narrow_all(one, asked)) is not None]
            space.tick(len(boxes))
            if len(boxes) > MAX_BOXES:
                raise TooLarge
    yield from boxes


def product_of(entry: Predicates, seen: SeenRequest, base: Box, variables: Variables) -> Box | None:
    """The requests of ``base`` for which all of some predicates hold; None when there are none."""
    box: Box | None = base
    for predicate in entry:
        literals = variables.literals(predicate, seen)
        if literals is None:
            return None
        box = variables.space.narrow_all(box, literals)
    return box


def _alternatives(entries: tuple[Predicates, ...], seen: SeenRequest, variables: Variables) -> list[list[Literal]]:
    """What each entry asks; entries that ask for one and the same variable with one value are joined."""
    space = variables.space
    joined: dict[int, Constraint] = {}
    others: list[list[Literal]] = []
    for entry in entries:
        box = product_of(entry, seen, {}, variables)
        if box is None:
            continue
        literals = list(space.literals(box))
        if len(literals) == 1 and not space.is_several[literals[0].variable]:
            variable, mask, _ = literals[0]
            before = joined.get(variable, 0)
            joined[variable] = mask | before  # type: ignore[operator]  # a mask
        else:
            others.append(literals)
    return [*others, *([Literal(variable, mask)] for variable, mask in joined.items())]  # type: ignore[arg-type]  # masks

"""
The requests that two sets of policies answer differently for one workload, one witness for each pair of rules, or the
proof that there are none.

A request is newly allowed where it is let through on the new side, and on the old side either refused by a rule that
the new side does not have, or let through by none. What both sides say alike is left out first, so that the work grows
with what changed. Every witness is decided by the engine on both sides before it is told.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum

from authz.analysis.sets.boxes import Box, OutOfTime, Space, key_of
from authz.analysis.sets.model import Model, PolicyPair
from authz.analysis.sets.situations import Situation
from authz.analysis.sets.views import TooLarge, View, view_of
from authz.analysis.sets.witness import Witness, attributes_of, judge, witness_of
from authz.core.decision import Decision, Stage
from authz.core.explain import nearest_miss
from authz.core.rules import RuleSet

MAX_PIECES = 12
"""Parts of one difference of which the smallest witness is taken."""

MAX_MOVED = 20
"""Products of changed rules of a situation of which one request is looked at for whose rule answers it."""
MAX_NEAR = 100
"""ALLOW rules of a workload of which the closest one is looked for."""


class Direction(StrEnum):
    """How an answer changes."""

    ALLOWED = "newly allowed"
    DENIED = "newly denied"
    STATUS = "other status"
    RULE = "other rule only"


@dataclass(frozen=True, slots=True)
class Change:
    """One class of requests whose answer changes, by the smallest of them."""

    direction: Direction
    witness: Witness
    old: Decision
    new: Decision
    because: tuple[str, ...] = ()
    """What the rule asks for and does not get on the side that refuses; where it is not there, the closest one."""


Best = dict[tuple[str, ...], tuple[tuple[bool, int], Change]]
"""By class, the smallest change and its size; one of HTTP comes before those of TCP."""


@dataclass(slots=True)
class Difference:
    """The answer for one workload."""

    changes: list[Change] = field(default_factory=list)
    moved: list[Change] = field(default_factory=list)
    """Requests whose answer stays and is another rule's, one of each pair of rules; they are no change."""
    undecided: list[str] = field(default_factory=list)
    """Why it is not known whether there are others; empty: there are none."""
    unconfirmed: list[Witness] = field(default_factory=list)
    """Witnesses that the engine decides otherwise: a fault of this program."""

    @property
    def is_equal(self) -> bool:
        """Whether it is proved that no answer changes."""
        return not (self.changes or self.undecided or self.unconfirmed)


def difference(pair: PolicyPair, expired: Callable[[], bool] = lambda: False) -> Difference:
    """
    Compare two sets of policies for one workload.

    Args:
        expired: tells when the time limit is reached; what is not known by then is undecided.
    """
    found = Difference()
    try:
        model = Model(pair, expired)
        found.undecided += dict.fromkeys(model.undecided)
        if not model.undecided:
            best: Best = {}
            moved: dict[tuple[str, str], Change] = {}
            for situation in model.situations():
                for box in _differing(model, situation, moved):
                    _confirm(model, situation, box, best, found)
            found.moved = list(moved.values())
            order = list(Direction)
            found.changes = sorted((c for _, c in best.values()), key=lambda change: order.index(change.direction))
    except OutOfTime:
        found.undecided.append("the time limit is reached")
    except TooLarge:
        found.undecided.append("a rule is a union of too many products")
    return found


Moved = dict[tuple[str, str], Change]


def _differing(model: Model, situation: Situation, moved: Moved) -> Iterator[Box]:
    """Parts of the situation that both sides answer differently; of every pair of rules that does so, some part."""
    variables = model.variables
    old = view_of(model.old, situation.old, situation.base, variables)
    new = view_of(model.new, situation.new, situation.base, variables)
    yield from gained(model.space, situation.base, old, new)
    yield from gained(model.space, situation.base, new, old)
    if not situation.has_path:
        return  # 400 or 403: nobody is let through by a target that is no path
    yield from _other_status(model.space, old, new)
    yield from _other_status(model.space, new, old)
    for one, other in ((old, new), (new, old)):
        allowed = [box for box in one.allow if key_of(box) not in other.allow_keys]
        refused = [box for box in one.deny if key_of(box) not in other.deny_keys]
        for box in (*allowed[:MAX_MOVED], *refused[:MAX_MOVED]):
            _note_moved(model, situation, box, moved)


def _note_moved(model: Model, situation: Situation, box: Box, moved: Moved) -> None:
    """Keep the natural request of a changed rule if its answer stays and is given by another rule."""
    witness = witness_of(model, situation, box)
    old, new = judge(model.pair, witness, of_old=True), judge(model.pair, witness, of_old=False)
    rules = (old.rule.short if old.rule else "", new.rule.short if new.rule else "")
    if (old.effect, old.status) == (new.effect, new.status) and rules[0] != rules[1]:
        moved.setdefault(rules, Change(Direction.RULE, witness, old, new))


def _other_status(space: Space, one: View, other: View) -> Iterator[Box]:
    """Requests that ``one`` refuses with a status of its own, and ``other`` with another."""
    for box, status in one.special:
        parts = [box]
        if not other.is_closed:
            parts = space.minus_all([box], other.allow)
            parts += [part for refused in other.deny if (part := space.meet(box, refused)) is not None]
        alike = [same for same, its in other.special if its == status]
        yield from _smallest(space.minus_all(parts, alike))


def gained(space: Space, base: Box, before: View, after: View) -> Iterator[Box]:
    """Requests that ``after`` lets through and ``before`` refuses."""
    dropped = [
        box for key, box in zip(map(key_of, before.deny), before.deny, strict=True) if key not in after.deny_keys
    ]
    kept_allows = before.allow_keys
    for box in after.allow:
        space.tick(len(after.deny) + len(before.allow))
        refusing = [other for other in after.deny if space.meet(box, other) is not None]
        if space.is_covered(box, refusing):
            continue
        for other in dropped:
            part = space.meet(box, other)
            if part is not None:
                yield from _smallest(space.minus_all([part], refusing))
        if key_of(box) in kept_allows:
            continue
        admitting = [other for other in before.allow if space.meet(box, other) is not None]
        if not space.is_covered(box, admitting):
            yield from _smallest(space.minus_all([box], [*admitting, *refusing]))


def _smallest(boxes: list[Box]) -> list[Box]:
    return sorted(boxes, key=len)[:MAX_PIECES]


def _confirm(
    model: Model,
    situation: Situation,
    box: Box,
    best: Best,
    found: Difference,
) -> None:
    """Decide a witness on both sides, and keep it if it is the smallest of its class."""
    witness = witness_of(model, situation, box)
    old, new = judge(model.pair, witness, of_old=True), judge(model.pair, witness, of_old=False)
    if old.effect is new.effect:
        if old.status == new.status:
            found.unconfirmed.append(witness)
            return
        direction = Direction.STATUS
    else:
        direction = Direction.ALLOWED if new.is_allowed else Direction.DENIED
    missed, because = _missed(model, witness, old, new)
    key = (direction, old.rule.name if old.rule else old.stage, new.rule.name if new.rule else new.stage, *missed)
    before, size = best.get(key), (witness.request.is_tcp, witness.size)
    if before is None or size < before[0]:
        best[key] = size, Change(direction, witness, old, new, because)


def _missed(model: Model, witness: Witness, old: Decision, new: Decision) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """
    Where no ALLOW rule fires on one side: the keys that a rule of that side misses, and how; else nothing.

    The rule is the one that fires on the other side, as it stands here; else the one that comes closest.
    """
    refused, admitted = (new, old) if old.is_allowed else (old, new)
    policies = model.pair.new if old.is_allowed else model.pair.old
    rules = policies.http.allow
    if refused.stage is not Stage.ALLOW or refused.rule is not None or rules is None:
        return (), ()
    wanted = admitted.rule.short if admitted.rule is not None else ""
    twins = [rule for rule in rules.rules if rule.reference.short == wanted]
    if not twins and len(rules.rules) > MAX_NEAR:
        return (), ()
    if twins:
        own = RuleSet(twins, unknown_fires=False, indexed=False)
        policies = replace(policies, http=replace(policies.http, allow=own))
    result = witness.token.new if old.is_allowed else witness.token.old
    nearest = nearest_miss(policies, attributes_of(model.pair, witness, policies, result))
    if nearest is None:
        return (), ()
    return tuple(note.key for note in nearest.failed), tuple(map(str, nearest.failed))

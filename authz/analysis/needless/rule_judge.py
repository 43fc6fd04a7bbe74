"""
The exact verdict on rules of one workload: what is left of a rule's requests after all that comes before it.

An ALLOW rule decides what no DENY rule refuses and no other ALLOW rule matches; a DENY rule what no other one refuses
and some ALLOW rule lets through. Of CUSTOM, AUDIT and dry-run rules, which change no answer for certain, it is asked
only whether others of their stage match all that they match.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from authz.analysis.needless.contradiction import asks_for_identity, excluding
from authz.analysis.needless.signs_of_life import Deciding, form_in, is_asked
from authz.analysis.needless.staged_rules import ALLOW, DENY, REFUSING, StagedRule, narrowed
from authz.analysis.needless.verdict import RuleId, RuleVerdict, VerdictKind
from authz.analysis.sets.boxes import Box, OutOfTime
from authz.analysis.sets.model import Model, PolicyPair
from authz.analysis.sets.relevant import may_share
from authz.analysis.sets.situations import Situation
from authz.analysis.sets.views import TooLarge, boxes_of
from authz.analysis.sets.witness import witness_of
from authz.core.decision import RuleReference
from authz.core.rules import Predicate

MAX_PIECES = 6
"""What is left of a rule's requests, of which some must be confirmed by the engine."""

_LATE = "the time limit is reached"


class Neighbours:
    """The rules of a workload, and which of them may share a request."""

    def __init__(self, rules: Sequence[StagedRule]) -> None:
        """``rules`` are all rules of the workload."""
        self._forms = [
            [(rule, form.needs()) for rule in rules if (form := (rule.tcp if is_tcp else rule.http)) is not None]
            for is_tcp in (False, True)
        ]
        self._rules = rules

    def of(self, about: Sequence[StagedRule]) -> list[StagedRule]:
        """Some rules and all that may bear on whether they decide anything."""
        stages = {ALLOW, DENY, REFUSING, *(rule.stage for rule in about)}
        names = {(rule.stage, rule.id) for rule in about}
        near: set[int] = set()
        for forms in self._forms:
            wanted = [needs for rule, needs in forms if (rule.stage, rule.id) in names]
            near |= {id(rule) for rule, needs in forms if rule.stage in stages and may_share(needs, wanted)}
        return [rule for rule in self._rules if id(rule) in near or (rule.stage, rule.id) in names]


@dataclass(slots=True)
class RuleJudge:
    """Some rules of a workload, with all rules that share a request with them, as one model."""

    pair: PolicyPair
    """Twice the policies in question."""
    rules: Sequence[StagedRule]
    """These and those that may share a request with them."""
    about: Sequence[StagedRule]
    expired: Callable[[], bool]
    undecided: str = ""
    """Why nothing can be said."""
    _model: Model = field(init=False)
    _situations: list[Situation] = field(default_factory=list)
    _boxes: dict[tuple[int, str, RuleId], list[Box]] = field(default_factory=dict)
    _deciding: Deciding = field(init=False)

    def __post_init__(self) -> None:
        self._deciding = Deciding(self.pair)
        try:
            self._prepare()
        except OutOfTime:
            self.undecided = _LATE

    def _prepare(self) -> None:
        about = tuple(form for rule in self.about for form in rule.compiled)
        own = narrowed(self.pair.new, self.rules)
        extra: list[Predicate] = []
        for form in (form for rule in self.rules for form in rule.compiled):
            for entry in (*form.sources, *form.operations, form.conditions):
                extra += entry
        self._model = Model(replace(self.pair, old=own, new=own), self.expired, about, tuple(extra))
        self.undecided = "; ".join(dict.fromkeys(self._model.undecided))
        if not self.undecided:
            self._situations = list(self._model.situations())

    def verdict(self, rule: StagedRule) -> RuleVerdict:
        """Judge one of the rules asked about."""
        if self.undecided:
            return RuleVerdict(VerdictKind.UNKNOWN, reason=self.undecided)
        try:
            return self._verdict(rule, [one for one in self.rules if one.id != rule.id])
        except OutOfTime:
            return RuleVerdict(VerdictKind.UNKNOWN, reason=_LATE)
        except TooLarge:
            return RuleVerdict(VerdictKind.UNKNOWN, reason="a rule is a union of too many products")

    def _verdict(self, rule: StagedRule, others: list[StagedRule]) -> RuleVerdict:
        matched = [number for number, _ in enumerate(self._situations) if self._of(rule, number)]
        asked = [number for number in matched if is_asked(rule, self._situations[number])]
        beside = [one for one in others if one.stage == rule.stage]
        taking = [one for one in others if one.stage in ((DENY, REFUSING) if rule.stage == ALLOW else (REFUSING,))]
        if not rule.decides_alone:
            taking = []
        is_covered = True
        is_refused_anyway = False
        for number in asked:
            left = self._left(self._of(rule, number), beside, number)
            is_covered = is_covered and not left
            rest = self._left(left, taking, number)
            if rest and rule.stage == DENY:
                through = self._let_through(rest, others, number)
                is_refused_anyway = is_refused_anyway or not through
                rest = through
            if rest:
                return self._confirmed(rule, rest, number)
        if not matched:
            return self._impossible(rule)
        if not asked:
            return RuleVerdict(VerdictKind.CLOSED)
        if is_covered:
            return RuleVerdict(VerdictKind.COVERED, self._fewest(rule, beside, asked))
        if is_refused_anyway:
            return RuleVerdict(VerdictKind.UNNEEDED)
        return RuleVerdict(VerdictKind.TAKEN, self._fewest(rule, [*taking, *beside], asked))

    def _of(self, rule: StagedRule, number: int) -> list[Box]:
        """The requests of a situation that a rule matches."""
        key = (number, rule.stage, rule.id)
        if key not in self._boxes:
            situation = self._situations[number]
            form = form_in(rule, situation) if situation.has_path else None
            found = () if form is None else boxes_of(form, situation.new, situation.base, self._model.variables)
            self._boxes[key] = list(found)
        return self._boxes[key]

    def _left(self, boxes: list[Box], rules: Iterable[StagedRule], number: int) -> list[Box]:
        """The requests that none of the rules matches."""
        for rule in rules:
            if not boxes:
                break
            boxes = self._model.space.minus_all(boxes, self._of(rule, number))
        return boxes

    def _let_through(self, boxes: list[Box], others: list[StagedRule], number: int) -> list[Box]:
        """The requests that some ALLOW rule lets through."""
        seen = self._situations[number].new
        if (self.pair.new.http if seen.is_http else self.pair.new.tcp).allow is None:
            return boxes
        space = self._model.space
        allowed = [box for one in others if one.stage == ALLOW for box in self._of(one, number)]
        space.tick(len(allowed) * len(boxes))
        return [part for box in boxes for allow in allowed if (part := space.meet(box, allow)) is not None]

    def _confirmed(self, rule: StagedRule, boxes: list[Box], number: int) -> RuleVerdict:
        """It decides a request; the engine has to say so, too."""
        for box in sorted(boxes, key=len)[:MAX_PIECES]:
            witness = witness_of(self._model, self._situations[number], box)
            if self._deciding.is_decided_by(rule, witness):
                return RuleVerdict(VerdictKind.DECIDES)
        return RuleVerdict(
            VerdictKind.UNKNOWN, reason="internal: the engine does not confirm a request; please report it"
        )

    def _impossible(self, rule: StagedRule) -> RuleVerdict:
        if rule.http is None:
            return RuleVerdict(VerdictKind.IMPOSSIBLE)
        fields = excluding(rule.http, self._situations, self._model.variables)
        no_identity = not any(situation.new.has_identity for situation in self._situations)
        no_caller = no_identity and any(map(asks_for_identity, fields))
        return RuleVerdict(VerdictKind.IMPOSSIBLE, fields=tuple(one.path for one in fields), has_no_caller=no_caller)

    def _fewest(self, rule: StagedRule, others: list[StagedRule], asked: list[int]) -> tuple[RuleReference, ...]:
        """Rules that match together all that a rule matches, none of which can be left out."""
        widest = sorted(others, key=_asked_for)
        used: dict[RuleId, StagedRule] = {}
        for number in asked:
            rest = self._of(rule, number)
            for other in widest:
                before, rest = rest, self._left(rest, [other], number)
                if rest != before:
                    used[other.id] = other
                if not rest:
                    break
        kept = list(used.values())
        for one in reversed(tuple(kept)):
            fewer = [other for other in kept if other is not one]
            if not any(self._left(self._of(rule, number), fewer, number) for number in asked):
                kept = fewer
        return tuple(one.reference for one in kept)


def _asked_for(rule: StagedRule) -> int:
    """How much a rule asks for."""
    form = rule.compiled[0]
    entries = (*form.sources, *form.operations, form.conditions)
    return sum(len(entry) for entry in entries)

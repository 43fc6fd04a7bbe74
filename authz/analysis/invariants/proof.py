"""
One invariant of one workload: proved, refuted by a request, or not decided.

A request refutes ``never`` when it is one of the requests meant and is let through; it refutes ``always`` when it is
refused. CUSTOM providers may answer anything, except that for ``always`` they are taken to allow. Every refutation is
decided by the engine, and asked of the engine's own predicates, before it is told.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from authz.analysis.invariants.invariant import Invariant, RequestSet
from authz.analysis.sets.boxes import Box, Literal, OutOfTime
from authz.analysis.sets.model import Model, PolicyPair
from authz.analysis.sets.request_variables import ANSWERS, PROVIDER, SeenRequest
from authz.analysis.sets.situations import Situation
from authz.analysis.sets.views import TooLarge, View, boxes_of, view_of
from authz.analysis.sets.witness import Witness, attributes_of, judge, witness_of
from authz.core.catalog import CompileContext
from authz.core.decision import Decision, RuleReference
from authz.core.rules import CompiledRule, Predicate

MAX_PIECES = 12
"""Parts of a refutation of which the smallest request is taken."""


@dataclass(frozen=True, slots=True)
class Proof:
    """The answer; proved where nothing else is said."""

    witness: Witness | None = None
    """A request that refutes the invariant."""
    decision: Decision | None = None
    undecided: tuple[str, ...] = ()
    unconfirmed: Witness | None = None
    """A witness that the engine decides otherwise: a fault of this program."""

    @property
    def is_proved(self) -> bool:
        """Whether no request refutes it."""
        return self == Proof()


def prove(invariant: Invariant, pair: PolicyPair, expired: Callable[[], bool] = lambda: False) -> Proof:
    """
    Prove an invariant for the workload of a pair.

    Args:
        pair: both sides are the policies in question.
        expired: tells when the time limit is reached; what is not known by then is undecided.
    """
    try:
        return _Prover(invariant, pair, expired).proof()
    except OutOfTime:
        return Proof(undecided=("the time limit is reached",))
    except TooLarge:
        return Proof(undecided=("a rule is a union of too many products",))


class _Prover:
    """One invariant and the model of one workload."""

    def __init__(self, invariant: Invariant, pair: PolicyPair, expired: Callable[[], bool]) -> None:
        self.invariant = invariant
        self.context = CompileContext(pair.new.workload.namespace, pair.new.mesh.trust_domains)
        self.wanted = [(one, self._rule(one)) for one in invariant.when]
        self.excepted = [(one, self._rule(one)) for one in invariant.unless]
        rules = [rule for _, rule in (*self.wanted, *self.excepted)]
        extra = tuple(predicate for rule in rules for predicate in rule.conditions)
        self.model = Model(pair, expired, tuple(rule for _, rule in self.wanted), extra)

    def _rule(self, one: RequestSet) -> CompiledRule:
        predicates: list[Predicate] = [asked.compiled(self.context) for asked in one.asked]
        return CompiledRule(RuleReference("", "", 0, self.invariant.id), conditions=tuple(predicates))

    def proof(self) -> Proof:
        """Look for the smallest refutation."""
        if self.model.undecided:
            return Proof(undecided=tuple(dict.fromkeys(self.model.undecided)))
        best: tuple[int, Proof] | None = None
        for situation in self.model.situations():
            for box in self._refuting(situation):
                witness = witness_of(self.model, situation, box)
                decision = judge(self.model.pair, witness, of_old=False)
                if not self._is_refuted_by(witness, decision):
                    return Proof(unconfirmed=witness)
                if best is None or witness.size < best[0]:
                    best = witness.size, Proof(witness, decision)
        return best[1] if best is not None else Proof()

    def _refuting(self, situation: Situation) -> Iterator[Box]:
        space, seen = self.model.space, situation.new
        base: Box | None = situation.base
        if self.invariant.word == "always":
            names = self.model.variables.names
            providers = [number for name, number in names.items() if name.startswith(PROVIDER)]
            allow = 1 << ANSWERS.index("allow")
            base = space.narrow_all(base, (Literal(number, allow) for number in providers))
        assert base is not None  # every provider may allow
        view = view_of(self.model.new, seen, base, self.model.variables)
        meant = [box for one, rule in self.wanted for box in self._boxes(one, rule, situation, seen, base)]
        excepted = [box for one, rule in self.excepted for box in self._boxes(one, rule, situation, seen, base)]
        parts = self._denied(meant, view) if self.invariant.word == "always" else self._allowed(meant, view)
        left = space.minus_all(parts, excepted)
        yield from sorted(left, key=len)[:MAX_PIECES]

    def _boxes(
        self, one: RequestSet, rule: CompiledRule, situation: Situation, seen: SeenRequest, base: Box
    ) -> Iterator[Box]:
        if situation.protocol in one.protocols and situation.tls in one.tls:
            yield from boxes_of(rule, seen, base, self.model.variables)

    def _allowed(self, meant: list[Box], view: View) -> list[Box]:
        space = self.model.space
        parts = [part for box in meant for allow in view.allow if (part := space.meet(box, allow)) is not None]
        return space.minus_all(parts, view.deny)

    def _denied(self, meant: list[Box], view: View) -> list[Box]:
        space = self.model.space
        if view.is_closed:
            return meant
        refused = [part for box in meant for deny in view.deny if (part := space.meet(box, deny)) is not None]
        return [*refused, *space.minus_all(meant, view.allow)]

    def _is_refuted_by(self, witness: Witness, decision: Decision) -> bool:
        if decision.is_allowed is (self.invariant.word == "always"):
            return False
        seen = attributes_of(self.model.pair, witness, self.model.pair.new, witness.token.new)
        request = witness.request

        def holds(one: RequestSet) -> bool:
            return one.holds(seen, request.protocol, request.tls, self.context)

        return any(map(holds, self.invariant.when)) and not any(map(holds, self.invariant.unless))

"""
Which requests of a question are let through for one workload, and by which rules.

Each source and operation of an ALLOW rule is a set of requests; what DENY and CUSTOM rules refuse is taken from it
(EV-1, EV-4). Where something is left, the rule grants it, and one request of it is decided by the engine.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from authz.analysis.access.grant import Excepted, Granted, Phrase, RuleGrant, Way
from authz.analysis.access.joined_grants import joined
from authz.analysis.access.phrases import Phrases, SeenBox, as_it_is
from authz.analysis.invariants.invariant import RequestSet
from authz.analysis.sets.boxes import OutOfTime
from authz.analysis.sets.model import Model, PolicyPair
from authz.analysis.sets.request_variables import PATH, PORT
from authz.analysis.sets.situations import Situation
from authz.analysis.sets.views import TooLarge, View, boxes_of, view_of
from authz.analysis.sets.witness import Witness, attributes_of, judge, witness_of
from authz.core.catalog import CompileContext
from authz.core.decision import Decision, RuleReference
from authz.core.resources import Action, ExtensionProvider
from authz.core.rules import CompiledRule, Predicates

MAX_PIECES = 4
"""Parts of what a source may do in one situation of which the smallest request is taken."""
_NO_RULE = RuleReference("", "", 0, "")
_OPEN = CompiledRule(_NO_RULE)
"""Stands for the rules of ALLOW where no such policy applies."""


@dataclass(slots=True)
class _Part:
    """What one source of a rule may do, by HTTP or by TCP, over all situations."""

    rule: CompiledRule
    source: Predicates
    is_http: bool
    has_path: bool
    operations: dict[int, list[SeenBox]] = field(default_factory=dict)
    """What is left for each operation that is granted, by its number."""
    before: dict[int, list[SeenBox]] = field(default_factory=dict)
    """What the rule fires for with each of these, before anything is taken away."""
    refusing: dict[tuple[int, int, int], tuple["_Refusal", dict[int, list[SeenBox]]]] = field(default_factory=dict)
    ways: dict[bool, tuple[int, bool]] = field(default_factory=dict)
    """With or without identity: the ports, and whether all requests have a token."""
    best: tuple[tuple[bool, int], Witness, Decision] | None = None

    def goes_so(self, seen: SeenBox) -> bool:
        """Whether the ways of the grant say that requests like this are let through at all."""
        has_identity, has_token = seen.request.has_identity, seen.request.has_token
        return has_identity in self.ways and (has_token or not self.ways[has_identity][1])


@dataclass(frozen=True, slots=True)
class _Refusal:
    """One source and operation of a rule that refuses, in one situation."""

    action: Action
    provider: ExtensionProvider | None
    rule: CompiledRule
    numbers: tuple[int, int]
    source: Predicates
    operation: Predicates
    boxes: list[SeenBox]


class AccessQuestions:
    """Questions about one workload; its model is made once for all of them."""

    def __init__(
        self, pair: PolicyPair, questions: Sequence[RequestSet], expired: Callable[[], bool] = lambda: False
    ) -> None:
        """
        Make the model.

        Args:
            pair: both sides are the policies in question.
            questions: everything that will be asked; a caller among them is one identity, no alias of it.
            expired: tells when the time limit is reached; what is not known by then is undecided.
        """
        self._namespace = pair.new.workload.namespace
        self._rules = {one: self._rule(one) for one in questions}
        self._expired = expired
        self._pair = pair
        self._model: Model | None = None

    def _rule(self, one: RequestSet) -> CompiledRule:
        context = self._context(one)
        return CompiledRule(_NO_RULE, conditions=tuple(asked.compiled(context) for asked in one.asked))

    def _context(self, one: RequestSet) -> CompileContext:
        callers = [asked.values[0] for asked in one.asked if asked.attribute.key == "source.principal" and asked.values]
        return as_it_is(self._namespace, callers[0] if callers else "")

    def access(self, question: RequestSet) -> Granted:
        """Answer one of the questions."""
        try:
            if self._model is None:
                rules = tuple(self._rules.values())
                extra = tuple(predicate for rule in rules for predicate in rule.conditions)
                self._model = Model(self._pair, self._expired, rules, extra)
            if self._model.undecided:
                return Granted(undecided=tuple(dict.fromkeys(self._model.undecided)))
            return _Search(self._model, question, self._rules[question], self._context(question)).access()
        except OutOfTime:
            return Granted(undecided=("the time limit is reached",))
        except TooLarge:
            return Granted(undecided=("a rule is a union of too many products",))


class _Search:
    """One question."""

    def __init__(self, model: Model, question: RequestSet, rule: CompiledRule, context: CompileContext) -> None:
        self.model = model
        self.question = question
        self.rule = rule
        self.context = context
        self.parts: dict[tuple[int, int, bool, bool], _Part] = {}
        self.asked: list[SeenBox] = []
        """All requests of the question that reach the policies."""
        self.unconfirmed: Witness | None = None

    def access(self) -> Granted:
        """Go through all situations."""
        is_whole = True
        for situation in self.model.situations():
            if situation.protocol not in self.question.protocols or situation.tls not in self.question.tls:
                continue
            seen, variables = situation.new, self.model.variables
            asked = [SeenBox(seen, box) for box in boxes_of(self.rule, seen, situation.base, variables)]
            if not asked:
                continue
            view = view_of(self.model.new, seen, situation.base, variables)
            if view.is_closed:
                is_whole = is_whole and situation.token.place is not None and seen.is_token_refused
                continue
            self.asked += asked
            is_whole = is_whole and not self._refuses_some(asked, view)
            self._grant(situation, asked, view)
            if self.unconfirmed is not None:
                return Granted(unconfirmed=self.unconfirmed)
        grants = joined(self._grants())
        return Granted(grants, is_whole and bool(grants))

    def _refuses_some(self, asked: list[SeenBox], view: View) -> bool:
        space = self.model.space
        boxes = [one.box for one in asked]
        if any(space.meet(box, other) is not None for box in boxes for other in view.deny):
            return True
        return bool(space.minus_all(boxes, view.allow))

    def _grant(self, situation: Situation, asked: list[SeenBox], view: View) -> None:
        seen, space = situation.new, self.model.space
        sets = self.model.new.http if seen.is_http else self.model.new.tcp
        rules = sets.allow.rules if sets.allow is not None else (_OPEN,)
        refusals: list[_Refusal] | None = None
        variables = self.model.variables
        has_path = situation.base[variables.names[PATH]] != variables.only(PATH, None)[variables.names[PATH]]
        for rule in rules:
            for (at, source), (number, _), one in _products(rule):
                boxes = [box for part in asked for box in boxes_of(one, seen, part.box, self.model.variables)]
                if not boxes:
                    continue
                if refusals is None:
                    refusals = list(self._refusals(situation))
                part = self.parts.setdefault(
                    (id(rule), at, seen.is_http, has_path), _Part(rule, source, seen.is_http, has_path)
                )
                before = [SeenBox(seen, box) for box in boxes]
                part.before.setdefault(number, []).extend(before)
                self._note_refusals(part, number, before, refusals)
                rest = space.minus_all(boxes, view.deny)
                if not rest:
                    continue
                part.operations.setdefault(number, []).extend(SeenBox(seen, box) for box in rest)
                ports, has_token = part.ways.get(seen.has_identity, (0, True))
                ports |= situation.base[self.model.variables.names[PORT]]  # type: ignore[operator]  # a mask
                part.ways[seen.has_identity] = ports, has_token and (seen.has_token or situation.token.is_preflight)
                for box in sorted(rest, key=len)[:MAX_PIECES]:
                    self._confirm(situation, part, witness_of(self.model, situation, box))

    def _confirm(self, situation: Situation, part: _Part, witness: Witness) -> None:
        """Decide a request by the engine, and keep it if it is the smallest of its part."""
        decision = judge(self.model.pair, witness, of_old=False)
        seen = attributes_of(self.model.pair, witness, self.model.pair.new, witness.token.new)
        if not decision.is_allowed or not self.question.holds(seen, situation.protocol, situation.tls, self.context):
            self.unconfirmed = witness
            return
        size = witness.request.is_tcp, witness.size
        if part.best is None or size < part.best[0]:
            part.best = size, witness, decision

    def _refusals(self, situation: Situation) -> Iterator[_Refusal]:
        """The rules of CUSTOM and DENY, source by source and operation by operation."""
        seen = situation.new
        sets = self.model.new.http if seen.is_http else self.model.new.tcp
        staged: list[tuple[Action, ExtensionProvider | None, CompiledRule]] = [
            (Action.CUSTOM, custom.provider, rule) for custom in sets.custom for rule in custom.rules.rules
        ]
        staged += [(Action.DENY, None, rule) for rule in (sets.deny.rules if sets.deny is not None else ())]
        for action, provider, rule in staged:
            for (at, source), (number, operation), one in _products(rule):
                boxes = [SeenBox(seen, box) for box in boxes_of(one, seen, situation.base, self.model.variables)]
                if boxes:
                    yield _Refusal(action, provider, rule, (at, number), source, operation, boxes)

    def _note_refusals(self, part: _Part, operation: int, boxes: list[SeenBox], refusals: list[_Refusal]) -> None:
        space = self.model.space
        for refusal in refusals:
            space.tick(len(boxes))
            met = [
                SeenBox(one.request, meet)
                for one in boxes
                for other in refusal.boxes
                if (meet := space.meet(one.box, other.box)) is not None
            ]
            if met:
                key = (id(refusal.rule), *refusal.numbers)
                part.refusing.setdefault(key, (refusal, {}))[1].setdefault(operation, []).extend(met)

    def _phrases(self, rule: CompiledRule) -> Phrases:
        return Phrases(self.model.variables, rule.reference.namespace, self.model.new.mesh.trust_domains)

    def _grants(self) -> Iterator[RuleGrant]:
        for part in self.parts.values():
            if part.best is None:
                continue  # nothing is left of it
            words = self._phrases(part.rule)
            held = [seen for rest in part.operations.values() for seen in rest]
            operations = part.rule.operations or ((),)
            source = words.phrase(part.source, held, self.asked)
            conditions = words.phrase(part.rule.conditions, held, self.asked)
            whats = {
                number: words.phrase(operations[number], rest, self.asked)
                for number, rest in sorted(part.operations.items())
            }
            yield RuleGrant(
                part.rule.reference if part.rule is not _OPEN else None,
                (source,),
                tuple(dict.fromkeys(whats.values())),
                conditions,
                tuple(self._ways(part)),
                tuple(dict.fromkeys(self._exceptions(part, source, whats, conditions))),
                part.best[1],
                part.best[2],
            )

    def _ways(self, part: _Part) -> Iterator[Way]:
        names, values = self.model.variables.names, self.model.variables.values
        ports = [str(port) for port in values[names[PORT]]]
        for has_identity, (mask, has_token) in part.ways.items():
            inside = [port for at, port in enumerate(ports) if mask >> at & 1]
            outside = [port for at, port in enumerate(ports) if not mask >> at & 1]
            is_open = bool(mask & 1) and not self.model.pair.ports  # the first stands for all that nobody names
            yield Way(
                part.is_http,
                has_identity,
                has_token,
                tuple(inside) if outside and not is_open else (),
                tuple(outside) if outside and is_open else (),
                part.has_path,
            )

    def _exceptions(
        self, part: _Part, source: Phrase, whats: Mapping[int, Phrase], conditions: Phrase
    ) -> Iterator[Excepted]:
        """What refuses requests that have the values which are said."""
        own = self._phrases(part.rule)
        operations = part.rule.operations or ((),)

        def said(requests: Mapping[int, list[SeenBox]]) -> list[SeenBox]:
            found = [
                seen
                for number, what in whats.items()
                for seen in own.within(what, operations[number], filter(part.goes_so, requests.get(number, ())))
            ]
            return own.within(conditions, part.rule.conditions, own.within(source, part.source, found))

        before = said(part.before)
        for refusal, all_met in part.refusing.values():
            words, met = self._phrases(refusal.rule), said(all_met)
            if met:
                entries = (refusal.source, refusal.operation, refusal.rule.conditions)
                phrases = [words.phrase(words.without_sure(entry, before), met, before) for entry in entries]
                provider = refusal.provider
                name, fails_open = (provider.name, provider.fail_open) if provider is not None else ("", False)
                yield Excepted(refusal.action, refusal.rule.reference, name, fails_open, *phrases)


_Numbered = tuple[int, Predicates]


def _products(rule: CompiledRule) -> Iterator[tuple[_Numbered, _Numbered, CompiledRule]]:
    """Every source with every operation, each with its number, and the rule that has these two only."""
    for at, source in enumerate(rule.sources or ((),)):
        for number, operation in enumerate(rule.operations or ((),)):
            sources = (source,) if rule.sources else ()
            operations = (operation,) if rule.operations else ()
            yield (at, source), (number, operation), replace(rule, sources=sources, operations=operations)

"""What a rule asks for in its own words, without the values that no request of a set has."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from authz.analysis.access.grant import Phrase, SaidValues
from authz.analysis.sets.boxes import Box, Literal
from authz.analysis.sets.request_variables import SeenRequest, Variables
from authz.core.catalog import Attribute, CompileContext
from authz.core.rules import Predicate, Predicates


class SeenBox(NamedTuple):
    """Requests of one kind, and how the proxy sees them."""

    request: SeenRequest
    box: Box


def as_it_is(namespace: str, identity: str) -> CompileContext:
    """The context in which an identity stands for itself only, not for aliases of its trust domain (AP-27)."""
    return CompileContext(namespace, (identity.partition("/")[0],))


class Phrases:
    """Words for rules of one policy's namespace."""

    def __init__(self, variables: Variables, namespace: str, trust_domains: tuple[str, ...]) -> None:
        """``trust_domains``: those of the mesh; a principal was already rewritten to all of them (AP-27)."""
        self._variables = variables
        self._context = CompileContext(namespace, trust_domains)

    def phrase(self, entry: Predicates, held: Sequence[SeenBox], asked: Sequence[SeenBox]) -> Phrase:
        """
        Say what an entry asks for.

        Args:
            held: requests for which it holds; a value that none of them has is not said.
            asked: all requests in question; an excluded value that none of them has beside a value that is said is not
                said either.
        """
        found = []
        for predicate in entry:
            written = predicate.any_of.written if predicate.any_of is not None else ()
            ones = [self._one(predicate.attribute, value) for value in written]
            had = [at for at, one in enumerate(ones) if self._meet(held, (one,))] or range(len(ones))
            values = tuple(written[at] for at in had)
            excluded = predicate.none_of.written if predicate.none_of is not None else ()
            beside: list[Predicates] = [(ones[at],) for at in had] or [()]
            others = tuple(
                value
                for value in excluded
                if any(self._meet(asked, (*one, self._one(predicate.attribute, value))) for one in beside)
            )
            if values or others:
                found.append(SaidValues(predicate.attribute.key, values, others))
        return tuple(sorted(found, key=lambda one: not one.values))  # what it must be before what it must not be

    def _one(self, attribute: Attribute, value: str) -> Predicate:
        context = self._context
        if attribute.key == "source.principal":
            context = as_it_is(context.policy_namespace, value)
        return Predicate(attribute, attribute.compile((value,), context), None)

    def _meet(self, requests: Iterable[SeenBox], entry: Predicates) -> bool:
        return any(self._narrowed(seen, entry) is not None for seen in requests)

    def _narrowed(self, seen: SeenBox, entry: Predicates) -> SeenBox | None:
        """The requests for which an entry holds; None when there are none."""
        self._variables.space.tick()
        asked: list[Literal] = []
        for predicate in entry:
            literals = self._variables.literals(predicate, seen.request)
            if literals is None:
                return None
            asked += literals
        box = self._variables.space.narrow_all(seen.box, asked)
        return SeenBox(seen.request, box) if box is not None else None

    def within(self, phrase: Phrase, entry: Predicates, requests: Iterable[SeenBox]) -> list[SeenBox]:
        """The requests that have one of the values of each attribute that a phrase of the entry says."""
        left = list(requests)
        for predicate, asked in ((one, said) for one in entry for said in phrase if said.key == one.attribute.key):
            if predicate.any_of is None or asked.values == predicate.any_of.written:
                continue
            ones = [(self._one(predicate.attribute, value),) for value in asked.values]
            left = [part for seen in left for one in ones if (part := self._narrowed(seen, one)) is not None]
        return left

    def without_sure(self, entry: Predicates, requests: Sequence[SeenBox]) -> Predicates:
        """The predicates of an entry that do not hold for every request."""
        return tuple(
            predicate for predicate in entry if not all(self._holds_throughout(predicate, seen) for seen in requests)
        )

    def _holds_throughout(self, predicate: Predicate, seen: SeenBox) -> bool:
        literals = self._variables.literals(predicate, seen.request)
        space = self._variables.space
        return literals is not None and all(
            space.narrow(seen.box, space.negated(literal)) is None for literal in literals
        )

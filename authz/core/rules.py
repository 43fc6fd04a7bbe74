"""
Compiled rules as data: predicates, rules of them, and all rules of one action evaluated as one set.

They can be printed, compared and explained. Nothing here reads a clock, logs or waits.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from authz.core.attributes import AttributeContext, Unknown
from authz.core.catalog import Attribute
from authz.core.decision import RuleReference
from authz.core.index import Index, Needs
from authz.core.matchers import Matcher
from authz.core.resources import Action


@dataclass(frozen=True, slots=True)
class Predicate:
    """One attribute with the values it must have and those it must not have (AP-12 to AP-16)."""

    attribute: Attribute
    any_of: Matcher | None
    none_of: Matcher | None
    path: str = ""
    """Field path inside the rule: ``from[0].source.principals``, ``when[1]``."""
    unknown_holds: bool = False
    """The result when the attribute is not delivered: never the one that would admit (CS-7, CS-8)."""

    def holds(self, attributes: AttributeContext) -> bool:
        """Absent attributes fail ``any_of`` and satisfy ``none_of`` (AP-16)."""
        values = self.attribute.read(attributes)
        if isinstance(values, Unknown):
            return self.unknown_holds
        if self.none_of is not None and self.none_of.matches(values):
            return False
        return self.any_of is None or self.any_of.matches(values)


Predicates = tuple[Predicate, ...]
"""One ``source`` or one ``operation``: all predicates are ANDed (AP-11)."""


@dataclass(frozen=True, slots=True)
class CompiledRule:
    """
    A rule fires iff some source holds (or there is none), some operation holds (or there is none), and every
    condition holds (AP-10).
    """

    reference: RuleReference
    sources: tuple[Predicates, ...] = ()
    operations: tuple[Predicates, ...] = ()
    conditions: Predicates = ()

    def fires(self, attributes: AttributeContext) -> bool:
        """Whether every part of the rule has an entry that holds."""
        for predicate in self.conditions:
            if not predicate.holds(attributes):
                return False
        return _some(self.operations, attributes) and _some(self.sources, attributes)

    def needs(self) -> Needs:
        """The conditions that a request must meet for the rule to fire, in a form that can be indexed."""
        needs: Needs = {}
        for predicate in self.conditions:
            _add_need(needs, (predicate,))
        for entries in (self.sources, self.operations):
            if entries:
                shared = [{p.attribute.key: p for p in entry if p.any_of is not None} for entry in entries]
                for key in set(shared[0]).intersection(*shared[1:]):
                    _add_need(needs, [entry[key] for entry in shared])
        return needs


def _some(entries: tuple[Predicates, ...], attributes: AttributeContext) -> bool:
    if not entries:
        return True
    for entry in entries:
        for predicate in entry:
            if not predicate.holds(attributes):
                break
        else:
            return True
    return False


def _add_need(needs: Needs, alternatives: Iterable[Predicate]) -> None:
    """One of the alternatives, all of one attribute, must match; a need already known stays."""
    total = None
    attribute = None
    for predicate in alternatives:
        terms = predicate.any_of.terms if predicate.any_of is not None else None
        if terms is None:
            return
        total = terms if total is None else total.union(terms)
        attribute = predicate.attribute
    if attribute is not None and total is not None:
        needs.setdefault(attribute.key, (attribute, total))


@dataclass(frozen=True, slots=True)
class CompiledPolicy:
    """One AuthorizationPolicy, for HTTP and, with HTTP-only attributes taken out, for TCP (AP-68 to AP-70)."""

    namespace: str
    name: str
    action: Action
    provider: str
    dry_run: bool
    http_rules: tuple[CompiledRule, ...]
    tcp_rules: tuple[CompiledRule, ...]


class RuleSet:
    """
    All rules of one action that apply to a workload, evaluated as one set (EV-7).

    Of several rules that fire the first in byte order of the names is the one that is reported (AP-93).
    """

    __slots__ = ("_index", "rules")

    def __init__(self, rules: Iterable[CompiledRule], *, unknown_fires: bool, indexed: bool = True) -> None:
        """Without ``indexed`` each rule is asked in turn: for one request that is less work than an index."""
        self.rules = tuple(sorted(rules, key=lambda rule: rule.reference.name.encode()))
        self._index: Index | None = None
        if indexed:
            needs = [rule.needs() for rule in self.rules]
            self._index = Index(range(len(self.rules)), needs, unknown_fires=unknown_fires)

    def first(self, attributes: AttributeContext) -> CompiledRule | None:
        """Answer the rule to report, or None when none fires."""
        for ordinal in self._index.candidates(attributes) if self._index is not None else range(len(self.rules)):
            rule = self.rules[ordinal]
            if rule.fires(attributes):
                return rule
        return None

    def firing(self, attributes: AttributeContext) -> Iterator[CompiledRule]:
        """Yield every rule that fires, the one to report first."""
        for ordinal in self._index.candidates(attributes) if self._index is not None else range(len(self.rules)):
            if self.rules[ordinal].fires(attributes):
                yield self.rules[ordinal]

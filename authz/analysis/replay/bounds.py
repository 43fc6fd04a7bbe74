"""
Policies between two bounds, for a request of which something is not known.

Every predicate that asks for an unknown fact is taken to hold, or to fail, whichever admits more; and then whichever
admits less. What both of them answer is the answer, whatever the fact was. The evaluator is the one of the house: only
the rules, which are data, are others.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from authz.analysis.replay.carried import NOTHING_CARRIED, Carried
from authz.core.asked import keys_of, rules_of
from authz.core.engine import WorkloadPolicies
from authz.core.rule_sets import ActionSets, CustomSet
from authz.core.rules import CompiledRule, Predicates, RuleSet

MAX_BOUNDS = 1000
"""Bounds remembered for one workload."""


class _Unknown(NamedTuple):
    lacking: frozenset[str]
    carried: Carried


class BoundedPolicies:
    """The policies of one workload, and what becomes of them where facts are lacking; without AUDIT and dry run."""

    def __init__(self, policies: WorkloadPolicies) -> None:
        rules = [rule for sets in (policies.http, policies.tcp) for rule in rules_of(_enforced(sets))]
        self.exact = _with(policies, _enforced(policies.http), _enforced(policies.tcp))
        """What decides when nothing is lacking."""
        self.keys_by_rule: dict[str, frozenset[str]] = {}
        for rule in rules:  # for HTTP and for TCP, where it has fewer (AP-68)
            name = rule.reference.name
            self.keys_by_rule[name] = self.keys_by_rule.get(name, frozenset()) | keys_of(rule)
        self.asked = frozenset(key for keys in self.keys_by_rule.values() for key in keys)
        """Keys of all attributes that some rule asks for."""
        self._known: dict[tuple[frozenset[str], Carried], tuple[WorkloadPolicies, WorkloadPolicies]] = {}

    def between(
        self, lacking: frozenset[str], carried: Carried = NOTHING_CARRIED
    ) -> tuple[WorkloadPolicies, WorkloadPolicies]:
        """Answer (what admits more, what admits less) where the values of some keys are not known."""
        key = (lacking, carried)
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= MAX_BOUNDS:
                self._known.clear()
            unknown = _Unknown(lacking, carried)
            found = self._known[key] = (self._bound(unknown, admits=True), self._bound(unknown, admits=False))
        return found

    def facts(self, rule_name: str, lacking: frozenset[str]) -> frozenset[str]:
        """The facts that are lacking and that a rule asks for."""
        return self.keys_by_rule.get(rule_name, frozenset()) & lacking

    def _bound(self, unknown: "_Unknown", *, admits: bool) -> WorkloadPolicies:
        http, tcp = (_bounded(sets, unknown, admits=admits) for sets in (self.exact.http, self.exact.tcp))
        return _with(self.exact, http, tcp)


def _with(policies: WorkloadPolicies, http: ActionSets, tcp: ActionSets) -> WorkloadPolicies:
    return replace(policies, http=http, _tcp=tcp, remembered={})


def _enforced(sets: ActionSets) -> ActionSets:
    return ActionSets(sets.custom, None, sets.deny, sets.allow, None, None)


def _bounded(sets: ActionSets, unknown: _Unknown, *, admits: bool) -> ActionSets:
    custom = tuple(
        CustomSet(one.provider, _rule_set(one.rules, unknown, holds=not admits, refuses=True), one.problem)
        for one in sets.custom
    )
    deny = sets.deny and _rule_set(sets.deny, unknown, holds=not admits, refuses=True)
    allow = sets.allow and _rule_set(sets.allow, unknown, holds=admits, refuses=False)
    return ActionSets(custom, None, deny, allow, None, None)


def _rule_set(rules: RuleSet, unknown: _Unknown, *, holds: bool, refuses: bool) -> RuleSet:
    kept = (_rule(rule, unknown, holds=holds) for rule in rules.rules)
    return RuleSet((rule for rule in kept if rule is not None), unknown_fires=refuses)


def _rule(rule: CompiledRule, unknown: _Unknown, *, holds: bool) -> CompiledRule | None:
    """The rule where what is not known holds, or fails; None when it can then not fire."""
    lacking = unknown.lacking
    if not any(key in lacking for key in keys_of(rule)):
        return rule
    if rule.reference.name in unknown.carried.silent:
        return None
    if rule.reference.name in unknown.carried.fired:
        return CompiledRule(rule.reference)
    sources = _entries(rule.sources, lacking, holds=holds)
    operations = _entries(rule.operations, lacking, holds=holds)
    conditions = _entries((rule.conditions,), lacking, holds=holds)
    if not conditions or (rule.sources and not sources) or (rule.operations and not operations):
        return None
    return CompiledRule(rule.reference, sources, operations, conditions[0])


def _entries(entries: Iterable[Predicates], lacking: frozenset[str], *, holds: bool) -> tuple[Predicates, ...]:
    """What is left of alternatives: those that may hold, without what is not known in them."""
    if holds:
        return tuple(tuple(one for one in entry if one.attribute.key not in lacking) for entry in entries)
    return tuple(entry for entry in entries if all(one.attribute.key not in lacking for one in entry))

"""
Rules that match nothing which another rule of the same action does not match already.

Decided on what is written, so it is sound but finds not everything: two different patterns are never compared.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from authz.core.errors import NOWHERE
from authz.core.resources import Action, AuthorizationPolicy, Condition, Operation, Rule, Source

Covered = tuple[AuthorizationPolicy, int, AuthorizationPolicy, int]
"""A rule (policy, index) and the rule that covers it."""

MAX_CANDIDATES = 256
"""Rules compared with one; a bound against many rules that share a source, not a meaning."""


@dataclass(frozen=True, slots=True)
class _Written:
    """A rule as sets: order and places do not matter."""

    policy: AuthorizationPolicy
    index: int
    sources: frozenset[Source]
    operations: frozenset[Operation]
    conditions: frozenset[Condition]

    @property
    def key(self) -> tuple[str, str, int]:
        return self.policy.metadata.namespace, self.policy.metadata.name, self.index

    def covers(self, other: "_Written", root: str) -> bool:
        """Whether every request that ``other`` matches, at every workload it applies to, is matched here."""
        mine, theirs = self.policy, other.policy
        return (
            mine.metadata.namespace in (root, theirs.metadata.namespace)
            and mine.target.match_labels.items() <= theirs.target.match_labels.items()
            and (not self.sources or (bool(other.sources) and other.sources <= self.sources))
            and (not self.operations or (bool(other.operations) and other.operations <= self.operations))
            and self.conditions <= other.conditions
        )


def covered_rules(policies: Iterable[AuthorizationPolicy], root: str) -> Iterator[Covered]:
    """Yield each rule that some other rule covers, once; of two equal rules the later by name."""
    groups: dict[tuple[Action, str, bool], list[_Written]] = {}
    for policy in policies:
        if not policy.target.target_refs:
            found = groups.setdefault((policy.action, policy.provider, policy.dry_run), [])
            found.extend(_written(policy, index, rule) for index, rule in enumerate(policy.rules))
    for rules in groups.values():
        yield from _covered(rules, root)


def _written(policy: AuthorizationPolicy, index: int, rule: Rule) -> _Written:
    conditions = frozenset(replace(condition, location=NOWHERE) for condition in rule.conditions)
    return _Written(policy, index, frozenset(rule.sources), frozenset(rule.operations), conditions)


def _covered(rules: list[_Written], root: str) -> Iterator[Covered]:
    wide = [rule for rule in rules if not rule.sources]
    wide.sort(key=lambda rule: (bool(rule.operations) + len(rule.conditions), rule.key))  # the widest first
    by_source: dict[Source, list[_Written]] = {}
    for rule in rules:
        for source in rule.sources:
            by_source.setdefault(source, []).append(rule)
    for rule in rules:
        near = by_source[next(iter(rule.sources))] if rule.sources else []
        for other in (*near[:MAX_CANDIDATES], *wide[:MAX_CANDIDATES]):
            if other is rule or not other.covers(rule, root):
                continue
            if rule.covers(other, root) and rule.key < other.key:
                continue  # equal: the other one is reported
            yield rule.policy, rule.index, other.policy, other.index
            break

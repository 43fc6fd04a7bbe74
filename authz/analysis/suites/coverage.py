"""
Which rules a run of cases has exercised: considered (their set was evaluated) and fired.

A rule is known by its place, so that policies shared between groups count once.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from authz.core.engine import Engine
from authz.core.errors import Location
from authz.core.explain import StageNote
from authz.core.resources import Action

RuleKey = tuple[str, str, int, Location]
"""Namespace, policy, index as written, place."""


@dataclass(slots=True)
class RuleCoverage:
    """One rule and how often a case considered it, and how often it fired."""

    rule: str
    """``namespace/policy/index``."""
    action: Action
    is_dry_run: bool
    location: Location
    considered: int = 0
    fired: int = 0


class Coverage:
    """Collects over a run; ``rules`` are sorted by place."""

    def __init__(self) -> None:
        self._rules: dict[RuleKey, RuleCoverage] = {}

    def expect(self, engine: Engine) -> None:
        """Add the rules of an engine: those that nothing considers must be seen, too."""
        for policy in engine.resources.authorization_policies:
            namespace, name = policy.metadata.namespace, policy.metadata.name
            for index, rule in enumerate(policy.rules):
                key = (namespace, name, index, rule.location)
                if key not in self._rules:
                    written = RuleCoverage(f"{namespace}/{name}/{index}", policy.action, policy.dry_run, rule.location)
                    self._rules[key] = written

    def note(self, stages: Iterable[StageNote]) -> None:
        """Count the rules of one case."""
        for stage in stages:
            for note in stage.rules:
                rule = note.reference
                found = self._rules.get((rule.namespace, rule.policy, rule.index, rule.location))
                if found is not None:
                    found.considered += 1
                    found.fired += note.fired

    @property
    def rules(self) -> tuple[RuleCoverage, ...]:
        """Every rule with what was seen of it, in the order of the files."""
        return tuple(sorted(self._rules.values(), key=lambda rule: (rule.location, rule.rule)))

    @property
    def fired(self) -> int:
        """Number of rules that fired at least once."""
        return sum(rule.fired > 0 for rule in self._rules.values())

    @property
    def percent(self) -> float:
        """Share of rules that fired, 0 to 100; 100 without rules."""
        return 100.0 * self.fired / len(self._rules) if self._rules else 100.0

"""The rules of a workload by the stage that asks them, and the policies without one of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from authz.analysis.needless.verdict import RuleId, id_of
from authz.core.attributes import AttributeContext
from authz.core.decision import RuleReference
from authz.core.engine import WorkloadPolicies
from authz.core.rule_sets import ActionSets
from authz.core.rules import CompiledRule, RuleSet

ALLOW, DENY, CUSTOM = "allow", "deny", "custom "
REFUSING = "refusing custom"
"""CUSTOM rules without a usable provider: they refuse what they match."""


@dataclass(frozen=True, slots=True)
class StagedRule:
    """One rule, as it is asked of HTTP requests and of TCP connections; None where it is not asked at all."""

    stage: str
    reference: RuleReference
    http: CompiledRule | None
    tcp: CompiledRule | None

    @property
    def id(self) -> RuleId:
        """The rule as written."""
        return id_of(self.reference)

    @property
    def compiled(self) -> tuple[CompiledRule, ...]:
        """Both forms that there are."""
        return tuple(rule for rule in (self.http, self.tcp) if rule is not None)

    @property
    def decides_alone(self) -> bool:
        """Whether its stage lets through or refuses; of the others it is asked only what they match."""
        return self.stage in (ALLOW, DENY)


def sets_of(sets: ActionSets) -> Iterator[tuple[str, RuleSet]]:
    """The sets of one protocol by stage."""
    for custom in sets.custom:
        yield CUSTOM + custom.provider.name if custom.provider is not None else REFUSING, custom.rules
    named = {
        "audit": sets.audit,
        DENY: sets.deny,
        ALLOW: sets.allow,
        "dry-run deny": sets.dry_run_deny,
        "dry-run allow": sets.dry_run_allow,
    }
    yield from ((stage, rules) for stage, rules in named.items() if rules is not None)


def rules_by_stage(policies: WorkloadPolicies) -> list[StagedRule]:
    """Every rule that applies to a workload."""
    forms: dict[tuple[str, RuleId], list[CompiledRule | None]] = {}
    for number, sets in enumerate((policies.http, policies.tcp)):
        for stage, rules in sets_of(sets):
            for rule in rules.rules:
                forms.setdefault((stage, id_of(rule.reference)), [None, None])[number] = rule
    found = []
    for (stage, _), (http, tcp) in forms.items():
        either = http or tcp
        assert either is not None
        found.append(StagedRule(stage, either.reference, http, tcp))
    return found


class _SetWithout(RuleSet):
    """A set without one of its rules, found by the index of the whole set."""

    __slots__ = ("_left_out", "_whole")

    def __init__(self, whole: RuleSet, left_out: CompiledRule) -> None:
        self.rules = tuple(rule for rule in whole.rules if rule is not left_out)
        self._index = None
        self._whole = whole
        self._left_out = left_out

    def first(self, attributes: AttributeContext) -> CompiledRule | None:
        return next((rule for rule in self._whole.firing(attributes) if rule is not self._left_out), None)


def without(policies: WorkloadPolicies, rule: StagedRule) -> WorkloadPolicies:
    """The policies without a rule of DENY or ALLOW; its policy stays, so ALLOW without rules still allows nothing."""

    def left(sets: ActionSets, form: CompiledRule | None) -> ActionSets:
        if form is None:
            return sets
        if rule.stage == DENY and sets.deny is not None:
            return replace(sets, deny=_SetWithout(sets.deny, form))
        if rule.stage == ALLOW and sets.allow is not None:
            return replace(sets, allow=_SetWithout(sets.allow, form))
        return sets

    return replace(policies, http=left(policies.http, rule.http), _tcp=left(policies.tcp, rule.tcp), remembered={})


def narrowed(policies: WorkloadPolicies, rules: Sequence[StagedRule]) -> WorkloadPolicies:
    """The policies with some of their rules; stages without any stay, as those that match nothing."""
    kept = {id(form) for rule in rules for form in rule.compiled}

    def left(rules: RuleSet | None) -> RuleSet | None:
        if rules is None:
            return None
        return RuleSet([rule for rule in rules.rules if id(rule) in kept], unknown_fires=False, indexed=False)

    def sets(whole: ActionSets) -> ActionSets:
        custom = tuple(replace(one, rules=left(one.rules) or one.rules) for one in whole.custom)
        dry_run = left(whole.dry_run_deny), left(whole.dry_run_allow)
        return ActionSets(custom, left(whole.audit), left(whole.deny), left(whole.allow), *dry_run)

    return replace(policies, http=sets(policies.http), _tcp=sets(policies.tcp), remembered={})


def with_only(policies: WorkloadPolicies, rules: Sequence[StagedRule]) -> WorkloadPolicies:
    """A workload with some rules only, to tell their values apart: what they do there says nothing."""

    def sets(forms: list[CompiledRule]) -> ActionSets:
        return ActionSets((), None, None, RuleSet(forms, unknown_fires=False, indexed=False), None, None)

    return replace(
        policies,
        http=sets([rule.http for rule in rules if rule.http is not None]),
        _tcp=sets([rule.tcp for rule in rules if rule.tcp is not None]),
        remembered={},
    )

"""The rules that apply to a workload, in the sets of the stages: CUSTOM by provider, AUDIT, DENY, ALLOW, dry run."""

from collections.abc import Iterable
from dataclasses import dataclass

from authz.core.decision import RuleReference
from authz.core.resources import Action, ExtensionProvider, MeshConfig
from authz.core.rules import CompiledPolicy, CompiledRule, RuleSet

MAX_SHARED = 1024
"""Sets that are remembered for the next workload with the same policies."""


@dataclass(frozen=True, slots=True)
class CustomSet:
    """
    The CUSTOM rules of one provider. Without a usable provider they refuse what they match (AP-80, AP-81);
    ``provider`` is None then, and ``problem`` says why.
    """

    provider: ExtensionProvider | None
    rules: RuleSet
    problem: str = ""


@dataclass(frozen=True, slots=True)
class ActionSets:
    """The rule sets of a workload for one protocol; None where no policy of that kind applies."""

    custom: tuple[CustomSet, ...]
    audit: RuleSet | None
    deny: RuleSet | None
    allow: RuleSet | None
    dry_run_deny: RuleSet | None
    dry_run_allow: RuleSet | None


def action_sets(policies: Iterable[CompiledPolicy], mesh: MeshConfig, *, tcp: bool, indexed: bool = True) -> ActionSets:
    """Sort the applicable policies into the sets of the stages (EV-4, AP-87, AP-88)."""
    policies = tuple(policies)

    def rule_set(action: Action, *, dry_run: bool) -> RuleSet | None:
        chosen = [policy for policy in policies if policy.action is action and policy.dry_run is dry_run]
        if not chosen:
            return None
        rules = [rule for policy in chosen for rule in (policy.tcp_rules if tcp else policy.http_rules)]
        return RuleSet(rules, unknown_fires=action is not Action.ALLOW, indexed=indexed)

    return ActionSets(
        custom=_custom_sets(
            [policy for policy in policies if policy.action is Action.CUSTOM], mesh, tcp=tcp, indexed=indexed
        ),
        audit=rule_set(Action.AUDIT, dry_run=False),
        deny=rule_set(Action.DENY, dry_run=False),
        allow=rule_set(Action.ALLOW, dry_run=False),
        dry_run_deny=rule_set(Action.DENY, dry_run=True),
        dry_run_allow=rule_set(Action.ALLOW, dry_run=True),
    )


class SharedSets:
    """The sets for HTTP, made once for all workloads that have the same policies: where there are many, most have."""

    def __init__(self, mesh: MeshConfig, *, indexed: bool) -> None:
        self._mesh = mesh
        self._is_indexed = indexed
        self._made: dict[tuple[int, ...], tuple[tuple[CompiledPolicy, ...], ActionSets]] = {}
        """By identity of the policies, which are kept so that no others get it."""

    def http(self, policies: tuple[CompiledPolicy, ...]) -> ActionSets:
        """The sets of these very policies. From several threads: at worst they are made twice."""
        key = tuple(map(id, policies))
        found = self._made.get(key)
        if found is None:
            if len(self._made) >= MAX_SHARED:
                self._made.clear()
            found = self._made[key] = policies, action_sets(policies, self._mesh, tcp=False, indexed=self._is_indexed)
        return found[1]


def _custom_sets(
    policies: list[CompiledPolicy], mesh: MeshConfig, *, tcp: bool, indexed: bool
) -> tuple[CustomSet, ...]:
    """One set per provider, in ascending name order (AP-82); what cannot be asked refuses (AP-80, AP-81)."""
    providers = {provider.name: provider for provider in mesh.extension_providers}
    names = sorted({policy.provider for policy in policies}, key=str.encode)
    too_many = len(names) > 1 and not mesh.multiple_custom_providers
    sets: list[CustomSet] = []
    refusing: list[CompiledRule] = []
    problems: list[str] = []
    for name in names:
        provider = providers.get(name)
        problem = ""
        if too_many:
            problem = f"the workload has {len(names)} CUSTOM providers, one is supported"
        elif provider is None:
            problem = f"extension provider `{name}` is not configured"
        elif not provider.is_usable:
            problem = f"extension provider `{name}` is unusable: {'; '.join(provider.problems)}"
        elif tcp and provider.protocol == "http":
            continue  # an HTTP provider is skipped on TCP ports (AP-84)
        rules = [
            _named(rule, f"istio-ext-authz-{name}-", "-deny-due-to-bad-CUSTOM-action" if problem else "")
            for policy in policies
            if policy.provider == name
            for rule in (policy.tcp_rules if tcp else policy.http_rules)
        ]
        if problem and too_many:
            refusing += rules
            problems.append(problem)
        elif problem:
            sets.append(CustomSet(None, RuleSet(rules, unknown_fires=True, indexed=indexed), problem))
        else:
            sets.append(CustomSet(provider, RuleSet(rules, unknown_fires=True, indexed=indexed)))
    if refusing:
        sets.append(CustomSet(None, RuleSet(refusing, unknown_fires=True, indexed=indexed), problems[0]))
    return tuple(sets)


def _named(rule: CompiledRule, prefix: str, suffix: str) -> CompiledRule:
    """Name a CUSTOM rule as Istio does (AP-92)."""
    old = rule.reference
    reference = RuleReference(old.namespace, old.policy, old.index, f"{prefix}{old.name}{suffix}", old.location)
    return CompiledRule(reference, rule.sources, rule.operations, rule.conditions)

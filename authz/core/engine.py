"""
The PDP: compiled policies, and which of their rules fire for a request.

Compiled policy is data that can be printed, compared and explained. Nothing here reads a clock, logs or waits;
``pipeline`` puts the stages in order.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from authz.core.attributes import AttributeContext, Unknown, Workload
from authz.core.catalog import Attribute
from authz.core.decision import Decision, Obligations, RuleReference
from authz.core.index import Index, Needs
from authz.core.matchers import Matcher
from authz.core.resources import (
    GATEWAY_NAME_LABEL,
    Action,
    ExtensionProvider,
    JwtRule,
    MeshConfig,
    MtlsMode,
    PeerAuthentication,
    RequestAuthentication,
    Resources,
    Target,
)

T = TypeVar("T")

MAX_WORKLOADS = 4096
"""Workloads remembered at once; labels come from proxies, so their number must be bounded."""


@dataclass(frozen=True, slots=True)
class Predicate:
    """One attribute with the values it must have and those it must not have (AP-12 to AP-16)."""

    attribute: Attribute
    any_of: Matcher | None
    none_of: Matcher | None
    path: str = ""
    """Field path inside the rule: ``from[0].source.principals``, ``when[1]``."""
    unknown_holds: bool = False
    """What holds when the attribute is not delivered: never what would admit (CS-7, CS-8)."""

    def holds(self, attributes: AttributeContext) -> bool:
        """Absent attributes fail ``any_of`` and satisfy ``none_of`` (AP-16)."""
        values = self.attribute.read(attributes)
        if isinstance(values, Unknown):
            return self.unknown_holds
        if self.none_of is not None and self.none_of.matches(values):
            return False
        return self.any_of is None or self.any_of.matches(values)


Entry = tuple[Predicate, ...]
"""One ``source`` or one ``operation``: all predicates are ANDed (AP-11)."""


@dataclass(frozen=True, slots=True)
class CompiledRule:
    """
    A rule fires iff some source holds (or there is none), some operation holds (or there is none), and every
    condition holds (AP-10).
    """

    reference: RuleReference
    sources: tuple[Entry, ...] = ()
    operations: tuple[Entry, ...] = ()
    conditions: Entry = ()

    def fires(self, attributes: AttributeContext) -> bool:
        for predicate in self.conditions:
            if not predicate.holds(attributes):
                return False
        return _some(self.operations, attributes) and _some(self.sources, attributes)

    def needs(self) -> Needs:
        """What must be true of the request for the rule to fire, in indexable form."""
        needs: Needs = {}
        for predicate in self.conditions:
            _add_need(needs, (predicate,))
        for entries in (self.sources, self.operations):
            if entries:
                shared = [{p.attribute.key: p for p in entry if p.any_of is not None} for entry in entries]
                for key in set(shared[0]).intersection(*shared[1:]):
                    _add_need(needs, [entry[key] for entry in shared])
        return needs


def _some(entries: tuple[Entry, ...], attributes: AttributeContext) -> bool:
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
    target: Target
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

    def __init__(self, rules: Iterable[CompiledRule], *, unknown_fires: bool) -> None:
        self.rules = tuple(sorted(rules, key=lambda rule: rule.reference.name.encode()))
        self._index = Index(range(len(self.rules)), [rule.needs() for rule in self.rules], unknown_fires=unknown_fires)

    def first(self, attributes: AttributeContext) -> CompiledRule | None:
        """Answer the rule to report, or None when none fires."""
        for ordinal in self._index.candidates(attributes):
            rule = self.rules[ordinal]
            if rule.fires(attributes):
                return rule
        return None


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


@dataclass(slots=True)
class WorkloadPolicies:
    """Everything that applies to one workload."""

    workload: Workload
    version: str
    mesh: MeshConfig
    policies: tuple[CompiledPolicy, ...]
    jwt_rules: tuple[JwtRule, ...]
    """Merged and sorted (RA-1, RA-52)."""
    base_mode: MtlsMode
    """Effective mode of ports that are not listed (PA-4)."""
    port_modes: dict[int, MtlsMode]
    http: ActionSets
    _tcp: ActionSets | None = field(default=None)
    remembered: dict[str | tuple[str, Obligations], Decision] = field(default_factory=dict)
    """Decisions made before, by name of the rule and what the request gained; ``pipeline`` fills it."""

    @property
    def tcp(self) -> ActionSets:
        """The sets for TCP, built when first asked for: most workloads never serve plain TCP."""
        if self._tcp is None:
            self._tcp = action_sets(self.policies, self.mesh, tcp=True)
        return self._tcp

    def mtls_mode(self, port: int | Unknown) -> MtlsMode:
        """
        Effective mode of a port: DISABLE, PERMISSIVE or STRICT, never UNSET (PA-4, PA-7).

        An unknown port gets the strictest mode of the workload: unknown is not absent (CS-8).
        """
        if isinstance(port, Unknown):
            strict = MtlsMode.STRICT in (self.base_mode, *self.port_modes.values())
            return MtlsMode.STRICT if strict else self.base_mode
        return self.port_modes.get(port, self.base_mode)


class _Selectable:
    """The policies of one namespace, filed under one pair of their selector: most workloads see few of them."""

    __slots__ = ("_by_pair", "_for_all")

    def __init__(self, policies: Iterable[CompiledPolicy]) -> None:
        self._for_all: list[CompiledPolicy] = []
        self._by_pair: dict[tuple[str, str], list[CompiledPolicy]] = {}
        for policy in policies:
            if policy.target.match_labels:
                self._by_pair.setdefault(min(policy.target.match_labels.items()), []).append(policy)
            else:
                self._for_all.append(policy)

    def __iter__(self) -> Iterator[CompiledPolicy]:
        yield from self._for_all
        for policies in self._by_pair.values():
            yield from policies

    def candidates(self, labels: Iterable[tuple[str, str]]) -> Iterator[CompiledPolicy]:
        yield from self._for_all
        for pair in labels:
            yield from self._by_pair.get(pair, ())


class Engine:
    """
    Compiled policies by namespace, and the policies of each workload, remembered.

    ``for_workload`` may be called from several threads: at worst the same value is built twice.
    """

    def __init__(self, resources: Resources, mesh: MeshConfig, policies: Iterable[CompiledPolicy]) -> None:
        self.resources = resources
        self.mesh = mesh
        self.version = resources.version
        self._policies = {
            namespace: _Selectable(found)
            for namespace, found in _by_namespace((policy.namespace, policy) for policy in policies).items()
        }
        self._authentications = _by_namespace(
            (item.metadata.namespace, item)
            for item in sorted(resources.request_authentications, key=lambda item: item.metadata.age_key)
        )
        self._peer_authentications = _by_namespace(
            (item.metadata.namespace, item)
            for item in sorted(resources.peer_authentications, key=lambda item: item.metadata.age_key)
        )
        self._workloads: dict[tuple[str, frozenset[tuple[str, str]]], WorkloadPolicies] = {}

    def for_workload(self, workload: Workload) -> WorkloadPolicies:
        """Answer the policies that apply to a workload (RE-15 to RE-23). Pure but for its memory."""
        key = (workload.namespace, workload.labels)
        found = self._workloads.get(key)
        if found is None:
            found = self._select(workload)
            if len(self._workloads) >= MAX_WORKLOADS:
                self._workloads.clear()
            self._workloads[key] = found
        return found

    def known_workloads(self) -> tuple[Workload, ...]:
        """The workloads asked for so far: what the next snapshot prepares before it is put in force."""
        return tuple(policies.workload for policies in list(self._workloads.values()))

    def parts(self) -> Iterator[object]:
        """What the memory of this engine consists of, in pieces that belong to few others: policies and rules."""
        for selectable in self._policies.values():
            for policy in selectable:
                yield policy
                yield from policy.http_rules
                yield from policy.tcp_rules

    def _select(self, workload: Workload) -> WorkloadPolicies:
        labels = dict(workload.labels)
        root = self.mesh.root_namespace
        namespaces = tuple(dict.fromkeys((root, workload.namespace)))
        policies = tuple(
            policy
            for namespace in namespaces
            if namespace in self._policies
            for policy in self._policies[namespace].candidates(workload.labels)
            if _applies(policy.target, policy.namespace, workload.namespace, labels)
        )
        base, ports = self._modes(workload.namespace, labels)
        return WorkloadPolicies(
            workload=workload,
            version=self.version,
            mesh=self.mesh,
            policies=policies,
            jwt_rules=self._jwt_rules(tuple(reversed(namespaces)), workload.namespace, labels),
            base_mode=base,
            port_modes=ports,
            http=action_sets(policies, self.mesh, tcp=False),
        )

    def _jwt_rules(self, namespaces: tuple[str, ...], own: str, labels: Mapping[str, str]) -> tuple[JwtRule, ...]:
        """The workload's namespace before the root namespace, then a stable sort by issuer (RA-1, RA-52)."""
        applying: list[RequestAuthentication] = [
            item
            for namespace in namespaces
            for item in self._authentications.get(namespace, ())
            if _applies(item.target, namespace, own, labels)
        ]
        rules = [rule for item in applying for rule in item.jwt_rules]
        return tuple(sorted(rules, key=lambda rule: rule.issuer.encode()))

    def _modes(self, namespace: str, labels: Mapping[str, str]) -> tuple[MtlsMode, dict[int, MtlsMode]]:
        """PA-2 to PA-7. The lists are in the order of RE-13, so the first of a scope wins alone (PA-6)."""
        root = self.mesh.root_namespace
        mesh_wide = _first(item for item in self._peer_authentications.get(root, ()) if not item.match_labels)
        namespace_wide = workload = None
        if namespace != root:
            own = self._peer_authentications.get(namespace, ())
            namespace_wide = _first(item for item in own if not item.match_labels)
            workload = _first(item for item in own if item.match_labels and _selects(item.match_labels, labels))
        mode = MtlsMode.PERMISSIVE
        for item in (mesh_wide, namespace_wide, workload):
            if item is not None and item.mode is not MtlsMode.UNSET:
                mode = item.mode
        ports = {}
        if workload is not None and workload.port_level_mtls:
            ports = {
                port: mode if listed is MtlsMode.UNSET else listed for port, listed in workload.port_level_mtls.items()
            }
        return mode, ports


def action_sets(policies: Iterable[CompiledPolicy], mesh: MeshConfig, *, tcp: bool) -> ActionSets:
    """Sort the applicable policies into the sets of the stages (EV-4, AP-87, AP-88)."""
    policies = tuple(policies)

    def rule_set(action: Action, *, dry_run: bool) -> RuleSet | None:
        chosen = [policy for policy in policies if policy.action is action and policy.dry_run is dry_run]
        if not chosen:
            return None
        rules = [rule for policy in chosen for rule in (policy.tcp_rules if tcp else policy.http_rules)]
        return RuleSet(rules, unknown_fires=action is not Action.ALLOW)

    return ActionSets(
        custom=_custom_sets([policy for policy in policies if policy.action is Action.CUSTOM], mesh, tcp=tcp),
        audit=rule_set(Action.AUDIT, dry_run=False),
        deny=rule_set(Action.DENY, dry_run=False),
        allow=rule_set(Action.ALLOW, dry_run=False),
        dry_run_deny=rule_set(Action.DENY, dry_run=True),
        dry_run_allow=rule_set(Action.ALLOW, dry_run=True),
    )


def _custom_sets(policies: list[CompiledPolicy], mesh: MeshConfig, *, tcp: bool) -> tuple[CustomSet, ...]:
    """One set a provider, in ascending name order (AP-82); what cannot be asked refuses (AP-80, AP-81)."""
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
            sets.append(CustomSet(None, RuleSet(rules, unknown_fires=True), problem))
        else:
            sets.append(CustomSet(provider, RuleSet(rules, unknown_fires=True)))
    if refusing:
        sets.append(CustomSet(None, RuleSet(refusing, unknown_fires=True), problems[0]))
    return tuple(sets)


def _named(rule: CompiledRule, prefix: str, suffix: str) -> CompiledRule:
    """Name a CUSTOM rule as Istio does (AP-92)."""
    old = rule.reference
    reference = RuleReference(old.namespace, old.policy, old.index, f"{prefix}{old.name}{suffix}", old.location)
    return CompiledRule(reference, rule.sources, rule.operations, rule.conditions)


def _applies(target: Target, policy_namespace: str, namespace: str, labels: Mapping[str, str]) -> bool:
    """RE-16 to RE-19, for a candidate of the root namespace or the workload's own."""
    if target.target_refs:
        gateway = labels.get(GATEWAY_NAME_LABEL)
        return (
            gateway is not None
            and policy_namespace == namespace
            and any(
                ref.kind == "Gateway" and ref.group == "gateway.networking.k8s.io" and ref.name == gateway
                for ref in target.target_refs
            )
        )
    return _selects(target.match_labels, labels)


def _selects(match_labels: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Every pair present with the exact same value (RE-17)."""
    return all(labels.get(name) == value for name, value in match_labels.items())


def _first(items: Iterable[PeerAuthentication]) -> PeerAuthentication | None:
    return next(iter(items), None)


def _by_namespace(pairs: Iterable[tuple[str, T]]) -> dict[str, list[T]]:
    found: dict[str, list[T]] = {}
    for namespace, item in pairs:
        found.setdefault(namespace, []).append(item)
    return found


def every_rule(policies: Iterable[CompiledPolicy]) -> Iterator[CompiledRule]:
    """All HTTP rules of some policies, in the order given."""
    for policy in policies:
        yield from policy.http_rules

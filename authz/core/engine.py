"""
The PDP's memory: compiled policies by namespace, and those that apply to a workload, remembered.

Nothing here reads a clock, logs or waits; ``pipeline`` puts the stages in order.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from authz.core.attributes import Unknown, Workload
from authz.core.decision import Decision, Obligations
from authz.core.resources import (
    DIGEST,
    GATEWAY_NAME_LABEL,
    AuthorizationPolicy,
    JwtRule,
    MeshConfig,
    MtlsMode,
    PeerAuthentication,
    RequestAuthentication,
    Resources,
    Target,
)
from authz.core.rule_sets import ActionSets, SharedSets, action_sets
from authz.core.rules import CompiledPolicy

T = TypeVar("T")

MAX_WORKLOADS = 16_384
"""Workloads remembered at once, some 20 MB; labels come from proxies, so their number must be bounded."""
MAX_REMEMBERED = 4096
"""Decisions remembered for one workload."""


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
    peer_authentications: tuple[PeerAuthentication, ...] = ()
    """The objects that were looked at for the mode: those of the mesh, of the namespace and of the workload (PA-4)."""
    is_indexed: bool = True
    """Whether the sets have an index; without one, a single request costs less and every further one costs more."""
    remembered: dict[str | tuple[str, Obligations], Decision] = field(default_factory=dict)
    """Decisions made before, by name of the rule and what the request gained."""

    def remember(self, key: str | tuple[str, Obligations], decision: Decision) -> None:
        """Keep a decision for requests that end alike; bounded, because what requests gain comes from tokens."""
        if len(self.remembered) >= MAX_REMEMBERED:
            self.remembered.clear()
        self.remembered[key] = decision

    @property
    def tcp(self) -> ActionSets:
        """The sets for TCP, built when first asked for: most workloads never serve plain TCP."""
        if self._tcp is None:
            self._tcp = action_sets(self.policies, self.mesh, tcp=True, indexed=self.is_indexed)
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


PoliciesOf = Callable[[Workload], WorkloadPolicies]
"""Which policies a workload has, as ``Engine.for_workload`` returns them."""


class _Selectable:
    """The policies of one namespace, filed under one pair of their selector: most workloads see few of them."""

    __slots__ = ("_by_pair", "_for_all")

    def __init__(self, ordinals: Iterable[int], policies: Sequence[AuthorizationPolicy]) -> None:
        self._for_all: list[int] = []
        self._by_pair: dict[tuple[str, str], list[int]] = {}
        for ordinal in ordinals:
            match_labels = policies[ordinal].target.match_labels
            if match_labels:
                self._by_pair.setdefault(min(match_labels.items()), []).append(ordinal)
            else:
                self._for_all.append(ordinal)

    def candidates(self, labels: Iterable[tuple[str, str]]) -> Iterator[int]:
        yield from self._for_all
        for pair in labels:
            yield from self._by_pair.get(pair, ())


class Engine:
    """
    Policies by namespace, compiled no later than a workload needs them, and those of each workload, remembered.

    ``for_workload`` may be called from several threads: at worst the same value is built twice.
    """

    def __init__(
        self,
        resources: Resources,
        mesh: MeshConfig,
        compile_policy: Callable[[AuthorizationPolicy], CompiledPolicy],
        compiled: Iterable[CompiledPolicy | None] = (),
        *,
        indexed: bool = True,
    ) -> None:
        """
        ``compiled`` holds all policies in their order, or nothing; a None in it is compiled when first needed.

        Without ``indexed`` the rules of a workload are asked in turn: less work for a single request.
        """
        self._is_indexed = indexed
        self.resources = resources
        self.mesh = mesh
        self.version = resources.version
        self._compile = compile_policy
        policies = resources.authorization_policies
        self._compiled: list[CompiledPolicy | None] = list(compiled) or [None] * len(policies)
        self._policies: dict[str, list[int]] = {}
        for ordinal, policy in enumerate(policies):
            self._policies.setdefault(policy.metadata.namespace, []).append(ordinal)
        self._selectable: dict[str, _Selectable] = {}
        self._authentications = _by_namespace(
            (item.metadata.namespace, item)
            for item in sorted(resources.request_authentications, key=lambda item: item.metadata.age_key)
        )
        self._peer_authentications = _by_namespace(
            (item.metadata.namespace, item)
            for item in sorted(resources.peer_authentications, key=lambda item: item.metadata.age_key)
        )
        self._introspections = {one.issuer: one for one in mesh.introspections}
        self._workloads: dict[tuple[str, frozenset[tuple[str, str]]], WorkloadPolicies] = {}
        self._sets = SharedSets(mesh, indexed=indexed)

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

    def token_rules(self) -> Iterator[JwtRule]:
        """Every jwtRule of every workload, with the introspection of its issuer."""
        return (self._asked(rule) for item in self.resources.request_authentications for rule in item.jwt_rules)

    def written_for(self, workload: Workload) -> tuple[AuthorizationPolicy, ...]:
        """The policies that apply to a workload as they were written, in the order of ``WorkloadPolicies.policies``."""
        return tuple(self.resources.authorization_policies[ordinal] for ordinal in self._ordinals(workload))

    def digests_for(self, workload: Workload) -> tuple[bytes, ...]:
        """What decides for a workload, sorted: digests of its policies, its token rules and the mesh settings."""
        blob = self.resources.digests
        if not blob:
            return ()
        own = [*self._ordinals(workload), *self._authenticating(workload), len(blob) // DIGEST - 1]
        return tuple(sorted([blob[number * DIGEST : (number + 1) * DIGEST] for number in own]))

    def _authenticating(self, workload: Workload) -> Iterator[int]:
        """Numbers of the RequestAuthentications that apply to a workload; they follow those of the policies."""
        read = self.resources
        if not read.request_authentications:
            return
        labels, namespaces = dict(workload.labels), self._namespaces(workload)
        for number, item in enumerate(read.request_authentications, len(read.authorization_policies)):
            namespace = item.metadata.namespace
            if namespace in namespaces and applies(item.target, namespace, workload.namespace, labels):
                yield number

    def known_workloads(self) -> tuple[Workload, ...]:
        """The workloads asked for so far: what the next snapshot prepares before it is put in force."""
        return tuple(policies.workload for policies in list(self._workloads.values()))

    def compiled_by_id(self) -> dict[int, CompiledPolicy | None]:
        """The compiled form of each policy here, by its ``id``; None for one that was not needed yet."""
        written = self.resources.authorization_policies
        return {id(policy): compiled for policy, compiled in zip(written, self._compiled, strict=True)}

    def parts(self) -> Iterator[object]:
        """The pieces that the memory of this engine consists of, and that few others share: policies and rules."""
        yield from self.resources.authorization_policies
        for policy in self._compiled:
            if policy is not None:
                yield policy
                yield from policy.http_rules
                yield from policy.tcp_rules

    def _in_namespace(self, namespace: str) -> _Selectable:
        found = self._selectable.get(namespace)
        if found is None:
            found = _Selectable(self._policies[namespace], self.resources.authorization_policies)
            self._selectable[namespace] = found
        return found

    def _policy(self, ordinal: int) -> CompiledPolicy:
        found = self._compiled[ordinal]
        if found is None:
            found = self._compiled[ordinal] = self._compile(self.resources.authorization_policies[ordinal])
        return found

    def _namespaces(self, workload: Workload) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self.mesh.root_namespace, workload.namespace)))

    def _ordinals(self, workload: Workload) -> Iterator[int]:
        labels = dict(workload.labels)
        written = self.resources.authorization_policies
        for namespace in self._namespaces(workload):
            if namespace in self._policies:
                for ordinal in self._in_namespace(namespace).candidates(workload.labels):
                    if applies(written[ordinal].target, namespace, workload.namespace, labels):
                        yield ordinal

    def _select(self, workload: Workload) -> WorkloadPolicies:
        labels = dict(workload.labels)
        namespaces = self._namespaces(workload)
        policies = tuple(self._policy(ordinal) for ordinal in self._ordinals(workload))
        peers = self._peers(workload.namespace, labels)
        base, ports = _modes(peers)
        return WorkloadPolicies(
            workload=workload,
            version=self.version,
            mesh=self.mesh,
            policies=policies,
            jwt_rules=self._jwt_rules(tuple(reversed(namespaces)), workload.namespace, labels),
            base_mode=base,
            port_modes=ports,
            http=self._sets.http(policies),
            is_indexed=self._is_indexed,
            peer_authentications=tuple(peer for peer in peers if peer is not None),
        )

    def _jwt_rules(self, namespaces: tuple[str, ...], own: str, labels: Mapping[str, str]) -> tuple[JwtRule, ...]:
        """The workload's namespace before the root namespace, then a stable sort by issuer (RA-1, RA-52)."""
        applying: list[RequestAuthentication] = [
            item
            for namespace in namespaces
            for item in self._authentications.get(namespace, ())
            if applies(item.target, namespace, own, labels)
        ]
        rules = [self._asked(rule) for item in applying for rule in item.jwt_rules]
        return tuple(sorted(rules, key=lambda rule: rule.issuer.encode()))

    def _asked(self, rule: JwtRule) -> JwtRule:
        introspection = self._introspections.get(rule.issuer)
        return rule if introspection is None else replace(rule, introspection=introspection)

    def _peers(self, namespace: str, labels: Mapping[str, str]) -> tuple[PeerAuthentication | None, ...]:
        """PA-2 to PA-6. The lists are in the order of RE-13, so the first of a scope wins alone (PA-6)."""
        root = self.mesh.root_namespace
        mesh_wide = _first(item for item in self._peer_authentications.get(root, ()) if not item.match_labels)
        namespace_wide = workload = None
        if namespace != root:
            own = self._peer_authentications.get(namespace, ())
            namespace_wide = _first(item for item in own if not item.match_labels)
            workload = _first(item for item in own if item.match_labels and _selects(item.match_labels, labels))
        return mesh_wide, namespace_wide, workload


def _modes(peers: tuple[PeerAuthentication | None, ...]) -> tuple[MtlsMode, dict[int, MtlsMode]]:
    """PA-4 and PA-7: the last of the scopes that states a mode, and the ports of the workload's own object."""
    mode = MtlsMode.PERMISSIVE
    for item in peers:
        if item is not None and item.mode is not MtlsMode.UNSET:
            mode = item.mode
    workload = peers[-1]
    if workload is None or not workload.port_level_mtls:
        return mode, {}
    listed = workload.port_level_mtls.items()
    return mode, {port: mode if own is MtlsMode.UNSET else own for port, own in listed}


def applies(target: Target, policy_namespace: str, namespace: str, labels: Mapping[str, str]) -> bool:
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

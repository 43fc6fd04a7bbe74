"""
The workloads that a question is about: those of a mesh description, else those that the selectors tell apart.

Without a description nobody knows which labels there are. Policies can only tell workloads apart by the pairs that
their selectors name, so one workload for each combination of selectors that can hold together stands for all.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from authz.core.attributes import Workload
from authz.core.engine import Engine, WorkloadPolicies
from authz.core.resources import GATEWAY_NAME_LABEL, AuthorizationPolicy, RequestAuthentication, Resources

SelectedPairs = frozenset[tuple[str, str]]
MAX_COMBINATIONS = 512
"""Combinations of selectors of one namespace."""
ELSEWHERE = "any-other-namespace"


@dataclass(frozen=True, slots=True)
class AskedWorkload:
    """One workload that is asked about."""

    name: str
    """For people: ``shop/cart-v1``, or ``shop (app=cart)``."""
    workload: Workload
    is_gateway: bool = False
    ports: tuple[int, ...] = ()
    """Its only ports; empty: not known."""
    callers: tuple[str, ...] = ()
    """Identities of other workloads, with ``spiffe://``."""
    before: Workload | None = None
    """The same workload on the old side, where that has other labels, or another namespace or account."""


def targets_of(engines: Sequence[Engine]) -> tuple[list[AskedWorkload], list[str]]:
    """
    The workloads that the policies of some engines can tell apart, named by their labels.

    Returns:
        The workloads, by namespace, and what was left out because there are too many combinations.
    """
    by_namespace: dict[str, set[SelectedPairs]] = {}
    for engine in engines:
        for namespace, labels in _selected(engine.resources):
            by_namespace.setdefault(namespace, set()).add(labels)
    roots = {engine.mesh.root_namespace for engine in engines}
    everywhere = {labels for root in roots for labels in by_namespace.get(root, ())}
    names = sorted(by_namespace)
    if not set(names) - roots or everywhere:
        names.append(ELSEWHERE)
    found: list[AskedWorkload] = []
    left_out: list[str] = []
    for namespace in names:
        combined, is_whole = _combinations(by_namespace.get(namespace, set()) | everywhere)
        if not is_whole:
            left_out.append(
                f"the selectors of namespace `{namespace}` have more than {MAX_COMBINATIONS} combinations; "
                "name the workloads with --mesh"
            )
        found += [AskedWorkload(_named(namespace, labels), Workload(namespace, labels)) for labels in combined]
    return found, left_out


def _named(namespace: str, labels: SelectedPairs) -> str:
    pairs = ",".join(f"{name}={value}" for name, value in sorted(labels))
    return f"{namespace} ({pairs})" if pairs else f"{namespace} (no label that a selector names)"


def _selected(resources: Resources) -> Iterator[tuple[str, SelectedPairs]]:
    items: list[AuthorizationPolicy | RequestAuthentication] = [*resources.authorization_policies]
    items += resources.request_authentications
    for item in items:
        labels: Mapping[str, str] = item.target.match_labels
        yield item.metadata.namespace, frozenset(labels.items())
        for ref in item.target.target_refs:
            if ref.kind == "Gateway":  # what names a Service or a ServiceEntry, a waypoint obeys and no gateway (RE-19)
                yield item.metadata.namespace, frozenset({(GATEWAY_NAME_LABEL, ref.name)})
    for peer in resources.peer_authentications:
        yield peer.metadata.namespace, frozenset(peer.match_labels.items())


def _combinations(selectors: Iterable[SelectedPairs]) -> tuple[list[SelectedPairs], bool]:
    """Unions of selectors that no two values of one label part, the empty one first; and whether they are all."""
    wanted = sorted((labels for labels in selectors if labels), key=sorted)
    found: dict[SelectedPairs, None] = {frozenset(): None}
    for labels in wanted:
        for known in list(found):
            union = known | labels
            if len(dict(union)) == len(union):
                found[union] = None
            if len(found) > MAX_COMBINATIONS:
                return list(found), False
    return sorted(found, key=lambda labels: (len(labels), sorted(labels))), True


def are_same(old: Engine, new: Engine, workload: Workload) -> bool:
    """Whether what applies to a workload was not touched at all: then there is nothing to compare."""
    digests = old.digests_for(workload), new.digests_for(workload)
    if not digests[0] or digests[0] != digests[1]:
        return False
    if _modes(old) == _modes(new):
        return True
    before, after = old.for_workload(workload), new.for_workload(workload)
    return (before.base_mode, before.port_modes) == (after.base_mode, after.port_modes)


def applying(policies: WorkloadPolicies) -> tuple[object, ...]:
    """What applies to a workload, by the identity of its parts, which the engine shares between workloads."""
    return (
        tuple(map(id, policies.policies)),
        tuple(map(id, policies.jwt_rules)),
        policies.base_mode,
        tuple(policies.port_modes.items()),
    )


def _modes(engine: Engine) -> list[object]:
    """What the PeerAuthentications say, wherever they are written."""
    return [
        (item.metadata.age_key, item.match_labels, item.mode, item.port_level_mtls)
        for item in engine.resources.peer_authentications
    ]

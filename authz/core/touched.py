"""
Which workloads a change of policies can touch: those that a policy selects which is not the same before and after.

One too many costs its rendering; one too few keeps an old policy in force. So what cannot be told apart is taken for
changed, and a test compares what follows from here with everything made anew, for changes at random.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence

from authz.core.attributes import Workload
from authz.core.engine import Engine, applies
from authz.core.resources import (
    DIGEST,
    GATEWAY_NAME_LABEL,
    AuthorizationPolicy,
    RequestAuthentication,
    Resources,
    Target,
)

PolicyScope = tuple[str, Target]
"""The namespace of a policy, and whom it selects there."""
_Known = tuple[Hashable, PolicyScope]
"""A policy by what tells it from others."""


class FiledWorkloads:
    """The workloads of a mesh, filed by what selectors name: those of a policy are found without looking at all."""

    def __init__(self, workloads: Iterable[Workload]) -> None:
        self._all: list[Workload] = []
        self._by_namespace: dict[str, list[Workload]] = {}
        self._by_pair: dict[tuple[str, str], list[Workload]] = {}
        for workload in workloads:
            self._all.append(workload)
            self._by_namespace.setdefault(workload.namespace, []).append(workload)
            for pair in workload.labels:
                self._by_pair.setdefault(pair, []).append(workload)

    def selected(self, scope: PolicyScope, root_namespace: str) -> Iterator[Workload]:
        """The workloads to which a policy applies (RE-15 to RE-19)."""
        namespace, target = scope
        if not target.match_labels and not target.target_refs:
            yield from self._candidates(namespace, target, root_namespace)
            return
        for workload in self._candidates(namespace, target, root_namespace):
            is_in_scope = namespace in (root_namespace, workload.namespace)
            if is_in_scope and applies(target, namespace, workload.namespace, dict(workload.labels)):
                yield workload

    def _candidates(self, namespace: str, target: Target, root_namespace: str) -> Iterator[Workload]:
        if target.target_refs:
            for name in {ref.name for ref in target.target_refs}:
                yield from self._by_pair.get((GATEWAY_NAME_LABEL, name), ())
        elif target.match_labels:
            found = (self._by_pair.get(pair, []) for pair in target.match_labels.items())
            yield from min(found, key=len)
        else:
            yield from self._all if namespace == root_namespace else self._by_namespace.get(namespace, ())


def touched(before: Engine, after: Engine, workloads: FiledWorkloads) -> frozenset[Workload] | None:
    """
    The workloads whose policies, token rules or mTLS modes may differ between two engines; None: any.

    Key sets are not looked at. Policies that were not read from text have no digests, and may all differ.
    """
    old, new = before.resources, after.resources
    if before.mesh != after.mesh or not old.digests or not new.digests:
        return None
    scopes = [*_differing(list(_read(old)), list(_read(new))), *_differing(_peers(old), _peers(new))]
    root = after.mesh.root_namespace
    return frozenset(workload for scope in scopes for workload in workloads.selected(scope, root))


def _read(resources: Resources) -> Iterator[_Known]:
    """Every policy and RequestAuthentication by what it means."""
    items: tuple[AuthorizationPolicy | RequestAuthentication, ...] = (
        *resources.authorization_policies,
        *resources.request_authentications,
    )
    for number, item in enumerate(items):
        digest = resources.digests[number * DIGEST : (number + 1) * DIGEST]
        yield (type(item), digest), (item.metadata.namespace, item.target)


def _peers(resources: Resources) -> list[_Known]:
    """Every PeerAuthentication by identity: an unchanged document gives the very object of before."""
    return [(id(item), (item.metadata.namespace, Target(item.match_labels))) for item in resources.peer_authentications]


def _differing(
    old: Sequence[tuple[Hashable, PolicyScope]], new: Sequence[tuple[Hashable, PolicyScope]]
) -> Iterator[PolicyScope]:
    """What is not in both; everything, if what is in both has another order, which may decide who is asked first."""
    before, after = {key for key, _ in old}, {key for key, _ in new}
    is_kept: Callable[[Hashable], bool] = (before & after).__contains__
    in_order = [key for key, _ in old if is_kept(key)] == [key for key, _ in new if is_kept(key)]
    for key, scope in (*old, *new):
        if not in_order or not is_kept(key):
            yield scope

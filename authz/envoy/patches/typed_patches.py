"""Patches with their values read as Envoy's messages: the form in which they are applied."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from envoy_data_plane.envoy.config.cluster.v3 import Cluster
from envoy_data_plane.envoy.config.listener.v3 import Filter as NetworkFilter
from envoy_data_plane.envoy.config.listener.v3 import FilterChain, Listener, ListenerFilter
from envoy_data_plane.envoy.config.route.v3 import Route, RouteConfiguration, VirtualHost
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter

from authz.core.errors import Problem
from authz.envoy.patches.message_types import MessageType
from authz.envoy.patches.typed_values import Tree, typed
from authz.mesh.extensions import ApplyTo, ConfigPatch, EnvoyFilter, PatchOperation, WrittenAt

MESSAGES: dict[ApplyTo, MessageType] = {
    ApplyTo.LISTENER: Listener,
    ApplyTo.FILTER_CHAIN: FilterChain,
    ApplyTo.NETWORK_FILTER: NetworkFilter,
    ApplyTo.HTTP_FILTER: HttpFilter,
    ApplyTo.LISTENER_FILTER: ListenerFilter,
    ApplyTo.ROUTE_CONFIGURATION: RouteConfiguration,
    ApplyTo.VIRTUAL_HOST: VirtualHost,
    ApplyTo.HTTP_ROUTE: Route,
    ApplyTo.CLUSTER: Cluster,
}
"""The message that a patch's value is."""
_NAMED = (ApplyTo.LISTENER, ApplyTo.NETWORK_FILTER, ApplyTo.HTTP_FILTER, ApplyTo.LISTENER_FILTER, ApplyTo.CLUSTER)


@dataclass(frozen=True, slots=True)
class TypedPatch:
    """One patch; equal ones of different documents differ by their origin."""

    owner: EnvoyFilter
    patch: ConfigPatch
    value: Tree

    @property
    def operation(self) -> PatchOperation:
        """What it does."""
        return self.patch.operation

    @property
    def origin(self) -> WrittenAt:
        """Where it was written."""
        return self.patch.origin


@dataclass(slots=True)
class Applying:
    """Patches on their way over one proxy: those for it, in order, and what is found meanwhile."""

    patches: Sequence[TypedPatch]
    used: set[int] = field(default_factory=set)
    """``id`` of each patch that found what it is for."""
    problems: list[Problem] = field(default_factory=list)

    def of(self, apply_to: ApplyTo, suits: Callable[[TypedPatch], bool]) -> Iterable[TypedPatch]:
        """The patches of a sort for which ``suits`` holds, asked one by one, as earlier ones change the answer."""
        return (one for one in self.patches if one.patch.apply_to is apply_to and suits(one))

    def found(self, patch: TypedPatch) -> None:
        """Remember that a patch did something."""
        self.used.add(id(patch))


def typed_patches(filters: Iterable[EnvoyFilter]) -> tuple[tuple[TypedPatch, ...], tuple[Problem, ...]]:
    """Read the values of all patches; those with problems are left out, and every problem is returned."""
    found: list[TypedPatch] = []
    problems: list[Problem] = []
    for owner in filters:
        for patch in owner.patches:
            value: Tree = {}
            wrong: tuple[Problem, ...] = ()
            if patch.value is not None:
                value, wrong = typed(patch.value, MESSAGES[patch.apply_to])
                if not wrong:
                    wrong = tuple(_without_name(patch, value))
            problems += wrong
            if not wrong:
                found.append(TypedPatch(owner, patch, value))
    return tuple(found), tuple(problems)


def _without_name(patch: ConfigPatch, value: Tree) -> Iterable[Problem]:
    """What is added needs a name: routes and other patches refer to it, and Envoy wants one."""
    merges = patch.operation.is_merge or patch.operation is PatchOperation.REMOVE
    if not merges and patch.apply_to in _NAMED and not value.get("name"):
        assert patch.value is not None, "only REMOVE has no value"
        yield patch.value.at("").problem("ME-3", "`name` is missing", f"a {patch.apply_to} that is added needs one")

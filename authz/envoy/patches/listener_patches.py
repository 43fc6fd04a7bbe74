"""
Patches of listeners and of all that is in them, in istiod's order (``listener_patch.go``).

Per listener: itself, its listener filters, its chains; per chain: itself, its network filters; per HTTP connection
manager: its HTTP filters. What is merged is merged after everything was added, replaced and removed. Whole chains come
last, and whole listeners after all listeners.
"""

import copy
from collections.abc import Callable

from envoy_data_plane.envoy.config.listener.v3 import FilterChain, Listener

from authz.envoy.patches.patch_matches import (
    is_chain,
    is_http_filter,
    is_in_context,
    is_listener,
    is_network_filter,
)
from authz.envoy.patches.proto_merge import TypesDifferError, merge, merge_typed
from authz.envoy.patches.proxy_resources import MANAGER, MANAGER_TYPE, ProxyResources, Standing, items, part, type_of
from authz.envoy.patches.typed_patches import Applying, TypedPatch
from authz.envoy.patches.typed_values import Tree
from authz.mesh.extensions import ApplyTo, ListenerMatch, PatchContext, PatchOperation

Suits = Callable[[TypedPatch], bool]


def patch_listeners(resources: ProxyResources, contexts: tuple[PatchContext, ...], run: Applying) -> list[Tree]:
    """Patch every listener, in place, and return those that are left and those that are added."""
    left = [one for one in resources.listeners if _patch_listener(one, resources.standing_of(one), run)]
    for patch in run.of(ApplyTo.LISTENER, lambda one: one.operation is PatchOperation.ADD):
        wanted = patch.patch.context
        # istiod adds one without a context on the way out, or at a gateway.
        if wanted in contexts or wanted is PatchContext.ANY:
            run.found(patch)
            left.append(copy.deepcopy(patch.value))
    return left


def _patch_listener(listener: Tree, standing: Standing, run: Applying) -> bool:
    """Whether the listener is left."""

    def suits(one: TypedPatch) -> bool:
        return is_in_context(one.patch, standing.context) and is_listener(one.patch.listener, listener, standing)

    for patch in run.of(ApplyTo.LISTENER, suits):
        if patch.operation is PatchOperation.REMOVE:
            run.found(patch)
            return False
        if patch.operation.is_merge:
            run.found(patch)
            _merge_whole(listener, patch, Listener)
    _listener_filters(listener, suits, run)
    kept = [chain for chain in items(listener, "filter_chains") if _patch_chain(chain, standing, suits, run)]
    default = listener.get("default_filter_chain")
    if isinstance(default, dict) and not _patch_chain(default, standing, suits, run):
        del listener["default_filter_chain"]
    for patch in run.of(ApplyTo.FILTER_CHAIN, suits):
        if patch.operation is PatchOperation.ADD:
            run.found(patch)
            kept.append(copy.deepcopy(patch.value))
    if kept or "filter_chains" in listener:
        listener["filter_chains"] = [chain for chain in kept if items(chain, "filters")]
    return True


def _merge_whole(into: Tree, patch: TypedPatch, message: type[Listener] | type[FilterChain]) -> None:
    replace = patch.operation is PatchOperation.MERGE_AND_REPLACE_LIST
    merge(into, patch.value, message, replace_lists=replace)


def _listener_filters(listener: Tree, suits: Suits, run: Applying) -> None:
    def named(match: ListenerMatch | None, one: Tree) -> bool:
        return match is None or match.listener_filter in ("", one.get("name"))

    def has_name(match: ListenerMatch | None) -> bool:
        return match is not None and bool(match.listener_filter)

    for patch in run.of(ApplyTo.LISTENER_FILTER, suits):
        held = items(listener, "listener_filters")
        if patch.operation is PatchOperation.MERGE:
            for one in held:
                if named(patch.patch.listener, one):
                    _merge_filter(one, patch, run)
            continue
        placed = _placed(held, patch, named, has_name, run)
        if placed or "listener_filters" in listener:
            listener["listener_filters"] = [*placed]


def _patch_chain(chain: Tree, standing: Standing, suits: Suits, run: Applying) -> bool:
    """Whether the chain is left."""

    def suits_chain(one: TypedPatch) -> bool:
        return suits(one) and is_chain(one.patch.listener, chain, standing)

    for patch in run.of(ApplyTo.FILTER_CHAIN, suits_chain):
        if patch.operation is PatchOperation.REMOVE:
            run.found(patch)
            return False
        if patch.operation.is_merge:
            run.found(patch)
            if not _merge_socket(chain, patch, run):
                _merge_whole(chain, patch, FilterChain)
    for patch in run.of(ApplyTo.NETWORK_FILTER, suits_chain):
        if patch.operation is not PatchOperation.MERGE:
            held = items(chain, "filters")
            chain["filters"] = [*_placed(held, patch, is_network_filter, _has_filter, run)]
    for one in items(chain, "filters"):
        _patch_network_filter(one, suits_chain, run)
    return True


def _has_filter(match: ListenerMatch | None) -> bool:
    return match is not None and match.filter is not None


def _has_sub_filter(match: ListenerMatch | None) -> bool:
    return match is not None and match.sub_filter is not None


def _merge_socket(chain: Tree, patch: TypedPatch, run: Applying) -> bool:
    """Whether the patch is about a transport socket of the same name; then nothing else of it is merged, as istiod."""
    given, own = part(patch.value, "transport_socket"), part(chain, "transport_socket")
    if not given or not own or given.get("name") != own.get("name"):
        return False
    if type_of(given) and type_of(own):
        _merge_config(own, given, patch, run)
    return True


def _patch_network_filter(one: Tree, suits: Suits, run: Applying) -> None:
    def suits_filter(patch: TypedPatch) -> bool:
        return suits(patch) and is_network_filter(patch.patch.listener, one)

    for patch in run.of(ApplyTo.NETWORK_FILTER, suits_filter):
        if patch.operation is PatchOperation.MERGE:
            _merge_filter(one, patch, run)
    # istiod goes by the name and then unpacks the type.
    if one.get("name") == MANAGER and type_of(one) == MANAGER_TYPE:
        _http_filters(part(one, "typed_config"), suits_filter, run)


def _http_filters(manager: Tree, suits: Suits, run: Applying) -> None:
    for patch in run.of(ApplyTo.HTTP_FILTER, suits):
        if patch.operation is not PatchOperation.MERGE:
            held = items(manager, "http_filters")
            manager["http_filters"] = [*_placed(held, patch, is_http_filter, _has_sub_filter, run)]
    for one in items(manager, "http_filters"):
        for patch in run.of(ApplyTo.HTTP_FILTER, suits):
            if patch.operation is PatchOperation.MERGE and is_http_filter(patch.patch.listener, one):
                _merge_filter(one, patch, run)


def _placed(
    held: list[Tree],
    patch: TypedPatch,
    named: Callable[[ListenerMatch | None, Tree], bool],
    has_name: Callable[[ListenerMatch | None], bool],
    run: Applying,
) -> list[Tree]:
    """
    Filters after an operation that is no merge.

    Without a name INSERT_BEFORE puts first and INSERT_AFTER last; a name that is not there puts nothing.
    """
    match, operation = patch.patch.listener, patch.operation
    new = copy.deepcopy(patch.value)
    if operation is PatchOperation.INSERT_FIRST or (operation is PatchOperation.INSERT_BEFORE and not has_name(match)):
        run.found(patch)
        return [new, *held]
    if operation is PatchOperation.ADD or (operation is PatchOperation.INSERT_AFTER and not has_name(match)):
        run.found(patch)
        return [*held, new]
    at = next((i for i, one in enumerate(held) if named(match, one)), None)
    if at is None or not has_name(match):
        return held
    run.found(patch)
    if operation is PatchOperation.REMOVE:
        return [one for one in held if not named(match, one)]
    if operation is PatchOperation.REPLACE:
        return [*held[:at], new, *held[at + 1 :]]
    before = at if operation is PatchOperation.INSERT_BEFORE else at + 1
    return [*held[:before], new, *held[before:]]


def _merge_filter(one: Tree, patch: TypedPatch, run: Applying) -> None:
    """Merge a filter: its name is replaced, its configuration unpacked and merged; without one there is nothing."""
    if not type_of(one):
        return
    run.found(patch)
    if type_of(patch.value):
        _merge_config(one, patch.value, patch, run)
    if patch.value.get("name"):
        one["name"] = patch.value["name"]


def _merge_config(into: Tree, given: Tree, patch: TypedPatch, run: Applying) -> None:
    try:
        into["typed_config"] = merge_typed(part(into, "typed_config"), part(given, "typed_config"))
        run.found(patch)
    except TypesDifferError as error:
        origin = patch.patch.value.at("typed_config") if patch.patch.value else patch.origin
        run.problems.append(origin.problem("ME-1", str(error), "MERGE wants the same type; REPLACE puts another one"))

"""Patches of route tables, virtual hosts and routes, in istiod's order (``rc_patch.go``)."""

import copy
from collections.abc import Callable

from envoy_data_plane.envoy.config.route.v3 import Route, RouteConfiguration, VirtualHost

from authz.envoy.patches.patch_matches import is_in_context, is_route, is_route_table, is_virtual_host
from authz.envoy.patches.proto_merge import merge
from authz.envoy.patches.proxy_resources import Standing, items
from authz.envoy.patches.typed_patches import Applying, TypedPatch
from authz.envoy.patches.typed_values import Tree
from authz.mesh.extensions import ApplyTo, PatchOperation


def patch_route_table(table: Tree, standing: Standing, run: Applying) -> None:
    """Patch a table and everything in it, in place."""

    def suits(one: TypedPatch) -> bool:
        return is_in_context(one.patch, standing.context) and is_route_table(one.patch.route_table, table, standing)

    for patch in run.of(ApplyTo.ROUTE_CONFIGURATION, suits):
        run.found(patch)
        merge(table, patch.value, RouteConfiguration, replace_lists=_replaces(patch))
    removed: set[object] = set()
    hosts = items(table, "virtual_hosts")
    for i, host in enumerate(hosts):
        patched = _patch_host(host, table, standing, run)
        if patched is None:
            removed.add(host.get("name"))
        else:
            hosts[i] = patched
    for patch in run.of(ApplyTo.VIRTUAL_HOST, suits):
        if patch.operation is PatchOperation.ADD:
            run.found(patch)
            hosts.append(copy.deepcopy(patch.value))
    if hosts or "virtual_hosts" in table:
        table["virtual_hosts"] = [host for host in hosts if host.get("name") not in removed]


def _patch_host(host: Tree, table: Tree, standing: Standing, run: Applying) -> Tree | None:
    """The virtual host as it is afterwards; None if it is removed."""

    def suits(one: TypedPatch) -> bool:
        return (
            is_in_context(one.patch, standing.context)
            and is_route_table(one.patch.route_table, table, standing)
            and is_virtual_host(one.patch.route_table, host)
        )

    for patch in run.of(ApplyTo.VIRTUAL_HOST, suits):
        if patch.operation is PatchOperation.REMOVE:
            run.found(patch)
            return None
        if patch.operation.is_merge:
            run.found(patch)
            merge(host, patch.value, VirtualHost, replace_lists=_replaces(patch))
        elif patch.operation is PatchOperation.REPLACE:
            run.found(patch)
            host = copy.deepcopy(patch.value)
    routes = _patched_routes(host, suits, run)
    if routes or "routes" in host:
        host["routes"] = [*routes]
    return host


def _patched_routes(host: Tree, suits: Callable[[TypedPatch], bool], run: Applying) -> list[Tree]:
    """
    The routes of a host afterwards.

    Routes that are removed still stand in their places while others are inserted, but nothing is inserted beside them.
    """
    routes: list[Tree | None] = [*items(host, "routes")]
    for i, route in enumerate(routes):
        assert route is not None, "none was removed yet"
        for patch in run.of(ApplyTo.HTTP_ROUTE, suits):
            if not is_route(patch.patch.route_table, route):
                continue
            if patch.operation is PatchOperation.REMOVE:
                run.found(patch)
                routes[i] = None
                break
            if patch.operation.is_merge:
                run.found(patch)
                merge(route, patch.value, Route, replace_lists=_replaces(patch))
    for patch in run.of(ApplyTo.HTTP_ROUTE, suits):
        routes = _inserted(routes, patch, run)
    return [route for route in routes if route is not None]


def _inserted(routes: list[Tree | None], patch: TypedPatch, run: Applying) -> list[Tree | None]:
    operation, match = patch.operation, patch.patch.route_table
    if operation.is_merge or operation is PatchOperation.REMOVE:
        return routes
    new = copy.deepcopy(patch.value)
    last = operation is PatchOperation.ADD
    if not last and (match is None or not match.has_route):
        last, at = operation is PatchOperation.INSERT_AFTER, 0
    elif not last:
        fitting = [i for i, one in enumerate(routes) if one is not None and is_route(match, one)]
        if not fitting:
            return routes
        at = {PatchOperation.INSERT_BEFORE: fitting[0], PatchOperation.INSERT_AFTER: fitting[0] + 1}.get(operation, 0)
    run.found(patch)
    return [*routes, new] if last else [*routes[:at], new, *routes[at:]]


def _replaces(patch: TypedPatch) -> bool:
    return patch.operation is PatchOperation.MERGE_AND_REPLACE_LIST

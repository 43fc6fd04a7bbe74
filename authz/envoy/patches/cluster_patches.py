"""Patches of clusters, in istiod's order (``cluster_patch.go``)."""

import copy

from envoy_data_plane.envoy.config.cluster.v3 import Cluster

from authz.envoy.patches.patch_matches import is_cluster, is_in_context
from authz.envoy.patches.proto_merge import TypesDifferError, merge, merge_typed
from authz.envoy.patches.proxy_resources import ProxyResources, items, part, type_of
from authz.envoy.patches.typed_patches import Applying, TypedPatch
from authz.envoy.patches.typed_values import Tree
from authz.mesh.extensions import ApplyTo, PatchContext, PatchOperation


def patch_clusters(resources: ProxyResources, contexts: tuple[PatchContext, ...], run: Applying) -> list[Tree]:
    """Patch every cluster but those of control, in place, and return those that are left and those that are added."""
    left = []
    for cluster in resources.clusters:
        name = str(cluster.get("name"))
        if name in resources.control or _patch_cluster(cluster, contexts, resources.services.get(name, ()), run):
            left.append(cluster)
    for patch in run.of(ApplyTo.CLUSTER, lambda one: one.operation is PatchOperation.ADD):
        if patch.patch.context is PatchContext.ANY or patch.patch.context in contexts:
            run.found(patch)
            left.append(copy.deepcopy(patch.value))
    return left


def _patch_cluster(cluster: Tree, contexts: tuple[PatchContext, ...], hosts: tuple[str, ...], run: Applying) -> bool:
    """Whether the cluster is left."""
    context = _context_of(cluster, contexts)

    def suits(one: TypedPatch) -> bool:
        return is_in_context(one.patch, context) and is_cluster(one.patch.cluster, cluster, hosts)

    for patch in run.of(ApplyTo.CLUSTER, suits):
        if patch.operation is PatchOperation.REMOVE:
            run.found(patch)
            return False
        if patch.operation.is_merge:
            run.found(patch)
            if not _merge_socket(cluster, patch, run):
                replace = patch.operation is PatchOperation.MERGE_AND_REPLACE_LIST
                merge(cluster, patch.value, Cluster, replace_lists=replace)
    return True


def _context_of(cluster: Tree, contexts: tuple[PatchContext, ...]) -> PatchContext:
    if PatchContext.GATEWAY in contexts:
        return PatchContext.GATEWAY
    inbound = str(cluster.get("name")).startswith("inbound|")
    return PatchContext.SIDECAR_INBOUND if inbound else PatchContext.SIDECAR_OUTBOUND


def _merge_socket(cluster: Tree, patch: TypedPatch, run: Applying) -> bool:
    """
    Whether the patch has a transport socket; then nothing else of it is merged, as with istiod.

    It is merged into the first of the same name, those of matches first; without any it takes the cluster's place.
    """
    given = part(patch.value, "transport_socket")
    if not given:
        return False
    own: Tree | None = None
    matches = items(cluster, "transport_socket_matches")
    sockets = [*(part(one, "transport_socket") for one in matches), part(cluster, "transport_socket")]
    own = next((one for one in sockets if one and one.get("name") == given.get("name")), None)
    if own is None:
        if not matches:
            cluster["transport_socket"] = copy.deepcopy(given)
        return True
    if type_of(own) and type_of(given):
        try:
            own["typed_config"] = merge_typed(part(own, "typed_config"), part(given, "typed_config"))
        except TypesDifferError as error:
            origin = patch.patch.value.at("transport_socket") if patch.patch.value else patch.origin
            run.problems.append(origin.problem("ME-1", str(error), "MERGE wants the same type"))
    return True

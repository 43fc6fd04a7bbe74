"""
EnvoyFilters applied to the resources of one proxy, and judged: what comes out, what is refused, what has to be said.

Pure: resources go in and come out, nothing is changed in place.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from authz.core.errors import Problem, Severity
from authz.envoy.patches.cluster_patches import patch_clusters
from authz.envoy.patches.enforcement import compare
from authz.envoy.patches.listener_patches import patch_listeners
from authz.envoy.patches.patch_matches import is_for_proxy
from authz.envoy.patches.proxy_resources import UNPLACED, ProxyResources, ProxySelf, managers_of, part
from authz.envoy.patches.route_patches import patch_route_table
from authz.envoy.patches.typed_patches import Applying, TypedPatch
from authz.envoy.patches.typed_values import Tree
from authz.envoy.patches.weakening import Weakening, Weight
from authz.mesh.extensions import WEAKENS, PatchContext, WrittenAt
from authz.mesh.link_extensions import is_selected

_SIDECAR = (PatchContext.SIDECAR_INBOUND, PatchContext.SIDECAR_OUTBOUND)
_GATEWAY = (PatchContext.GATEWAY,)


@dataclass(frozen=True, slots=True)
class PatchedProxy:
    """The resources of a proxy after patching; of no use if a problem ``is_error``."""

    resources: ProxyResources
    problems: tuple[Problem, ...] = ()
    """Errors refuse the rendering; warnings say what was allowed by name."""
    remarks: tuple[tuple[WrittenAt, str], ...] = ()
    """What can change requests, by the patch that brings it."""
    used: frozenset[int] = field(default_factory=frozenset)
    """``id`` of each patch that found what it is for."""


def patched(patches: Sequence[TypedPatch], resources: ProxyResources, proxy: ProxySelf, name: str) -> PatchedProxy:
    """
    Apply those of the patches that are for a proxy, in their order, and compare what enforces before and after.

    Args:
        patches: of all EnvoyFilters, in the order of ``Mesh.envoy_filters``.
        name: the proxy's name, for messages.
    """
    own = [one for one in patches if _is_for(one, proxy)]
    if not own:
        return PatchedProxy(resources)
    run, after = _applied(own, resources)
    problems = list(run.problems)
    remarks = []
    for weakening, blamed in _blamed(own, resources, compare(resources, after)):
        if weakening.weight is Weight.SAID:
            remarks.append((blamed.origin, f"{weakening.place.rpartition(', ')[2]} {weakening.what}"))
        else:
            problems.append(_problem(weakening, blamed, name))
    return PatchedProxy(after, tuple(problems), tuple(dict.fromkeys(remarks)), frozenset(run.used))


def remarked(found: Mapping[str, PatchedProxy]) -> tuple[Problem, ...]:
    """What can change requests, each once with the proxies on which it does."""
    where: dict[tuple[WrittenAt, str], list[str]] = {}
    for name, one in found.items():
        for remark in one.remarks:
            where.setdefault(remark, []).append(f"`{name}`")
    return tuple(
        origin.problem("ME-8", f"{text}, on {', '.join(names)}", severity=Severity.INFO)
        for (origin, text), names in where.items()
    )


def unused(patches: Sequence[TypedPatch], used: frozenset[int]) -> tuple[Problem, ...]:
    """Warn of patches that found nothing on any proxy: in Istio's mesh they may mean something that is not here."""
    return tuple(
        one.origin.problem(
            "ME-4",
            "the patch matches nothing on any proxy",
            "compare its match with the rendered files",
            Severity.WARNING,
        )
        for one in patches
        if id(one) not in used
    )


def _is_for(one: TypedPatch, proxy: ProxySelf) -> bool:
    owner = one.owner
    selected = is_selected(owner.namespace, owner.labels, proxy.namespace, proxy.labels, proxy.root_namespace)
    return selected and is_for_proxy(one.patch, proxy)


def _applied(patches: Sequence[TypedPatch], resources: ProxyResources) -> tuple[Applying, ProxyResources]:
    run = Applying(patches)
    made = replace(
        resources,
        listeners=_own(resources.listeners),
        clusters=_own(resources.clusters),
        route_tables=_own(resources.route_tables),
    )
    gateway = any(standing.context is PatchContext.GATEWAY for standing in resources.standings.values())
    contexts = _GATEWAY if gateway else _SIDECAR
    for listener in made.listeners:
        for manager in managers_of(listener):
            table = part(manager, "route_config")
            if table:
                patch_route_table(table, made.standing_of(listener), run)
    for table in made.route_tables:
        patch_route_table(table, made.route_standings.get(str(table.get("name")), UNPLACED), run)
    made.listeners[:] = patch_listeners(made, contexts, run)
    made.clusters[:] = patch_clusters(made, contexts, run)
    return run, made


def _own(messages: list[Tree]) -> list[Tree]:
    """A copy in which nothing stands in two places, as parts that were rendered once may."""
    copied: list[Tree] = json.loads(json.dumps(messages))
    return copied


def _blamed(
    patches: Sequence[TypedPatch], resources: ProxyResources, found: Sequence[Weakening]
) -> list[tuple[Weakening, TypedPatch]]:
    """
    Each difference with the patch since which it is there to stay.

    Found by applying one patch more at a time; only where there is a difference that matters.
    """
    if not found or len(patches) == 1:
        return [(weakening, patches[0]) for weakening in found]
    since = dict.fromkeys(found, patches[0])
    there: set[Weakening] = set()
    for i, one in enumerate(patches):
        is_last = i == len(patches) - 1
        now = set(found if is_last else compare(resources, _applied(patches[: i + 1], resources)[1]))
        for weakening in now - there:
            if weakening in since:
                since[weakening] = one
        there = now
    return [(weakening, since[weakening]) for weakening in found]


def _problem(weakening: Weakening, blamed: TypedPatch, name: str) -> Problem:
    origin = blamed.origin
    what = f"{weakening.place} of `{name}`: {weakening.what}"
    if weakening.weight is Weight.BROKEN:
        return origin.problem("ME-4", what, weakening.help)
    if blamed.owner.weakens:
        text = f"enforcement is weakened, as `{WEAKENS}` allows ({blamed.owner.weakens}): {what}"
        return origin.problem("ME-8", text, severity=Severity.WARNING)
    allowed = f'allow it with the annotation `{WEAKENS}: "why"`'
    advice = f"{weakening.help}; or {allowed}" if weakening.help else allowed
    return origin.problem("ME-8", f"weakens what enforces policies: {what}", advice)

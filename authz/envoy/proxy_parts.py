"""
The parts of one proxy before they become files: listeners with what belongs to policies, clusters, route tables.

Where extensions concern a proxy its parts are extended here, the same for files of their own and for one bootstrap.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from authz.core.errors import Problem
from authz.core.policies_by_workload import PoliciesByWorkload
from authz.core.resources import MtlsMode
from authz.envoy.bootstrap import bootstrap
from authz.envoy.clusters import clusters
from authz.envoy.extended import Extensions, demand, extended_of
from authz.envoy.listeners import MtlsModeOf, listeners
from authz.envoy.messages import as_json
from authz.envoy.naming import provider_cluster
from authz.envoy.native.listener_parts import complete
from authz.envoy.options import CONTROL_CLUSTER, Listeners, Records, RenderOptions, log_file
from authz.envoy.patches.proxy_resources import ProxyResources, plain_resources
from authz.envoy.rate_limit_filters import global_limits
from authz.envoy.route_tables import route_tables
from authz.mesh.nouns import Mesh, MeshWorkload

DEFAULTS = RenderOptions()
KeyTexts = Mapping[str, str]
"""Texts of key sets by ``JwtRule.keys_from``."""


def permissive(_workload: MeshWorkload, _port: int) -> MtlsMode:
    """Answer the mode that holds where nothing is configured (PA-3)."""
    return MtlsMode.PERMISSIVE


@dataclass(frozen=True, slots=True)
class Native:
    """The material of filters, for workloads whose Envoys decide by themselves."""

    engine: PoliciesByWorkload
    key_sets: KeyTexts = field(default_factory=dict)


def completed(
    content: dict[str, Any], workload: MeshWorkload, options: RenderOptions, native: Native | None
) -> dict[str, Any]:
    """A listener with what belongs to the policies, where the workload's own Envoy decides."""
    if options.is_native(workload):
        assert native is not None, "whoever renders for native enforcement gives the policies"
        complete(
            content,
            workload.name,
            workload.workload,
            native.engine,
            gateway=workload.is_gateway,
            log_path=log_file(workload.name),
            query_values=options.query_values,
            cluster_of=provider_cluster,
            is_limited=bool(global_limits(workload)),
            receiver=CONTROL_CLUSTER if options.records is Records.CONTROL else "",
        )
    return content


def extension_problems(
    mesh: Mesh, mode_of: MtlsModeOf = permissive, options: RenderOptions = DEFAULTS, native: Native | None = None
) -> tuple[Problem, ...]:
    """
    What is wrong with the extensions of a mesh, and what has to be known of them.

    With an error among them, rendering raises LoadError with all of them.
    """
    return extended_of(mesh, lambda workload: proxy_parts(mesh, workload, mode_of, options, native))[1]


def shown_to_envoy(
    mesh: Mesh,
    mode_of: MtlsModeOf = permissive,
    options: RenderOptions = DEFAULTS,
    native: Native | None = None,
    count: int | None = None,
) -> dict[str, dict[str, Any]]:
    """
    The whole configurations of the proxies that extensions concern, for ``envoy --mode validate``.

    Args:
        count: with the first so many patches only; None: with all.
    """
    # By itself no such proxy knows the control plane.
    options = replace(options, listeners=Listeners.STATIC, records=Records.FILE)
    extensions = Extensions.of(mesh)
    found, _ = extended_of(mesh, lambda workload: proxy_parts(mesh, workload, mode_of, options, native), count)
    return {
        workload.name: static_bootstrap(mesh, workload, mode_of, options, native, found)
        for workload in mesh.workloads
        if extensions.concern(mesh, workload)
    }


def extended_resources(
    mesh: Mesh,
    mode_of: MtlsModeOf,
    options: RenderOptions,
    native: Native | None,
    only: MeshWorkload | None = None,
) -> Mapping[str, ProxyResources]:
    """The resources of the workloads that extensions concern, or of one of them. Raises LoadError."""
    found, problems = extended_of(
        mesh, lambda workload: proxy_parts(mesh, workload, mode_of, options, native), only=only
    )
    demand(problems)
    return found


def proxy_parts(
    mesh: Mesh, workload: MeshWorkload, mode_of: MtlsModeOf, options: RenderOptions, native: Native | None
) -> ProxyResources:
    """The resources of a workload without extensions, in the form in which they are patched."""
    is_dynamic = options.listeners is not Listeners.STATIC
    found = [as_json(one) for one in listeners(mesh, workload, mode_of, options)]
    return plain_resources(
        [completed(one, workload, options, native) for one in found],
        [as_json(one) for one in clusters(mesh, workload, options)],
        [as_json(one) for one in route_tables(mesh, workload)] if is_dynamic else [],
    )


def static_bootstrap(
    mesh: Mesh,
    workload: MeshWorkload,
    mode_of: MtlsModeOf,
    options: RenderOptions,
    native: Native | None = None,
    extended: Mapping[str, ProxyResources] | None = None,
) -> dict[str, Any]:
    """
    The whole configuration of a proxy in one message, as ``envoy --mode validate`` can look at it.

    Args:
        extended: as ``render_listeners`` takes it.
    """
    options = replace(options, listeners=Listeners.STATIC)
    found = listeners(mesh, workload, mode_of, options)
    made: dict[str, Any] = as_json(bootstrap(mesh, workload, found, options))
    for listener in made["static_resources"].get("listeners", ()):
        completed(listener, workload, options, native)
    extended = extended_resources(mesh, mode_of, options, native) if extended is None else extended
    if workload.name in extended:
        _put_static(made["static_resources"], extended[workload.name], len(found))
    return made


def _put_static(static: dict[str, Any], resources: ProxyResources, rendered: int) -> None:
    """Put extended resources in the place of the last listeners and clusters of a bootstrap."""
    own = static.get("listeners", [])
    static["listeners"] = [*own[: len(own) - rendered], *resources.listeners]
    names = {cluster["name"] for cluster in static.get("clusters", ())} & resources.rendered
    static["clusters"] = [one for one in static["clusters"] if one["name"] not in names] + resources.clusters

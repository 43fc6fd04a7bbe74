"""The filters of a mesh rendered again and again: only those of workloads whose rules or keys changed are made anew."""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field

from authz.envoy.options import RenderOptions
from authz.envoy.proxy_parts import Native
from authz.envoy.render import render_filters
from authz.mesh.nouns import Mesh, MeshWorkload

_Filters = tuple[Hashable, dict[str, bytes]]
"""The files of a workload, behind what these were made of."""


@dataclass(slots=True)
class FilterRendering:
    """
    The filters of every proxy that decides by itself, as they were last rendered.

    The content of an unchanged file is the very object of before.
    """

    _around: object = None
    """What every proxy's filters are made of: settings of the mesh, and key sets."""
    _made: dict[str, _Filters] = field(default_factory=dict)

    def render(self, mesh: Mesh, options: RenderOptions, native: Native) -> dict[str, bytes]:
        """Render what differs from last time."""
        around = (mesh.config, dict(native.key_sets))
        known = self._made if around == self._around else {}
        self._around, self._made = around, {}
        files: dict[str, bytes] = {}
        for workload in mesh.workloads:
            if options.is_native(workload):
                self._made[workload.name] = _rendered(mesh, workload, native, known.get(workload.name))
                files |= self._made[workload.name][1]
        return files

    def render_some(
        self, mesh: Mesh, workloads: Iterable[MeshWorkload], options: RenderOptions, native: Native
    ) -> dict[str, bytes]:
        """
        The filters of some workloads, where nothing but policies and token rules differs from what was last rendered.

        Others have what they had. Which workloads, that is for the caller to know.
        """
        files: dict[str, bytes] = {}
        for workload in workloads:
            if options.is_native(workload):
                self._made[workload.name] = _rendered(mesh, workload, native, self._made.get(workload.name))
                files |= self._made[workload.name][1]
        return files


def _rendered(mesh: Mesh, workload: MeshWorkload, native: Native, before: _Filters | None) -> _Filters:
    rules = native.engine.digests_for(workload.workload)
    needs = (rules, workload.workload, workload.is_gateway, workload.speaks_http)
    if before is None or before[0] != needs or not rules:  # policies that were not read from text have no digests
        return needs, render_filters(mesh, workload, native)
    return needs, before[1]

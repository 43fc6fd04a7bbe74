"""The filters of a mesh rendered again and again: only those of workloads whose rules or keys changed are made anew."""

from collections.abc import Hashable
from dataclasses import dataclass, field

from authz.envoy.options import RenderOptions
from authz.envoy.proxy_parts import Native
from authz.envoy.render import render_filters
from authz.mesh.nouns import Mesh


@dataclass(slots=True)
class FilterRendering:
    """
    The filters of every proxy that decides by itself, as they were last rendered.

    The content of an unchanged file is the very object of before.
    """

    _around: object = None
    """What every proxy's filters are made of: settings of the mesh, and key sets."""
    _made: dict[str, tuple[Hashable, dict[str, bytes]]] = field(default_factory=dict)
    """Files by workload, and what these were made of."""

    def render(self, mesh: Mesh, options: RenderOptions, native: Native) -> dict[str, bytes]:
        """Render what differs from last time."""
        around = (mesh.config, dict(native.key_sets))
        known = self._made if around == self._around else {}
        self._around, self._made = around, {}
        files: dict[str, bytes] = {}
        for workload in mesh.workloads:
            if not options.is_native(workload):
                continue
            rules = native.engine.digests_for(workload.workload)
            needs = (rules, workload.workload, workload.is_gateway, workload.speaks_http)
            before, made = known.get(workload.name, (None, {}))
            if before != needs or not rules:  # policies that were not read from text have no digests
                made = render_filters(mesh, workload, native)
            self._made[workload.name] = needs, made
            files |= made
        return files

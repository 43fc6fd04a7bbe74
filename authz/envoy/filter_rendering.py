"""The filters of a mesh rendered again and again: only those of workloads whose rules or keys changed are made anew."""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field

from authz.envoy.options import RenderOptions
from authz.envoy.proxy_parts import Native
from authz.envoy.render import filter_contents, filter_files
from authz.mesh.nouns import Mesh, MeshWorkload

_Filters = tuple[Hashable, dict[str, bytes]]
"""The files of a workload, behind what these were made of."""


@dataclass(slots=True)
class FilterRendering:
    """
    The filters of every proxy that decides by itself, as they were last rendered.

    The content of an unchanged file is the very object of before, and one object for all proxies whose policies came to
    be the same at the same time.
    """

    _around: object = None
    """What every proxy's filters are made of: settings of the mesh, and key sets."""
    _made: dict[str, _Filters] = field(default_factory=dict)

    def render(self, mesh: Mesh, options: RenderOptions, native: Native) -> dict[str, bytes]:
        """Render what differs from last time."""
        around = (mesh.config, dict(native.key_sets))
        known = self._made if around == self._around else {}
        self._around, self._made = around, {}
        return self._rendered(mesh, mesh.workloads, known, options, native)

    def render_some(
        self, mesh: Mesh, workloads: Iterable[MeshWorkload], options: RenderOptions, native: Native
    ) -> dict[str, bytes]:
        """
        The filters of some workloads, where nothing but policies and token rules differs from what was last rendered.

        Others have what they had. Which workloads, that is for the caller to know.
        """
        return self._rendered(mesh, workloads, self._made, options, native)

    def _rendered(
        self,
        mesh: Mesh,
        workloads: Iterable[MeshWorkload],
        known: Mapping[str, _Filters],
        options: RenderOptions,
        native: Native,
    ) -> dict[str, bytes]:
        files: dict[str, bytes] = {}
        made: dict[Hashable, tuple[bytes, ...]] = {}
        for workload in workloads:
            if not options.is_native(workload):
                continue
            rules = native.engine.digests_for(workload.workload)
            needs = (rules, workload.is_gateway, workload.speaks_http)
            before = known.get(workload.name)
            if before is not None and before[0] == needs and rules:
                self._made[workload.name] = before
            else:
                contents = made.get(needs) if rules else None  # policies that were not read from text have no digests
                if contents is None:
                    contents = made[needs] = filter_contents(mesh, workload, native)
                if before is not None and len(before[1]) == len(contents):  # the slots are those of before
                    renewed = dict(zip(before[1], contents, strict=True))
                else:
                    renewed = filter_files(mesh, workload, contents)
                self._made[workload.name] = needs, renewed
            files |= self._made[workload.name][1]
        return files

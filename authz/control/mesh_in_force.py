"""
What the proxies of a mesh have, and what it was made of: from there follows whose files a change of policies touches.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from authz.canary.canary_engine import touched_names
from authz.core.resources import MtlsMode
from authz.core.touched import FiledWorkloads
from authz.envoy.listeners import MtlsModeOf
from authz.envoy.native.limits import report
from authz.envoy.options import RenderOptions
from authz.envoy.render import Native, listener_rules
from authz.mesh.nouns import Mesh, MeshWorkload

Some = tuple[MeshWorkload, ...]


@dataclass(frozen=True, slots=True)
class MeshInForce:
    """One rendering of the whole mesh, or of some of its proxies after it, that everybody has."""

    mesh: Mesh
    given: RenderOptions
    """As the operator wants it."""
    options: RenderOptions
    """Those, with the workloads that are kept with the check."""
    kept: Mapping[str, tuple[str, ...]]
    """Why, by name."""
    native: Native
    filed: FiledWorkloads

    def touched(self, mesh: Mesh, given: RenderOptions, native: Native) -> Some | None:
        """
        The workloads whose files new policies may change; None: any, or more than that.

        Everything is looked at where the description, the key sets, or what must be asked of the check has changed.
        """
        if mesh is not self.mesh or given != self.given or native.key_sets != self.native.key_sets:
            return None
        found = touched_names(self.native.engine, native.engine, self.filed)
        if found is None:
            return None
        some = tuple(mesh.workload(name) for name in sorted(found))
        known: dict[tuple[bytes, ...], tuple[str, ...]] = {}
        is_as_it_was = all(self._reasons(one, native, known) == self.kept.get(one.name, ()) for one in some)
        return some if is_as_it_was else None

    def _reasons(
        self, workload: MeshWorkload, native: Native, known: dict[tuple[bytes, ...], tuple[str, ...]]
    ) -> tuple[str, ...]:
        """As ``keep_check`` finds them; ``known`` are those of other workloads by the digests of what they have."""
        if not self.given.is_native(workload):
            return ()
        digests = native.engine.digests_for(workload.workload)
        found = known.get(digests) if digests else None
        if found is None:
            has_evidence = self.given.include_peer_certificate
            found = known[digests] = report(native.engine, workload.workload, has_evidence=has_evidence).reasons
        return found


@dataclass(frozen=True, slots=True)
class ListenerShape:
    """All that the listeners of a workload take from policies."""

    modes: tuple[tuple[int, MtlsMode], ...]
    rest: str
    """Network filters and what the access log must show, as text."""


def shape(workload: MeshWorkload, mode_of: MtlsModeOf, native: Native, options: RenderOptions) -> ListenerShape:
    """The shape of one workload."""
    modes = tuple((port.number, mode_of(workload, port.number)) for port in workload.inbound)
    return ListenerShape(modes, listener_rules(workload, native) if options.is_native(workload) else "check")

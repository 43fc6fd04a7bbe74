"""Which workloads can have a candidate in force: those whose own Envoy decides, by these policies and by those."""

from collections.abc import Iterable

from authz.core.policies_by_workload import PoliciesByWorkload
from authz.envoy.native.limits import report
from authz.envoy.options import RenderOptions
from authz.mesh.nouns import MeshWorkload


def decides(workload: MeshWorkload, base: PoliciesByWorkload, options: RenderOptions) -> bool:
    """Whether its own Envoy decides by the policies in force."""
    if not options.is_native(workload):
        return False
    return report(base, workload.workload, has_evidence=options.include_peer_certificate).is_native


def undecidable(candidate: PoliciesByWorkload, chosen: Iterable[MeshWorkload], options: RenderOptions) -> str:
    """Why an Envoy of those that are chosen could not decide by the candidate; empty when all can."""
    for workload in chosen:
        found = report(candidate, workload.workload, has_evidence=options.include_peer_certificate)
        if not found.is_native:
            return f"`{workload.name}` cannot decide it by itself: {'; '.join(found.reasons)}"
    return ""

"""Secure naming: which identities may answer for a workload."""

from authz.mesh.nouns import Mesh, MeshWorkload


def identities(mesh: Mesh, workload: MeshWorkload) -> list[str]:
    """A workload's SPIFFE ID in every trust domain that the mesh goes by (AP-27, PA-13)."""
    path = workload.spiffe_id.path
    return [f"spiffe://{trust_domain}{path}" for trust_domain in mesh.config.trust_domains]

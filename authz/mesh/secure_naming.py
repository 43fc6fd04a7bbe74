"""Secure naming: which identities may answer for a workload, or at a written endpoint."""

from collections.abc import Mapping

from authz.core.spiffe import SpiffeId
from authz.mesh.nouns import Mesh, MeshService, MeshWorkload


def identities(mesh: Mesh, workload: MeshWorkload) -> list[str]:
    """A workload's SPIFFE ID in every trust domain that the mesh goes by (AP-27, PA-13)."""
    path = workload.spiffe_id.path
    return [f"spiffe://{trust_domain}{path}" for trust_domain in mesh.config.trust_domains]


def endpoint_identities(mesh: Mesh, service: MeshService, labels: Mapping[str, str]) -> list[str]:
    """SPIFFE IDs of the written endpoints of a service that have these labels, in every trust domain."""
    accounts = {
        endpoint.service_account
        for endpoints in service.endpoints.values()
        for endpoint in endpoints
        if endpoint.service_account and labels.items() <= endpoint.labels.items()
    }
    return [
        str(SpiffeId.for_workload(trust_domain, service.namespace, account))
        for account in sorted(accounts)
        for trust_domain in mesh.config.trust_domains
    ]

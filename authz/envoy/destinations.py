"""
What one proxy calls behind a service port: the whole of it, and each subset of the DestinationRule that it heeds.

Every destination is a cluster and a file of endpoints, by name.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from authz.envoy import naming
from authz.mesh.nouns import Mesh, MeshService, MeshWorkload, ServicePort
from authz.mesh.secure_naming import endpoint_identities, identities
from authz.mesh.traffic_policy import ClientTlsMode, DestinationRule, Subset, TrafficPolicy

_NOTHING = TrafficPolicy()


@dataclass(frozen=True, slots=True)
class Callee:
    """A service port, or a subset of it, as one proxy is to speak to it."""

    service: MeshService
    port: ServicePort
    policy: TrafficPolicy = _NOTHING
    rule: DestinationRule | None = None
    subset: Subset | None = None

    @property
    def cluster(self) -> str:
        """Istio's name of the cluster."""
        return naming.subset_cluster(self.service.host, self.port.number, self.subset_name)

    @property
    def subset_name(self) -> str:
        """Name of the subset; empty for the whole."""
        return self.subset.name if self.subset else ""

    @property
    def labels(self) -> Mapping[str, str]:
        """Labels that an endpoint must have, beside being behind the service."""
        return self.subset.labels if self.subset else {}

    @property
    def endpoints(self) -> str:
        """Name of the file of endpoints for proxies wherever they run."""
        whole = naming.service_endpoints(self.service, self.port)
        if self.subset is None or self.rule is None:
            return whole
        rule = self.rule
        # Two rules for one host may mean different workloads by the same name.
        is_services = rule.namespace == self.service.namespace and not rule.export_to and rule.selector is None
        return f"{whole}_{self.subset.name}" + ("" if is_services else f"@{rule.namespace}.{rule.name}")

    def endpoints_for(self, workload: MeshWorkload) -> str:
        """Name of the file of endpoints as this workload's proxy alone takes them, by where it runs."""
        return f"{workload.name}~{self.endpoints}"

    @property
    def sni(self) -> str:
        """Istio's server name between proxies."""
        return f"outbound_.{self.port.number}_.{self.subset_name}_.{self.service.host}"


def destinations(mesh: Mesh, workload: MeshWorkload, service: MeshService, port: ServicePort) -> Iterator[Callee]:
    """The whole of a service port first, then its subsets in the order of the rule."""
    rule = mesh.rule_for(workload, service)
    if rule is None:
        yield Callee(service, port)
        return
    yield Callee(service, port, rule.policy_for(port.number), rule)
    for subset in rule.subsets:
        yield Callee(service, port, rule.policy_for(port.number, subset), rule, subset)


def workloads_behind(mesh: Mesh, destination: Callee) -> tuple[MeshWorkload, ...]:
    """The workloads of a destination inside the mesh."""
    wanted = destination.labels.items()
    return tuple(w for w in mesh.workloads_of(destination.service) if wanted <= w.labels.items())


def identities_behind(mesh: Mesh, destination: Callee) -> list[str]:
    """
    Whom a proxy may find there: secure naming (XA-2), narrowed where the rule narrows it.

    Never empty: a subset without workloads has the identities of its service, so that whoever comes there later and is
    somebody else is refused.
    """
    service = destination.service
    workloads, written = workloads_behind(mesh, destination), endpoint_identities(mesh, service, destination.labels)
    if not workloads and not written:
        workloads, written = mesh.workloads_of(service), endpoint_identities(mesh, service, {})
    known = {identity for workload in workloads for identity in identities(mesh, workload)}
    found = sorted({*known, *written, *service.subject_alt_names}) or [f"spiffe://{mesh.config.trust_domain}/nobody"]
    tls = destination.policy.tls
    if tls is None or tls.mode is not ClientTlsMode.ISTIO_MUTUAL or not tls.subject_alt_names:
        return found
    # Where the narrower names are of nobody here, they stay, and nobody is spoken to.
    return [identity for identity in found if identity in tls.subject_alt_names] or list(tls.subject_alt_names)

"""The reader of WorkloadEntry: a workload's address, identity, labels and ports."""

from authz.documents.accessors import Part
from authz.mesh.kind_parts import (
    COMPOSE_ADDRESS,
    COMPOSE_APP,
    ENFORCE,
    read_compose_address,
    read_enforce,
    read_ip,
    read_metadata,
    read_service_account,
    read_spec,
)
from authz.mesh.locality_values import WorkloadLocality
from authz.mesh.mesh_documents import Written
from authz.mesh.nouns import Enforce, MeshWorkload
from authz.mesh.probes import Probe
from authz.mesh.quantities import read_whole
from authz.mesh.traffic_entry_fields import FIELDS
from authz.mesh.value_parts import only_fields

GROUP = "istio.io/autoRegistrationGroup"
"""Istio's annotation with the name of the WorkloadGroup by which it registered a WorkloadEntry."""


def read_workload_entry(part: Part, written: Written) -> None:
    """A workload: address, identity, labels, ports."""
    name, namespace, annotations = read_metadata(part, COMPOSE_ADDRESS, COMPOSE_APP, ENFORCE)
    spec = read_spec(part)
    only_fields(spec, FIELDS["WorkloadEntry"])
    address = read_ip(spec, "address")
    workload = read_entry(
        spec,
        name,
        namespace,
        address=address,
        compose_address=read_compose_address(annotations, address),
        enforce=read_enforce(annotations),
        group=annotations.text(GROUP) if annotations else "",
    )
    written.workloads.append((workload, part))


def read_entry(
    spec: Part,
    name: str,
    namespace: str,
    *,
    address: str,
    compose_address: str = "",
    enforce: Enforce | None = None,
    group: str = "",
    extra_labels: dict[str, str] | None = None,
    probe: Probe | None = None,
) -> MeshWorkload:
    """What a WorkloadEntry and the template of a WorkloadGroup have in common."""
    ports = spec.part("ports")
    return MeshWorkload(
        name=name,
        namespace=namespace,
        service_account=spec.text("serviceAccount", "default"),
        spiffe_id=read_service_account(spec, namespace),
        labels={**spec.strings("labels"), **(extra_labels or {})},
        address=address,
        compose_address=compose_address,
        ports={key: ports.port(key) for key in ports.node.entries} if ports else {},
        enforce=enforce,
        locality=WorkloadLocality.from_text(spec.text("locality")),
        weight=read_whole(spec, "weight") or 0,
        network=spec.text("network"),
        group=group,
        probe=probe,
        location=spec.location,
    )

"""WorkloadGroups put into the WorkloadEntries that name them."""

from dataclasses import replace

from authz.documents.accessors import Part
from authz.mesh.mesh_documents import Written, WrittenGroup
from authz.mesh.nouns import MeshWorkload, Protocol
from authz.mesh.probes import ProbeKind
from authz.mesh.read_workload_entry import GROUP


def with_groups(written: Written) -> list[tuple[MeshWorkload, Part]]:
    """
    Every workload with what its group adds.

    What an entry says itself counts; labels are joined, those of the entry first, then those of the group's metadata,
    then those of its template, as when Istio registers an entry by a group.
    """
    groups: dict[tuple[str, str], WrittenGroup] = {}
    for group in written.groups:
        key = (group.template.namespace, group.name)
        other = groups.setdefault(key, group)
        if other is not group and group.name:
            message = f"the WorkloadGroup `{'/'.join(key)}` is given twice, first at {other.part.location}"
            group.part.note("ME-5", message)
    found = []
    for workload, part in written.workloads:
        named = groups.get((workload.namespace, workload.group)) if workload.group else None
        if workload.group and named is None:
            metadata = part.part("metadata")
            at = metadata.part("annotations") if metadata else None
            message = f"no WorkloadGroup of `{workload.namespace}` is called `{workload.group}`"
            (at or part).note("ME-4", message, GROUP, "describe the group, or leave the annotation out")
        found.append((_joined(workload, named, part.part("spec") or part) if named else workload, part))
    return found


def check_probes(workloads: list[tuple[MeshWorkload, Part]]) -> None:
    """Note probes that a proxy cannot make of the application beside it."""
    for workload, part in workloads:
        if workload.probe is None or workload.probe.kind is not ProbeKind.GRPC:
            continue
        for port in workload.inbound:
            if port.protocol not in (Protocol.GRPC, Protocol.HTTP2):
                message = f"the port {port.number} speaks {port.protocol}, and its health is asked by gRPC"
                help_text = "write `protocol: GRPC` in the Sidecar, or another probe"
                part.note("ME-6", message, "", help_text)


def _joined(workload: MeshWorkload, group: WrittenGroup, spec: Part) -> MeshWorkload:
    template = group.template

    def is_from_group(field: str) -> bool:
        return field in group.given and not spec.has(field)

    made = replace(workload, labels={**template.labels, **workload.labels}, probe=template.probe)
    if is_from_group("serviceAccount"):
        made = replace(made, service_account=template.service_account, spiffe_id=template.spiffe_id)
    if is_from_group("ports"):
        made = replace(made, ports=template.ports)
    if is_from_group("network"):
        made = replace(made, network=template.network)
    if is_from_group("locality"):
        made = replace(made, locality=template.locality)
    if is_from_group("weight"):
        made = replace(made, weight=template.weight)
    return made

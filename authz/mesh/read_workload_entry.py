"""The reader of WorkloadEntry: a workload's address, identity, labels and ports."""

from authz.core.spiffe import SpiffeId
from authz.documents.accessors import Part
from authz.mesh.kind_parts import (
    COMPOSE_ADDRESS,
    COMPOSE_APP,
    ENFORCE,
    read_compose_address,
    read_enforce,
    read_ip,
    read_metadata,
    read_spec,
)
from authz.mesh.locality_values import WorkloadLocality
from authz.mesh.mesh_documents import Written
from authz.mesh.nouns import MeshWorkload


def read_workload_entry(part: Part, written: Written) -> None:
    """A workload: address, identity, labels, ports."""
    name, namespace, annotations = read_metadata(part, COMPOSE_ADDRESS, COMPOSE_APP, ENFORCE)
    spec = read_spec(part)
    spec.only("address", "ports", "labels", "serviceAccount", "network", "locality", "weight")
    address = read_ip(spec, "address")
    account = spec.text("serviceAccount", "default")
    identity = _identity(spec, namespace, account)
    ports = spec.part("ports")
    workload = MeshWorkload(
        name=name,
        namespace=namespace,
        service_account=account,
        spiffe_id=identity,
        labels=spec.strings("labels"),
        address=address,
        compose_address=read_compose_address(annotations, address),
        ports={key: ports.port(key) for key in ports.node.entries} if ports else {},
        enforce=read_enforce(annotations),
        locality=WorkloadLocality.from_text(spec.text("locality")),
        weight=spec.number("weight", 0),
        network=spec.text("network"),
        location=part.location,
    )
    written.workloads.append((workload, part))


def _identity(spec: Part, namespace: str, account: str) -> SpiffeId:
    """The identity in the default trust domain; linking puts the mesh's own in its place."""
    try:
        found = SpiffeId.for_workload("cluster.local", namespace, account)
    except ValueError as error:
        spec.note("ME-1", str(error), "serviceAccount")
    else:
        if (found.namespace, found.service_account) == (namespace, account):
            return found
        spec.note("ME-1", f"`{account}` in namespace `{namespace}` does not make a SPIFFE ID", "serviceAccount")
    return SpiffeId.for_workload("cluster.local", "default", "default")

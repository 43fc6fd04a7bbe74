"""The parts that documents of several kinds share: metadata, ports, addresses; problems are noted."""

import ipaddress

from authz.core.spiffe import SpiffeId
from authz.documents.accessors import MAX_PORT, Codes, Part
from authz.documents.schema import Notes
from authz.mesh.nouns import Address, Enforce, Protocol
from authz.mesh.traffic_entry_fields import FIELDS
from authz.mesh.value_parts import is_label, only_fields

CODES = Codes(shape="ME-1", unknown="ME-2", missing="ME-3")
"""Besides: ``ME-4`` a name that leads nowhere, ``ME-5`` a clash between two documents, ``ME-6`` not done here."""
COMPOSE_ADDRESS = "mesh.authz/compose-address"
COMPOSE_APP = "mesh.authz/compose-app"
ENFORCE = "mesh.authz/enforce"
_NETWORKING = tuple(f"networking.istio.io/{version}" for version in ("v1", "v1beta1", "v1alpha3"))
API_VERSIONS = {
    **dict.fromkeys(("WorkloadEntry", "WorkloadGroup", "ServiceEntry", "Sidecar"), _NETWORKING),
    **dict.fromkeys(("Gateway", "VirtualService", "DestinationRule"), _NETWORKING),
    "EnvoyFilter": ("networking.istio.io/v1alpha3",),
    "WasmPlugin": ("extensions.istio.io/v1alpha1",),
    "Telemetry": ("telemetry.istio.io/v1", "telemetry.istio.io/v1alpha1"),
    "BackendTrafficPolicy": ("gateway.envoyproxy.io/v1alpha1",),
}
"""The groups and versions in which Istio serves each kind; they differ in nothing."""
_BYTES = {"MONGO": "TCP", "REDIS": "TCP", "MYSQL": "TCP"}
"""Istio's names for what is forwarded as bytes here."""


def read_metadata(part: Part, *annotations: str) -> tuple[str, str, Part | None]:
    """Name, namespace and annotations; of our own only the given ones exist, others are left alone."""
    part.only("apiVersion", "kind", "metadata", "spec", "status")  # an export of a cluster holds `status`
    _check_version(part)
    metadata = part.part("metadata")
    if metadata is None:
        return "", "default", None
    found = metadata.part("annotations")
    if found:
        for key in found.node.keys:
            if key.value.startswith("mesh.authz/") and key.value not in annotations:
                known = ", ".join(f"`{name}`" for name in annotations) or "none"
                found.note("ME-2", f"unknown annotation `{key.value}`", key.value, f"understood here: {known}", key)
    return _read_name(metadata), _read_namespace(metadata), found


def read_created(part: Part) -> str:
    """``metadata.creationTimestamp`` of YAML that came from a cluster; empty in what people write, which is first."""
    metadata = part.part("metadata")
    return metadata.text("creationTimestamp") if metadata else ""


def _check_version(part: Part) -> None:
    """Every version that Istio serves of a kind means the same; one that it has not is of something else."""
    written, kind = part.text("apiVersion"), part.text("kind")
    known = API_VERSIONS.get(kind, ())
    if written and written not in known:
        part.note("ME-1", f"`{written}` has no {kind} that is read here", "apiVersion", f"write {' or '.join(known)}")


def _read_name(metadata: Part) -> str:
    """A name as Kubernetes has them: it becomes part of names of files, clusters and listeners."""
    written = metadata.text("name", required=True)
    if written and not (len(written) <= 253 and all(map(is_label, written.split(".")))):
        metadata.note("ME-1", f"`{written}` is not a name", "name", "write a-z, 0-9, `-` and `.`")
        return ""
    return written


def _read_namespace(metadata: Part) -> str:
    written = metadata.text("namespace", "default")
    if not is_label(written):
        metadata.note("ME-1", f"`{written}` is not a namespace", "namespace", "write a-z, 0-9 and `-`")
        return "default"
    return written


def read_spec(part: Part) -> Part:
    """The spec; an empty one, and a problem noted, where there is none."""
    found = part.part("spec", required=True)
    if found is not None:
        return found
    empty = type(part.node)({}, [], part.node.line, part.node.column)
    return Part(empty, "spec", Notes(part.notes.document, []), part.codes)


def read_listener_port(listener: Part) -> tuple[int, str, Protocol]:
    """Number, name and protocol of the port of a listener of a Sidecar."""
    check_capture_mode(listener)
    port = listener.part("port", required=True)
    if port is None:
        return 0, "", Protocol.HTTP
    only_fields(port, FIELDS["SidecarPort"])
    return port.port("number", required=True), port.text("name"), read_protocol(port)


def check_capture_mode(listener: Part) -> None:
    """Note a listener that is to be given what an application sends to others."""
    if listener.text("captureMode", "NONE") != "NONE":
        help_text = "write `captureMode: NONE` or leave it out"
        listener.note("ME-6", "traffic is not captured here", "captureMode", help_text)


def read_protocol(port: Part) -> Protocol:
    """The protocol of a port; HTTP, and a problem noted, where it is not one that is done here."""
    written = port.text("protocol", "HTTP").upper()
    try:
        return Protocol(_BYTES.get(written, written))
    except ValueError:
        port.note(
            "ME-6", f"the protocol `{written}` is not supported here", "protocol", f"one of {', '.join(Protocol)}"
        )
        return Protocol.HTTP


def read_export_to(spec: Part, namespace: str) -> tuple[str, ...]:
    """Namespaces by ``exportTo``, ``.`` as the document's own; empty: all of them. ``~`` is nobody's name."""
    found = []
    for i, one in enumerate(spec.texts("exportTo")):
        if one not in (".", "*", "~") and not is_label(one):
            help_text = "a namespace, `.` for its own, `*` for all"
            spec.note("ME-1", f"`{one}` is not a namespace", f"exportTo[{i}]", help_text)
        found.append(namespace if one == "." else one)
    return tuple(found)


def read_service_account(part: Part, namespace: str, field: str = "serviceAccount") -> SpiffeId:
    """
    The identity of an account in the default trust domain; linking puts the mesh's own in its place.

    Where none can be made of it, that is noted.
    """
    account = part.text(field, "default")
    try:
        found = SpiffeId.for_workload("cluster.local", namespace, account)
    except ValueError as error:
        part.note("ME-1", str(error), field)
    else:
        if (found.namespace, found.service_account) == (namespace, account):
            return found
        part.note("ME-1", f"`{account}` in namespace `{namespace}` does not make a SPIFFE ID", field)
    return SpiffeId.for_workload("cluster.local", "default", "default")


def read_ip(part: Part, name: str) -> str:
    """An IP address; a loopback one, and a problem noted, where it is not one."""
    written = part.text(name, required=True)
    try:
        return str(ipaddress.ip_address(written))
    except ValueError:
        if part.has(name):
            part.note("ME-1", f"`{written}` is not an IP address", name, "endpoint files hold addresses, not names")
        return "127.0.0.1"


def read_compose_address(annotations: Part | None, default: str) -> str:
    """The address among containers, where an annotation gives one."""
    return read_ip(annotations, COMPOSE_ADDRESS) if annotations and annotations.has(COMPOSE_ADDRESS) else default


def read_enforce(annotations: Part | None) -> Enforce | None:
    """Who enforces this workload's policies; None without an annotation, and, with a problem noted, for a wrong one."""
    if annotations is None or not annotations.has(ENFORCE):
        return None
    written = annotations.text(ENFORCE)
    try:
        return Enforce(written)
    except ValueError:
        annotations.note(
            "ME-1", f"`{written}` is not a way to enforce policies", ENFORCE, f"one of {', '.join(Enforce)}"
        )
        return None


def compose_app(part: Part) -> Address | None:
    """The annotation ``mesh.authz/compose-app`` of a WorkloadEntry."""
    metadata = part.part("metadata")
    annotations = metadata.part("annotations") if metadata else None
    if annotations is None or not annotations.has(COMPOSE_APP):
        return None
    return read_host_port(annotations, COMPOSE_APP, annotations.text(COMPOSE_APP))


def read_host_port(part: Part, name: str, written: str) -> Address:
    """``host:port``; a problem is noted where it is not that."""
    host, _, port = written.rpartition(":")
    try:
        address = str(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        address = ""
    if address and port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) <= MAX_PORT:
        return Address(address, int(port))
    if written:
        part.note("ME-1", f"`{written}` is not an address and a port", name, "write for instance 127.0.0.1:9080")
    return Address("127.0.0.1", 0)

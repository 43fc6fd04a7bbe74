"""The reader of WorkloadGroup: what its WorkloadEntries have in common, and how their health is seen."""

import re

from authz.documents.accessors import Part
from authz.mesh.kind_parts import read_metadata, read_spec
from authz.mesh.mesh_documents import Written, WrittenGroup
from authz.mesh.probes import Probe, ProbeKind
from authz.mesh.quantities import read_whole
from authz.mesh.read_workload_entry import read_entry
from authz.mesh.traffic_entry_fields import FIELDS
from authz.mesh.value_parts import only_fields

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")
_VISIBLE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,4094}[\x21-\x7e])?|")
_PATH = re.compile(r"/[\x21-\x22\x24-\x7e]{0,2047}")
_OWN = ("", "localhost", "127.0.0.1", "::1")


def read_workload_group(part: Part, written: Written) -> None:
    """What the WorkloadEntries of a group have unless they say something else."""
    name, namespace, _ = read_metadata(part)
    spec = read_spec(part)
    only_fields(spec, FIELDS["WorkloadGroup"])
    metadata = spec.part("metadata")
    if metadata:
        only_fields(metadata, FIELDS["WorkloadGroup.ObjectMeta"])
        metadata.strings("annotations")
    template = spec.part("template", required=True)
    entry = template or spec
    if template:
        only_fields(template, FIELDS["WorkloadEntry"])
        if template.text("address"):
            help_text = "each WorkloadEntry has its own; leave it out"
            template.note("ME-1", "a template has no address", "address", help_text)
    labels = metadata.strings("labels") if metadata else {}
    made = read_entry(entry, name, namespace, address="", extra_labels=labels, group=name, probe=_probe(spec))
    given = frozenset(field for field in FIELDS["WorkloadEntry"] if template and template.has(field))
    written.groups.append(WrittenGroup(name, made, given, part))


def _probe(spec: Part) -> Probe | None:
    probe = spec.part("probe")
    if probe is None:
        return None
    only_fields(probe, FIELDS["ReadinessProbe"])
    chosen = [kind for kind in ProbeKind if probe.has(kind)]
    if len(chosen) != 1:
        if not probe.has("exec"):
            help_text = "write exactly one of httpGet, tcpSocket, grpc"
            probe.note("ME-3" if not chosen else "ME-1", "what is asked of the application?", "", help_text)
        return None
    kind = chosen[0]
    asked = probe.part(kind)
    read_whole(probe, "initialDelaySeconds")
    if asked is None:
        return None
    message = {
        ProbeKind.HTTP: "HTTPHealthCheckConfig",
        ProbeKind.TCP: "TCPHealthCheckConfig",
        ProbeKind.GRPC: "GrpcHealthCheckConfig",
    }[kind]
    only_fields(asked, FIELDS[message])
    port = asked.port("port", required=True)
    if asked.text("host") not in _OWN:
        help_text = "leave it out: the address is that of `defaultEndpoint`"
        asked.note("ME-6", "a proxy asks the application beside it, and nobody else", "host", help_text)
    return Probe(
        kind=kind,
        port=port,
        path=_path(asked) if kind is ProbeKind.HTTP else "/",
        service=_service(asked) if kind is ProbeKind.GRPC else "",
        headers=tuple(_headers(asked)) if kind is ProbeKind.HTTP else (),
        timeout_seconds=_at_least_one(probe, "timeoutSeconds", 1),
        period_seconds=_at_least_one(probe, "periodSeconds", 10),
        success_threshold=_at_least_one(probe, "successThreshold", 1),
        failure_threshold=_at_least_one(probe, "failureThreshold", 3),
    )


def _at_least_one(probe: Part, field: str, default: int) -> int:
    """0 stands for the default, as in Istio."""
    return read_whole(probe, field, most=86_400) or default


def _service(asked: Part) -> str:
    written = asked.text("service")
    if not _VISIBLE.fullmatch(written):
        asked.note("ME-1", "the name of a service has only visible characters", "service")
        return ""
    return written


def _path(asked: Part) -> str:
    written = asked.text("path", "/") or "/"
    written = written if written.startswith("/") else f"/{written}"
    if asked.text("scheme", "HTTP") != "HTTP":
        code = "ME-6" if asked.text("scheme") == "HTTPS" else "ME-1"
        asked.note(
            code, f"`{asked.text('scheme')}` is not done here", "scheme", "the application speaks plaintext: HTTP"
        )
    if not _PATH.fullmatch(written):
        asked.note("ME-1", f"`{written}` is not a path", "path", "for instance /healthz")
        return "/"
    return written


def _headers(asked: Part) -> list[tuple[str, str]]:
    found = []
    for header in asked.parts("httpHeaders"):
        only_fields(header, FIELDS["HTTPHeader"])
        name, value = header.text("name", required=True), header.text("value")
        if name and (not _TOKEN.fullmatch(name) or name.lower() == "host"):
            header.note("ME-1", f"`{name}` is not a header that can be set", "name")
        elif not _VISIBLE.fullmatch(value):
            header.note("ME-1", f"the value of `{name}` has characters that no header has", "value")
        elif name:
            found.append((name, value))
    return found

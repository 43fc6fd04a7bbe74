"""The reader of DestinationRule: how proxies speak to a host, and its subsets."""

import re

from authz.documents.accessors import Part
from authz.mesh.kind_parts import read_created, read_metadata, read_spec
from authz.mesh.mesh_documents import Written
from authz.mesh.read_traffic_policy import read_traffic_policy
from authz.mesh.traffic_fields import FIELDS
from authz.mesh.traffic_policy import DestinationRule, Subset
from authz.mesh.value_parts import only_fields

_HOST = re.compile(r"(\*|(\*-)?[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?)(\.[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?)*")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_LABEL_KEY = re.compile(r"([a-zA-Z0-9.-]{1,253}/)?[a-zA-Z0-9]([-\w.]{0,61}[a-zA-Z0-9])?")
_LABEL_VALUE = re.compile(r"([a-zA-Z0-9]([-\w.]{0,61}[a-zA-Z0-9])?)?")
_PRIVATE, _PUBLIC = ".", "*"
_DOMAIN = "svc.cluster.local"


def read_destination_rule(part: Part, written: Written) -> None:
    """A DestinationRule, its host as a full name."""
    name, namespace, _ = read_metadata(part)
    spec = read_spec(part)
    only_fields(spec, FIELDS["DestinationRule"])
    selector = _selector(spec.part("workloadSelector"))
    rule = DestinationRule(
        name=name,
        namespace=namespace,
        host=_host(spec, namespace),
        policy=read_traffic_policy(spec.part("trafficPolicy")),
        subsets=_subsets(spec),
        export_to=_export_to(spec, namespace, has_selector=selector is not None),
        selector=selector,
        created=read_created(part),
        location=part.location,
    )
    written.destination_rules.append((rule, part))


def _host(spec: Part, namespace: str) -> str:
    """The host; a name without a dot is a service of the rule's own namespace."""
    host = spec.text("host", required=True)
    if spec.has("host") and not (_HOST.fullmatch(host) and len(host) <= 253):
        spec.note("ME-1", f"`{host}` is not a host", "host", "write a name, which may begin with `*.`")
    return host if "." in host or host.startswith("*") or not host else f"{host}.{namespace}.{_DOMAIN}"


def _subsets(spec: Part) -> tuple[Subset, ...]:
    found: dict[str, Subset] = {}
    for part in spec.parts("subsets"):
        only_fields(part, FIELDS["Subset"])
        name, labels = part.text("name", required=True), part.strings("labels")
        if part.has("name") and not _LABEL.fullmatch(name):
            part.note("ME-1", f"`{name}` is not the name of a subset", "name", "write a-z, 0-9 and `-`")
        for key, value in labels.items():
            if not _LABEL_KEY.fullmatch(key) or not _LABEL_VALUE.fullmatch(value):
                part.note("ME-1", f"`{key}: {value}` is not a label", "labels", "no workload can have it")
        subset = Subset(name, labels, read_traffic_policy(part.part("trafficPolicy")), part.location)
        if name in found and name:
            part.note("ME-5", f"the subset `{name}` is given twice, first at {found[name].location}", "name")
        found.setdefault(name, subset)
    return tuple(found.values())


def _selector(part: Part | None) -> dict[str, str] | None:
    if part is None:
        return None
    only_fields(part, FIELDS["WorkloadSelector"])
    labels = part.strings("matchLabels")
    for key, value in labels.items():
        if not key or "*" in key + value:
            part.note("ME-1", f"`{key}: {value}` is not a label", "matchLabels", "write labels as workloads have them")
    return labels


def _export_to(spec: Part, namespace: str, *, has_selector: bool) -> frozenset[str]:
    """Whose proxies heed the rule; a rule for some proxies of a namespace is for nobody elsewhere."""
    written = spec.texts("exportTo")
    named: set[str] = set()
    for name in written:
        field, full = "exportTo", namespace if name == _PRIVATE else name
        if full in named:
            spec.note("ME-5", f"`{name}` is given twice", field, "`.` is the namespace of the rule")
        elif full != _PUBLIC and not _LABEL.fullmatch(full):
            help_text = "write a namespace, `.` for the rule's own, or `*`"
            spec.note("ME-1", f"`{name}` is not a namespace", field, help_text)
        elif has_selector and full != namespace:
            message = "a rule with `workloadSelector` is for its own namespace alone"
            spec.note("ME-1", message, field, "write `.` or leave it out")
        named.add(full)
    if _PUBLIC in named and len(named) > 1:
        spec.note("ME-1", "`*` and a namespace exclude each other", "exportTo", 'write `["*"]` or leave it out')
    return frozenset({_PRIVATE}) if has_selector else frozenset(written)

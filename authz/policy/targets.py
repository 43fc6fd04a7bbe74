"""The parts that resources share: the selector, target references, annotations (VA-1 to VA-4, VA-7)."""

from collections.abc import Mapping
from typing import NamedTuple

from authz.core.resources import DRY_RUN_ANNOTATION, Target, TargetRef
from authz.documents import reading
from authz.documents.decoders import objects, read_text, text, text_map
from authz.documents.reading import Node
from authz.documents.schema import Fault, Field, Notes, Shape, given, key_of, text_of

MAX_LABELS = 4096
MAX_LABEL_VALUE = 63
MAX_TARGET_REFS = 16
_TARGETS = {
    "Service": ("", "core"),
    "ServiceEntry": ("networking.istio.io",),
    "Gateway": ("gateway.networking.k8s.io",),
    "GatewayClass": ("gateway.networking.k8s.io",),
}
_NO_TEXT: Mapping[str, str] = {}


# --- selector --------------------------------------------------------------------------------------------------------


def _label(key: str, value: str) -> Fault | None:
    """Check one label of a selector (VA-3)."""
    if not key:
        return Fault("VA-3", "a label with an empty name")
    if "*" in key or "*" in value:
        return Fault("VA-3", f"`{key}: {value}` has a star; labels are compared exactly", "name the label's value")
    if len(value) > MAX_LABEL_VALUE:
        return Fault("VA-3", f"a label's value has at most {MAX_LABEL_VALUE} characters, got {len(value)}")
    return None


def _check_selector(node: reading.Mapping, notes: Notes) -> None:
    labels = given(node, "matchLabels")
    if labels is None or (isinstance(labels, reading.Mapping) and not labels.entries):
        notes.warn("VA-2", node, "the selector has no labels, so it selects everything", "remove it if that is meant")
    elif isinstance(labels, reading.Mapping) and len(labels.entries) > MAX_LABELS:
        notes.error("VA-3", labels, f"has {len(labels.entries)} labels, at most {MAX_LABELS} are allowed")


def _match_labels(match_labels: Mapping[str, str] = _NO_TEXT) -> Mapping[str, str]:
    return match_labels


SELECTOR = Shape(
    "a selector",
    {"matchLabels": Field("match_labels", text_map(_label))},
    _match_labels,
    _check_selector,
    negation="a selector only names labels; write one policy for each group of workloads that is meant",
)


# --- targets ---------------------------------------------------------------------------------------------------------


MAX_TARGET_NAME = 253


def _target_name(value: str) -> Fault | None:
    if len(value.encode("utf-8", "surrogatepass")) > MAX_TARGET_NAME:
        return Fault("VA-4", f"the name of a target has at most {MAX_TARGET_NAME} bytes")
    return None


class _TargetRef(NamedTuple):
    """``namespace`` must be empty and is dropped (VA-4)."""

    kind: str = ""
    name: str = ""
    group: str = ""
    namespace: str = ""


def _check_target_ref(node: reading.Mapping, notes: Notes) -> None:
    if not text_of(given(node, "name")):
        notes.error("VA-4", given(node, "name") or node, "a target without a name")
    namespace = given(node, "namespace")
    if text_of(namespace):
        notes.error("VA-4", namespace or node, "a target in another namespace is not allowed", "remove `namespace`")
    kind, group = text_of(given(node, "kind")) or "", text_of(given(node, "group")) or ""
    if group not in _TARGETS.get(kind, ()):
        known = ", ".join(f"{k} ({g[-1]})" for k, g in _TARGETS.items())
        notes.error("VA-4", node, f"`{kind}` of the group `{group}` is not a target", f"expected one of {known}")


_TARGET_REF = Shape(
    "a target reference",
    {
        "name": Field("name", text(_target_name)),
        **{name: Field(name, read_text) for name in ("group", "kind", "namespace")},
    },
    _TargetRef,
    _check_target_ref,
)
TARGET_FIELDS = {
    "selector": Field("selector", SELECTOR.decode),
    "targetRef": Field("target_ref", _TARGET_REF.decode),
    "targetRefs": Field("target_refs", objects(_TARGET_REF, most=MAX_TARGET_REFS, most_code="VA-4")),
}
"""The fields that AuthorizationPolicy and RequestAuthentication share."""


def check_target(node: reading.Mapping, notes: Notes) -> None:
    """VA-1: by presence, as the CRD's rule has it; even an empty `targetRefs` counts beside another."""
    ways = [name for name in ("selector", "targetRef", "targetRefs") if given(node, name) is not None]
    if len(ways) > 1:
        names = " and ".join(f"`{name}`" for name in ways)
        notes.error("VA-1", key_of(node, ways[1]), f"{names} are both given, only one is allowed")


def target(
    selector: Mapping[str, str] = _NO_TEXT,
    target_ref: _TargetRef | None = None,
    target_refs: tuple[_TargetRef, ...] = (),
) -> Target:
    """Build the target; a singular reference is a list of one, the group ``core`` is the empty one (RE-21)."""
    references = target_refs or ((target_ref,) if target_ref is not None else ())
    if not references:
        return Target(selector) if selector else Target()
    return Target(selector, tuple(TargetRef(r.kind, r.name, "" if r.group == "core" else r.group) for r in references))


def annotation(root: Node, name: str) -> tuple[Node, str] | None:
    """The key and text of an annotation."""
    metadata = given(root, "metadata") if isinstance(root, reading.Mapping) else None
    found = given(metadata, "annotations") if isinstance(metadata, reading.Mapping) else None
    if not isinstance(found, reading.Mapping) or name not in found.entries:
        return None
    return found.entries[name], text_of(found.entries[name]) or ""


def no_dry_run(root: reading.Mapping, notes: Notes) -> None:
    """VA-7: only an AuthorizationPolicy can be a dry run."""
    found = annotation(root, DRY_RUN_ANNOTATION)
    if found is not None:
        notes.error(
            "VA-7", found[0], f"`{DRY_RUN_ANNOTATION}` is only for AuthorizationPolicy", "remove the annotation"
        )

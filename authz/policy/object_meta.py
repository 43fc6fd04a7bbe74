"""
``metadata`` and ``status`` as written (RE-2 to RE-4, RE-6, VA-5, VA-8).

Only four members of the metadata have an effect, but all are typed: the API server refuses what Go's ``ObjectMeta``
cannot hold. It drops nulls before it looks. A status means nothing here, but must still be an object (CRD).
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from authz.core.resources import DRY_RUN_ANNOTATION, Metadata
from authz.documents import reading
from authz.documents.decoders import anything, boolean, read_text, text_map, text_or_letter
from authz.documents.reading import Kind, Node, Scalar, Sequence
from authz.documents.schema import Decoder, Field, Notes, Shape, describe, elements, given, key_of, nearest, text_of
from authz.policy import value_checks

_FORBIDDEN_ANNOTATIONS = (
    "internal.istio.io/webhook-always-reject",
    "internal.istio.io/parents",
    "internal.istio.io/parent-namespace",
)
_TIME = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{1,2}):([0-9]{2}):([0-9]{2})(?:[.,][0-9]+)?(?:Z|([+-])([0-9]{2}):([0-9]{2}))"
)


# --- types of Go's ObjectMeta ----------------------------------------------------------------------------------------


def _time(node: Node, notes: Notes) -> str:
    """A time of RFC 3339, as UTC to the second, which is what the API server keeps and RE-13 orders by."""
    written = read_text(node, notes)
    if text_of(node) is None:
        return ""
    found = _utc(written)
    if found is None:
        notes.error("RE-4", node, f"`{written}` is not a time", "expected RFC 3339, for example `2026-01-31T12:00:00Z`")
    return found or ""


def _utc(written: str) -> str | None:
    match = _TIME.fullmatch(written)
    if match is None:
        return None
    year, month, day, hour, minute, second = map(int, match.groups()[:6])
    sign, hours, minutes = match[7], int(match[8] or 0), int(match[9] or 0)
    if hours > 24 or minutes > 59:
        return None
    shifted = timedelta(hours=hours, minutes=minutes) * (-1 if sign == "-" else 1)
    try:
        moment = datetime(year or 2000, month, day, hour, minute, second, tzinfo=UTC)  # as leap as the year 0 is
        moment -= shifted
    except (ValueError, OverflowError):
        return None
    years = moment.year if year else moment.year - 2000
    return f"{max(years, 0):04}-{moment:%m-%dT%H:%M:%SZ}"


def _integer(node: Node, notes: Notes) -> None:
    """A whole number of 64 bits, however it is written."""
    if isinstance(node, Scalar) and node.kind is Kind.NUMBER and _is_whole(node.value.replace("_", "")):
        return
    notes.error("RE-4", node, f"expected a whole number, got {describe(node)}")


def _is_whole(digits: str) -> bool:
    """``-0x1F``, ``017`` and ``1e3`` are whole, ``1.5`` is not."""
    try:
        return abs(int(digits, 0)) < 2**63
    except ValueError:
        pass
    try:
        return float(digits).is_integer() and abs(float(digits)) < 2**63
    except ValueError:
        return True  # an octal number with a leading zero only


def _texts(node: Node, notes: Notes) -> None:
    _each(read_text, "a list of strings")(node, notes)


def _each(decode: Decoder[Any], what: str) -> Decoder[None]:
    """A list; a null among its elements is an empty element."""

    def check(node: Node, notes: Notes) -> None:
        if not isinstance(node, Sequence):
            notes.error("RE-4", node, f"expected {what}, got {describe(node)}")
        for item in elements(node):
            if not item.is_null:
                decode(item, notes)

    return check


def _object(**members: Decoder[Any]) -> Decoder[None]:
    """A mapping whose named members have their types; others are not looked at."""

    def check(node: Node, notes: Notes) -> None:
        if not isinstance(node, reading.Mapping):
            notes.error("RE-4", node, f"expected a mapping, got {describe(node)}")
            return
        for name, decode in members.items():
            child = given(node, name)
            if child is not None:
                decode(child, notes)

    return check


def _fields_v1(node: Node, notes: Notes) -> None:
    """Any JSON value."""
    anything(node, notes)


_OWNERS = _each(
    _object(
        apiVersion=read_text, kind=read_text, name=read_text, uid=read_text, controller=boolean,
        blockOwnerDeletion=boolean,
    ),
    "a list of owners",
)  # fmt: skip
_MANAGERS = _each(
    _object(
        manager=read_text, operation=read_text, apiVersion=read_text, fieldsType=read_text, subresource=read_text,
        time=_time, fieldsV1=_fields_v1,
    ),
    "a list of managers",
)  # fmt: skip
_WITHOUT_INFLUENCE: Mapping[str, Decoder[Any]] = {
    **dict.fromkeys(("generateName", "uid", "resourceVersion", "selfLink", "clusterName"), read_text),
    **dict.fromkeys(("generation", "deletionGracePeriodSeconds"), _integer),
    "deletionTimestamp": _time,
    "finalizers": _texts,
    "ownerReferences": _OWNERS,
    "managedFields": _MANAGERS,
}


# --- metadata --------------------------------------------------------------------------------------------------------


def _decoded(**decoded: Any) -> dict[str, Any]:
    return decoded


_NAME, _TEXT_MAP = text_or_letter(value_checks.object_name), text_map()


def _namespace(node: Node, notes: Notes) -> str:
    """An empty one counts as none, as for the API server: charts write it where nobody gave a value."""
    return "default" if text_of(node) == "" else _NAME(node, notes)


def _map_of_texts(node: Node, notes: Notes) -> dict[str, str]:
    """Labels or annotations: Go reads a null as an empty text; refused where the text means something."""
    return _TEXT_MAP(_without_nulls(node), notes)


def _without_nulls(node: Node) -> Node:
    if not isinstance(node, reading.Mapping) or not any(child.is_null for child in node.entries.values()):
        return node
    kept = [key for key in node.keys if key.value == DRY_RUN_ANNOTATION or not node.entries.get(key.value, key).is_null]
    names = {key.value for key in kept}
    entries = {name: child for name, child in node.entries.items() if name in names}
    return reading.Mapping(entries, kept, node.line, node.column)


def _is_misspelt_dry_run(name: str) -> bool:
    return name != DRY_RUN_ANNOTATION and name.startswith("istio.io/") and bool(nearest(name, [DRY_RUN_ANNOTATION]))


def _check_metadata(node: reading.Mapping, notes: Notes) -> None:
    if given(node, "name") is None:
        notes.error("RE-2", node, "the object has no name", "give `metadata.name`")
    labels = given(node, "labels")
    if isinstance(labels, reading.Mapping) and DRY_RUN_ANNOTATION in labels.entries:
        message = f"`{DRY_RUN_ANNOTATION}` is an annotation; as a label it has no effect"
        notes.warn("VA-8", key_of(labels, DRY_RUN_ANNOTATION), message, "write it under `metadata.annotations`")
    annotations = given(node, "annotations")
    if isinstance(annotations, reading.Mapping):
        for key in annotations.keys:
            if key.value in _FORBIDDEN_ANNOTATIONS:
                notes.error("VA-5", key, f"the annotation `{key.value}` is Istio's own", "remove it")
            elif _is_misspelt_dry_run(key.value):
                message = f"the annotation `{key.value}` has no effect; did you mean `{DRY_RUN_ANNOTATION}`?"
                notes.warn("VA-8", key, message)


_METADATA: Shape[dict[str, Any]] = Shape(
    "metadata",
    {
        "name": Field("name", _NAME),
        "namespace": Field("namespace", _namespace),
        "creationTimestamp": Field("creation_timestamp", _time, null_is_silent=True),
        "annotations": Field("annotations", _map_of_texts, null_is_silent=True),
        "labels": Field("", _map_of_texts, null_is_silent=True),
        **{name: Field("", decode, null_is_silent=True) for name, decode in _WITHOUT_INFLUENCE.items()},
    },
    _decoded,
    _check_metadata,
)


def read_metadata(root: reading.Mapping, notes: Notes) -> Metadata:
    """Decode ``metadata``; its place is that of the document."""
    node = given(root, "metadata")
    if node is None:
        notes.error("RE-2", root, "the object has no name", "give `metadata.name`")
        return Metadata("", location=notes.place(root))
    return Metadata(**{"name": "", **_METADATA.decode(node, notes)}, location=notes.place(root))


# --- status ----------------------------------------------------------------------------------------------------------


def _int_or_text(node: Node, notes: Notes) -> None:
    if text_of(node) is None:
        _integer(node, notes)


def _level(node: Node, notes: Notes) -> None:
    levels = ("UNKNOWN", "ERROR", "WARNING", "INFO")
    if text_of(node) not in levels:
        notes.error("RE-6", node, f"expected one of {', '.join(levels)}, got {describe(node)}")


_CHECK_STATUS: Callable[[Node, Notes], None] = _object(
    conditions=_each(
        _object(
            lastProbeTime=_time, lastTransitionTime=_time, message=read_text, observedGeneration=_int_or_text,
            reason=read_text, status=read_text, type=read_text,
        ),
        "a list of conditions",
    ),
    observedGeneration=_int_or_text,
    validationMessages=_each(
        _object(documentationUrl=read_text, level=_level, type=_object(code=read_text, name=read_text)),
        "a list of messages",
    ),
)  # fmt: skip


def check_status(root: reading.Mapping, notes: Notes) -> None:
    """``status`` is an object if it is there; the CRD types three of its members."""
    status = given(root, "status")
    if status is not None:
        _CHECK_STATUS(status, notes)

"""
What Envoy's messages are made of: fields with their kinds, by the names of Envoy's documentation.

Read from envoy-data-plane's classes, the same of which listeners and clusters are rendered. A type is loaded when
somebody names it; one that the library lacks is refused by whoever asks, because nothing could be said of its fields.
"""

import enum
import importlib
import importlib.util
import re
from dataclasses import dataclass
from functools import cache
from typing import Any

import betterproto2
from envoy_data_plane.message_pool import default_message_pool

PREFIX = "type.googleapis.com/"
_FULL_NAME = re.compile(r"((?:[a-z][a-z0-9_]*\.)+)((?:[A-Z][A-Za-z0-9_]*\.)*[A-Z][A-Za-z0-9_]*)")
_FAMILIES = ("envoy.", "xds.", "google.protobuf.", "opentelemetry.", "cel.")
WELL_KNOWN = "google.protobuf."

MessageType = type[betterproto2.Message]


class ValueShape(enum.Enum):
    """How a value is written in JSON."""

    BOOL = "true or false"
    INT = "a whole number"
    FLOAT = "a number"
    TEXT = "a string"
    BYTES = "a string in base64"
    ENUM = "a name"
    DURATION = "a duration"
    TIMESTAMP = "a time"
    STRUCT = "a mapping of any fields"
    VALUE = "any value"
    LIST = "a list"
    FIELD_MASK = "field names"
    ANY = "a typed message"
    MESSAGE = "a mapping"


@dataclass(frozen=True, slots=True)
class FieldType:
    """One field of a message."""

    name: str
    shape: ValueShape
    repeated: bool = False
    is_map: bool = False
    key: ValueShape = ValueShape.TEXT
    """Of a map."""
    group: str = ""
    """Of which at most one member is set; empty for others."""
    presence: bool = False
    """Whether zero, false and empty differ from absent."""
    wrapped: bool = False
    """One of the wrappers of a scalar, such as ``BoolValue``."""
    message: MessageType | None = None
    enumeration: type[enum.IntEnum] | None = None
    bits: tuple[int, int] = (0, 0)
    """The least and the greatest whole number."""


@cache
def find_type(url: str) -> MessageType | None:
    """The type of ``type.googleapis.com/envoy…``; None if the library lacks it."""
    name = url.removeprefix(PREFIX)
    found = _FULL_NAME.fullmatch(name)
    if not url.startswith(PREFIX) or found is None or not name.startswith(_FAMILIES):
        return None
    try:
        importlib.import_module(f"envoy_data_plane.{found[1].rstrip('.')}")
    except ImportError:
        return None
    return default_message_pool.url_to_type.get(url)


@cache
def known_types_like(url: str) -> tuple[str, ...]:
    """The types of the package that a URL names, to choose from."""
    package = url.removeprefix(PREFIX).rpartition(".")[0]
    return tuple(sorted(known for known in default_message_pool.url_to_type if known.startswith(f"{PREFIX}{package}.")))


def name_of(message: MessageType) -> str:
    """The full name of a type, without the prefix of a URL."""
    return default_message_pool.type_to_url[message].removeprefix(PREFIX)


@cache
def fields_of(message: MessageType) -> dict[str, FieldType]:
    """The fields of a message by their names in Envoy's documentation."""
    found = {}
    untyped: Any = message  # what the library records of a message is not in its types
    known = untyped._betterproto
    for own_name, meta in known.meta_by_field_name.items():
        name = own_name.rstrip("_")
        found[name] = _field(name, own_name, meta, known.cls_by_field)
    return found


@cache
def names_of(message: MessageType) -> dict[str, str]:
    """Every way to write a field, snake case and JSON's camel case, to its name."""
    found = {}
    for name in fields_of(message):
        found[_camel(name)] = name
        found[name] = name
    return found


def enum_names(enumeration: type[enum.IntEnum]) -> dict[str, int]:
    """The values of an enumeration by their names in Envoy's documentation."""
    return {getattr(one, "proto_name", None) or one.name: int(one) for one in enumeration}


def _camel(name: str) -> str:
    return re.sub("_([a-zA-Z0-9])", lambda found: found[1].upper(), name)


_INTS = {
    **dict.fromkeys(("int32", "sint32", "sfixed32"), (-(2**31), 2**31 - 1)),
    **dict.fromkeys(("int64", "sint64", "sfixed64"), (-(2**63), 2**63 - 1)),
    **dict.fromkeys(("uint32", "fixed32"), (0, 2**32 - 1)),
    **dict.fromkeys(("uint64", "fixed64"), (0, 2**64 - 1)),
}
_PLAIN = {
    "bool": ValueShape.BOOL,
    "string": ValueShape.TEXT,
    "bytes": ValueShape.BYTES,
    "enum": ValueShape.ENUM,
    "double": ValueShape.FLOAT,
    "float": ValueShape.FLOAT,
}
_SPECIAL = {
    "Duration": ValueShape.DURATION,
    "Timestamp": ValueShape.TIMESTAMP,
    "Struct": ValueShape.STRUCT,
    "Value": ValueShape.VALUE,
    "ListValue": ValueShape.LIST,
    "Any": ValueShape.ANY,
    "FieldMask": ValueShape.FIELD_MASK,
}


def _field(
    name: str, own_name: str, meta: Any, classes: dict[str, Any]
) -> FieldType:  # the library's own record, not exported
    group = meta.group or ""
    if meta.proto_type == "map":
        key, value = meta.map_meta
        one = _single(name, value, classes.get(f"{own_name}.value"))
        return FieldType(
            name,
            one.shape,
            is_map=True,
            key=ValueShape.INT if key.proto_type in _INTS else _PLAIN.get(key.proto_type, ValueShape.TEXT),
            message=one.message,
            enumeration=one.enumeration,
            bits=one.bits,
        )
    one = _single(name, meta, classes.get(own_name))
    return FieldType(
        name,
        one.shape,
        repeated=meta.repeated,
        group=group,
        presence=bool(meta.optional) and not meta.repeated,
        wrapped=one.wrapped,
        message=one.message,
        enumeration=one.enumeration,
        bits=one.bits,
    )


def _single(name: str, meta: Any, kind: Any) -> FieldType:  # as above
    if meta.proto_type in _INTS:
        return FieldType(name, ValueShape.INT, bits=_INTS[meta.proto_type])
    if meta.proto_type == "enum":
        return FieldType(name, ValueShape.ENUM, enumeration=kind)
    if meta.proto_type != "message":
        return FieldType(name, _PLAIN[meta.proto_type])
    message = meta.unwrap() if meta.unwrap else kind
    full = name_of(message)
    short = full.removeprefix(WELL_KNOWN)
    if full.startswith(WELL_KNOWN) and short in _SPECIAL:
        return FieldType(name, _SPECIAL[short], message=message)
    if full.startswith(WELL_KNOWN) and short.endswith("Value"):
        inner = message._betterproto.meta_by_field_name["value"].proto_type
        shape = ValueShape.INT if inner in _INTS else _PLAIN[inner]
        return FieldType(name, shape, wrapped=True, bits=_INTS.get(inner, (0, 0)))
    return FieldType(name, ValueShape.MESSAGE, message=message)

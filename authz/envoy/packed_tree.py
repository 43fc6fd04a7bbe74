"""
Trees in the JSON form of Protocol Buffers as bytes, which is how discovery sends what is rendered.

Rendered listeners and clusters are trees: policies and patches have changed them since they were messages. The types
are envoy-data-plane's; what there is to know of one is found once, as in ``plain``, of which this is the other way.
"""

import struct
from base64 import b64decode
from collections.abc import Callable
from functools import cache
from typing import Any

from envoy_data_plane.google import protobuf

from authz.envoy.patches.message_types import WELL_KNOWN, MessageType, enum_names, find_type, name_of
from authz.envoy.patches.typed_values import TYPE

Write = Callable[[Any], bytes]
"""Writes a value of JSON without its tag."""
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED: dict[str, tuple[int, str]] = {
    "double": (_FIXED64, "<d"),
    "float": (_FIXED32, "<f"),
    "fixed64": (_FIXED64, "<Q"),
    "sfixed64": (_FIXED64, "<q"),
    "fixed32": (_FIXED32, "<I"),
    "sfixed32": (_FIXED32, "<i"),
}
_SIGNED = frozenset({"sint32", "sint64"})


class Unpackable(ValueError):
    """A tree has a field or a type that is not known here."""


def packed(tree: dict[str, Any]) -> tuple[str, bytes]:
    """
    Write a tree with ``@type`` first.

    Returns:
        The type's URL, and the message.

    Raises:
        Unpackable: envoy-data-plane lacks a type or a field.
    """
    url = tree[TYPE]
    kind = find_type(url)
    if kind is None:
        raise Unpackable(f"the type `{url}` is not known here")
    if name_of(kind) in _SPECIAL:
        return url, _SPECIAL[name_of(kind)](tree.get("value"))
    return url, _message(kind, {key: value for key, value in tree.items() if key != TYPE})


def _message(kind: MessageType, tree: dict[str, Any]) -> bytes:
    fields = _fields(kind)
    parts = []
    for name, value in tree.items():
        write = fields.get(name)
        if write is None:
            raise Unpackable(f"`{name_of(kind)}` has no field `{name}`")
        if value is not None:
            parts.append(write(value))
    return b"".join(parts)


@cache
def _fields(kind: MessageType) -> dict[str, Write]:
    untyped: Any = kind  # what the library records of a message is not in its types
    about = untyped._betterproto
    return {name.rstrip("_"): _field(meta, name, about.cls_by_field) for name, meta in about.meta_by_field_name.items()}


def _field(meta: Any, name: str, classes: dict[str, Any]) -> Write:  # the library's own record, not exported
    if meta.map_meta is not None:
        key, value = (
            _tagged(one, classes.get(f"{name}.{part}"))
            for one, part in zip(meta.map_meta, ("key", "value"), strict=True)
        )
        tag = _varint(meta.number << 3 | _BYTES)
        return lambda items: b"".join(tag + _sized(key(k) + value(v)) for k, v in items.items())
    write = _tagged(meta, classes.get(name))
    if meta.repeated:
        return lambda items: b"".join([write(one) for one in items])
    return write


def _tagged(meta: Any, kind: Any) -> Write:  # as above
    wire_type, write = _single(meta, kind)
    tag = _varint(meta.number << 3 | wire_type)
    if wire_type == _BYTES:
        return lambda value: tag + _sized(write(value))
    return lambda value: tag + write(value)


def _single(meta: Any, kind: Any) -> tuple[int, Write]:  # as above
    proto_type = meta.proto_type
    if proto_type == "message":
        message = meta.unwrap() if meta.unwrap else kind
        special = _SPECIAL.get(name_of(message))
        return _BYTES, special if special is not None else lambda tree: _message(message, tree)
    if proto_type == "enum":
        numbers = enum_names(kind)
        return _VARINT, lambda value: _integer(numbers[value] if isinstance(value, str) else value)
    return _scalar(proto_type)


def _scalar(proto_type: str) -> tuple[int, Write]:
    if proto_type == "string":
        return _BYTES, str.encode
    if proto_type == "bytes":
        return _BYTES, b64decode
    if proto_type in _FIXED:
        wire_type, form = _FIXED[proto_type]
        return wire_type, lambda value: struct.pack(form, float(value) if form in ("<d", "<f") else int(value))
    if proto_type in _SIGNED:
        return _VARINT, lambda value: _varint(int(value) << 1 ^ int(value) >> 63)
    return _VARINT, lambda value: _integer(int(value))


def _integer(number: int) -> bytes:
    return _varint(number & (1 << 64) - 1)  # a negative number is that of 64 bits


def _varint(number: int) -> bytes:
    if number < 128:
        return bytes((number,))
    made = bytearray()
    while number > 127:
        made.append(number & 127 | 128)
        number >>= 7
    made.append(number)
    return bytes(made)


def _sized(data: bytes) -> bytes:
    return _varint(len(data)) + data


def _any(tree: dict[str, Any]) -> bytes:
    if not tree.get(TYPE):
        return b""
    url, message = packed(tree)
    return b"\x0a" + _sized(url.encode()) + b"\x12" + _sized(message)


def _duration(text: str) -> bytes:
    whole, _, rest = text.removesuffix("s").partition(".")
    sign = -1 if whole.startswith("-") else 1
    numbers = (sign * abs(int(whole)), sign * int(rest.ljust(9, "0") or 0))
    return b"".join(tag + _integer(number) for tag, number in zip((b"\x08", b"\x10"), numbers, strict=True) if number)


def _struct(tree: dict[str, Any]) -> bytes:
    return b"".join(
        b"\x0a" + _sized(b"\x0a" + _sized(key.encode()) + b"\x12" + _sized(_value(value)))
        for key, value in tree.items()
    )


def _value(value: Any) -> bytes:
    match value:
        case None:
            return b"\x08\x00"
        case bool():
            return b"\x20" + _varint(value)
        case int() | float():
            return b"\x11" + struct.pack("<d", value)
        case str():
            return b"\x1a" + _sized(value.encode())
        case dict():
            return b"\x2a" + _sized(_struct(value))
    return b"\x32" + _sized(_list(value))


def _list(values: list[Any]) -> bytes:
    return b"".join(b"\x0a" + _sized(_value(one)) for one in values)


def _read_by_library(kind: Any) -> Write:  # a class of the library's own, without a type
    return lambda value: bytes(kind.from_dict(value))


def _wrapper(kind: Any) -> Write:  # as above
    (meta,) = kind._betterproto.meta_by_field_name.values()
    return _tagged(meta, None)


_SPECIAL: dict[str, Write] = {
    **{
        f"{WELL_KNOWN}{name}Value": _wrapper(getattr(protobuf, f"{name}Value"))
        for name in ("Bool", "String", "Bytes", "Int32", "Int64", "UInt32", "UInt64", "Float", "Double")
    },
    f"{WELL_KNOWN}Any": _any,
    f"{WELL_KNOWN}Duration": _duration,
    f"{WELL_KNOWN}Struct": _struct,
    f"{WELL_KNOWN}Value": _value,
    f"{WELL_KNOWN}ListValue": _list,
    f"{WELL_KNOWN}Timestamp": _read_by_library(protobuf.Timestamp),
}
"""Messages whose JSON form is not a mapping of their fields, by their full names."""

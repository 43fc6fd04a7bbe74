"""
Envoy's typed messages as plain data in the JSON form of Protocol Buffers, many times faster than their library.

The library writes each message to bytes where it is packed into an ``Any``, reads it again to show it, and looks up the
types of all fields each time. Here a packed message is kept as it is, and what there is to know of a type is found
once. That both agree on everything that is rendered is a test.
"""

import dataclasses
import marshal
import math
import sys
from base64 import b64encode
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import cache, lru_cache, partial
from types import SimpleNamespace
from typing import Any, TypeVar, get_type_hints

import betterproto2
from envoy_data_plane.google import protobuf
from envoy_data_plane.google.protobuf import Any as PackedAny
from envoy_data_plane.google.protobuf import ListValue, Struct, Value
from envoy_data_plane.message_pool import default_message_pool

_M = TypeVar("_M", bound=betterproto2.Message)
Encode = Callable[[Any], Any]
_Field = tuple[str, str, Encode, bool]
"""Attribute, name as in Envoy's documentation, how its values are written, and whether even an empty one is."""


def _described(kind: Any) -> betterproto2.ProtoClassMetadata:  # Any: the library's own type of this is wrong
    found: betterproto2.ProtoClassMetadata = kind._betterproto  # there is no other description
    return found


class Packed(PackedAny):
    """An ``Any`` that keeps its message."""

    __slots__ = ("message",)
    message: betterproto2.Message
    _betterproto_meta = _described(PackedAny)

    @classmethod
    def of(cls, message: betterproto2.Message) -> "Packed":
        """Put a message of a registered type into an ``Any``."""
        made = cls.__new__(cls)
        made._unknown_fields = b""
        made.type_url = default_message_pool.type_to_url[type(message)]
        made.message = message
        return made

    @property
    def value(self) -> bytes:
        """The message as bytes."""
        return bytes(self.message)

    @value.setter
    def value(self, _written: bytes) -> None:
        """The library's constructor sets every field, this one to nothing."""

    def unpack(self, message_pool: betterproto2.MessagePool | None = None) -> betterproto2.Message:
        """The very message that was packed."""
        return self.message


class KeptStruct(Struct):
    """A ``Struct`` that keeps what it was made of."""

    __slots__ = ("content",)
    content: Mapping[str, Any]
    _betterproto_meta = _described(Struct)

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> "KeptStruct":
        """Keep JSON that nobody changes."""
        made = cls.__new__(cls)
        made._unknown_fields = b""
        made.content = content
        return made

    @property
    def fields(self) -> Any:
        """The content as messages."""
        return Struct.from_dict(dict(self.content)).fields

    @fields.setter
    def fields(self, _written: object) -> None:
        """The library's constructor sets every field, this one to nothing."""


def plain(message: betterproto2.Message) -> Any:
    """The JSON form of a message, field names as in Envoy's documentation; of what wraps a value, the value."""
    kind, given = type(message), vars(message)
    plan = _plans.get((kind, *given))
    if plan is None:
        if _KEPT in given:
            return marshal.loads(given[_KEPT])  # noqa: S302  # these are our own bytes, and this is the fastest copy
        special = _SPECIAL.get(kind)
        if special is not None:
            return special(message)
        plan = _plans[kind, *given] = [one for one in _fields(kind) if one[0] in given]
    made = {}
    for attribute, name, encode, is_optional in plan:
        value = given[attribute]
        if value is not None and (is_optional or value):  # asking whether a message is empty is slow
            made[name] = encode(value)
    return made


def kept(message: _M) -> _M:
    """
    Write a message once that has its place in many others, and copy it from then on.

    It must not be changed any more, nor anything in it: the tests compare what is kept with what the library writes.
    """
    vars(message)[_KEPT] = marshal.dumps(plain(message))
    return message


_KEPT = "_kept"
_plans: dict[tuple[object, ...], list[_Field]] = {}
"""What to write of a message by its type and the fields that it was given: as many as our code has ways to make one."""


@cache
def _fields(kind: type[betterproto2.Message]) -> tuple[_Field, ...]:
    """From the fields themselves: the library's description of a type evaluates all its hints again for each field."""
    found = ((one, betterproto2.FieldMetadata.get(one)) for one in dataclasses.fields(kind))  # type: ignore[arg-type]  # each is a dataclass
    return tuple(
        (one.name, one.name.rstrip("_"), _encoder(meta, partial(_hint, kind, str(one.type))), bool(meta.optional))
        for one, meta in found
    )


def _hint(kind: type, written: str) -> Any:
    """The type that a field's hint names."""
    space = vars(sys.modules[kind.__module__])
    return get_type_hints(SimpleNamespace(__annotations__={"field": written}), space)["field"]


def _encoder(meta: betterproto2.FieldMetadata, hint: Callable[[], Any]) -> Encode:
    """How the values of a field are written; empty lists and maps are left out by whoever calls it."""
    if meta.map_meta is not None:
        of_key, of_value = meta.map_meta
        key = _single(of_key.proto_type, of_key.unwrap, lambda: hint().__args__[0])
        value = _single(of_value.proto_type, of_value.unwrap, lambda: hint().__args__[1])
        return lambda items: {key(k): value(v) for k, v in items.items()}
    if meta.repeated:
        item = _single(meta.proto_type, meta.unwrap, lambda: hint().__args__[0])
        return lambda items: [item(one) for one in items]
    return _single(meta.proto_type, meta.unwrap, lambda: hint().__args__[0] if meta.optional else hint())


def _single(proto_type: str, unwrap: Callable[[], type] | None, kind: Callable[[], Any]) -> Encode:
    """``kind`` is asked for enumerations alone."""
    if proto_type == betterproto2.TYPE_MESSAGE:
        return _unwrapped(unwrap()) if unwrap is not None else plain
    if proto_type == betterproto2.TYPE_ENUM:
        names = {one: one.proto_name or one.name for one in kind()}
        return lambda value: names[value] if value in names else int(value)
    return _SCALARS[proto_type]


def _unwrapped(wrapper: type[Any]) -> Encode:
    """Of a number or text with presence the library shows the value alone, of others their own form."""
    if wrapper is protobuf.Duration:
        return _duration
    return _WRAPPED.get(wrapper) or (lambda value: wrapper.from_wrapped(value).to_dict(casing=str))


@lru_cache(maxsize=1024)
def _duration(value: timedelta) -> str:
    return str(protobuf.Duration.from_wrapped(value).to_dict())


def _text(value: str) -> str:
    return value if type(value) is str else str.__str__(value)  # a writer of YAML knows no kinds of text


def _number(value: float) -> float | str:
    if math.isfinite(value):
        return float(value)
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _whole(low: int, high: int, written: type = int) -> Encode:
    """Whole numbers of a field, of which the library refuses those that are too small or too large."""

    def encode(value: int) -> Any:
        if not low <= value <= high:
            raise ValueError(f"{value} is not between {low} and {high}")
        return written(value)

    return encode


_INT32, _UINT32 = _whole(-(2**31), 2**31 - 1), _whole(0, 2**32 - 1)
_INT64, _UINT64 = _whole(-(2**63), 2**63 - 1, str), _whole(0, 2**64 - 1, str)
_SCALARS: dict[str, Encode] = {
    betterproto2.TYPE_BOOL: bool,
    betterproto2.TYPE_STRING: _text,
    betterproto2.TYPE_BYTES: lambda value: b64encode(value).decode(),
    **dict.fromkeys((betterproto2.TYPE_FLOAT, betterproto2.TYPE_DOUBLE), _number),
    **dict.fromkeys((betterproto2.TYPE_INT32, betterproto2.TYPE_SINT32, betterproto2.TYPE_SFIXED32), _INT32),
    **dict.fromkeys((betterproto2.TYPE_UINT32, betterproto2.TYPE_FIXED32), _UINT32),
    **dict.fromkeys((betterproto2.TYPE_INT64, betterproto2.TYPE_SINT64, betterproto2.TYPE_SFIXED64), _INT64),
    **dict.fromkeys((betterproto2.TYPE_UINT64, betterproto2.TYPE_FIXED64), _UINT64),
}
_WRAPPED: dict[type, Encode] = {
    protobuf.BoolValue: bool,
    protobuf.StringValue: _text,
    protobuf.UInt32Value: _UINT32,
    protobuf.Int32Value: _INT32,
    protobuf.DoubleValue: _number,
    protobuf.FloatValue: _number,
}


def _any(packed: PackedAny) -> dict[str, Any]:
    content = packed.message if isinstance(packed, Packed) else packed.unpack()
    made: dict[str, Any] = {"@type": packed.type_url}
    if content is not None:
        found = plain(content)
        made |= {"value": found} if type(content) in _SPECIAL else found
    return made


def _struct(struct: Struct) -> dict[str, Any]:
    return {key: _value(value) for key, value in struct.fields.items()}


def _value(value: Value) -> Any:
    if value.struct_value is not None:
        return _struct(value.struct_value)
    if value.list_value is not None:
        return _list(value.list_value)
    if value.number_value is not None:
        return float(value.number_value)
    return next((one for one in (value.string_value, value.bool_value) if one is not None), None)


def _json(value: Any) -> Any:
    """A copy in the form that the library gives it: every number is a fraction."""
    if isinstance(value, str) or value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return float(value)
    return {key: _json(one) for key, one in value.items()} if isinstance(value, Mapping) else [_json(x) for x in value]


def _list(values: ListValue) -> list[Any]:
    return [_value(one) for one in values.values]


def _own(message: Any) -> Any:
    return message.to_dict(casing=str)


_SPECIAL: dict[type, Encode] = {
    kind: _own
    for kind in vars(protobuf).values()
    if isinstance(kind, type)
    and issubclass(kind, betterproto2.Message)
    and kind.to_dict is not betterproto2.Message.to_dict
} | {
    PackedAny: _any,
    Packed: _any,
    Struct: _struct,
    KeptStruct: lambda message: _json(message.content),
    Value: _value,
    ListValue: _list,
}
"""Messages whose JSON form is not a mapping of their fields."""

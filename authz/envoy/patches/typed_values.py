"""
Values of patches read as Envoy's messages: every misspelt field, wrong type and unknown ``@type`` with its place.

What comes out is the message in protobuf's JSON, in one form: names of fields and values of enumerations as in Envoy's
documentation, defaults left out, ``@type`` first. Two such values can be compared and merged as the messages could.
"""

import base64
import binascii
import difflib
import math
import re

from authz.core.attributes import Json
from authz.core.errors import Problem
from authz.envoy.patches.message_types import (
    PREFIX,
    FieldType,
    MessageType,
    ValueShape,
    enum_names,
    fields_of,
    find_type,
    known_types_like,
    name_of,
    names_of,
)
from authz.mesh.extensions import WrittenValue
from authz.mesh.written_values import child_path

Tree = dict[str, Json]
"""A message in protobuf's JSON."""

TYPE = "@type"
_TYPED_STRUCTS = (f"{PREFIX}udpa.type.v1.TypedStruct", f"{PREFIX}xds.type.v3.TypedStruct")
"""A message without a type of its own that names the type that it stands for."""
_DURATION = re.compile(r"-?[0-9]{1,12}(\.[0-9]{1,9})?s")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})")
_WORDS = {type(None): "null", bool: "a boolean", int: "a number", float: "a number", str: "a string"}


def typed(value: WrittenValue, message: MessageType) -> tuple[Tree, tuple[Problem, ...]]:
    """
    Read a value as a message of a type.

    Returns:
        The message in its one form, and every problem; with problems the message is of no use.
    """
    reader = _Reader(value)
    made = reader.message(value.data, message, "")
    return made, tuple(reader.problems)


class _Reader:
    def __init__(self, value: WrittenValue) -> None:
        self.value = value
        self.problems: list[Problem] = []

    def note(self, code: str, path: str, message: str, help_text: str = "", *, key: bool = False) -> None:
        self.problems.append(self.value.at(path, key=key).problem(code, message, help_text))

    def message(self, data: Json, message: MessageType, path: str, skip: tuple[str, ...] = ()) -> Tree:
        if not isinstance(data, dict):
            self.wrong(data, "a mapping", path)
            return {}
        names, fields = names_of(message), fields_of(message)
        made: Tree = {}
        groups: dict[str, str] = {}
        for written, item in data.items():
            if written in skip:
                continue
            below = child_path(path, written)
            name = names.get(written)
            if name is None:
                self.unknown(written, message, below)
                continue
            field = fields[name]
            if item is None and field.shape is not ValueShape.VALUE:
                continue  # protobuf's JSON: absent
            if name in made:
                self.note("ME-5", below, f"`{name}` is given twice, in both spellings", "leave one of them", key=True)
                continue
            if field.group:
                other = groups.setdefault(field.group, name)
                if other != name:
                    self.note("ME-5", below, f"`{name}` and `{other}` exclude each other", "leave one out", key=True)
            read = self.field(item, field, below)
            if not _is_default(read, field):
                made[name] = read
        return made

    def unknown(self, written: str, message: MessageType, path: str) -> None:
        near = difflib.get_close_matches(written, names_of(message), 1)
        if near:
            help_text = f"did you mean `{near[0]}`?"
        elif (known := sorted(fields_of(message))) and len(known) <= 12:
            help_text = f"known: {', '.join(known)}"
        else:
            help_text = "look the message up in Envoy's documentation"
        self.note("ME-2", path, f"`{name_of(message)}` has no field `{written}`", help_text, key=True)

    def field(self, data: Json, field: FieldType, path: str) -> Json:
        if field.repeated:
            if not isinstance(data, list):
                self.wrong(data, "a list", path)
                return []
            return [self.one(item, field, f"{path}[{i}]") for i, item in enumerate(data)]
        if field.is_map:
            if not isinstance(data, dict):
                self.wrong(data, "a mapping", path)
                return {}
            return {key: self.one(item, field, child_path(path, key)) for key, item in data.items()}
        return self.one(data, field, path)

    def one(self, data: Json, field: FieldType, path: str) -> Json:
        match field.shape:
            case ValueShape.MESSAGE:
                assert field.message is not None
                return self.message(data, field.message, path)
            case ValueShape.ANY:
                return self.any(data, path)
            case ValueShape.STRUCT:
                if isinstance(data, dict):
                    return data
            case ValueShape.VALUE:
                return data
            case ValueShape.LIST:
                if isinstance(data, list):
                    return data
            case ValueShape.BOOL:
                if isinstance(data, bool):
                    return data
            case ValueShape.TEXT | ValueShape.FIELD_MASK:
                if isinstance(data, str):
                    return data
            case ValueShape.ENUM:
                return self.enum(data, field, path)
            case ValueShape.INT:
                return self.integer(data, field, path)
            case _:
                found = _other_scalar(data, field.shape)
                if found is not None:
                    return found
        self.wrong(data, field.shape.value, path)
        return None

    def integer(self, data: Json, field: FieldType, path: str) -> Json:
        number = data
        if isinstance(data, str) and re.fullmatch("-?[0-9]{1,20}", data):
            number = int(data)
        if isinstance(data, float) and data.is_integer():
            number = int(data)
        if not isinstance(number, int) or isinstance(number, bool):
            self.wrong(data, "a whole number", path)
            return None
        least, most = field.bits
        if not least <= number <= most:
            self.note("ME-1", path, f"`{number}` is out of range", f"from {least} to {most}")
        return number

    def enum(self, data: Json, field: FieldType, path: str) -> Json:
        assert field.enumeration is not None
        names = enum_names(field.enumeration)
        if isinstance(data, str) and data in names:
            return data
        by_number = {number: name for name, number in names.items()}
        if isinstance(data, int) and not isinstance(data, bool) and data in by_number:
            return by_number[data]
        shown = data if isinstance(data, str) else _described(data)
        near = difflib.get_close_matches(str(data), names, 1)
        help_text = f"did you mean `{near[0]}`?" if near else f"one of {', '.join(names)}"
        self.note("ME-1", path, f"`{shown}` is not a value of `{field.name}`", help_text)
        return None

    def any(self, data: Json, path: str) -> Tree:
        """A message that says its type itself; one of no type that names another is read as that other."""
        if not isinstance(data, dict):
            self.wrong(data, "a mapping with `@type`", path)
            return {}
        url = data.get(TYPE)
        if not isinstance(url, str):
            self.note("ME-3", path, f"`{TYPE}` is missing", f"write `{TYPE}: {PREFIX}envoy.…`")
            return {}
        if url in _TYPED_STRUCTS:
            return self.typed_struct(data, path)
        message = find_type(url)
        if message is None:
            self.unknown_type(url, child_path(path, TYPE))
            return {}
        full = name_of(message)
        if full.startswith("google.protobuf.") and full != "google.protobuf.Empty":
            return {TYPE: url, **{key: item for key, item in data.items() if key != TYPE}}
        return {TYPE: url, **self.message(data, message, path, skip=(TYPE,))}

    def typed_struct(self, data: Tree, path: str) -> Tree:
        inner, held = data.get("type_url", data.get("typeUrl")), data.get("value", {})
        if not isinstance(inner, str):
            self.note("ME-3", path, "`type_url` is missing", "write the type itself in `@type`")
            return {}
        message = find_type(inner)
        if message is None:
            self.unknown_type(inner, child_path(path, "type_url" if "type_url" in data else "typeUrl"))
            return {}
        for key in data.keys() - {TYPE, "type_url", "typeUrl", "value"}:
            self.note("ME-2", child_path(path, key), f"a TypedStruct has no field `{key}`", "remove it", key=True)
        return {TYPE: inner, **self.message({} if held is None else held, message, child_path(path, "value"))}

    def unknown_type(self, url: str, path: str) -> None:
        if not url.startswith(PREFIX):
            self.note("ME-1", path, f"`{url}` is not the name of a type", f"it begins with `{PREFIX}`")
            return
        near = difflib.get_close_matches(url, known_types_like(url), 1)
        if near:
            help_text = f"did you mean `{near[0]}`?"
        elif ".v2." in url or ".v2alpha" in url or ".config.filter." in url:
            help_text = "Envoy reads version 3 of its API only: name the type of v3"
        else:
            help_text = "what cannot be checked is not rendered: use a type of Envoy itself, or configure it by hand"
        self.note("ME-6", path, f"the type `{url}` is not known here", help_text)

    def wrong(self, data: Json, expected: str, path: str) -> None:
        help_text = f"write {expected}"
        if expected == "a string" and not isinstance(data, dict | list):
            help_text = "put it in quotes"
        if expected == "a duration":
            help_text = 'write seconds, for instance "1.5s"'
        self.note("ME-1", path, f"expected {expected}, got {_described(data)}", help_text)


def _described(data: Json) -> str:
    if isinstance(data, dict):
        return "a mapping"
    if isinstance(data, list):
        return "a list"
    word = _WORDS[type(data)]
    return word if data is None else f"{word} (`{str(data)[:60]}`)"


def _other_scalar(data: Json, shape: ValueShape) -> Json:
    """A number, bytes, a duration, a time in their JSON; None if it is not one."""
    if shape is ValueShape.FLOAT and isinstance(data, int | float) and not isinstance(data, bool):
        return data if math.isfinite(data) else None
    if shape is ValueShape.DURATION and isinstance(data, str) and _DURATION.fullmatch(data):
        whole, _, rest = data.removesuffix("s").partition(".")
        return f"{whole}.{rest.rstrip('0')}s" if rest.strip("0") else f"{whole}s"
    if shape is ValueShape.TIMESTAMP and isinstance(data, str) and _TIME.fullmatch(data):
        return data
    if shape is ValueShape.BYTES and isinstance(data, str):
        try:
            return base64.b64encode(base64.b64decode(data, validate=True)).decode()
        except (binascii.Error, ValueError):
            return None
    return None


_PRESENT = (ValueShape.MESSAGE, ValueShape.ANY, ValueShape.STRUCT, ValueShape.VALUE)
"""What differs from absent even if it is empty."""


def _is_default(value: Json, field: FieldType) -> bool:
    """Whether the message is the same without it."""
    if field.repeated or field.is_map:
        return not value
    if (
        field.presence
        or field.wrapped
        or field.shape in (ValueShape.MESSAGE, ValueShape.ANY, ValueShape.STRUCT, ValueShape.VALUE)
    ):
        return value is None and field.shape is not ValueShape.VALUE
    if field.shape is ValueShape.ENUM and field.enumeration is not None:
        return value is None or enum_names(field.enumeration).get(str(value)) == 0
    return not value

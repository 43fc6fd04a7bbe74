"""
Merge one message into another as istiod does (``pkg/proto/merge``), on their JSON form.

Repeated fields are appended, maps replaced key by key, messages merged, everything else replaced. A wrapper with the
default value (``BoolValue`` of false) changes nothing where one stands already, which is how protobuf's merging works.
"""

import copy

from authz.envoy.patches.message_types import FieldType, MessageType, ValueShape, fields_of, find_type
from authz.envoy.patches.typed_values import TYPE, Tree


class TypesDifferError(Exception):
    """Two messages within ``Any`` are of different types and cannot be merged; istiod gives up here, too."""


def merge(into: Tree, value: Tree, message: MessageType, *, replace_lists: bool = False) -> None:
    """Merge ``value`` into a message of a type, in place. ``replace_lists`` replaces lists instead of appending."""
    fields = fields_of(message)
    for name, given in value.items():
        field = fields[name]
        if field.group:
            for other in fields.values():
                if other.group == field.group and other.name != name:
                    into.pop(other.name, None)
        own = into.get(name)
        if field.repeated and isinstance(given, list):
            kept = own if isinstance(own, list) and not replace_lists else []
            into[name] = [*kept, *copy.deepcopy(given)]
        elif (field.is_map and isinstance(given, dict)) or (
            field.shape is ValueShape.STRUCT and isinstance(given, dict)
        ):
            into[name] = {**(own if isinstance(own, dict) else {}), **copy.deepcopy(given)}
        elif field.shape is ValueShape.MESSAGE and isinstance(given, dict) and field.message is not None:
            held = into.setdefault(name, {})
            assert isinstance(held, dict), "a message is a mapping"
            merge(held, given, field.message, replace_lists=replace_lists)
        elif field.shape is ValueShape.ANY and isinstance(given, dict):
            into[name] = _any(own, given)
        elif not (field.wrapped and own is not None and _is_zero(given, field)):
            into[name] = copy.deepcopy(given)


def merge_typed(into: Tree, value: Tree) -> Tree:
    """
    Unpack two ``Any`` of the same type and merge the second into a copy of the first.

    Raises:
        TypesDifferError: if their types differ.
    """
    url = value.get(TYPE)
    if into.get(TYPE) != url:
        raise TypesDifferError(f"`{url}` cannot be merged into `{into.get(TYPE)}`")
    message = find_type(str(url))
    assert message is not None, "a value of a type that is not known was refused"
    made = copy.deepcopy(into)
    merge(made, {name: item for name, item in value.items() if name != TYPE}, message)
    return made


def _any(own: object, given: Tree) -> Tree:
    """Protobuf replaces the bytes of an ``Any``, and leaves them where there are none to put there."""
    if isinstance(own, dict) and set(given) == {TYPE} and own.get(TYPE) == given[TYPE]:
        return own
    return copy.deepcopy(given)


def _is_zero(given: object, field: FieldType) -> bool:
    return given in (False, 0, "", "0") if field.wrapped else False

"""
The faults of one rule: an entry, a field or a value is dropped, widened, narrowed or negated.

A change is told with its path inside the rule, as in ``to[0].operation.paths: `/carts/*` narrowed to `/carts/```.
"""

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TypeVar

from authz.core.catalog import OPERATION_FIELDS, SOURCE_FIELDS
from authz.core.errors import Location
from authz.core.resources import Condition, Operation, Rule, Source

RuleChange = tuple[str, Location, Rule]
"""What was changed in words, where, and the rule as changed."""
FieldValues = tuple[str, ...]
_Entry = TypeVar("_Entry", bound=Source | Operation)

_NETWORKS = frozenset({"ipBlocks", "remoteIpBlocks", "source.ip", "remote.ip", "destination.ip"})
_EXACT_ONLY = frozenset({"ports", "methods", "serviceAccounts", "destination.port", "source.serviceAccount"})
"""Fields whose values are not made prefixes: nobody means ``GET*``."""

_SEPARATORS = "/."


def changed_rules(rule: Rule) -> Iterator[RuleChange]:
    """Every rule that differs from ``rule`` by one fault, but for its absence."""
    where = rule.location
    for text, sources in _entries(rule.sources, SOURCE_FIELDS, "from[{}].source"):
        yield text, where, replace(rule, sources=sources)
    for text, operations in _entries(rule.operations, OPERATION_FIELDS, "to[{}].operation"):
        yield text, where, replace(rule, operations=operations)
    for number, condition in enumerate(rule.conditions):
        others = rule.conditions[:number], rule.conditions[number + 1 :]
        inside = f"when[{number}]"
        yield f"{inside} (`{condition.key}`) dropped", condition.location, replace(rule, conditions=sum(others, ()))
        for text, changed in _conditions(condition, inside):
            new = (*others[0], changed, *others[1])
            yield text, condition.location, replace(rule, conditions=new)


def _entries(
    entries: tuple[_Entry, ...], fields: Mapping[str, object], pattern: str
) -> Iterator[tuple[str, tuple[_Entry, ...]]]:
    """The list of entries with one fault; without entries there is none."""
    if len(entries) > 1:
        yield f"{pattern.partition('[')[0]} dropped", ()
    for number, entry in enumerate(entries):
        before, after = entries[:number], entries[number + 1 :]
        inside = pattern.format(number)
        yield f"{inside.partition('.')[0]} dropped", (*before, *after)
        written: list[tuple[str, FieldValues, FieldValues]] = [(name, *_read(entry, name)) for name in fields]
        given = [(name, values, negated) for name, values, negated in written if values or negated]
        parts = sum(bool(values) + bool(negated) for _, values, negated in given)
        for name, values, negated in given:
            for text, new, new_negated in _changes(name, values, negated, inside):
                if parts == 1 and len(entries) == 1 and not new and not new_negated:
                    continue  # the entry dropped, once more
                yield text, (*before, _write(entry, name, new, new_negated), *after)


def _conditions(condition: Condition, inside: str) -> Iterator[tuple[str, Condition]]:
    for text, new, new_negated in _changes("values", condition.values, condition.not_values, inside, condition.key):
        if new or new_negated:  # else it is dropped, once more
            yield text, replace(condition, values=new, not_values=new_negated)


def _changes(
    name: str, values: FieldValues, negated: FieldValues, inside: str, kind: str = ""
) -> Iterator[tuple[str, FieldValues, FieldValues]]:
    """The values of a field and of its negation with one fault."""
    twin = "not" + name[0].upper() + name[1:]
    yield f"{inside}: `{name}` and `{twin}` exchanged", negated, values
    if values:
        yield f"{inside}.{name} dropped", (), negated
    if negated:
        yield f"{inside}.{twin} dropped", values, ()
    for text, new in _of_values(values, kind or name):
        yield f"{inside}.{name}: {text}", new, negated
    for text, new in _of_values(negated, kind or name):
        yield f"{inside}.{twin}: {text}", values, new


def _of_values(values: FieldValues, kind: str) -> Iterator[tuple[str, FieldValues]]:
    for number, value in enumerate(values):
        before, after = values[:number], values[number + 1 :]
        if len(values) > 1:
            yield f"`{value}` dropped", (*before, *after)
        for word, others in (("widened", wider(value, kind)), ("narrowed", narrower(value, kind))):
            for other in others:
                if other not in values:
                    yield f"`{value}` {word} to `{other}`", (*before, other, *after)


def wider(value: str, kind: str) -> Iterator[str]:
    """
    FieldValues that match more than ``value``.

    Args:
        kind: the field or the key of the condition: networks are widened otherwise than texts.
    """
    if kind in _NETWORKS:
        network = ipaddress.ip_network(value, strict=False)
        if network.prefixlen:
            yield str(network.supernet())
    elif "{" in value:
        if value.endswith("/{*}"):
            yield value.removesuffix("{*}") + "{**}"
    elif value == "*" or kind in _EXACT_ONLY:
        return
    elif value.startswith("*") or value.endswith("*"):
        text = value.strip("*")
        if text.strip(_SEPARATORS) and (text[-1] if value.endswith("*") else text[0]) in _SEPARATORS:
            text = text[:-1] if value.endswith("*") else text[1:]  # `/admin/*` and `/admin*` are easily confused
            yield f"{text}*" if value.endswith("*") else f"*{text}"
        else:
            yield "*"
    elif value:
        yield value + "*"


def narrower(value: str, kind: str) -> Iterator[str]:
    """FieldValues that match less than ``value``; that an exact one is dropped is another fault."""
    if kind in _NETWORKS:
        network = ipaddress.ip_network(value, strict=False)
        if network.prefixlen < network.max_prefixlen:
            yield str(next(network.subnets()))
    elif "{" in value:
        if value.endswith("/{**}"):
            yield value.removesuffix("{**}") + "{*}"
    elif value != "*" and (value.startswith("*") or value.endswith("*")):
        yield value.strip("*")


def _read(entry: Source | Operation, name: str) -> tuple[FieldValues, FieldValues]:
    attribute = _attribute(name)
    return getattr(entry, attribute), getattr(entry, f"not_{attribute}")


def _write(entry: _Entry, name: str, values: FieldValues, negated: FieldValues) -> _Entry:
    attribute = _attribute(name)
    changes: dict[str, FieldValues] = {attribute: values, f"not_{attribute}": negated}
    return replace(entry, **changes)  # type: ignore[arg-type]  # names of fields of both, by the catalog


def _attribute(name: str) -> str:
    """``remoteIpBlocks`` as Python spells it."""
    return "".join("_" + c.lower() if c.isupper() else c for c in name)

"""What a comparison finds: a difference that enforcement could suffer from, or that somebody has to know."""

import ipaddress
import json
from dataclasses import dataclass
from enum import StrEnum

from authz.core.attributes import Json
from authz.envoy.patches.typed_values import Tree


class Weight(StrEnum):
    """What follows from a difference."""

    REFUSED = "refused"
    """Enforcement could suffer; a person may allow it by name."""
    BROKEN = "broken"
    """Envoy would not take it, or nothing would get through; nobody may allow it."""
    SAID = "said"
    """Allowed, and said."""


@dataclass(frozen=True, slots=True)
class Weakening:
    """One difference. ``after`` is what stands there now, so that a second change of the same place is another one."""

    weight: Weight
    place: str
    what: str
    help: str = ""
    after: str = ""


def refused(place: str, what: str, help_text: str = "", after: Json = None) -> Weakening:
    """Make a difference that enforcement could suffer from."""
    return Weakening(Weight.REFUSED, place, what, help_text, json.dumps(after, sort_keys=True))


def broken(place: str, what: str, help_text: str = "") -> Weakening:
    """Make a difference with which nothing works."""
    return Weakening(Weight.BROKEN, place, what, help_text)


def said(place: str, what: str, after: Json = None) -> Weakening:
    """Make a difference that is only said."""
    return Weakening(Weight.SAID, place, what, "", json.dumps(after, sort_keys=True))


def changed_fields(before: Tree, after: Tree, free: frozenset[str]) -> list[str]:
    """The fields that differ and are not free, in order."""
    names = dict.fromkeys([*before, *after])
    return [name for name in names if name not in free and before.get(name) != after.get(name)]


def is_loopback(host: str) -> bool:
    """Whether an address is reached from its own host only; no address, a name and a socket are not."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

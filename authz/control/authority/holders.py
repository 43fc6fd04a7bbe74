"""
What the holders of SVIDs say that they trust, each time that they ask for changes: ``authz ca join --watch``.

A change of the root waits for all of them. One that says something untrue holds up or breaks only itself.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from authz.core.attributes import Json
from authz.identity.registration import SvidPeer

TRUSTED_HEADER, SIGNER_HEADER = "authz-trusts", "authz-signed-below"
"""Metadata of a call: ids of roots with commas between them, and the id of the root of the caller's certificate."""
SEEN_SECONDS = 30.0
"""Who was not heard of for so long is gone; they ask every five seconds."""
MOST_HOLDERS = 50_000
NAMED = 20
"""Of those who are late so many are named."""
_ID = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class Held:
    """What one holder said last."""

    name: str
    trusted: frozenset[str]
    signer: str
    at: float


@dataclass(slots=True)
class Holders:
    """By SPIFFE ID and serial number: several proxies may have one identity."""

    _held: dict[tuple[str, int], Held] = field(default_factory=dict)

    def note(self, peer: SvidPeer, metadata: Iterable[tuple[str, str | bytes]], now: float) -> None:
        """Take what a call says; one that says nothing is of somebody else's client."""
        told = {name: value for name, value in metadata if isinstance(value, str)}
        if TRUSTED_HEADER not in told:
            return
        ids = frozenset(_ID.findall(told[TRUSTED_HEADER][:1000]))
        key = (str(peer.spiffe_id), peer.serial)
        if key in self._held or len(self._held) < MOST_HOLDERS:
            self._held[key] = Held(key[0], ids, told.get(SIGNER_HEADER, "")[:16], now)

    def forget(self, peer: SvidPeer) -> None:
        """This certificate was renewed: the next one has a serial number of its own."""
        self._held.pop((str(peer.spiffe_id), peer.serial), None)

    def report(self, roots: Iterable[str], now: float) -> dict[str, Json]:
        """What all of them trust and are signed below, for whoever changes the root."""
        for key, one in list(self._held.items()):
            if now - one.at > SEEN_SECONDS:
                self._held.pop(key, None)
        held = list(self._held.values())
        lists: dict[str, Json] = {}
        for root in roots:
            lacking = _named(one.name for one in held if root not in one.trusted)
            lists[root] = {"lacking": lacking, "signed": _named(one.name for one in held if one.signer == root)}
        return {"seen": len(held), "roots": lists}


@dataclass(frozen=True, slots=True)
class HolderReport:
    """One authority's."""

    at: float
    seen: int
    lacking: Mapping[str, tuple[str, ...]]
    """By id of a root: who does not trust it; the first of them, and how many more there are."""
    signed: Mapping[str, tuple[str, ...]]
    """By id of a root: who has a certificate below it."""


def read_holder_report(data: bytes) -> HolderReport:
    """Read what an authority reported. Raises ValueError."""
    try:
        found = json.loads(data)
        lists = {
            kind: {str(root): tuple(str(name) for name in told[kind]) for root, told in found["roots"].items()}
            for kind in ("lacking", "signed")
        }
        return HolderReport(float(found["at"]), int(found["seen"]), lists["lacking"], lists["signed"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a report of holders: {error}") from error


def _named(names: Iterable[str]) -> list[Json]:
    found = sorted(names)
    more = len(found) - NAMED
    return [*found[:NAMED], *([f"and {more} more"] if more > 0 else [])]

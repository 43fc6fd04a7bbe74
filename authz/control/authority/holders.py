"""
What the holders of SVIDs trust: ``authz ca join --watch`` says so each time that it asks for changes, and an Envoy by
the secrets that it acknowledges, for as long as its stream is open.

A change of the root waits for all of them. One that says something untrue holds up or breaks only itself.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import inf

from authz.core.attributes import Json
from authz.identity.registration import SvidPeer

TRUSTED_HEADER, SIGNER_HEADER = "authz-trusts", "authz-signed-below"
"""Metadata of a call: ids of roots with commas between them, and the id of the root of the caller's certificate."""
AGAIN_HEADER = "authz-ask-after"
"""Metadata of an answer: seconds. Who is told nothing asks every five."""
ASK_SECONDS, MOST_ASK_SECONDS = 5.0, 300.0
ASKS_PER_SECOND = 50
"""So many are answered, a millisecond each: where there are more holders than 250, each is to ask less often."""
SEEN_SECONDS = 30.0
"""Who was not heard of for so long is gone, or for three times as long as it was told to wait."""
MOST_HOLDERS = 50_000
NAMED = 20
"""Of those who are late so many are named."""
_ID = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class Held:
    """What one holder said last."""

    name: str
    trusted: frozenset[str] | None
    """Ids of roots; None: it says nothing of that, as a stream does that asks for a certificate alone."""
    signer: str
    """The id of the root of its certificate; empty when that is not known."""
    at: float
    """When it was heard of; infinite while its stream is open."""
    again: float = ASK_SECONDS
    """In how many seconds it was to ask again."""


@dataclass(slots=True)
class Holders:
    """By SPIFFE ID and serial number: several proxies may have one identity."""

    _held: dict[tuple[str, int], Held] = field(default_factory=dict)
    _streams: dict[int, dict[str, Held]] = field(default_factory=dict)
    """By number of a stream of secret discovery, then by name."""
    _looked_at: float = 0.0
    """When those that are gone were last forgotten."""

    def note(self, peer: SvidPeer, metadata: Iterable[tuple[str, str | bytes]], now: float) -> None:
        """Take what a call says; one that says nothing is of somebody else's client."""
        told = {name: value for name, value in metadata if isinstance(value, str)}
        if TRUSTED_HEADER not in told:
            return
        ids = frozenset(_ID.findall(told[TRUSTED_HEADER][:1000]))
        key = (str(peer.spiffe_id), peer.serial)
        if not 0 <= now - self._looked_at < SEEN_SECONDS:
            self._forget_gone(now)
        if key in self._held or len(self._held) < MOST_HOLDERS:
            self._held[key] = Held(key[0], ids, told.get(SIGNER_HEADER, "")[:16], now, self.again)

    @property
    def again(self) -> float:
        """In how many seconds holders are to ask again, so that all of them are answered with little work."""
        return min(MOST_ASK_SECONDS, max(ASK_SECONDS, len(self._held) / ASKS_PER_SECOND))

    def _forget_gone(self, now: float) -> None:
        self._looked_at = now
        for key, one in list(self._held.items()):
            if now - one.at > max(SEEN_SECONDS, 3 * one.again):
                self._held.pop(key, None)

    def forget(self, peer: SvidPeer) -> None:
        """This certificate was renewed: the next one has a serial number of its own."""
        self._held.pop((str(peer.spiffe_id), peer.serial), None)

    def note_stream(self, stream: int, name: str, trusted: frozenset[str] | None, signer: str) -> None:
        """Take what a stream of secret discovery has acknowledged."""
        self._streams.setdefault(stream, {})[name] = Held(name, trusted, signer, inf)

    def end_stream(self, stream: int, now: float) -> None:
        """It is believed for a while yet, in which its proxy opens another one."""
        if stream in self._streams:
            self._streams[stream] = {name: replace(one, at=now) for name, one in self._streams[stream].items()}

    def report(self, roots: Iterable[str], now: float) -> dict[str, Json]:
        """What all of them trust and are signed below, for whoever changes the root."""
        self._forget_gone(now)
        for stream, taken in list(self._streams.items()):
            if all(now - one.at > SEEN_SECONDS for one in taken.values()):
                self._streams.pop(stream, None)
        held = list(self._held.values())
        held += [one for taken in list(self._streams.values()) for one in list(taken.values())]
        lists: dict[str, Json] = {}
        for root in roots:
            lacking = _named(one.name for one in held if one.trusted is not None and root not in one.trusted)
            lists[root] = {"lacking": lacking, "signed": _named(one.name for one in held if one.signer == root)}
        return {"seen": sum(one.trusted is not None for one in held), "roots": lists}


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

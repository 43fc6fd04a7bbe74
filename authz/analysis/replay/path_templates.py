"""
Path templates learned from paths, one after another, in bounded memory.

A segment becomes ``{*}`` where two values looked like ids, or where there were more values than a person would list.
Nothing becomes wider than one segment (AP-50, AP-51), and what no template can hold stays as it was.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from authz.core.matchers import MAX_TEMPLATE_BYTES

MAX_ODD = 1000
"""Paths kept as they are, because no template holds them; more are only counted."""
ANY = "{*}"
_ID = re.compile(
    r"\d+"
    r"|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"  # UUID
    r"|(?=[^\d]*\d)[0-9a-fA-F]{8,}"  # digests, object ids
    r"|(?=[^\d]*\d[^\d]*\d)[0-9A-Za-z_-]{20,}"  # ULIDs, base64url
    r"|[a-z]{1,8}[-_:]\d+"  # order-17
)
_TEMPLATABLE = re.compile(r"(?:/[A-Za-z0-9\-._~%!$&'()+,;:@=]+)*/?")
"""Segments of the set P without a star, and no empty one but the last (AP-55, VA-27)."""

PathUse = tuple[str, int | None]
"""A method and a port, None where the port is not delivered."""


def is_id(segment: str) -> bool:
    """Whether a segment looks like a number, a UUID, a digest, a token or a word with a number."""
    return _ID.fullmatch(segment) is not None


@dataclass(slots=True)
class _Place:
    """What was seen below one beginning of a path."""

    children: "dict[str, _Place]" = field(default_factory=dict)
    any: "_Place | None" = None
    takes_all: bool = False
    """There were so many values that the next one is no news."""
    uses: Counter[PathUse] = field(default_factory=Counter)


class PathTemplates:
    """
    The paths of one caller at one workload.

    ``values``: how many values that look like names one segment may have before it becomes ``{*}``.
    """

    def __init__(self, values: int) -> None:
        self._values = values
        self._root = _Place()
        self._odd: dict[str, Counter[PathUse]] = {}
        self.unwritten = 0
        """Requests whose path cannot be written in a policy as it is."""

    def add(self, path: str, use: PathUse) -> None:
        """Add a path without query; an empty one is that of CONNECT and TCP."""
        if len(path) > MAX_TEMPLATE_BYTES or not path or not _TEMPLATABLE.fullmatch(path):
            self._add_odd(path, use)
            return
        place = self._root
        for segment in path[1:].split("/"):
            place = self._below(place, segment)
        place.uses[use] += 1

    def __iter__(self) -> Iterator[tuple[str, Counter[PathUse]]]:
        """Every path or template with its uses; the empty path stands for requests that have none."""
        found = [("/" + "/".join(segments), uses) for segments, uses in _walk(self._root, ())]
        yield from sorted([*found, *self._odd.items()], key=lambda one: one[0])

    def _add_odd(self, path: str, use: PathUse) -> None:
        is_wild = path.startswith("*") or path.endswith("*") or "{" in path or "}" in path  # VA-26
        known = self._odd.get(path)
        if is_wild or (known is None and len(self._odd) >= MAX_ODD):
            self.unwritten += 1
            return
        self._odd.setdefault(path, Counter())[use] += 1

    def _below(self, place: _Place, segment: str) -> _Place:
        if segment and place.any is not None and (place.takes_all or is_id(segment)):
            return place.any
        found = place.children.get(segment)
        if found is None:
            found = place.children[segment] = _Place()
            if segment and self._settle(place):
                return self._below(place, segment)
        return found

    def _settle(self, place: _Place) -> bool:
        """Put values together where there are enough; True when that was so."""
        ids = [one for one in place.children if one and is_id(one)]
        names = [one for one in place.children if one and not is_id(one)]
        merged = ids if len(ids) > 1 or (ids and place.any is not None) else []
        if len(names) > self._values:
            merged, place.takes_all = [*ids, *names], True
        for segment in merged:
            place.any = place.any or _Place()
            self._merge(place.any, place.children.pop(segment))
        return bool(merged)

    def _merge(self, into: _Place, other: _Place) -> None:
        into.uses.update(other.uses)
        into.takes_all |= other.takes_all
        if other.any is not None:
            into.any = into.any or _Place()
            self._merge(into.any, other.any)
        for segment, child in other.children.items():
            self._merge(self._below(into, segment), child)


def _walk(place: _Place, before: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Counter[PathUse]]]:
    if place.uses:
        yield before, place.uses
    for segment, child in place.children.items():
        yield from _walk(child, (*before, segment))
    if place.any is not None:
        yield from _walk(place.any, (*before, ANY))

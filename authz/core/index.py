"""
Which rules can fire at all for a request: look-ups instead of a walk over every rule.

Each rule is filed under the most selective thing it needs (``Terms`` of one attribute); a bucket that is still large
is filed again under another attribute. A candidate is only a candidate: the rule itself is evaluated afterwards, so
the index can make a decision faster but never different.
"""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from authz.core.attributes import AttributeContext, Unknown
from authz.core.catalog import Attribute
from authz.core.matchers import Network, Terms
from authz.core.networks import parse_address

SMALL = 6
"""Up to this many rules, a walk is cheaper than look-ups."""
MAX_DEPTH = 4
"""Attributes filed under one another; more would not pay for its memory."""

Needs = dict[str, tuple[Attribute, Terms]]
"""The needs of a rule by key of the attribute: every entry is a necessary condition."""


class _Affixes:
    """
    Prefixes (or reversed suffixes) of a value, found by one bisection.

    Every stored prefix of a value is the greatest stored text not above the value, or one of its own prefixes.
    """

    __slots__ = ("_buckets", "_parents", "_texts")

    def __init__(self, buckets: dict[str, "Index"]) -> None:
        self._texts = sorted(buckets)
        self._buckets = [buckets[text] for text in self._texts]
        self._parents: list[int] = []
        chain: list[int] = []
        for position, text in enumerate(self._texts):
            while chain and not text.startswith(self._texts[chain[-1]]):
                chain.pop()
            self._parents.append(chain[-1] if chain else -1)
            chain.append(position)

    def find(self, value: str) -> list["Index"]:
        found = []
        position = bisect_right(self._texts, value) - 1
        while position >= 0:
            if value.startswith(self._texts[position]):
                found.append(self._buckets[position])
            position = self._parents[position]
        return found

    def all(self) -> list["Index"]:
        return self._buckets


@dataclass(frozen=True, slots=True)
class _File:
    """The rules filed under one attribute."""

    attribute: Attribute
    exact: dict[str, "Index"]
    prefixes: _Affixes | None
    suffixes: _Affixes | None
    networks: tuple[tuple[int, int, dict[int, "Index"]], ...]
    """(version, host bits, network value shifted right → rules)."""

    def find(self, attributes: AttributeContext) -> list["Index"] | None:
        """Buckets that a value of the attribute falls into; None when the attribute is unknown."""
        read = self.attribute.index_values or self.attribute.read
        values = read(attributes)
        if isinstance(values, Unknown):
            return None
        found: list[Index] = []
        for value in values:
            bucket = self.exact.get(value)
            if bucket is not None:
                found.append(bucket)
            if self.prefixes is not None:
                found += self.prefixes.find(value)
            if self.suffixes is not None:
                found += self.suffixes.find(value[::-1])
            if self.networks:
                address = parse_address(value)
                for version, host_bits, networks in self.networks:
                    if address is not None and version == address[0]:
                        bucket = networks.get(address[1] >> host_bits)
                        if bucket is not None:
                            found.append(bucket)
        return found

    def all(self) -> list["Index"]:
        found = list(self.exact.values())
        for affixes in (self.prefixes, self.suffixes):
            found += affixes.all() if affixes is not None else []
        for _, _, networks in self.networks:
            found += networks.values()
        return found


class Index:
    """
    Rules by ordinal; ``candidates`` answers the ordinals that may fire, ascending and without repetition.

    ``unknown_fires`` says what an attribute that is not delivered means: for DENY, AUDIT and CUSTOM the condition is
    taken to match, for ALLOW not (CS-7).
    """

    __slots__ = ("_always", "_files", "_unknown_fires")

    def __init__(self, ordinals: Sequence[int], needs: Sequence[Needs], *, unknown_fires: bool, depth: int = 0) -> None:
        self._unknown_fires = unknown_fires
        self._files: tuple[_File, ...] = ()
        if len(ordinals) <= SMALL or depth >= MAX_DEPTH:
            self._always = tuple(ordinals)
            return
        crowd: Counter[tuple[str, object]] = Counter()
        for ordinal in ordinals:
            for key, (_, terms) in needs[ordinal].items():
                crowd.update((key, term) for term in _each(terms))
        always: list[int] = []
        filed: defaultdict[str, list[int]] = defaultdict(list)
        attributes: dict[str, Attribute] = {}
        for ordinal in ordinals:
            best = _most_selective(needs[ordinal], crowd, len(ordinals))
            if best is None:
                always.append(ordinal)
            else:
                attributes[best.key] = best
                filed[best.key].append(ordinal)
        self._always = tuple(always)
        self._files = tuple(self._file(attributes[key], members, needs, depth + 1) for key, members in filed.items())

    def _file(self, attribute: Attribute, members: list[int], needs: Sequence[Needs], depth: int) -> _File:
        buckets: defaultdict[tuple[str, object], list[int]] = defaultdict(list)
        for ordinal in members:
            for kind_and_term in _each(needs[ordinal][attribute.key][1]):
                buckets[kind_and_term].append(ordinal)
        crowded = any(len(bucket) > SMALL for bucket in buckets.values())
        rest = needs
        if crowded:
            rest = list(needs)
            for ordinal in members:
                rest[ordinal] = {name: terms for name, terms in needs[ordinal].items() if name != attribute.key}
        exact: dict[str, Index] = {}
        prefixes: dict[str, Index] = {}
        suffixes: dict[str, Index] = {}
        networks: dict[tuple[int, int], dict[int, Index]] = {}
        for (kind, term), bucket in buckets.items():
            below = Index(bucket, rest, unknown_fires=self._unknown_fires, depth=depth)
            if isinstance(term, Network):
                bits: int = 32 if term.version == 4 else 128
                networks.setdefault((term.version, bits - term.prefix_length), {})[term.value] = below
            elif isinstance(term, str):
                {"exact": exact, "prefix": prefixes, "suffix": suffixes}[kind][
                    term[::-1] if kind == "suffix" else term
                ] = below
        return _File(
            attribute,
            exact,
            _Affixes(prefixes) if prefixes else None,
            _Affixes(suffixes) if suffixes else None,
            tuple((version, host_bits, found) for (version, host_bits), found in networks.items()),
        )

    def candidates(self, attributes: AttributeContext) -> Sequence[int]:
        """Ordinals of the rules that might fire for the request, ascending; the others cannot."""
        if not self._files:
            return self._always
        found = set(self._always)
        self._collect(attributes, found)
        return sorted(found)

    def _collect(self, attributes: AttributeContext, found: set[int]) -> None:
        for file in self._files:
            buckets = file.find(attributes)
            if buckets is None:
                buckets = file.all() if self._unknown_fires else []
            for bucket in buckets:
                found.update(bucket._always)
                if bucket._files:
                    bucket._collect(attributes, found)


def _each(terms: Terms) -> list[tuple[str, object]]:
    return [
        *(("exact", text) for text in terms.exact),
        *(("prefix", text) for text in terms.prefixes),
        *(("suffix", text) for text in terms.suffixes),
        *(("network", network) for network in terms.networks),
    ]


def _most_selective(needs: Needs, crowd: Counter[tuple[str, object]], total: int) -> Attribute | None:
    """The attribute whose fullest bucket is smallest; None when filing would not separate anything."""
    best, best_crowd = None, total
    for key, (attribute, terms) in needs.items():
        fullest = max((crowd[key, term] for term in _each(terms)), default=0)
        if fullest < best_crowd:
            best, best_crowd = attribute, fullest
    return best

"""
Which rules of a stage can match at all, by one attribute of the request: the plan behind ``matcher_tree``.

Pure arithmetic on ordinals; what a rule needs comes from the core (``CompiledRule.needs``): nothing is stated twice.
Every bucket holds at least the rules that can match a request that is led to it; a superfluous rule costs time and
nothing else.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from authz.core.index import Needs
from authz.core.matchers import Terms

PATH, HOST, IDENTITY, PORT = "paths", "hosts", "source.principal", "destination.port"
KEYS = (PATH, HOST, IDENTITY, PORT)
"""Attributes that can be looked up, by their keys in the core's catalogue."""
MAX_WALK = 70
"""So many rules Envoy walks faster than it looks them up (measured; docs/native.md)."""
MAX_DEPTH = 3
"""Look-ups within look-ups."""
FRAGMENT = "#"
"""Policies see a path without its fragment: no value with one ever matches (AP-46)."""
Bucket = tuple[int, ...]
"""Ordinals of rules, ascending."""


@dataclass(frozen=True, slots=True)
class Lookup:
    """
    A value found in ``exact`` leads there, else the longest of ``prefixes`` that it begins with, else to ``otherwise``.

    ``everything`` is for values that cannot be looked up safely.
    """

    key: str
    exact: Mapping[str, "Lookup | Bucket"]
    prefixes: Mapping[str, "Lookup | Bucket"]
    otherwise: "Lookup | Bucket"
    everything: Bucket

    def buckets(self) -> Iterable[Bucket]:
        """Every bucket below, equal ones repeated."""
        for below in (*self.exact.values(), *self.prefixes.values(), self.otherwise):
            if isinstance(below, Lookup):
                yield from below.buckets()
            else:
                yield below
        if self.key in (HOST, IDENTITY):
            yield self.everything


def plan(rules: Sequence[Needs], *, may_split: bool, walk: int = MAX_WALK) -> list[Lookup | Bucket]:
    """
    Plan the look-ups of a stage: one, or several when too many rules would belong to every bucket of one.

    ``may_split``: whether several filters may share the stage. ``walk``: a bucket of that many rules is small enough.
    """
    everything = tuple(range(len(rules)))
    groups = _groups(everything, rules)
    largest = max((key for key in groups if key), key=lambda key: len(groups[key]), default="")
    if not largest:
        return [everything]
    beside = len(rules) - len(groups[largest])
    if beside <= walk or not may_split:
        return [_lookup(everything, rules, largest, KEYS, _Depth(walk))]
    found: list[Lookup | Bucket] = []
    walked = list(groups.pop("", ()))
    for key, members in groups.items():
        if len(members) <= walk:
            walked += members
        else:
            found.append(_lookup(tuple(members), rules, key, KEYS, _Depth(walk)))
    return [*found, tuple(sorted(walked))] if walked else found


def _groups(ordinals: Iterable[int], rules: Sequence[Needs], keys: Sequence[str] = KEYS) -> dict[str, list[int]]:
    """Each rule under the attribute by which it shares a bucket with the fewest others; else under ""."""
    ordinals = tuple(ordinals)
    needed = [
        [(key, found) for key in keys if key in rules[ordinal] and (found := _terms(rules[ordinal], key))]
        for ordinal in ordinals
    ]
    crowd: Counter[tuple[str, tuple[str, str]]] = Counter()
    for one in needed:
        for key, found in one:
            crowd.update([(key, term) for term in found])
    groups: dict[str, list[int]] = defaultdict(list)
    for ordinal, one in zip(ordinals, needed, strict=True):
        best, fewest = "", len(ordinals)
        for key, found in one:
            fullest = max(crowd[key, term] for term in found)
            if fullest < fewest and not any(kind == "suffix" for kind, _ in found):
                best, fewest = key, fullest
        groups[best].append(ordinal)
    return dict(groups)


def _terms(needs: Needs, key: str) -> list[tuple[str, str]]:
    terms = needs[key][1]
    return [
        *(("exact", text) for text in terms.exact),
        *(("prefix", text) for text in terms.prefixes),
        *(("suffix", text) for text in terms.suffixes),
    ]


def _lookup(ordinals: Bucket, rules: Sequence[Needs], key: str, keys: Sequence[str], depth: "_Depth") -> Lookup:
    """File all of ``ordinals`` under ``key``; those that do not need it belong to every bucket."""
    exact: dict[str, set[int]] = {}
    prefixes: dict[str, set[int]] = {}
    always: list[int] = []
    suffixes: list[tuple[int, tuple[str, ...]]] = []
    for ordinal in ordinals:
        terms: Terms | None = rules[ordinal][key][1] if key in rules[ordinal] else None
        if terms is None or terms.networks:
            always.append(ordinal)
            continue
        for text in terms.exact:
            if key != PATH or FRAGMENT not in text:
                exact.setdefault(text, set()).add(ordinal)
        for text in terms.prefixes:
            if key != PATH or FRAGMENT not in text:
                prefixes.setdefault(text, set()).add(ordinal)
        if terms.suffixes:
            suffixes.append((ordinal, terms.suffixes))
    lengths = sorted({len(text) for text in prefixes})
    for text, members in exact.items():
        members.update(_of_prefixes(text, prefixes, lengths), always)
        members.update(ordinal for ordinal, ends in suffixes if text.endswith(ends))
    own = {text: frozenset(members) for text, members in prefixes.items()}
    rest = {*always, *(ordinal for ordinal, _ in suffixes)}
    for text, members in prefixes.items():
        members.update(_of_prefixes(text, own, lengths), rest)
    below = _Below(rules, tuple(other for other in keys if other != key), depth.deeper())
    return Lookup(
        key,
        {text: below.of(members) for text, members in exact.items()},
        {text: below.of(members) for text, members in prefixes.items()},
        below.of(rest),
        ordinals,
    )


def _of_prefixes(text: str, prefixes: Mapping[str, Iterable[int]], lengths: Sequence[int]) -> Iterable[int]:
    longest = len(text)
    return [ordinal for end in lengths if end <= longest for ordinal in prefixes.get(text[:end], ())]


@dataclass(frozen=True, slots=True)
class _Depth:
    walk: int
    level: int = 0

    def deeper(self) -> "_Depth":
        return _Depth(self.walk, self.level + 1)


class _Below:
    """The node below a look-up: a bucket, or another look-up where the bucket is large; equal ones are shared."""

    def __init__(self, rules: Sequence[Needs], keys: Sequence[str], depth: "_Depth") -> None:
        self._rules = rules
        self._keys = keys
        self._depth = depth
        self._known: dict[Bucket, Lookup | Bucket] = {}

    def of(self, members: Iterable[int]) -> Lookup | Bucket:
        bucket = tuple(sorted(members))
        if len(bucket) <= self._depth.walk or self._depth.level >= MAX_DEPTH:
            return bucket
        found = self._known.get(bucket)
        if found is None:
            found = self._known[bucket] = self._of_large(bucket)
        return found

    def _of_large(self, bucket: Bucket) -> Lookup | Bucket:
        groups = _groups(bucket, self._rules, self._keys)
        best = max((key for key in groups if key), key=lambda key: len(groups[key]), default="")
        if not best or len(groups[best]) < len(bucket) // 2:
            return bucket
        return _lookup(bucket, self._rules, best, self._keys, self._depth)

"""
Who gets a candidate in force: named workloads, a share of all, or both.

A workload's place is the digest of its name, so that it depends on nothing else: every control of a fleet chooses the
same ones, every candidate goes to the same ones first, and a larger share contains the smaller one.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from hashlib import sha256

from authz.core.errors import SettingsError

_SALT = b"authz canary\x00"
_PLACES = 1 << 64
_SHARE = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,4})?)%", re.ASCII)
SHARE_FORM = "a share is written as `5%`, more than 0% and at most 100%"


@dataclass(frozen=True, slots=True)
class CanarySelection:
    """The workloads that a candidate is for."""

    share: Fraction = Fraction(0)
    """Of all workloads, from 0 to 1. More than 0 chooses at least one."""
    names: frozenset[str] = frozenset()

    def chosen(self, workloads: Iterable[str]) -> frozenset[str]:
        """Those of these workloads that get the candidate."""
        places = {name: _place(name) for name in workloads}
        found = {name for name in places if name in self.names}
        if self.share > 0 and places:
            within = {name for name, place in places.items() if place * self.share.denominator < self._bound}
            found |= within or {min(places, key=lambda name: (places[name], name))}
        return frozenset(found)

    def __bool__(self) -> bool:
        """Whether it may choose anybody."""
        return self.share > 0 or bool(self.names)

    def unknown(self, workloads: Iterable[str]) -> tuple[str, ...]:
        """Named workloads that are not among these, sorted."""
        return tuple(sorted(self.names.difference(workloads)))

    @property
    def _bound(self) -> int:
        return self.share.numerator * _PLACES

    def __str__(self) -> str:
        """For people: ``5% and web-v1``."""
        share = (f"{float(self.share * 100):g}%",) if self.share else ()
        return " and ".join((*share, *sorted(self.names)))


def read_share(text: str) -> Fraction:
    """
    The share that ``5%`` or ``0.5%`` means, from 0 to 1.

    Raises:
        SettingsError: it is none, or 0.
    """
    written = _SHARE.fullmatch(text)
    share = Fraction(written[1]) / 100 if written is not None else Fraction(0)
    if not 0 < share <= 1:
        raise SettingsError(f"`{text[:100]}`: {SHARE_FORM}")
    return share


@lru_cache(maxsize=1 << 14)
def _place(name: str) -> int:
    """At least 0, less than ``_PLACES``; even over all names."""
    return int.from_bytes(sha256(_SALT + name.encode()).digest()[:8], "big")

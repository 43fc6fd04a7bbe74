"""Localities: where a workload runs, as ``region/zone/subzone``, and what is written about many of them."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple


class WorkloadLocality(NamedTuple):
    """Region, zone and subzone; empty texts where nothing is known."""

    region: str = ""
    zone: str = ""
    subzone: str = ""

    @classmethod
    def from_text(cls, written: str) -> "WorkloadLocality":
        """Take ``region/zone/subzone`` apart; what is missing is empty."""
        return cls(*(*written.split("/", 2), "", "", "")[:3])

    def matches(self, pattern: str) -> bool:
        """Whether ``region/zone/subzone``, shorter or with ``*``, covers this place (Istio's LocalityMatch)."""
        wanted = WorkloadLocality.from_text(pattern)
        if wanted.region not in ("*", self.region):
            return False
        return wanted.zone in ("*", "", self.zone) and wanted.subzone in ("*", "", self.subzone)

    def distance(self, other: "WorkloadLocality") -> int:
        """0 at the same place, 1 in the same zone, 2 in the same region, else 3 (Istio's LbPriority)."""
        if self.region != other.region:
            return 3
        if self.zone != other.zone:
            return 2
        return 0 if self.subzone == other.subzone else 1

    def labels(self, network: str = "") -> Mapping[str, str]:
        """Istio's topology labels for this place; ``failoverPriority`` names them."""
        named = {
            "topology.kubernetes.io/region": self.region,
            "topology.kubernetes.io/zone": self.zone,
            "topology.istio.io/subzone": self.subzone,
            "topology.istio.io/network": network,
        }
        return {label: value for label, value in named.items() if value}


NOWHERE_KNOWN = WorkloadLocality()
"""The place of what does not say where it runs."""


def locality_problem(written: Sequence[str]) -> str:
    """
    What is wrong with localities that are told apart: an empty part, a ``*`` in the middle, or an overlap.

    What ends with ``*`` may cover what stands before it, as with Istio: the first that fits counts.
    """
    seen: list[tuple[str, ...]] = []
    for locality in written:
        parts = tuple(locality.split("/", 2))
        if "" in parts:
            return f"`{locality}` has an empty region, zone or subzone"
        if locality.count("*") > 1 or ("*" in locality and not locality.endswith("*")):
            return f"`{locality}` has a `*` that does not end it"
        whole = parts[: parts.index("*")] if "*" in parts else parts
        for other in seen:
            if other == whole[: len(other)] or ("*" not in locality and whole == other[: len(whole)]):
                return f"`{locality}` overlaps with another locality"
        seen.append(whole)
    return ""

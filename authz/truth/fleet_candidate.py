"""Who in a fleet has one candidate: of the reports of all, put together."""

from collections.abc import Iterator
from dataclasses import dataclass

from authz.canary.candidate_standing import CandidateStanding, CandidateState
from authz.truth.fleet_merge import CURRENT, MISSING, SILENT, FleetView, ProxyView, ReplicaView


@dataclass(frozen=True, slots=True)
class FleetCandidate:
    """Which one."""

    number: int
    digest: str
    """Of its archive."""

    def refusing(self, view: FleetView) -> Iterator[ReplicaView]:
        """Live replicas that will not take it any more: it was refused, or taken back."""
        for replica in view.replicas:
            found = self.at(replica)
            if found is not None and found.state in (CandidateState.REFUSED, CandidateState.ABORTED):
                yield replica

    def without(self, view: FleetView) -> Iterator[ReplicaView | ProxyView]:
        """Whoever has it not: replicas that have not taken it, silent ones too, and proxies that are to have it."""
        for replica in view.replicas:
            found = self.at(replica)
            if found is None or not found.is_taken:
                yield replica
        for proxy in self.proxies(view):
            if proxy.state != CURRENT:
                yield proxy

    def proxies(self, view: FleetView) -> Iterator[ProxyView]:
        """Those that are connected, or may be, and for which a replica has it in force."""
        return (one for one in view.proxies if one.candidate == self.number and one.state != MISSING)

    def is_taken(self, view: FleetView) -> bool:
        """Whether all have it; nobody has without any replica."""
        return bool(view.replicas) and not any(True for _ in self.without(view))

    def at(self, replica: ReplicaView) -> CandidateStanding | None:
        """What became of it at a replica; None where that is not known: it is silent, or says nothing of this one."""
        found = replica.candidate if replica.state != SILENT else None
        return found if found is not None and found.is_of(self.number, self.digest) else None

"""What became of the candidate of a fleet at one replica: what that one tells the others."""

from dataclasses import dataclass
from enum import StrEnum


class CandidateState(StrEnum):
    """What became of it there."""

    WAITING = "waiting"
    """It is about to be taken, or waits for the revision that it was compared with."""
    SHADOW = "in shadow"
    """A server decides it in shadow; a control plane has it, and it is in force for nobody."""
    IN_FORCE = "in force"
    """For those of its proxies that are chosen."""
    REFUSED = "refused"
    ABORTED = "taken back"


TAKEN = (CandidateState.SHADOW, CandidateState.IN_FORCE)


@dataclass(frozen=True, slots=True)
class CandidateStanding:
    """How one replica has one candidate."""

    number: int
    """Among the revisions of the fleet; 0 where a replica refuses candidates without looking at them."""
    digest: str
    """Of its archive; empty with that number."""
    state: CandidateState
    reason: str = ""
    """Why it waits, was refused or taken back; else empty, or why what lies there now is not what is in force."""

    @property
    def is_taken(self) -> bool:
        """Whether the replica has done with it what it is for."""
        return self.state in TAKEN

    def is_of(self, number: int, digest: str) -> bool:
        """Whether that candidate is meant."""
        return self.number in (0, number) and self.digest in ("", digest)

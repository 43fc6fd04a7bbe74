"""What becomes of a candidate, for people and programs."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from enum import StrEnum


class CanaryState(StrEnum):
    """What becomes of a candidate."""

    NONE = "none"
    """There is none, or it is what is in force for all."""
    IN_FORCE = "in force"
    """For those that are chosen."""
    SHADOW = "in shadow"
    """It chooses nobody, and is decided beside what is in force."""
    REFUSED = "refused"
    """It cannot be used."""
    ABORTED = "aborted"


@dataclass(frozen=True, slots=True)
class CanaryStatus:
    """How it is with the candidate now."""

    state: CanaryState = CanaryState.NONE
    version: str = ""
    """Its policy version; empty when it was never read."""
    reason: str = ""
    """Why it was refused or aborted, or why what lies there now is not what is in force; else empty."""
    selection: str = ""
    """For people: ``5% and web-v1``."""
    chosen: tuple[str, ...] = ()
    """The workloads that have it, sorted."""
    left_out: tuple[str, ...] = ()
    """Chosen ones that ask an authorization server, which decides by its own policies."""
    workloads: int = 0
    """Of the mesh."""
    number: int = 0
    """Among the revisions of the fleet, of one that was pushed; 0 for others."""

    def become(
        self,
        state: CanaryState,
        *,
        version: str = "",
        reason: str = "",
        chosen: Iterable[str] = (),
        left_out: Iterable[str] = (),
    ) -> "CanaryStatus":
        """Another state of the same selection; without ``version`` of the same candidate."""
        return replace(
            self,
            state=state,
            version=version or self.version,
            reason=reason,
            chosen=tuple(sorted(chosen)),
            left_out=tuple(sorted(left_out)),
        )


def canary_json(status: CanaryStatus) -> dict[str, object]:
    """The answer of ``/canary``."""
    return asdict(status)


def shown_names(names: tuple[str, ...], most: int = 5) -> str:
    """The first ones, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more

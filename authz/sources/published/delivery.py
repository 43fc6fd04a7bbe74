"""What a source delivers: the texts of a whole set, and which revision they are; what they mean is not known here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from authz.core.errors import AuthzError


class NotTaken(AuthzError):
    """A source answered, and what it said is not put in force; the message says why."""


@dataclass(frozen=True, slots=True)
class TakenRevision:
    """What a replica took last; from then on nothing older."""

    owner: str
    """The fleet of a bundle, or the repository and branch; what another owner says is compared with nothing."""
    number: int
    name: str
    """For people: the number of a bundle, the commit of a repository."""
    digest: str


@dataclass(frozen=True, slots=True)
class Delivery:
    """One revision, judged: it may be put in force if its policies can be."""

    revision: TakenRevision
    files: Mapping[str, bytes] = field(repr=False)
    """By names of a bundle: ``policies/…``, ``mesh.yaml``, ``traffic/…``, ``trust/…``."""
    created: float
    """Seconds since the epoch, as its author says."""
    expires: float | None = None
    """From then on it would not be taken any more; None: never."""
    archive: bytes | None = field(default=None, repr=False)
    """What to keep so that the same can be judged again without the source; None where the source keeps it itself."""
    tag: str = ""
    """What the source is asked next time, to learn that nothing has changed."""


class PolicySource(Protocol):
    """Asks one address. Called by one thread at a time."""

    away_seconds: float | None
    """How long it is not asked again after it did not answer; None: ever longer, for it has to be spared."""

    def ask(self, last: TakenRevision | None, allowed: str, tag: str, now: float) -> Delivery | None:
        """
        Ask for what is published now; None when that is what was asked for before.

        Args:
            last: what was taken last, of this owner or another.
            allowed: name of the one revision that may be older; empty for none.
            tag: of the last delivery that was put in force by this process; empty for none.
            now: seconds since the epoch.

        Raises:
            FetchError: it does not answer.
            NotTaken: what it says is refused.
            OSError: a file cannot be read.
        """

    def restore(self, kept: bytes | None, last: TakenRevision | None, now: float) -> Delivery | None:
        """
        Judge again what was kept on disk; None when there is nothing.

        Raises:
            NotTaken: it is refused now.
            OSError: a file cannot be read.
        """

    def watch(self, wake: Callable[[], None]) -> None:
        """Call ``wake`` from any thread when there may be something new; sources that cannot know never do."""

    def stop(self) -> None:
        """End what is under way; called from another thread."""

"""Where a control plane finds a candidate, and who says for whom it is."""

from dataclasses import dataclass
from pathlib import Path

from authz.canary.canary_judge import AbortBound
from authz.canary.canary_selection import CanarySelection
from authz.canary.candidate_terms import PublishedCandidate


@dataclass(frozen=True, slots=True)
class CanarySource:
    """Where a candidate is, and for whom."""

    path: Path
    """A directory, read with its subfolders, or a file; nothing there: there is no candidate."""
    selection: CanarySelection = CanarySelection()  # noqa: RUF009  # frozen
    bound: AbortBound | None = None
    """When it is taken back; None: only by hand."""
    published: PublishedCandidate | None = None
    """Where it was pushed; its terms then count in the place of ``selection`` and ``bound``."""
    is_shadowed: bool = False
    """Whether one that chooses nobody is decided in shadow, by records that are taken; else nothing is done with it."""

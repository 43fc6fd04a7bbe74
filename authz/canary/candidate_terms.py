"""
For whom a pushed candidate is, and when it is taken back: the part of a signed manifest that says so.

    {"base": 7, "share": "5%", "workloads": ["api-v2"], "abort_above": "10%", "abort_window": 60}
"""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

from authz.canary.canary_judge import AbortBound
from authz.canary.canary_selection import CanarySelection, read_share
from authz.canary.candidate_standing import CandidateStanding
from authz.core.errors import SettingsError

MAX_NAMES = 1000
MAX_NAME = 253
MAX_WINDOW_SECONDS = 86_400
_MEMBERS = ("base", "share", "workloads", "abort_above", "abort_window")
_TEN_THOUSANDTHS = 10_000


@dataclass(frozen=True, slots=True)
class CandidateTerms:
    """What is said of a candidate."""

    number: int
    """Of the candidate, among the revisions of its fleet."""
    base: int
    """The revision that it was compared with; beside another one it is nothing."""
    selection: CanarySelection = CanarySelection()  # noqa: RUF009  # frozen
    """Who gets it in force; nobody: it decides in shadow alone."""
    bound: AbortBound | None = None

    def __str__(self) -> str:
        """For people: ``for 5% and web-v1, taken back above 10% in 60 s``."""
        if not self.selection:
            return "in shadow alone"
        bound = self.bound
        back = f", taken back above {_percent(bound.share)} in {bound.window_seconds:g} s" if bound is not None else ""
        return f"for {self.selection}{back}"


class PublishedCandidate(Protocol):
    """Where a candidate comes from that somebody pushed. Read from any thread."""

    problem: str
    """Why what was pushed is not laid out; empty when it is, or there is none."""
    aborted: str
    """Why what was pushed last was taken back by everybody; empty when it was not."""
    standing: CandidateStanding | None
    """What became of it where it is laid out: in shadow, as far as is known there; None: there is none."""

    def terms(self, path: Path) -> CandidateTerms | None:
        """What is said of the candidate that lies at ``path`` now; None: there is none."""

    def replaced_at(self) -> float:
        """When what is in force was last replaced, seconds since the epoch."""

    def abort(self, number: int, reason: str) -> None:
        """Have everybody take it back; returns at once."""


def write_terms(terms: CandidateTerms) -> dict[str, Any]:
    """
    All but the number, as JSON.

    Raises:
        ValueError: it could not be read again.
    """
    bound = terms.bound
    return {
        "base": terms.base,
        "share": _percent(terms.selection.share) if terms.selection.share else None,
        "workloads": sorted(terms.selection.names),
        "abort_above": _percent(bound.share) if bound is not None else None,
        "abort_window": int(bound.window_seconds) if bound is not None else None,
    }


def read_terms(told: object, number: int) -> CandidateTerms:
    """
    Read what anybody wrote; ``number`` is that of the candidate.

    Raises:
        ValueError: it is something else; the message goes on after "its terms".
    """
    if not isinstance(told, dict) or set(told) != set(_MEMBERS):
        raise ValueError(f"do not have exactly the members {', '.join(f'`{name}`' for name in _MEMBERS)}")
    base, names, window = told["base"], told["workloads"], told["abort_window"]
    if not _is_number(base, 1, number - 1):
        raise ValueError("have a `base` that is no revision before it")
    if not isinstance(names, list) or len(names) > MAX_NAMES or not all(map(_is_name, names)):
        raise ValueError(f"have `workloads` that are no list of at most {MAX_NAMES} names")
    if names != sorted(set(names)):
        raise ValueError("have `workloads` that are not in order, or one twice")
    share = None if told["share"] is None else _share(told["share"], "share")
    if (told["abort_above"] is None) is not (window is None):
        raise ValueError("have one of `abort_above` and `abort_window` without the other")
    bound = None
    if window is not None:
        if not _is_number(window, 1, MAX_WINDOW_SECONDS):
            raise ValueError(f"have an `abort_window` that is no number from 1 to {MAX_WINDOW_SECONDS}")
        bound = AbortBound(_share(told["abort_above"], "abort_above"), float(window))
    return CandidateTerms(number, base, CanarySelection(share or Fraction(0), frozenset(names)), bound)


def _share(told: object, name: str) -> Fraction:
    try:
        share = read_share(told if isinstance(told, str) else "")
    except SettingsError:
        raise ValueError(f"have a `{name}` that is no share such as `5%`") from None
    if _percent(share) != told:
        raise ValueError(f"have a `{name}` that is not written as `{_percent(share)}`")
    return share


def _percent(share: Fraction) -> str:
    """``5%`` or ``0.25%``. Raises ValueError for what has more than four digits after the point."""
    found = share * 100 * _TEN_THOUSANDTHS
    if found.denominator != 1:
        raise ValueError("have a share with more than four digits after the point")
    whole, rest = divmod(found.numerator, _TEN_THOUSANDTHS)
    return f"{whole}{f'.{rest:04d}'.rstrip('0') if rest else ''}%"


def _is_number(told: object, least: int, most: int) -> bool:
    return isinstance(told, int) and not isinstance(told, bool) and least <= told <= most


def _is_name(told: object) -> bool:
    return isinstance(told, str) and 0 < len(told) <= MAX_NAME and told.isprintable()

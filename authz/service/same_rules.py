"""Whether two lists of token rules judge every token alike, remembered: they are compared for every request."""

from dataclasses import replace

from authz.core.errors import NOWHERE
from authz.core.resources import JwtRule

_Rules = tuple[JwtRule, ...]
MAX_PAIRS = 4096
"""Pairs remembered: one for each workload, and for each set that was in force since."""


class SameRules:
    """Compares rules of two sets, whatever their files and names. Used by one thread at a time."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], tuple[_Rules, _Rules, bool]] = {}

    def __call__(self, ours: _Rules, theirs: _Rules) -> bool:
        """Whether both come to the same outcome for every token."""
        found = self._known.get((id(ours), id(theirs)))  # the references that are kept make the ids unique
        if found is None:
            if len(self._known) >= MAX_PAIRS:
                self._known.clear()
            found = (ours, theirs, [*map(_bare, ours)] == [*map(_bare, theirs)])
            self._known[id(ours), id(theirs)] = found
        return found[2]


def _bare(rule: JwtRule) -> JwtRule:
    return replace(rule, name="", location=NOWHERE)

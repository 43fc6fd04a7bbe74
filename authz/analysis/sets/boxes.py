"""
Sets of requests as lists of boxes: a box says of each variable which of its candidate values a request may have.

Variables are numbered; candidates are the bits of an integer. A variable that a box does not name may have any value.
A variable with one value has a mask. One with several (the elements of a list claim, the occurrences of a header) has
the elements that are allowed, and masks of which some element must lie in each; the empty list is "absent". Because a
box constrains each variable alone, and each constraint is decided exactly, so are emptiness and difference.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


class Several(NamedTuple):
    """A constraint on a list of values."""

    allowed: int
    """Every element lies in this mask."""
    needed: frozenset[int]
    """In each of these masks lies some element; each is part of ``allowed``."""


Constraint = int | Several
Box = dict[int, Constraint]
"""Never changed once made."""
BoxKey = frozenset[tuple[int, Constraint]]


class Literal(NamedTuple):
    """One thing asked of one variable: its values lie in ``mask``, or with ``some``, one of them does."""

    variable: int
    mask: int
    some: bool = False


class OutOfTime(Exception):
    """The time limit is reached: the question is not decided."""


@dataclass(slots=True)
class Space:
    """The variables of a question, and the algebra of boxes over them."""

    expired: Callable[[], bool] = lambda: False
    """Whether the time limit is reached; asked now and then."""
    full: list[int] = field(default_factory=list)
    """Mask of all candidates, by variable."""
    is_several: list[bool] = field(default_factory=list)
    _steps: int = 0

    def add(self, candidates: int, *, several: bool) -> int:
        """Number a new variable with so many candidates."""
        self.full.append((1 << candidates) - 1)
        self.is_several.append(several)
        return len(self.full) - 1

    def narrow(self, box: Box, literal: Literal) -> Box | None:
        """The part of a box where the literal holds; None when it is empty."""
        variable, mask, some = literal
        before = box.get(variable)
        after: Constraint
        if not self.is_several[variable]:
            after = mask & (self.full[variable] if before is None else before)  # type: ignore[operator]  # a mask
            if not after:
                return None
        else:
            allowed, needed = before if isinstance(before, Several) else Several(self.full[variable], frozenset())
            if some:
                if not mask & allowed:
                    return None
                needed |= {mask & allowed}
            else:
                allowed &= mask
                needed = frozenset(part & allowed for part in needed)
                if 0 in needed:
                    return None
            after = Several(allowed, needed)
        return box if after == before else {**box, variable: after}

    def narrow_all(self, box: Box | None, literals: Iterable[Literal]) -> Box | None:
        """The part of a box where every literal holds."""
        for literal in literals:
            if box is None:
                return None
            box = self.narrow(box, literal)
        return box

    def negated(self, literal: Literal) -> Literal:
        """The literal that holds exactly where this one does not."""
        variable, mask, some = literal
        is_some = not some and self.is_several[variable]
        return Literal(variable, self.full[variable] & ~mask, is_some)

    def literals(self, box: Box) -> Iterator[Literal]:
        """What a box asks, one thing at a time."""
        for variable, constraint in box.items():
            if isinstance(constraint, Several):
                if constraint.allowed != self.full[variable]:
                    yield Literal(variable, constraint.allowed)
                for mask in constraint.needed:
                    yield Literal(variable, mask, some=True)
            else:
                yield Literal(variable, constraint)

    def meet(self, first: Box, second: Box) -> Box | None:
        """The requests in both; None when there are none."""
        if len(first) < len(second):
            first, second = second, first
        for variable, constraint in second.items():  # nearly all pairs part here
            other = first.get(variable)
            if other is not None and isinstance(constraint, int) and not constraint & other:  # type: ignore[operator]  # both are masks
                return None
        return self.narrow_all(first, self.literals(second))

    def covers(self, outer: Box, inner: Box) -> bool:
        """Whether every request of ``inner`` is in ``outer``."""
        return all(self.narrow(inner, self.negated(literal)) is None for literal in self.literals(outer))

    def minus(self, box: Box, other: Box) -> list[Box]:
        """The requests in ``box`` and not in ``other``, as boxes that do not overlap."""
        if self.meet(box, other) is None:
            return [box]
        found: list[Box] = []
        rest: Box | None = box
        for literal in self.literals(other):
            assert rest is not None
            outside = self.narrow(rest, self.negated(literal))
            if outside is not None:
                found.append(outside)
            rest = self.narrow(rest, literal)
            if rest is None:
                break
        return found

    def minus_all(self, boxes: Sequence[Box], others: Iterable[Box]) -> list[Box]:
        """
        The requests in one of ``boxes`` and in none of ``others``.

        Raises:
            OutOfTime: before it was known.
        """
        rest = list(boxes)
        for other in others:
            self.tick(len(rest))
            if not rest:
                break
            rest = [part for box in rest for part in self.minus(box, other)]
        return rest

    def is_covered(self, box: Box, others: Sequence[Box]) -> bool:
        """Whether one of the others alone covers the box: sooner known than what is left of it."""
        return any(self.covers(other, box) for other in others)

    def tick(self, steps: int = 1) -> None:
        """Count work. Raises OutOfTime when the time limit is reached; the time is looked at now and then."""
        self._steps += steps + 1
        if self._steps > 500:
            self._steps = 0
            if self.expired():
                raise OutOfTime


def key_of(box: Box) -> BoxKey:
    """The box as a value that can be looked up."""
    return frozenset(box.items())


def lowest(mask: int) -> int:
    """The number of the first candidate of a mask: the most natural one."""
    return (mask & -mask).bit_length() - 1

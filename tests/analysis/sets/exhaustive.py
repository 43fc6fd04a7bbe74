"""Every combination of the values that a pair of policy sets tells apart, or some of them drawn at random."""

import itertools
import math
from collections.abc import Iterator, Sequence
from random import Random

from authz.analysis.sets.boxes import Box, Several
from authz.analysis.sets.model import Model
from authz.analysis.sets.situations import Situation
from authz.analysis.sets.witness import Witness, witness_of


def combinations(model: Model, rng: Random, most: int) -> Iterator[Witness]:
    """Requests of every situation, at most so many of each."""
    for situation in model.situations():
        numbers = range(len(model.variables.values))
        choices = [_choices(model, situation, number) for number in numbers]
        whole = math.prod(len(choice) for choice in choices)
        boxes: Iterator[Sequence[Box]]
        if whole <= most:
            boxes = itertools.product(*choices)
        else:
            boxes = (tuple(rng.choice(choice) for choice in choices) for _ in range(most))
        for parts in boxes:
            box: Box = {}
            for part in parts:
                box |= part
            yield witness_of(model, situation, box)


def _choices(model: Model, situation: Situation, number: int) -> list[Box]:
    """Each value of a variable, as a box; of lists each pair of elements and each element, and none."""
    space = model.space
    base = situation.base.get(number)
    if not space.is_several[number]:
        mask = space.full[number] if base is None else base
        assert isinstance(mask, int)
        return [{number: 1 << at} for at in range(space.full[number].bit_length()) if mask >> at & 1]
    allowed = base.allowed if isinstance(base, Several) else space.full[number]
    elements = [1 << at for at in range(space.full[number].bit_length()) if allowed >> at & 1]
    needed = base.needed if isinstance(base, Several) else frozenset()
    lists = [(), *((one,) for one in elements), *itertools.combinations(elements[:6], 2)]
    return [
        {number: Several(sum(chosen), frozenset(chosen))}
        for chosen in lists
        if all(any(part & one for one in chosen) for part in needed)
    ] or [{number: base or Several(allowed, frozenset())}]

"""The algebra of boxes, compared with sets of single requests."""

import itertools
from random import Random

import pytest

from authz.analysis.sets.boxes import Box, Literal, OutOfTime, Several, Space, key_of, lowest

ONE, OTHER, LIST = 0, 1, 2
Request = tuple[int, int, frozenset[int]]


def space() -> Space:
    """Two variables with one value and one with several."""
    made = Space()
    made.add(3, several=False)
    made.add(2, several=False)
    made.add(3, several=True)
    return made


EVERY: list[Request] = [
    (one, other, frozenset(elements))
    for one in range(3)
    for other in range(2)
    for count in range(4)
    for elements in itertools.combinations(range(3), count)
]


def members(box: Box | None) -> set[Request]:
    """The requests in a box, by what a box is said to mean."""

    def is_in(request: Request) -> bool:
        if box is None:
            return False
        for variable, constraint in box.items():
            if isinstance(constraint, Several):
                elements = request[2]
                if any(not constraint.allowed >> at & 1 for at in elements):
                    return False
                if any(not any(mask >> at & 1 for at in elements) for mask in constraint.needed):
                    return False
            elif not constraint >> (request[0], request[1])[variable] & 1:
                return False
        return True

    return {request for request in EVERY if is_in(request)}


def random_literal(rng: Random) -> Literal:
    variable = rng.choice((ONE, OTHER, LIST))
    mask = rng.randrange(1 << (3, 2, 3)[variable])
    return Literal(variable, mask, variable == LIST and rng.random() < 0.5)


def random_box(rng: Random, made: Space) -> Box:
    box = made.narrow_all({}, [random_literal(rng) for _ in range(rng.randint(0, 4))])
    return {} if box is None else box


@pytest.mark.parametrize("seed", range(200))
def test_boxes_are_the_sets_that_they_stand_for(seed: int) -> None:
    rng, made = Random(seed), space()
    first, second, third = (random_box(rng, made) for _ in range(3))
    literal = random_literal(rng)
    assert members(made.narrow(first, literal)) | members(made.narrow(first, made.negated(literal))) == members(first)
    assert not members(made.narrow(first, literal)) & members(made.narrow(first, made.negated(literal)))
    assert members(made.meet(first, second)) == members(first) & members(second)
    assert made.covers(first, second) is (members(second) <= members(first))
    left = made.minus_all([first, third], [second])
    assert set().union(*map(members, left)) == (members(first) | members(third)) - members(second)
    assert all(members(box) for box in left), "no box is empty"
    assert made.is_covered(second, [first]) is made.covers(first, second)
    assert members(made.narrow_all({}, made.literals(first))) == members(first)
    assert (key_of(first) == key_of(second)) is (first == second)


def test_the_parts_that_are_left_do_not_overlap() -> None:
    made = space()
    parts = made.minus({}, {ONE: 0b001, OTHER: 0b01, LIST: Several(0b111, frozenset({0b010}))})
    for first, second in itertools.combinations(parts, 2):
        assert not members(first) & members(second)


def test_the_lowest_candidate_is_the_most_natural_one() -> None:
    assert [lowest(mask) for mask in (0b1, 0b110, 0b1000)] == [0, 1, 3]


def test_the_time_limit_ends_a_subtraction() -> None:
    made = Space(lambda: True)
    made.add(600, several=False)
    with pytest.raises(OutOfTime):
        made.minus_all([{}], [{0: 1 << at} for at in range(600)])

"""What is told of random pairs of policy sets is what requests find; ``python -m benchmarks.sets`` asks for more."""

import pytest

from benchmarks.sets import compare

PAIRS, REQUESTS = 40, 60


@pytest.mark.parametrize("seed", range(0, PAIRS, 10))
def test_what_is_told_is_what_requests_find(seed: int) -> None:
    ended = [compare(number, REQUESTS) for number in range(seed, seed + 10)]
    assert [line for _, wrong in ended for line in wrong] == []
    assert "equal" in {kind for kind, _ in ended}


@pytest.mark.parametrize("seed", range(0, PAIRS, 10))
def test_the_same_where_mesh_settings_change_as_well(seed: int) -> None:
    ended = [compare(number, REQUESTS, other_mesh=True) for number in range(seed, seed + 10)]
    assert [line for _, wrong in ended for line in wrong] == []
    assert {"equal", "differs"} & {kind for kind, _ in ended}

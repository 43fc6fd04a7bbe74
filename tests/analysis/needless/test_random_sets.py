"""What is proved of rules of random policies is what requests find; ``python -m benchmarks.needless`` asks for more."""

import pytest

from benchmarks.needless import compare

SETS, REQUESTS = 200, 12


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(0, SETS, 50))
def test_rules_that_are_needless_decide_nothing_and_the_others_do(seed: int) -> None:
    ended = [compare(number, REQUESTS) for number in range(seed, seed + 50)]
    assert [line for _, wrong in ended for line in wrong] == []
    assert {"covered", "impossible", "needed"} <= {name for said, _ in ended for name, count in said.items() if count}

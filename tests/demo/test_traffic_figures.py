"""The bounds within which a share is taken for the right one."""

from math import comb

import pytest

from authz.demo.checks.runner import all_scenarios
from authz.demo.checks.traffic_figures import bounds


@pytest.mark.parametrize(("count", "share", "error"), [(400, 0.1, 1e-6), (40, 0.5, 1e-6), (100, 0.9, 1e-3)])
def test_a_right_share_is_outside_the_bounds_no_more_often_than_said(count: int, share: float, error: float) -> None:
    least, most = bounds(count, share, error)
    chance = [comb(count, hits) * share**hits * (1 - share) ** (count - hits) for hits in range(count + 1)]
    assert sum(chance[:least]) + sum(chance[most + 1 :]) <= error
    assert sum(chance[: least + 1]) > error / 2  # nor are they wider than they must be
    assert sum(chance[most:]) > error / 2


@pytest.mark.parametrize("wrong", [0, 133, 200, 360, 400])
def test_other_shares_of_400_are_told_from_a_tenth(wrong: int) -> None:
    least, most = bounds(400, 0.1, 1e-6)
    assert not least <= wrong <= most


def test_rules_are_tried_where_there_are_examples_and_somebody_who_counts() -> None:
    plain = {one.group for one in all_scenarios()}
    tried = [one for one in all_scenarios(has_examples=True, has_quotas=True) if one.group not in plain]
    assert {one.group for one in tried} == {"Traffic", "Traffic, in figures"}
    assert len(tried) - len([one for one in all_scenarios(has_examples=True) if one.group not in plain]) == 1
    assert not [one for one in all_scenarios(has_examples=True, has_keycloak=True) if one.group in ("Traffic",)]

"""Who gets a candidate: the same ones everywhere, and a larger share contains the smaller one."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.canary.canary_selection import CanarySelection, read_share
from authz.core.errors import SettingsError

NAMES = st.frozensets(st.text(min_size=1, max_size=12), max_size=30)
SHARES = st.fractions(0, 1)


@given(workloads=NAMES, one=SHARES, other=SHARES, named=NAMES)
def test_a_larger_share_contains_the_smaller_one(
    workloads: frozenset[str], one: Fraction, other: Fraction, named: frozenset[str]
) -> None:
    smaller, larger = (CanarySelection(share, named).chosen(workloads) for share in sorted((one, other)))
    assert smaller <= larger <= workloads


@given(workloads=NAMES, share=SHARES, named=NAMES)
def test_names_are_chosen_whatever_the_share_and_no_share_is_nobody(
    workloads: frozenset[str], share: Fraction, named: frozenset[str]
) -> None:
    chosen = CanarySelection(share, named).chosen(workloads)
    assert named & workloads <= chosen
    assert bool(chosen) == bool(workloads and (share or named & workloads))
    assert CanarySelection(Fraction(1)).chosen(workloads) == workloads
    assert CanarySelection(Fraction(0), named).unknown(workloads) == tuple(sorted(named - workloads))


@given(workloads=st.lists(st.text(min_size=1, max_size=12), unique=True), share=SHARES)
def test_the_order_of_workloads_chooses_nobody(workloads: list[str], share: Fraction) -> None:
    selection = CanarySelection(share)
    assert selection.chosen(workloads) == selection.chosen(reversed(workloads))


def test_a_share_is_about_that_many_and_others_do_not_move_anybody() -> None:
    names = [f"web-{number}" for number in range(10_000)]
    chosen = CanarySelection(read_share("5%")).chosen(names)
    assert 400 < len(chosen) < 600
    assert CanarySelection(read_share("5%")).chosen(names[:5000]) == chosen & frozenset(names[:5000])


def test_the_same_workloads_are_chosen_by_every_version_of_this_program() -> None:
    names = [f"web-{number}" for number in range(20)]
    assert CanarySelection(read_share("10%")).chosen(names) == {"web-15", "web-18"}


@pytest.mark.parametrize(("text", "share"), [("5%", "1/20"), ("0.5%", "1/200"), ("100%", "1"), ("012%", "3/25")])
def test_a_share_is_written_in_percent(text: str, share: str) -> None:
    assert read_share(text) == Fraction(share)


@pytest.mark.parametrize("text", ["", "5", "0%", "0.0%", "101%", "-5%", "5 %", "5%%", "٥%", "1000%", "0.00001%"])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="a share is written as `5%`"):
        read_share(text)


def test_a_selection_is_shown_as_it_was_written() -> None:
    assert str(CanarySelection(read_share("0.5%"), frozenset({"b", "a"}))) == "0.5% and a and b"

import gc
import sys
from collections.abc import Iterator
from contextlib import suppress

import pytest

from authz.service.loading.garbage import DISCOVERY, LOADING, SERVING, SWITCH_SECONDS, beside_checks, settle


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()
    gc.enable()


def test_what_lives_is_set_aside_and_the_rest_is_walked_seldom() -> None:
    settle()
    assert gc.get_threshold() == SERVING
    assert gc.get_freeze_count() > 1_000


def test_thresholds_and_turns_are_as_before_even_when_something_fails() -> None:
    before = gc.get_threshold(), sys.getswitchinterval()
    with suppress(ValueError), beside_checks():
        assert gc.get_threshold() == LOADING
        assert sys.getswitchinterval() == pytest.approx(SWITCH_SECONDS)
        raise ValueError("broken")
    assert (gc.get_threshold(), sys.getswitchinterval()) == before


def test_where_no_checks_are_answered_nothing_is_walked_because_policies_are_read() -> None:
    settle(DISCOVERY)
    with beside_checks():
        assert gc.get_threshold() == DISCOVERY
        assert sys.getswitchinterval() == pytest.approx(SWITCH_SECONDS)
    assert gc.get_threshold() == DISCOVERY

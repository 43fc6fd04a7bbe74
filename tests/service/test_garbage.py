import gc
from collections.abc import Iterator
from contextlib import suppress

import pytest

from authz.service.garbage import THRESHOLDS, pause, settle


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()
    gc.enable()


def test_what_lives_is_set_aside_and_the_rest_is_walked_seldom() -> None:
    settle()
    assert gc.get_threshold() == THRESHOLDS
    assert gc.get_freeze_count() > 1_000


def test_a_pause_ends_even_when_something_fails() -> None:
    with suppress(ValueError), pause():
        assert not gc.isenabled()
        raise ValueError("broken")
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    with pause():
        pass
    assert not gc.isenabled()

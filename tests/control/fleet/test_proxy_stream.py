"""When a stream ends that a certificate opened."""

import math

import pytest

from authz.control.fleet.proxy_stream import ENDING_SECONDS, ends_at


@pytest.mark.parametrize(
    ("expires", "share", "end"),
    [
        (10_000.0, 0.0, 10_000.0),
        (10_000.0, 1.0, 10_000.0 - ENDING_SECONDS),
        (10_000.0, 0.5, 10_000.0 - ENDING_SECONDS / 2),
        (1_100.0, 1.0, 1_090.0),
        (900.0, 1.0, 900.0),
        (math.inf, 1.0, math.inf),
    ],
    ids=["at the end", "the earliest", "between", "soon", "expired", "never"],
)
def test_streams_end_in_the_last_part_of_what_is_left(expires: float, share: float, end: float) -> None:
    assert ends_at(expires, 1_000.0, share) == end

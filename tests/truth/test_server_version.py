"""Which servers are new enough."""

import pytest

from authz.truth.server_version import old_server


@pytest.mark.parametrize("told", ["2.10.21", "nats-server: v2.10.27", "v2.15.1", "3.0.0-RC.1", "2.11.0"])
def test_a_server_that_is_new_enough_has_nothing_wrong(told: str) -> None:
    assert old_server(told) == ""


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ("nats-server: v2.9.10", "NATS server 2.9.10 is too old: 2.10.21 or newer is needed"),
        ("2.10.20", "too old"),
        ("1.99.99", "too old"),
        ("", "no version"),
        ("unknown", "no version"),
    ],
)
def test_one_that_is_older_is_named_with_what_is_needed(told: str, said: str) -> None:
    assert said in old_server(told)

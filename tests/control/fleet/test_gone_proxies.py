"""Who is gone, by looks at who is connected: without streams, and without time that passes."""

import pytest

from authz.control.fleet.gone_proxies import MAX_LOOK_SECONDS, GoneProxies

MEMBERS = frozenset("abc")


def looked(gone: GoneProxies, *looks: str, step: float = 1.0, serving: str = "abc") -> str:
    """Look once for each text, which names who is connected; every look is a second after the one before."""
    for number, connected in enumerate(looks):
        gone.look(number * step, frozenset(connected), frozenset(serving).__contains__, members=MEMBERS)
    return "".join(sorted(gone.gone))


@pytest.mark.parametrize(
    ("looks", "gone"),
    [
        (["abc", "ab", "ab"], ""),
        (["abc", "ab", "ab", "ab"], "c"),
        (["abc", "ab", "abc", "ab", "ab"], ""),
        (["ab", "ab", "ab", "ab", "ab"], ""),
        (["", "", "", "", ""], ""),
        (["abc", "", "", ""], "abc"),
        (["abc", "ab", "ab", "ab", "abc"], ""),
    ],
    ids=["soon", "away", "back in time", "never connected", "nobody yet", "everybody", "back"],
)
def test_a_proxy_is_gone_when_it_was_connected_and_is_away_for_long(looks: list[str], gone: str) -> None:
    assert looked(GoneProxies(2.0), *looks) == gone


def test_nobody_is_gone_where_that_is_turned_off() -> None:
    gone = GoneProxies(0.0)
    gone.restore('{"known": ["a"], "gone": ["b"]}')
    assert looked(gone, "abc", "", "", "", "") == ""


def test_who_is_back_without_listeners_is_still_gone() -> None:
    gone = GoneProxies(2.0)
    assert looked(gone, "abc", "ab", "ab", "ab") == "c"
    assert gone.look(4.0, MEMBERS, lambda name: name != "c", members=MEMBERS) == {"c"}
    assert gone.look(5.0, MEMBERS, lambda name: True, members=MEMBERS) == frozenset()


def test_who_is_connected_elsewhere_is_not_gone() -> None:
    gone = GoneProxies(2.0)
    looked(gone, "abc", "ab", "ab", "ab")
    elsewhere = frozenset("c")
    assert not gone.look(4.0, frozenset("ab"), lambda name: True, members=MEMBERS, elsewhere=elsewhere)
    for second in (5.0, 6.0):
        assert not gone.look(second, frozenset("ab"), lambda name: True, members=MEMBERS)
    assert gone.look(7.0, frozenset("ab"), lambda name: True, members=MEMBERS) == {"c"}


def test_who_came_and_went_between_two_looks_counts() -> None:
    gone = GoneProxies(2.0)
    for second in range(4):
        gone.look(float(second), frozenset("ab"), lambda name: True, members=MEMBERS, left=frozenset("bcd"))
    assert gone.gone == {"c"}


def test_nobody_is_gone_where_nobody_knows_who_is_connected_elsewhere() -> None:
    gone = GoneProxies(2.0)
    looked(gone, "abc", "ab", "ab", "ab")
    for second in range(4, 9):
        assert not gone.look(float(second), frozenset(), lambda name: True, members=MEMBERS, elsewhere=None)


def test_who_was_gone_before_a_time_of_which_nobody_knows_is_gone_again_after_it() -> None:
    """As after a start, when the truth is asked for the first time, or while it elects a leader."""
    gone = GoneProxies(2.0)
    gone.restore('{"known": ["a", "b", "c"], "gone": ["c"]}')
    assert not gone.look(0.0, frozenset("ab"), lambda name: True, members=MEMBERS, elsewhere=None)
    assert [gone.look(float(second), frozenset("ab"), lambda name: True, members=MEMBERS) for second in (1, 2, 3)] == [
        frozenset(),
        {"c"},
        {"c"},
    ]


def test_time_in_which_nobody_looked_takes_nobody_out() -> None:
    assert looked(GoneProxies(2 * MAX_LOOK_SECONDS), "abc", "ab", "ab", step=3600.0) == ""
    assert looked(GoneProxies(2.0), "abc", "ab", "ab", "ab", step=-1.0) == ""


def test_who_is_no_longer_in_the_mesh_is_forgotten() -> None:
    gone = GoneProxies(2.0)
    looked(gone, "abc", "ab", "ab", "ab")
    assert not gone.look(4.0, frozenset("ab"), lambda name: True, members=frozenset("ab"))
    assert "c" not in gone.noted()


def test_after_a_restart_who_was_gone_stays_gone_and_others_have_the_whole_time_to_come_back() -> None:
    before = GoneProxies(2.0)
    looked(before, "abc", "ab", "ab", "ab")
    after = GoneProxies(2.0)
    after.restore(before.noted())
    assert looked(after, "", "") == "c"
    assert looked(after, "a", "a") == "bc"
    assert looked(after, "abc") == ""


@pytest.mark.parametrize(
    "noted", ["", "{", "[" * 100_000, "[]", "{}", "null", '{"known": 1, "gone": 2}', '{"known": [1], "gone": []}']
)
def test_a_note_that_cannot_be_read_is_none(noted: str) -> None:
    gone = GoneProxies(2.0)
    gone.restore(noted)
    assert looked(gone, "", "", "", "") == ""

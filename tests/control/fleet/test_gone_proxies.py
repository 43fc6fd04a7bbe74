"""Who is gone, by looks at who is connected: without streams, and without time that passes."""

import asyncio

import pytest

from authz.control.fleet import fleet_reporter
from authz.control.fleet.discovery_server import DiscoveryServer
from authz.control.fleet.fleet_reporter import TRUSTED_SECONDS, FleetReporter, OwnState, Replica, ReportStore
from authz.control.fleet.gone_proxies import MAX_LOOK_SECONDS, GoneProxies
from authz.truth.fleet_report import CONTROL, ProxyReport, ReplicaReport, Reported

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


async def test_a_site_that_is_silent_for_longer_than_it_is_believed_is_gone_until_it_reports_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A replica that cannot be heard is believed to serve its proxies for ten minutes; by a clock."""
    for name, seconds in (("LOOK_SECONDS", 0.001), ("HEAR_SECONDS", 0.0)):
        monkeypatch.setattr(fleet_reporter, name, seconds)
    store, now = Heard(ReplicaReport("two", CONTROL, 0.0, "1", 0.0)), [0.0]
    replica = Replica("one", ReportStore(store, store))
    reporter = FleetReporter(DiscoveryServer(), replica, OwnState, clock=lambda: now[0])
    gone, members = GoneProxies(60.0), frozenset("b")
    running = asyncio.create_task(reporter.run())
    try:
        for second in range(0, 1500, 5):
            now[0] = store.now = float(second)
            if second < 100 or second >= 1000:
                store.reported_at = now[0]
            before = store.reads
            async with asyncio.timeout(10):
                while store.reads <= before + 1:  # noqa: ASYNC110  # no event for it
                    await asyncio.sleep(0.001)
            gone.look(now[0], frozenset(), lambda name: True, members=members, elsewhere=reporter.elsewhere)
            is_lost = 100 + TRUSTED_SECONDS + 60 < second < 1000
            is_there = second <= 95 + TRUSTED_SECONDS or second >= 1000
            assert not (is_there and gone.gone), second
            assert gone.gone == members or not is_lost, second
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


class Heard:
    """A truth that has the report of one replica, with the proxy ``b``."""

    has_double = False

    def __init__(self, report: ReplicaReport) -> None:
        self.now = self.reported_at = 0.0
        self.reads = 0
        self._report = report

    def read(self) -> tuple[list[Reported], float]:
        self.reads += 1
        proxies = (ProxyReport("b", is_connected=True, is_current=True),)
        return [Reported(self.reported_at, self._report, proxies)], self.now

    def take(self, changed: object) -> None:
        """Nobody hears what this replica says."""

    def write(self, report: ReplicaReport) -> None:
        """Nobody."""

    def withdraw(self) -> None:
        """Nobody."""

    def hurry(self) -> None:
        """Nobody."""

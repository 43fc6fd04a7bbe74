"""Requests without a record, by Envoy's counters: none is overlooked, none is invented."""

from pathlib import Path

import pytest

from authz.audit.entry import Entry
from authz.service.native.gaps import MAX_PROXIES, MINUTE, Counted, Gaps, read_counters
from authz.service.native.intake import TENTHS, Intake
from authz.service.native.proxies import ask_admin
from authz.telemetry.status import TrailStatus
from tests.service.recording import Recorder


class Trail(Recorder):
    """A trail that is a list, with notes."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[Entry] = []

    def note(self, entry: Entry) -> None:
        self.notes.append(entry)

    def flush(self, timeout_seconds: float = 5.0) -> bool:
        return True

    def status(self) -> TrailStatus:
        return TrailStatus(0, 1000, 0, 0, 0, 0, (), "", True)


class World:
    """A proxy that serves, and the entries that come of it."""

    def __init__(self, kept: Path | None = None) -> None:
        self.now = 1_000_000.0
        self.trail = Trail()
        self.intake = Intake(self.trail)
        self.ended = 0
        self.started_at = 0.0
        self.is_reachable = True
        self.answer_takes = 0.0
        self.gaps = Gaps(self.intake, "", lambda: self.now, kept, self.ask)

    async def ask(self, proxy: str) -> Counted:
        if not self.is_reachable:
            raise OSError("refused")
        counted = Counted({"inbound": self.ended}, self.started_at)
        if self.answer_takes:
            self.serve(20, 20)  # after it counted, and before its answer is read
            self.now += self.answer_takes
        return counted

    def serve(self, number: int, recorded: int) -> None:
        """So many requests end now, and entries of so many come at once."""
        self.ended += number
        self.come(recorded, self.now)

    def come(self, number: int, ended_at: float) -> None:
        self.intake.seen["p", "inbound", int(ended_at * TENTHS)] += number

    async def minute(self) -> int:
        self.now += MINUTE
        await self.gaps.compare()
        return self.gaps.missing["p"]


@pytest.fixture
async def world() -> World:
    world = World()
    world.serve(10, 10)
    assert await world.minute() == 0
    return world


async def test_requests_that_all_have_a_record_are_no_gap(world: World) -> None:
    for _ in range(5):
        world.serve(100, 100)
        assert await world.minute() == 0
    assert world.trail.notes == []


async def test_what_ends_while_a_proxy_answers_is_no_gap() -> None:
    """A busy machine answers seconds later."""
    world = World()
    world.answer_takes = 3.0
    world.serve(10, 10)
    for _ in range(5):
        assert await world.minute() == 0
        world.serve(100, 100)
    assert world.trail.notes == []


async def test_what_ends_as_a_proxy_starts_again_is_no_gap(world: World) -> None:
    """Its uptime is told in whole seconds, so that it seems to have started later than it did."""
    world.now += 10.0
    world.ended, world.started_at = 0, world.now + 0.9
    world.serve(5, 5)
    for _ in range(3):
        assert await world.minute() == 0
        world.serve(100, 100)


async def test_requests_without_a_record_are_a_gap_a_minute_later(world: World) -> None:
    world.serve(100, 93)
    assert await world.minute() == 0
    assert await world.minute() == 7
    assert await world.minute() == 7
    (note,) = world.trail.notes
    assert note.record["event"] == "access-log-gap"
    assert (note.record["proxy"], note.record["missing"]) == ("p", 7)


async def test_connections_without_a_record_are_a_gap_and_open_ones_are_none() -> None:
    world = World()
    counted = {"begun": 10, "open": 4}

    async def ask(proxy: str) -> Counted:
        begun = counted["begun"]
        return Counted({"tcp:inbound": begun - counted["open"]}, 0.0, {"tcp:inbound": begun})

    world.gaps = Gaps(world.intake, "", lambda: world.now, None, ask)

    def come(number: int) -> None:
        world.intake.seen["p", "tcp:inbound", int(world.now * TENTHS)] += number

    come(6)
    assert await world.minute() == 0
    counted["begun"] = 30  # twenty more; sixteen of them ended, and the four of before
    come(20)
    for _ in range(3):
        assert await world.minute() == 0
    counted.update(begun=50, open=0)
    come(17)  # of twenty-four
    assert await world.minute() == 0
    assert await world.minute() == 3  # the four that were open at first are not held against anybody


async def test_entries_that_come_late_are_no_gap(world: World) -> None:
    ended_at = world.now
    world.serve(100, 60)
    assert await world.minute() == 0
    world.come(40, ended_at)
    assert await world.minute() == 0
    assert await world.minute() == 0


async def test_later_entries_do_not_hide_a_gap(world: World) -> None:
    world.serve(100, 90)
    for _ in range(3):
        await world.minute()
        world.serve(50, 50)
    assert world.gaps.missing["p"] == 10


async def test_what_ended_before_the_first_comparison_does_not_count(world: World) -> None:
    world.come(500, world.now - 30)
    world.serve(10, 0)
    await world.minute()
    assert await world.minute() == 10


async def test_a_proxy_that_started_again_is_compared_from_its_start(world: World) -> None:
    world.started_at, world.ended = world.now + 10, 0
    world.now += 20
    world.serve(30, 25)
    await world.minute()
    assert await world.minute() == 5


async def test_a_proxy_that_cannot_be_asked_is_told_and_compared_later(world: World) -> None:
    world.is_reachable = False
    world.serve(100, 100)
    assert await world.minute() == 0
    assert world.gaps.unreachable == {"p": True}
    assert world.intake.seen == {}
    world.is_reachable = True
    world.serve(20, 18)
    await world.minute()
    assert await world.minute() == 2
    assert world.gaps.unreachable == {"p": False}


async def test_what_was_served_while_nobody_listened_is_found_after_an_orderly_stop(tmp_path: Path) -> None:
    first = World(tmp_path / "counts")
    first.serve(10, 10)
    await first.minute()
    first.gaps.close()
    second = World(tmp_path / "counts")
    second.now, second.ended = first.now + 300, first.ended + 40
    await second.minute()
    assert await second.minute() == 40


async def test_after_a_kill_the_counts_begin_anew_and_that_is_recorded(tmp_path: Path) -> None:
    first = World(tmp_path / "counts")
    first.serve(10, 10)
    await first.minute()
    second = World(tmp_path / "counts")
    assert [note.record["event"] for note in second.trail.notes] == ["access-log-uncompared"]
    second.ended = first.ended + 40
    second.serve(5, 5)
    for _ in range(3):
        assert await second.minute() == 0


def test_counters_are_read_from_the_text_of_the_admin() -> None:
    text = (
        "http.inbound_9080.downstream_rq_active: 2\nhttp.inbound_9080.downstream_rq_total: 12\n"
        "http.admin.downstream_rq_total: 3\nserver.uptime: 60\n"
    )
    assert read_counters(text, 1000.0) == Counted({"inbound_9080": 10, "admin": 3}, 940.0)
    tcp = """tcp.mongo.downstream_cx_total: 9
listener.127.0.0.1_27017.downstream_cx_active: 3
listener.127.0.0.1_27017.worker_0.downstream_cx_active: 3
listener.admin.downstream_cx_active: 5
server.uptime: 60
"""
    assert read_counters(tcp, 1000.0) == Counted({"tcp:mongo": 6}, 940.0, {"tcp:mongo": 9})
    with pytest.raises(ValueError, match="invalid literal"):
        read_counters("http.a.downstream_rq_total: many\n", 0.0)


async def test_invented_names_neither_push_out_a_proxy_nor_stay_in_memory(world: World) -> None:
    """Whoever sends entries chooses the names in them; those of real proxies are compared all the same."""
    for number in range(MAX_PROXIES + 10):
        world.intake.seen[f"a{number}", "inbound", int(world.now * TENTHS)] += 1
    world.serve(100, 93)
    assert await world.minute() == 0
    assert await world.minute() == 7
    assert not [name for name, _, _ in world.intake.seen if name.startswith("a")]
    world.is_reachable = False
    for number in range(MAX_PROXIES + 10):
        world.intake.seen[f"b{number}", "inbound", int(world.now * TENTHS)] += 1
    await world.minute()
    await world.minute()
    assert len(world.gaps.unreachable) <= 2 * MAX_PROXIES


@pytest.mark.parametrize(
    "name", ["../../run/other", "a/b", "", ".", "..", "-x", "evil.example/path#", "evil@host", "h:1", "x\ny", "x" * 300]
)
async def test_a_name_in_an_entry_leads_to_no_other_place(name: str, tmp_path: Path) -> None:
    """``{proxy}`` is a name from a log, whose writer must not choose which socket or server is asked."""
    with pytest.raises(ValueError, match="not a proxy's name"):
        await ask_admin(f"unix:{tmp_path}/{{proxy}}.admin.sock", name, "/stats")

import contextlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest
from click.testing import CliRunner
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from authz.audit.entry import Entry
from authz.audit.query import RecordFilter, Skipped
from authz.audit.spool import Spool
from authz.audit.stored_key import record_key
from authz.audit.stored_trail import find_stored, follow_stored, newest_stored
from authz.audit.trail import AuditTrail
from authz.audit.truth_sink import TruthSink
from authz.cli import application
from authz.core.decided import Offer
from authz.truth.truth_client import TruthRefused
from authz.truth.truth_stream import StreamRecord, TruthStream, make_stream, stream_name
from tests.nats_server import NatsServers

pytestmark = pytest.mark.slow  # real servers of the truth

MakeOffer = Callable[..., Offer]
ROOM = 1 << 20
EVERY = RecordFilter()


@pytest.fixture(scope="module")
def _server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServers]:
    server = NatsServers(tmp_path_factory.mktemp("nats"), 1, None)
    server.start(0)
    yield server
    server.stop()


@pytest.fixture
def nats(_server: NatsServers) -> NatsServers:
    """A server with an empty stream."""
    with _server.client() as client:
        client.call(_remove)
        assert make_stream(client, 1)
        assert not make_stream(client, 1)
    return _server


async def _remove(js: JetStreamContext) -> None:
    with contextlib.suppress(NotFoundError):
        await js.delete_stream(stream_name("shop"))


def line(number: int, effect: str = "deny") -> bytes:
    at = f"2026-01-31T12:{number // 60 % 60:02}:{number % 60:02}.000000Z"
    return json.dumps({"decision_id": f"d{number}", "time": at, "effect": effect}, separators=(",", ":")).encode()


def entries(*numbers: int) -> list[Entry]:
    return [Entry(line(number), 0.0) for number in numbers]


def found(server: NatsServers, wanted: RecordFilter = EVERY) -> list[str]:
    with server.client() as client:
        return [str(record["decision_id"]) for record in find_stored(client, wanted)]


def within(holds: Callable[[], bool], seconds: float = 15.0) -> bool:
    until = time.monotonic() + seconds
    while not holds() and time.monotonic() < until:
        time.sleep(0.01)
    return holds()


def test_records_of_a_trail_are_found_again_in_their_order(
    nats: NatsServers, tmp_path: Path, make_offer: MakeOffer, secret: str
) -> None:
    sink = TruthSink(nats.client(), Spool(tmp_path, 4 * ROOM))
    trail = AuditTrail([sink])
    trail.start()
    for number in range(1200):
        trail.record(make_offer(decision_id=f"d{number}"))
    assert trail.flush()
    assert within(lambda: not sink.waiting)
    assert trail.close(10)
    with nats.client() as client:
        records = list(find_stored(client, RecordFilter()))
        newest = newest_stored(client, RecordFilter(), 2)
    assert [record["decision_id"] for record in records] == [f"d{number}" for number in range(1200)]
    assert [record["decision_id"] for record in newest] == ["d1198", "d1199"]
    assert secret not in json.dumps(records)
    assert trail.status().sinks[0].error == ""
    assert [file.name for file in tmp_path.iterdir()] == ["0.lock"]


def test_a_server_that_is_killed_and_comes_back_has_every_record_and_readers_see_each_once(
    nats: NatsServers, tmp_path: Path
) -> None:
    sink = TruthSink(nats.client(), Spool(tmp_path, ROOM))
    stop, numbers = threading.Event(), iter(range(100_000))

    def write() -> None:
        while not stop.is_set():
            sink.write(entries(*(next(numbers) for _ in range(20))))
            stop.wait(0.002)

    writing = threading.Thread(target=write)
    writing.start()
    try:
        for _ in range(2):
            assert within(lambda: not sink.waiting or not sink.problem)
            nats.kill(0)
            assert within(lambda: bool(sink.problem))
            assert "does not answer" in sink.problem
            nats.start(0)
            assert within(lambda: not sink.problem)
    finally:
        stop.set()
        writing.join()
        assert within(lambda: not sink.waiting)
        sink.close()
    written = next(numbers)
    assert written > 100
    assert Counter(found(nats)) == Counter(f"d{number}" for number in range(written))


def test_what_a_killed_process_left_is_sent_by_the_next_and_seen_once(nats: NatsServers, tmp_path: Path) -> None:
    first, second = Spool(tmp_path, ROOM), Spool(tmp_path, ROOM)
    first.append(line(1) + b"\n" + line(2) + b"\n")
    second.append(line(3) + b"\n")
    with nats.client() as client:
        TruthStream(client).publish([StreamRecord("of another key, as if the servers had forgotten it", line(1))])
    first.close()
    second.close()  # as the end of a process does
    sink = TruthSink(nats.client(), Spool(tmp_path, ROOM))
    assert within(lambda: len(found(nats)) == 3 and not list(tmp_path.glob("*.jsonl")))
    sink.close()
    assert sorted(found(nats)) == ["d1", "d2", "d3"]
    with nats.client() as client:
        assert TruthStream(client).extent() == (1, 4)


def test_equal_records_are_stored_once_while_the_servers_remember(nats: NatsServers) -> None:
    records = [StreamRecord(record_key(line(1)), line(1))]
    with nats.client() as client:
        stream = TruthStream(client)
        stream.publish(records)
        stream.publish(records)
        assert stream.extent() == (1, 1)


def test_a_record_of_the_same_id_that_says_something_else_is_not_kept_out(nats: NatsServers) -> None:
    with nats.client() as client:
        stream = TruthStream(client)
        for one in (line(1, "allow"), line(1, "deny")):
            stream.publish([StreamRecord(record_key(one), one)])
        assert [record["effect"] for record in find_stored(client, RecordFilter())] == ["allow", "deny"]


def test_nobody_can_take_a_record_out(nats: NatsServers) -> None:
    with nats.client() as client:
        TruthStream(client).publish([StreamRecord("1", line(1))])
        with pytest.raises(TruthRefused, match="not permitted"):
            client.call(lambda js: js.purge_stream(stream_name("shop")))
        with pytest.raises(TruthRefused, match="not permitted"):
            client.call(lambda js: js.delete_msg(stream_name("shop"), 1))
    assert found(nats) == ["d1"]


def test_without_servers_records_are_kept_up_to_the_bound_and_then_refused(tmp_path: Path) -> None:
    absent = NatsServers(tmp_path / "server", 1, None)
    spool = tmp_path / "spool"
    sink = TruthSink(absent.client(), Spool(spool, 200))
    trail = AuditTrail([sink])
    trail.start()
    trail.note(entries(1)[0])
    assert trail.flush()
    assert within(lambda: bool(sink.problem))
    kept = trail.status().sinks[0]
    assert (kept.written, kept.lost, kept.is_late, kept.waiting) == (1, 0, True, len(line(1)) + 1)
    trail.note(Entry(line(2) + b" " * 200, 0.0))
    assert trail.flush()
    full = trail.status().sinks[0]
    assert (full.written, full.lost, full.is_late) == (1, 1, False)
    assert "the spool is full" in full.error
    assert trail.close()
    assert (spool / "0.00000001.jsonl").read_bytes() == line(1) + b"\n"


def test_records_are_chosen_by_time_and_what_is_none_is_counted(nats: NatsServers) -> None:
    at = datetime.fromisoformat("2026-01-31T12:00:05+00:00").timestamp()
    skipped = Skipped()
    with nats.client() as client:
        TruthStream(client).publish([StreamRecord(str(number), line(number)) for number in range(10)])
        TruthStream(client).publish([StreamRecord("x", b"no record")])
        chosen = [r["decision_id"] for r in find_stored(client, RecordFilter(since=at, until=at + 2), skipped)]
        future = list(find_stored(client, RecordFilter(since=time.time() + 3600)))
    assert chosen == ["d5", "d6", "d7"]
    assert skipped.places == [f"{nats.address}:11"]
    assert future == []


def test_who_follows_sees_what_arrives_and_nothing_twice(nats: NatsServers) -> None:
    with nats.client() as client:
        stream = TruthStream(client)
        stream.publish([StreamRecord("0", line(0))])
        turns = iter((True, True, False))
        following = follow_stored(client, RecordFilter(), lambda: next(turns))
        stream.publish(
            [StreamRecord("1", line(1)), StreamRecord("2", line(1), is_again=True), StreamRecord("3", line(2))]
        )
        assert [record["decision_id"] for record in following] == ["d1", "d2"]


@pytest.mark.parametrize(
    ("arguments", "ids"),
    [
        (("audit", "tail", "-n", "2"), ["d8", "d9"]),
        (("audit", "since", "2026-01-31T12:00:07Z"), ["d7", "d8", "d9"]),
        (("audit", "between", "2026-01-31T12:00:01Z", "2026-01-31T12:00:02Z", "--effect", "deny"), ["d1", "d2"]),
        (("audit", "show", "d4"), ["d4"]),
    ],
    ids=lambda value: value[1] if isinstance(value, tuple) else "",
)
def test_commands_take_the_address_where_they_take_a_file(
    nats: NatsServers, arguments: tuple[str, ...], ids: list[str]
) -> None:
    with nats.client() as client:
        TruthStream(client).publish([StreamRecord(str(number), line(number)) for number in range(10)])
    done = CliRunner().invoke(application, [*arguments, "--log", str(nats.address), "-o", "json"])
    assert [json.loads(one)["decision_id"] for one in done.stdout.splitlines()] == ids
    by_setting = CliRunner().invoke(
        application, [*arguments, "-o", "json"], env={"AUTHZ_AUDIT": f"stdout,{nats.address}"}
    )
    assert by_setting.stdout == done.stdout


def test_who_sends_plaintext_is_found_in_the_stream(nats: NatsServers) -> None:
    told = {"effect": "allow", "source": {"mtls": False}, "destination": {"namespace": "shop", "workload": "api"}}
    lines = [
        json.dumps({"decision_id": f"d{day}", "time": f"2026-01-0{day}T00:00:00.000000Z", **told}).encode()
        for day in (1, 3)
    ]
    with nats.client() as client:
        TruthStream(client).publish([StreamRecord(str(number), one) for number, one in enumerate((*lines, line(1)))])
    done = CliRunner().invoke(application, ["mtls", "plan", str(nats.address)])
    assert "namespace shop: STRICT is NOT safe" in done.stdout
    assert "1 line skipped, no records: decision d1" in done.stderr
    assert done.exit_code == 3


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("nats://localhost", "`nats` is not followed by what the truth of a fleet needs: nats://HOST:PORT"),
        ("nats://elsewhere:4222/shop", "is on other machines, which needs TLS: `--truth-ca`"),
    ],
)
def test_an_address_that_cannot_be_read_is_told(place: str, said: str) -> None:
    for command in (["audit", "tail", "--log", place], ["generate", place], ["mtls", "plan", place]):
        done = CliRunner().invoke(application, command)
        assert said in done.stderr
        assert done.exit_code == 1

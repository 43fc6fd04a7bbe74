"""Reports in a real server of NATS: what is written when something changes, what is read, and by whom it may be."""

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from nats.js import JetStreamContext

from authz.truth.fleet_merge import merge_reports
from authz.truth.fleet_report import CONTROL, PART_PROXIES, ProxyReport, ReplicaReport, part_value, replica_value
from authz.truth.report_store import ReportReader, ReportWriter
from authz.truth.server_configuration import TruthRole
from authz.truth.server_reporter import ServerReporter, TakenState
from authz.truth.truth_bucket import FLEET, TruthBucket, bucket_name, stream_of
from authz.truth.truth_client import TruthAway, TruthChanged, TruthClient, TruthRefused
from tests.nats_server import NatsServers, emptied, shared_servers, truth_servers

CURRENT = ProxyReport("", True, True, "", 1.0)
REPORT = ReplicaReport("one", CONTROL, 0.0, "7", 0.0)


servers = shared_servers(tls=True)


@pytest.fixture
def client(servers: NatsServers) -> Iterator[TruthClient]:
    """Nobody has reported."""
    with servers.client() as made:
        emptied(made, FLEET)
        yield made


def fleet(number: int) -> dict[str, ProxyReport | None]:
    return {f"web-{at}": replace(CURRENT, name=f"web-{at}") for at in range(number)}


def report(revision: str = "7", name: str = "one") -> ReplicaReport:
    return ReplicaReport(name, CONTROL, time.time(), revision, time.time())


def test_only_parts_that_changed_are_written_and_a_revision_that_concerns_nobody_changes_none(
    client: TruthClient,
) -> None:
    writer, bucket = ReportWriter(client, "one"), TruthBucket(client, FLEET)
    writer.take(fleet(3 * PART_PROXIES))
    writer.write(report())
    before = bucket.entries("proxies.>")
    assert len(before) == 3
    writer.take({"web-5": ProxyReport("web-5")})
    writer.write(report("8"))
    after = bucket.entries("proxies.>")
    assert sum(after[key].revision != one.revision for key, one in before.items()) == 1
    writer.write(report("9"))
    assert {key: one.revision for key, one in bucket.entries("proxies.>").items()} == {
        key: one.revision for key, one in after.items()
    }
    reports, now = ReportReader(client).read()
    view = merge_reports(reports, now)
    assert {one.state for one in view.proxies} == {"current", "missing"}
    assert [one.name for one in view.proxies if one.revision != "9"] == ["web-5"]
    assert abs(now - time.time()) < 5


def test_what_a_server_may_write_hides_no_control(
    client: TruthClient, servers: NatsServers, caplog: pytest.LogCaptureFixture
) -> None:
    ReportWriter(client, "one").write(report())
    odd = ("server.\x1b[2J", "server.<b>", f"server.{'x' * 64}")
    values = dict.fromkeys(odd, replica_value(report()))
    values["server.two"] = b'{"name": "", "kind": "", "clock": 1e999, "revision": 7, "since": 0}'

    async def write(js: JetStreamContext) -> None:
        for key, value in values.items():
            await js.publish(f"$KV.{bucket_name('shop', FLEET)}.{key}", value)

    with servers.client(TruthRole.READER) as server:
        server.call(write)
    reader = ReportReader(client)
    for _ in range(2):
        view = merge_reports(*reader.read())
    assert [(one.name, one.state, one.revision) for one in view.replicas] == [
        ("one", "current", "7"),
        ("two", "silent", ""),
    ]
    assert view.skew_seconds < 60
    assert [repr(key) in caplog.text for key in odd] == [True] * 3
    assert caplog.text.count("is no name of a report") == 3
    client.call(lambda js: js.purge_stream(stream_of("shop", FLEET)))  # others delete by key, and these are none


def test_a_reader_takes_what_changed_and_never_an_old_part_for_a_new_revision(client: TruthClient) -> None:
    writer, bucket = ReportWriter(client, "one"), TruthBucket(client, FLEET)
    reader = ReportReader(client)
    writer.take(fleet(10))
    writer.write(report())
    assert [len(one.proxies) for one in reader.read()[0]] == [10]
    writer.take({"web-1": None})
    writer.write(report())
    assert [len(one.proxies) for one in reader.read()[0]] == [9]
    (entry,) = bucket.entries("proxies.>").values()
    bucket.delete(entry.key, entry.revision)
    (broken,), _ = ReportReader(client).read()
    assert not broken.is_whole
    bucket.put(entry.key, part_value([], 2, 1 << 19))
    (other,), _ = ReportReader(client).read()
    assert not other.is_whole, "it is one part of two, and the replica has one"


def test_a_report_that_cannot_be_read_is_not_left_out(client: TruthClient) -> None:
    TruthBucket(client, FLEET).put("replica.odd", b"{")
    view = merge_reports(*ReportReader(client).read())
    assert [(one.name, one.state, one.problem) for one in view.replicas] == [
        ("odd", "silent", "its report cannot be read")
    ]


def test_two_processes_of_one_name_are_noticed_and_one_that_returns_is_not(client: TruthClient) -> None:
    first, second = ReportWriter(client, "one"), ReportWriter(client, "one")
    first.write(report())
    second.write(report())
    assert not second.has_double, "it takes the place of one that ended"
    with pytest.raises(TruthChanged):
        first.write(report())
    assert first.has_double
    first.write(report())
    with pytest.raises(TruthChanged):
        second.write(report())


def test_who_says_farewell_leaves_nothing_and_writes_nothing_more(client: TruthClient) -> None:
    writer = ReportWriter(client, "one")
    writer.take(fleet(3))
    writer.write(report())
    writer.withdraw()
    writer.write(report())
    assert TruthBucket(client, FLEET).entries() == {}


def test_farewell_is_said_to_another_server_when_its_own_ends_at_the_same_time(tmp_path: Path) -> None:
    with truth_servers(tmp_path) as servers, servers.client() as client:
        writer = ReportWriter(client, "one")
        writer.take(fleet(3))
        writer.write(report())
        servers.kill(0)
        again = threading.Timer(0.5, servers.start, (0,))
        again.start()
        writer.withdraw()
        again.join()
        assert TruthBucket(client, FLEET).entries() == {}


def test_a_farewell_that_nobody_hears_is_tried_until_somebody_is_in_a_hurry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("authz.truth.report_store.FAREWELL_SECONDS", 600.0)
    ended: list[object] = []
    with truth_servers(tmp_path) as servers, servers.client() as client:
        writer = ReportWriter(client, "one")
        writer.write(report())
        servers.kill(0)

        def withdraw() -> None:
            with pytest.raises(TruthAway) as refused:
                writer.withdraw()
            ended.append(refused)

        ending = threading.Thread(target=withdraw)
        ending.start()
        ending.join(0.5)
        assert not ended
        writer.hurry()
        ending.join(30)
        assert ended


def test_what_was_not_written_while_the_truth_was_away_is_written_then(tmp_path: Path) -> None:
    with truth_servers(tmp_path) as servers, servers.client() as client:
        writer = ReportWriter(client, "one")
        writer.take(fleet(3))
        writer.write(report())
        servers.kill(0)
        writer.take({"web-1": ProxyReport("web-1")})
        with pytest.raises(TruthAway):
            writer.write(report("8"))
        servers.start(0)
        assert client.wait(20)
        writer.write(report("8"))
        (found,), _ = ReportReader(client).read()
        assert found.report.revision == "8"
        assert [one.name for one in found.proxies if not one.is_connected] == ["web-1"]


def test_a_server_reports_what_it_has_and_may_say_nothing_of_control_planes(
    servers: NatsServers, client: TruthClient
) -> None:
    with servers.client(TruthRole.READER) as own:
        reporter = ServerReporter(own, "vm-3", lambda: TakenState("7", time.time()))
        reporter.begin()
        until = time.monotonic() + 10
        while not (reports := ReportReader(own).read()[0]):
            assert time.monotonic() < until
        (found,) = reports
        assert (found.report.name, found.report.kind, found.report.revision) == ("vm-3", "serve", "7")
        with pytest.raises((TruthRefused, TruthAway)):
            TruthBucket(own, FLEET).put("replica.vm-3", json.dumps({"name": "vm-3"}).encode())
        reporter.stop()
    assert TruthBucket(client, FLEET).entries() == {}


def test_two_servers_of_one_name_are_told_apart_from_one_that_has_a_revision(
    client: TruthClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LOOK_SECONDS", "HEARTBEAT_SECONDS"):
        monkeypatch.setattr(f"authz.truth.server_reporter.{name}", 0.05)
    new = ServerReporter(client, "vm-3", lambda: TakenState("8", 1.0))
    old = ServerReporter(client, "vm-3", lambda: TakenState("7", 1.0))

    def until(revision: str) -> str:
        ends = time.monotonic() + 10
        while not (found := ReportReader(client).read()[0]) or found[0].report.revision != revision:
            assert time.monotonic() < ends
        return found[0].report.problem

    new.begin()
    assert until("8") == ""
    old.begin()
    assert "another server reports as `vm-3`, too" in until("")
    view = merge_reports(*ReportReader(client).read(), revision="7")
    assert not view.has("7"), "nobody knows which of them has it"
    old.stop()
    assert until("8") == "", "the one that stays has its name again"
    new.stop()
    assert TruthBucket(client, FLEET).entries() == {}


def test_reports_that_somebody_invented_end_nobodys_reading_and_let_nobody_believe_that_all_have_a_revision(
    client: TruthClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("authz.truth.report_store.MAX_SERVERS", 3)
    ReportWriter(client, "one").write(report())
    for number in range(4):
        TruthBucket(client, FLEET).put(f"server.flood-{number}", replica_value(report()))
    view = merge_reports(*ReportReader(client).read())
    told = [(one.name, one.state, one.revision) for one in view.replicas]
    assert told == [("all-servers", "silent", ""), ("one", "current", "7")]
    assert "authz truth config --member" in view.replicas[0].problem
    assert not view.has("7")

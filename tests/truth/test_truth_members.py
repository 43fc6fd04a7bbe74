"""Members of a role: each is let in by a name of its own, hears nothing of others, and can be let in no longer."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from nats.js import JetStreamContext

from authz.core.errors import SettingsError
from authz.truth.report_store import ReportReader
from authz.truth.server_configuration import TruthMember, TruthRole, read_member
from authz.truth.truth_bucket import FLEET, KEY_SETS, POLICIES, TruthBucket, bucket_name
from authz.truth.truth_client import TruthAway, TruthClient, TruthForbidden, TruthRefused
from authz.truth.truth_tls import inbox_prefix
from tests.nats_server import NatsServers, truth_servers

ANN, BOB, EVE = (read_member(f"reader/{name}") for name in ("ann", "bob", "eve"))


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[NatsServers]:
    with truth_servers(tmp_path, tls=True, members=(ANN, BOB, EVE)) as running:
        with running.client() as authority:
            TruthBucket(authority, POLICIES).put("there", b"1")
        yield running


def of(servers: NatsServers, member: TruthMember) -> TruthClient:
    return TruthClient(servers.address, servers.access(f"{member.role.path}/{member.name}"))


def is_let_in(client: TruthClient, seconds: float) -> bool:
    client.begin()
    try:
        return client.wait(seconds)
    finally:
        client.stop()


def test_whoever_is_taken_out_is_cut_off_at_once_and_nobody_else_is(servers: NatsServers) -> None:
    assert not is_let_in(servers.client(TruthRole.READER), 0.7)  # with members, nobody has the role's own name
    with of(servers, ANN) as ann, of(servers, EVE) as eve, servers.client(TruthRole.PUBLISHER) as publisher:
        for one in (ann, eve, publisher):
            assert TruthBucket(one, POLICIES).get("there") is not None
        servers.let_in(ANN, BOB)
        until = time.monotonic() + 10
        while eve.is_connected:
            assert time.monotonic() < until
            time.sleep(0.05)
        with pytest.raises(TruthAway):
            TruthBucket(eve, POLICIES).get("there")
        assert not is_let_in(of(servers, EVE), 0.7)
        TruthBucket(publisher, POLICIES).put("there", b"2")
        found = TruthBucket(ann, POLICIES).get("there")
        assert found is not None
        assert found.value == b"2"
        assert (ann.connection().stats["reconnects"], publisher.connection().stats["reconnects"]) == (0, 0)
        assert not eve.is_connected
        servers.let_in(ANN, BOB, EVE)
        assert is_let_in(of(servers, EVE), 5)


def test_no_member_hears_what_is_answered_to_another_or_has_it_answered(servers: NatsServers) -> None:
    heard: list[int] = []
    inbox = f"{inbox_prefix(TruthRole.READER.path)}.>"
    with of(servers, ANN) as ann, of(servers, BOB) as bob:
        bob.hear(inbox, lambda: heard.append(1))
        bob.call(lambda _: bob.connection().flush())
        heard.clear()
        assert TruthBucket(ann, POLICIES).get("there") is not None
        where = f"{inbox_prefix(TruthRole.READER.path)}.asked-for"
        subject = f"{ann.api}.STREAM.INFO.KV_authz-shop-policies"
        ann.call(lambda _: ann.connection().publish(subject, b"", reply=where))
        ann.call(lambda _: ann.connection().flush())
        assert TruthBucket(ann, POLICIES).get("there") is not None  # what was asked before is answered by now
        bob.call(lambda _: bob.connection().flush())
        assert heard == []


def test_a_member_reports_of_itself_alone_by_one_key(servers: NatsServers) -> None:
    async def rolled_up(js: JetStreamContext) -> None:
        await js.publish(f"$KV.{bucket_name('shop', FLEET)}.server.ann", b"1", headers={"Nats-Rollup": "sub"})

    with of(servers, ANN) as ann, of(servers, BOB) as bob, servers.client() as authority:
        for name, one in (("ann", ann), ("bob", bob)):
            TruthBucket(one, FLEET).put(f"server.{name}", b"1")
        TruthBucket(authority, FLEET).put("replica.ann", b"1")
        reports = TruthBucket(ann, FLEET)
        for key in ("server.bob", "server.eve", "server.ann-2", "server.ann.more", "replica.ann", "proxies.ann.0"):
            with pytest.raises(TruthForbidden, match="does not allow it"):
                reports.put(key, b"2")
        with pytest.raises(TruthForbidden, match="does not allow it"):
            ReportReader(ann).forget("bob")
        with pytest.raises(TruthRefused, match="rollup"):
            ann.call(rolled_up)
        assert {key: one.value for key, one in reports.entries().items()} == dict.fromkeys(
            ("server.ann", "server.bob", "replica.ann"), b"1"
        )
        TruthBucket(ann, KEY_SETS).put("set.0", b"1")
        assert TruthBucket(bob, KEY_SETS).get("set.0") is not None
        ReportReader(authority).forget("bob")
        reports.delete("server.ann", reports.entries("server.ann")["server.ann"].revision)
        assert set(reports.entries()) == {"replica.ann"}


@pytest.mark.parametrize(
    "text", ["reader", "reader/", "authority/a", "reader/A", "reader/a/b", "writer/a", "reader/a>"]
)
def test_what_is_no_member_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="is no member of a role: write `reader/NAME` or `publisher/NAME`"):
        read_member(text)

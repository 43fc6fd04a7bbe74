"""What each role may do, on real servers with mutual TLS that are told what ``server_configuration`` writes."""

import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from nats.js import JetStreamContext

from authz.cli import application
from authz.core.errors import SettingsError
from authz.core.spiffe import TrustDomain
from authz.identity.ca import CertificateAuthority
from authz.truth.bucket_making import MOST_BYTES, make_buckets
from authz.truth.bucket_standing import bucket_standings
from authz.truth.fleet_report import CONTROL, ReplicaReport
from authz.truth.many_answers import MAX_IN_FLIGHT
from authz.truth.report_store import ReportReader, ReportWriter
from authz.truth.server_configuration import TruthRole, TruthServer, permissions, server_configuration
from authz.truth.truth_address import TruthAccess
from authz.truth.truth_bucket import (
    FLEET,
    KEY_SETS,
    LEDGER,
    POLICIES,
    SECURITY,
    TruthArchives,
    TruthBucket,
    bucket_name,
    stream_of,
)
from authz.truth.truth_client import TruthAway, TruthClient, TruthRefused
from authz.truth.truth_stream import StreamRecord, TruthStream, make_stream
from authz.truth.truth_stream_reader import StreamReader
from authz.truth.truth_tls import API, API_OF_ROLES, inbox_prefix
from tests.nats_server import TRUST_DOMAIN, NatsServers, truth_servers


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServers]:
    with truth_servers(tmp_path_factory.mktemp("truth"), tls=True) as running:
        with running.client() as authority:
            for what in (POLICIES, SECURITY, KEY_SETS, FLEET):
                TruthBucket(authority, what).put("there", b"1")
            TruthArchives(authority).put("there", b"archive")
            assert make_stream(authority, 1)
            TruthStream(authority).publish([StreamRecord("0", b'{"decision_id": "d0", "effect": "deny"}')])
        yield running


def keep_and_forget(client: TruthClient) -> bytes | None:
    archives = TruthArchives(client)
    archives.put("new", b"1")
    kept = archives.get("new", 100)
    archives.delete("new")
    return kept


def write_and_read_records(client: TruthClient) -> bool:
    records = [StreamRecord(str(number), b"{}") for number in range(MAX_IN_FLIGHT)]
    TruthStream(client).publish(records)
    return len(list(StreamReader(client).records(*TruthStream(client).extent()))) >= len(records)


def read_records(client: TruthClient) -> object:
    return list(StreamReader(client).records(*StreamReader(client).extent()))


READER, PUBLISHER, AUDITOR = TruthRole.READER, TruthRole.PUBLISHER, TruthRole.AUDITOR
ALLOWED: list[tuple[TruthRole, Callable[[TruthClient], object]]] = [
    (READER, lambda client: TruthBucket(client, POLICIES).get("there")),
    (READER, lambda client: TruthBucket(client, POLICIES).history("there")),
    (READER, lambda client: TruthBucket(client, FLEET).entries()),
    (READER, lambda client: TruthBucket(client, FLEET).put("server.new", b"1")),
    (READER, lambda client: TruthBucket(client, KEY_SETS).get("there")),
    (READER, lambda client: TruthBucket(client, KEY_SETS).put("set.new", b"1")),
    (READER, lambda client: TruthArchives(client).get("there", 100)),
    (READER, lambda client: TruthBucket(client, POLICIES).now()),
    (READER, write_and_read_records),
    (PUBLISHER, lambda client: TruthBucket(client, POLICIES).get("there")),
    (PUBLISHER, lambda client: TruthBucket(client, POLICIES).put("new", b"1")),
    (PUBLISHER, keep_and_forget),
    (AUDITOR, lambda client: TruthBucket(client, FLEET).entries()),
    (AUDITOR, lambda client: TruthBucket(client, FLEET).now()),
    (AUDITOR, read_records),
]
REFUSED: list[tuple[TruthRole, Callable[[TruthClient], object]]] = [
    (READER, lambda client: TruthBucket(client, POLICIES).put("there", b"2")),
    (READER, lambda client: TruthArchives(client).put("there", b"2")),
    (READER, lambda client: TruthArchives(client).delete("there")),
    (READER, lambda client: TruthBucket(client, SECURITY).get("there")),
    (READER, lambda client: TruthBucket(client, FLEET).put("there", b"2")),
    (READER, lambda client: TruthBucket(client, FLEET).put("server.a.b", b"2")),
    (READER, lambda client: TruthBucket(client, KEY_SETS).put("control.set.new", b"2")),
    (PUBLISHER, lambda client: TruthBucket(client, FLEET).put("there", b"2")),
    (PUBLISHER, lambda client: TruthBucket(client, SECURITY).get("there")),
    (PUBLISHER, lambda client: TruthBucket(client, SECURITY).put("there", b"2")),
    (PUBLISHER, lambda client: TruthBucket(client, KEY_SETS).put("there", b"2")),
    (PUBLISHER, lambda client: make_buckets(client, 1)),
    *((AUDITOR, lambda client, what=what: TruthBucket(client, what).get("there")) for what in (POLICIES, SECURITY)),
    (AUDITOR, lambda client: TruthBucket(client, KEY_SETS).get("there")),
    (AUDITOR, lambda client: TruthBucket(client, LEDGER).get("there")),
    (AUDITOR, lambda client: TruthArchives(client).get("there", 100)),
    (AUDITOR, lambda client: TruthBucket(client, FLEET).put("server.new", b"2")),
    (AUDITOR, lambda client: TruthBucket(client, FLEET).put("there", b"2")),
]


@pytest.fixture(scope="module")
def clients(servers: NatsServers) -> Iterator[dict[TruthRole, TruthClient]]:
    with servers.client(READER) as reader, servers.client(PUBLISHER) as publisher, servers.client(AUDITOR) as auditor:
        yield {READER: reader, PUBLISHER: publisher, AUDITOR: auditor}


@pytest.mark.parametrize(("role", "act"), ALLOWED)
def test_a_role_may_do_what_it_is_for(
    clients: dict[TruthRole, TruthClient], role: TruthRole, act: Callable[[TruthClient], object]
) -> None:
    assert act(clients[role])


def test_a_role_may_do_nothing_else(servers: NatsServers, clients: dict[TruthRole, TruthClient]) -> None:
    for role, act in REFUSED:
        with pytest.raises(TruthRefused, match="does not allow it"):
            act(clients[role])
    with servers.client() as authority:
        for what in (POLICIES, SECURITY, KEY_SETS, FLEET):
            found = TruthBucket(authority, what).get("there")
            assert found is not None
            assert found.value == b"1"
        assert TruthArchives(authority).get("there", 100) == b"archive"


@pytest.mark.parametrize(
    ("role", "others"),
    [
        (READER, (POLICIES, SECURITY, FLEET)),
        (PUBLISHER, (SECURITY, KEY_SETS, FLEET)),
        (AUDITOR, (POLICIES, SECURITY, KEY_SETS, FLEET)),
    ],
)
def test_no_answer_goes_where_a_role_may_not_send(
    servers: NatsServers, clients: dict[TruthRole, TruthClient], role: TruthRole, others: tuple[str, ...]
) -> None:
    """Who asks says where the answer goes: into a bucket, into a request, or to somebody else who waits for one."""
    places = [f"$KV.{bucket_name('shop', what)}.there" for what in others]
    places.append(f"{inbox_prefix(TruthRole.AUTHORITY.path)}.attacked")
    places += [f"{api}.STREAM.PURGE.{stream_of('shop', what)}" for api in (API, API_OF_ROLES) for what in others]

    async def attack(_: JetStreamContext) -> int:
        sent = 0
        for subject in permissions("shop", role)["publish"]:
            asked = b'{"seq": 1}' if ".GET." in subject else b'{"filter": "none"}' if ".PURGE." in subject else b""
            for place in places:
                await clients[role].connection().publish(re.sub("[*>]$", "attacked", subject), asked, reply=place)
                sent += 1
        await clients[role].connection().flush()
        return sent

    heard: list[float] = []
    with servers.client() as authority:
        authority.hear(f"{inbox_prefix(TruthRole.AUTHORITY.path)}.attacked", lambda: heard.append(1))
        authority.call(lambda _: authority.connection().flush())
        assert clients[role].call(attack) > 20
        for what in others:
            TruthBucket(authority, what).put("later", b"1")  # what was sent before is there when this is
            found = TruthBucket(authority, what).get("there")
            assert found is not None
            assert found.value == b"1"
    assert len(heard) == 1  # when it began to hear


def test_who_may_write_one_key_cannot_roll_a_bucket_up_into_it(
    servers: NatsServers, clients: dict[TruthRole, TruthClient]
) -> None:
    """NATS deletes everything else of a stream for a header, whatever else its sender may do."""

    async def roll_up(js: JetStreamContext) -> None:
        await js.publish(f"$KV.{bucket_name('shop', FLEET)}.server.mine", b"1", headers={"Nats-Rollup": "all"})

    async def allow_it(js: JetStreamContext) -> None:
        there = (await js.stream_info(stream_of("shop", FLEET))).config
        await js.update_stream(there, allow_rollup_hdrs=True, max_bytes=-1)

    async def bound(js: JetStreamContext) -> int | None:
        return (await js.stream_info(stream_of("shop", FLEET))).config.max_bytes

    with servers.client() as authority:
        for was_allowed in (False, True):
            if was_allowed:  # in a truth that was made before this was known
                authority.call(allow_it)
                assert make_buckets(authority, 1) == ()
            assert authority.call(bound) == MOST_BYTES[FLEET]
            with pytest.raises(TruthRefused, match="rollup"):
                clients[READER].call(roll_up)
            assert TruthBucket(authority, FLEET).get("there") is not None


def test_an_auditor_asks_by_the_commands_that_are_for_it(servers: NatsServers) -> None:
    def asked(*command: str, code: int) -> str:
        access = servers.access(AUDITOR.path)
        files = ("--truth-ca", access.ca, "--truth-cert", access.certificate, "--truth-key", access.key)
        done = CliRunner().invoke(application, [*command, *map(str, files), "--truth-name", access.name])
        assert done.exit_code == code, done.output
        return done.output

    address = str(servers.address)
    assert "d0" in asked("audit", "tail", "-n", "9999", "--log", address, "-o", "json", code=0)
    assert "fleet" in asked("truth", "status", "--to", address, code=0)
    assert "0 proxies" in asked("fleet", "status", "--truth", address, code=3)
    assert "does not allow it" in asked("policies", "history", "--to", address, code=1)
    sent = permissions("shop", AUDITOR)["publish"]
    assert all(subject.startswith(f"{API_OF_ROLES}.STREAM.") for subject in sent), "it reads, and writes no record"


def test_a_reader_hears_of_changes(servers: NatsServers, clients: dict[TruthRole, TruthClient]) -> None:
    woken: list[float] = []
    TruthBucket(clients[READER], POLICIES).watch(">", lambda: woken.append(1))
    assert clients[READER].wait()
    until = time.monotonic() + 5
    while not woken and time.monotonic() < until:
        TruthBucket(clients[PUBLISHER], POLICIES).put("heard", b"1")
    assert woken


@pytest.mark.parametrize(
    ("whose", "path"), [("ours", "/ns/shop/sa/web"), ("ours", "/authz/truth"), ("another's", "/authz/ca")]
)
def test_a_stranger_is_not_let_in(servers: NatsServers, tmp_path: Path, whose: str, path: str) -> None:
    access = servers.access(path)
    if whose != "ours":
        other = NatsServers(tmp_path, 1, CertificateAuthority.create(TrustDomain(TRUST_DOMAIN), time.time()))
        access = TruthAccess(access.ca, *other.issue(path), access.name)
    stranger = TruthClient(servers.address, access)
    stranger.begin()
    try:
        assert not stranger.wait(0.5)
        with pytest.raises(TruthAway):
            TruthBucket(stranger, POLICIES).get("there")
    finally:
        stranger.stop()


def test_nothing_is_said_without_tls(servers: NatsServers) -> None:
    host, _, port = servers.address.servers[0].rpartition(":")
    with socket.create_connection((host, int(port)), 5) as plain:
        plain.settimeout(0.3)
        with pytest.raises(TimeoutError):
            plain.recv(1)


@pytest.mark.slow  # servers that start wait at least four seconds before they elect
def test_three_servers_keep_what_one_that_dies_had_and_who_ends_with_it_is_not_missed(tmp_path: Path) -> None:
    with truth_servers(tmp_path, 3, tls=True) as servers, servers.client() as client:
        bucket = TruthBucket(client, POLICIES)
        bucket.put("kept", b"1")
        ending = ReportWriter(client, "one")
        ending.write(ReplicaReport("one", CONTROL, time.time(), "7", time.time()))
        (leader,) = (one.leader for one in bucket_standings(client) if one.what == FLEET)
        os.kill(servers.process_id(int(leader.removeprefix("server-"))), signal.SIGTERM)  # as its machine is shut down
        ending.withdraw()
        assert ReportReader(client).read()[0] == []
        until = time.monotonic() + 15
        while True:
            try:
                found = bucket.get("kept")
                break
            except TruthAway:
                assert time.monotonic() < until
        assert found is not None
        assert found.value == b"1"


def test_a_server_without_tls_is_for_this_machine_alone(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="is not on it"):
        server_configuration(TruthServer("one", "shop", tmp_path))
    assert "tls {" not in server_configuration(TruthServer("one", "shop", tmp_path, listen="127.0.0.1:4222"))

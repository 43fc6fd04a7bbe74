"""A proxy that enforces by itself, its access log, and ``authz serve`` that makes the record of it."""

import asyncio
import http.client
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from authz.core.errors import SettingsError
from authz.envoy.native.filters_version import filters_version
from authz.service.native.gaps import Counted, Gaps
from authz.service.native.intake import Intake
from authz.service.workers.envoy_host import find_hosting
from tests.envoy.native_rig import CALLER, WORKLOAD, NativeMesh, rule, token
from tests.service.native.test_gaps import Trail

pytest.importorskip("envoy")
pytestmark = pytest.mark.envoy

COMMAND = [sys.executable, "-c", "from authz.cli.serve import serve; serve()"]


class Serving:
    """A running ``authz serve`` and the records that it wrote."""

    def __init__(self, mesh: NativeMesh, process: subprocess.Popen[bytes]) -> None:
        self.mesh = mesh
        self.process = process

    @property
    def lines(self) -> list[dict[str, Any]]:
        file = self.mesh.state / "audit.jsonl"
        return [json.loads(line) for line in file.read_bytes().splitlines()] if file.exists() else []

    def records(self) -> list[dict[str, Any]]:
        return [line for line in self.lines if "decision_id" in line]

    def notes(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line.get("event") == event]

    def metric(self, name: str, labels: str = "") -> float:
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=5)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        found = re.search(rf"^{name}{re.escape(labels)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    admin_port: int = 0


@contextmanager
def serving(
    mesh: NativeMesh, *flags: str, server: str = "grpcio", workers: int = 1, listen: str = "unix:run/authz.sock"
) -> Iterator[Serving]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AUTHZ_", "GRPC_"))}
    environment |= {"AUTHZ_AUDIT_QUERY_VALUES": "page", "AUTHZ_ACCESS_LOG_VERIFY": "1"}
    log = open(mesh.state / "authz.txt", "ab")  # noqa: SIM115  # the process' until it ends
    process = subprocess.Popen(
        [
            *COMMAND, "--policies", "policies", "--workers", str(workers), "--server", server,
            "--listen", listen,
            "--admin", "127.0.0.1:0", "--audit", "file:audit.jsonl",
            "--drain-delay-seconds", "0",
            *(flags or ("--access-logs", "file:logs")),
        ],
        cwd=mesh.state, env=environment, stderr=log,
    )  # fmt: skip
    running = Serving(mesh, process)
    try:
        text = wait_for(lambda: re.findall(r"admin\s+http://127\.0\.0\.1:(\d+)/", said(mesh)))
        if server == "envoy" or workers > 1:
            wait_for(lambda: "workers serve" in said(mesh), 60)
        else:
            wait_for(lambda: said(mesh).count("SERVING") >= len(re.findall(r"listening unix", said(mesh))))
        running.admin_port = int(text[-1])
        yield running
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(20)
        log.close()


def find_hosting_or_skip() -> None:
    try:
        find_hosting()
    except SettingsError as error:
        pytest.skip(str(error))


def said(mesh: NativeMesh) -> str:
    return (mesh.state / "authz.txt").read_text()


def wait_for(ask: Callable[[], Any], limit: float = 20.0) -> Any:
    end = time.monotonic() + limit
    while not (answer := ask()):
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)
    return answer


def get(
    port: int, path: str, headers: tuple[tuple[str, str], ...] = (), tls: Path | None = None
) -> tuple[int, dict[str, str]]:
    connection: http.client.HTTPConnection
    if tls is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    else:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(tls / "ca.crt")
        context.load_cert_chain(tls / "caller" / "tls.crt", tls / "caller" / "tls.key")
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=5, context=context)
    connection.putrequest("GET", path)
    for name, value in headers:
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status, dict(answer.getheaders())


@pytest.fixture
def mesh(tmp_path: Path) -> NativeMesh:
    return NativeMesh.new(tmp_path)


@pytest.mark.parametrize("carrier", ["file", "grpc", "file, the filters tell", "grpc, the filters tell"])
def test_the_record_of_a_log_entry_is_that_of_a_check(tmp_path: Path, carrier: str) -> None:
    carrier, _, tells = carrier.partition(", ")
    mesh = NativeMesh.new(tmp_path, "run/authz.sock" if carrier == "grpc" else "")
    mesh.filters_tell = bool(tells)
    good = token(groups=["admin", "x"])
    listen = "none" if tells and carrier == "file" else "unix:run/authz.sock"  # the record is that of a recorder, too
    logs = "grpc" if carrier == "grpc" else "file:logs"
    with mesh.envoy(), serving(mesh, "--access-logs", logs, listen=listen) as server:
        asked = [
            (get(mesh.http, "/ok/1?page=2&secret=x", (("user-agent", "curl/8"),)), 200),
            (get(mesh.http, "/audit/1"), 200),
            (get(mesh.http, "/secret/1"), 403),
            (get(mesh.http, "/nowhere"), 403),
            (get(mesh.http, f"/claims?access_token={good}"), 200),
            (get(mesh.http, f"/ok?access_token={token(exp=1)}"), 401),
            (get(mesh.mtls, "/mtls/1", tls=mesh.state), 200),
            (get(mesh.http, "/team", (("x-team", "red"),)), 200),
            (get(mesh.http, "/dark", (("authorization", "Basic eDp5"),)), 200),
        ]
        assert [answer[0] for answer, _ in asked] == [status for _, status in asked]
        records = wait_for(lambda: server.records() if len(server.records()) == len(asked) else None)
        by_path = {(one["request"]["path"].partition("?")[0], one["status"]): one for one in records}

        allowed = by_path["/ok/1", None]
        assert (allowed["effect"], allowed["stage"]) == ("allow", "allow")
        assert allowed["rule"]["name"] == rule("some", 1)
        assert allowed["rule"]["file"].endswith("all.yaml")
        assert allowed["rule"]["line"] > 0
        assert allowed["policy_version"] == mesh.engine().version
        # A line of a file has no query but the values that are recorded; of an entry the other names are, too.
        assert allowed["request"]["path"] == "/ok/1?page=2" + ("&secret=…" if carrier == "grpc" else "")
        assert allowed["request"]["user_agent"] == "curl/8"
        assert allowed["destination"]["workload"] == "reviews-v1"
        assert allowed["destination"]["port"] == mesh.http
        assert allowed["source"]["ip"] == "127.0.0.1"

        audited = by_path["/audit/1", None]
        assert audited["audit"] is True
        assert audited["audit_rule"]["name"] == rule("look", 0)
        assert (audited["would_deny"], audited["by"]) == (True, "bookinfo/planned/0")

        denied, denial = by_path["/secret/1", 403], asked[2][0][1]
        assert denied["rule"]["name"] == rule("deny", 0)
        assert denial["x-authz-decision-id"] == denied["decision_id"] == denied["x_request_id"]

        unmatched = by_path["/nowhere", 403]
        assert (unmatched["stage"], unmatched["rule"]) == ("allow", None)
        assert unmatched["nearest"]["failed"]

        claimed = by_path["/claims", None]
        assert claimed["rule"]["name"] == rule("some", 4)
        assert (claimed["token"]["issuer"], claimed["token"]["subject"]) == ("https://issuer.test", "jason")
        assert claimed["token"]["rule"] == "bookinfo/jwt/0"

        refused = by_path["/ok", 401]
        assert (refused["stage"], refused["reason"]) == ("jwt", "Jwt is expired")

        identified = by_path["/mtls/1", None]
        assert identified["source"]["principal"] == CALLER.removeprefix("spiffe://")
        assert identified["source"]["mtls"] is True
        assert identified["destination"]["principal"].endswith("/sa/reviews")

        text = "".join(path.read_text() for path in (*(mesh.state / "logs").glob("*.json"), mesh.state / "audit.jsonl"))
        assert good not in text
        assert "Basic eDp5" not in text
        assert "secret=x" not in text
        assert server.metric("authz_native_verified_total", '{result="agreed"}') == 7
        assert server.metric("authz_native_verified_total", '{result="unverified"}') == 1
        assert server.metric("authz_native_verified_total", '{result="unknown"}') == 1
        assert server.notes("native-disagreement") == []


@pytest.mark.parametrize(("server", "workers"), [("grpcio", 2), ("envoy", 1), ("envoy", 2)])
def test_streams_come_to_an_address_of_their_own_beside_any_server(tmp_path: Path, server: str, workers: int) -> None:
    """One worker opens it, and so sees every entry, which the comparison with the proxy's counters asks for."""
    if server == "envoy":
        find_hosting_or_skip()
    mesh = NativeMesh.new(tmp_path, "run/logs.sock")
    flags = ("--access-logs", "grpc:unix:run/logs.sock", "--access-log-admin", "unix:run/{proxy}.admin.sock")
    with mesh.envoy(), serving(mesh, *flags, server=server, workers=workers) as running:
        asked = [f"/ok/{number}" for number in range(20)]
        for path in asked:
            assert get(mesh.http, path)[0] == 200
        wait_for(lambda: len(running.records()) == len(asked))
        assert sorted(ids(running)) == sorted(asked)
        assert said(mesh).count("listening unix:run/logs.sock") == 1
        running.process.terminate()
        assert running.process.wait(20) == 0
        assert "Traceback" not in said(mesh)


def test_tcp_connections_are_recorded_with_the_rule_that_closed_them(mesh: NativeMesh) -> None:
    with mesh.envoy(), serving(mesh) as server:
        for port, answered in ((mesh.tcp, True), (mesh.refused_tcp, False)):
            with socket.create_connection(("127.0.0.1", port), 5) as connection:
                connection.sendall(b"GET /ok HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
                connection.settimeout(5)
                assert bool(connection.recv(100)) is answered
        records = wait_for(lambda: [one for one in server.records() if one["request"] is None][:2] or None)
        wait_for(lambda: len([one for one in server.records() if one["request"] is None]) == 2)
        refused = next(one for one in server.records() if one["effect"] == "deny")
        assert records
        assert refused["rule"]["name"] == rule("ports", 0)
        assert refused["destination"]["port"] == mesh.refused_tcp


def test_policies_that_say_otherwise_than_the_proxy_are_a_disagreement(mesh: NativeMesh) -> None:
    file = mesh.state / "policies" / "all.yaml"
    file.write_text(file.read_text().replace('"/ok*"', '"/other*"'))
    mesh.version = filters_version(mesh.engine(), WORKLOAD)  # as if a filter did something else than its policies
    with mesh.envoy(), serving(mesh) as server:
        get(mesh.http, "/ok/1")
        (note,) = wait_for(lambda: server.notes("native-disagreement"))
        (record,) = wait_for(server.records)
        assert record["effect"] == "allow"
        assert (note["envoy"]["effect"], note["engine"]["effect"]) == ("allow", "deny")
        assert note["request"] == record["decision_id"]
        labels = '{namespace="bookinfo",workload="reviews-v1"}'
        assert server.metric("authz_native_disagreements_total", labels) == 1
        assert "disagree" in said(mesh)


@pytest.mark.parametrize("carrier", ["file", "grpc"])
def test_the_record_of_a_proxy_with_other_policies_names_those(tmp_path: Path, carrier: str) -> None:
    mesh = NativeMesh.new(tmp_path, "run/authz.sock" if carrier == "grpc" else "")
    with mesh.envoy():
        file = mesh.state / "policies" / "all.yaml"
        file.write_text(file.read_text().replace('"/ok*"', '"/other*"'))
        with serving(mesh, "--access-logs", "grpc" if carrier == "grpc" else "file:logs") as server:
            get(mesh.http, "/ok/1")
            (record,) = wait_for(server.records)
            assert (record["effect"], record["policy_version"]) == ("allow", mesh.version)
            assert server.notes("native-disagreement") == []
            assert server.metric("authz_native_verified_total", '{result="other_version"}') == 1


NASTY = (
    b'red","~at":"1 2 3","~path":"/ok', b'"}', b'\\', b'\\"', b'{"headers":{"x-team":"red"}}', b'=-',
    b'%PATH(NQ:PATH)%', b"\xff\xfered", b"r\xc3\xa9d", b"\xed\xa0\x80", b"\xe2\x80\xa8", b"red\tred",
    b"a" * 20_000, b"\xff" * 5_000, b"",
)  # fmt: skip


def get_with(port: int, path: str, name: bytes, value: bytes) -> int:
    """A GET with a header of any bytes, which no client library would send."""
    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        lines = [f"GET {path} HTTP/1.1".encode(), b"host: a", name + b": " + value, b"connection: close", b"", b""]
        connection.sendall(b"\r\n".join(lines))
        connection.settimeout(5)
        return int(connection.recv(100).split(b" ")[1])


@pytest.mark.parametrize("filters_tell", [False, True])
@pytest.mark.parametrize("carrier", ["file", "grpc"])
def test_what_a_client_writes_into_a_header_breaks_no_record(tmp_path: Path, carrier: str, filters_tell: bool) -> None:
    """Each is recorded once, with the answer that it got, and is no disagreement."""
    mesh = NativeMesh.new(tmp_path, "run/authz.sock" if carrier == "grpc" else "")
    mesh.filters_tell = filters_tell
    with mesh.envoy(), serving(mesh, "--access-logs", "grpc" if carrier == "grpc" else "file:logs") as server:
        answers = {
            f"/team?{at}": get_with(mesh.http, f"/team?{at}", b"x-team", value) for at, value in enumerate(NASTY)
        }
        assert set(answers.values()) == {403}
        assert get_with(mesh.http, "/team", b"x-team", b"red") == 200
        wait_for(lambda: len(server.records()) == len(NASTY) + 1)
        assert [record["effect"] for record in server.records()].count("allow") == 1
        assert server.notes("native-disagreement") == []
        assert server.metric("authz_native_verified_total", '{result="disagreed"}') == 0
        assert "Traceback" not in said(mesh)


def test_a_header_that_came_twice_is_no_disagreement(mesh: NativeMesh) -> None:
    with mesh.envoy(), serving(mesh) as server:
        get(mesh.http, "/team", (("x-team", "blue"), ("x-team", "red")))
        wait_for(server.records)
        assert server.notes("native-disagreement") == []


def ids(server: Serving) -> list[str]:
    return [one["request"]["path"] for one in server.records()]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_server_that_is_stopped_reads_on_where_it_was(mesh: NativeMesh, how: signal.Signals) -> None:
    with mesh.envoy():
        expected = []
        for life in range(3):
            with serving(mesh) as server:
                for number in range(30):
                    expected.append(f"/ok/{life}/{number}")
                    get(mesh.http, expected[-1])
                wait_for(lambda: len(expected) - len(server.records()) < 25)
                server.process.send_signal(how)
                server.process.wait(20)
        with serving(mesh) as server:
            wait_for(lambda: len(server.records()) >= len(expected))
        assert sorted(ids(server)) == sorted(expected)


def test_rotation_loses_nothing_and_repeats_nothing(mesh: NativeMesh) -> None:
    log = mesh.state / "logs" / "reviews-v1.json"
    expected = []

    def ask(number: int) -> None:
        for index in range(20):
            expected.append(f"/ok/{number}/{index}")
            get(mesh.http, expected[-1])

    with mesh.envoy() as proxy, serving(mesh) as server:
        ask(0)
        wait_for(lambda: len(server.records()) == 20)
        log.rename(log.with_name("reviews-v1.json.1"))  # Envoy writes on into the renamed file until told
        ask(1)
        reopened = subprocess.run([sys.executable, "-c", _POST, str(mesh.state)], check=True, timeout=10)
        assert reopened.returncode == 0
        ask(2)
        wait_for(lambda: log.exists() and len(server.records()) == 60)
        old = log.with_name("reviews-v1.json.1")
        subprocess.run(["gzip", str(old)], check=True)
        log.with_name("reviews-v1.json.2").write_bytes(log.read_bytes())  # copytruncate
        os.truncate(log, 0)
        ask(3)
        wait_for(lambda: len(server.records()) >= 80)
        assert proxy.process.poll() is None
        assert sorted(ids(server)) == sorted(expected)


_POST = """
import http.client, os, socket, sys
os.chdir(sys.argv[1])
connection = http.client.HTTPConnection("envoy")
connection.sock = socket.socket(socket.AF_UNIX)
connection.sock.connect("run/reviews-v1.admin.sock")
connection.request("POST", "/reopen_logs")
assert connection.getresponse().status == 200
"""


def test_a_killed_proxy_loses_at_most_what_it_had_not_flushed(mesh: NativeMesh) -> None:
    flush_seconds, late_seconds = 0.1, 0.9  # a busy machine's timers are late
    with serving(mesh) as server:
        with mesh.envoy(flush_milliseconds=int(flush_seconds * 1000)) as proxy:
            ended = [time.monotonic()]
            while ended[-1] < ended[0] + 2:
                get(mesh.http, f"/ok/{len(ended)}")
                ended.append(time.monotonic())
            killed = time.monotonic()
            proxy.process.kill()
            proxy.process.wait(5)
        certain = sum(at < killed - flush_seconds - late_seconds for at in ended[1:])
        assert certain > 0
        wait_for(lambda: len(server.records()) >= certain)
        with mesh.envoy():
            get(mesh.http, "/ok/again")
            wait_for(lambda: "/ok/again" in ids(server))
        assert len(set(ids(server))) == len(ids(server))


async def test_requests_that_a_real_proxy_counted_and_nobody_recorded_are_found(
    mesh: NativeMesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(mesh.state)  # the path of a Unix socket is short
    later = 0.0
    trail = Trail()
    intake = Intake(trail)

    async def ask(proxy: str) -> Counted:
        connected = Gaps(Intake(trail), "unix:run/{proxy}.admin.sock", time.time)
        return (await connected.asked(proxy))._replace(started_at=0.0)  # the clock of this test jumps

    gaps = Gaps(intake, "", lambda: time.time() + later, ask=ask)
    intake.judge.replace(mesh.engine(), 0.0)
    log = mesh.state / "logs" / "reviews-v1.json"

    def recorded(number: int) -> list[bytes]:
        wait_for(lambda: log.exists() and log.read_bytes().count(b"\n") >= number)
        return log.read_bytes().splitlines()

    with mesh.envoy():
        get(mesh.http, "/ok/first")
        intake.take_lines(recorded(1))
        later = 1.0  # the first comparison comes after the first request, whatever the clock's grain
        await gaps.compare()
        await asyncio.sleep(1.1)
        for number in range(10):
            get(mesh.http, f"/ok/{number}")
        with socket.create_connection(("127.0.0.1", mesh.http), 5) as broken:
            broken.sendall(b"NONSENSE\r\n\r\n")  # refused by the codec, counted, and in the log
            assert broken.recv(100).startswith(b"HTTP/1.1 400")
        intake.take_lines(recorded(12)[1 : 12 - 3])
        for minute in (1, 2):
            later = minute * 60.0
            await gaps.compare()
    assert gaps.unreachable == {"reviews-v1": False}
    assert gaps.missing["reviews-v1"] == 3
    assert [note.record["missing"] for note in trail.notes if note.record["event"] == "access-log-gap"] == [3]

"""The access log service on the real gRPC server: entries, nonsense, and a trail that is full."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives import serialization
from google.protobuf.wrappers_pb2 import StringValue

from authz._proto import access_log_pb2 as pb
from authz.service.check_function import CheckFunction
from authz.service.ids import DecisionIds
from authz.service.native.intake import SLICE, Intake
from authz.service.native.stream import AccessLogStream
from authz.service.ports.server_tls import ServerCertificate
from authz.service.server import CheckServer
from authz.service.streams import ACCESS_LOG, STREAM_ACCESS_LOGS, StreamServer
from authz.telemetry.status import TrailStatus
from authz.wire import access_log, access_stream
from authz.wire.access_log import MAX_TIME, LogEntry, NotAnEntry
from authz.wire.access_stream import read_message
from tests.service.native.test_gaps import Trail
from tests.service.native.test_judge import engine, rule
from tests.service.ports.test_handshakes import _write
from tests.service.ports.test_server_tls import Pair
from tests.service.running import refuse
from tests.service.test_own_port import Svid
from tests.wire.lines import SUBJECT


class FullTrail(Trail):
    """A trail that says how full it is."""

    queued = 0

    def status(self) -> TrailStatus:
        return TrailStatus(self.queued, 100, 0, 0, 0, 0, (), "", True)


def message(*paths: str, **changes: Any) -> bytes:
    told = pb.StreamAccessLogsMessage()
    for path in paths:
        entry = told.http_logs.log_entry.add()
        common = entry.common_properties
        common.custom_tags["authz"] = SUBJECT.who()
        common.start_time.seconds = 1_700_000_000
        common.downstream_direct_remote_address.socket_address.address = "10.0.0.7"
        common.downstream_direct_remote_address.socket_address.port_value = 41000
        common.metadata.filter_metadata["envoy.filters.http.rbac"].update(
            {"enforced_engine_result": "allowed", "enforced_effective_policy_id": rule("some")}
        )
        entry.protocol_version = 2
        entry.request.path, entry.request.authority, entry.request.request_id = path, "reviews", "id"
        entry.request.request_headers[":method"] = "GET"
        entry.response.response_code.value = 200
        entry.response.response_code_details = "via_upstream"
    for name, value in changes.items():
        setattr(told.http_logs.log_entry[0].request, name, value)
    return told.SerializeToString()


def test_the_trace_of_a_stream_can_be_asked_for() -> None:
    told = pb.StreamAccessLogsMessage.FromString(message("/no"))
    told.http_logs.log_entry[0].request.request_headers["traceparent"] = "red"
    (entry,) = read_message(told.SerializeToString())
    assert isinstance(entry, LogEntry)
    assert entry.attributes.header("traceparent") == ("red",)


def test_what_a_client_writes_at_length_is_read_and_not_remembered() -> None:
    access_stream._known.clear()
    for name in ("user_agent", "authority", "path"):
        for number in range(5):
            (entry,) = read_message(message("/ok", **{name: f"{number}{'x' * 60_000}"}))
            assert isinstance(entry, LogEntry)
    assert len(access_stream._known) == 1  # of the paths, which are each request's own


WHO = json.loads(SUBJECT.who())
TOKENS = """
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens, namespace: bookinfo}
spec: {jwtRules: [{issuer: i, jwks: '{"keys": []}'}]}
"""
NO_TEXT: tuple[object, ...] = ([], 5, None)


def crafted(tag: str = "", *, state: bytes = b"", at: int = 1_700_000_000, metadata: Any = None) -> bytes:
    """An entry that no Envoy writes, between two of ours."""
    told = pb.StreamAccessLogsMessage.FromString(message("/ok/1", "/ok/2", "/ok/3"))
    common = told.http_logs.log_entry[1].common_properties
    common.start_time.seconds = at
    if tag:
        common.custom_tags["authz"] = tag
    if state:
        common.filter_state_objects["authz.asked"].value = state
    for name, value in (metadata or {}).items():
        common.metadata.filter_metadata[f"envoy.{name}"].update(value)
    return told.SerializeToString()


def asked(facts: object) -> bytes:
    return StringValue(value=json.dumps(facts)).SerializeToString()


@pytest.mark.parametrize(
    "written",
    [
        *(
            pytest.param(crafted(json.dumps(WHO | {name: value})), id=f"{name} {value!r}")
            for name in ("proxy", "listener", "namespace", "service_account", "workload", "labels")
            for value in NO_TEXT
        ),
        pytest.param(crafted(json.dumps(WHO | {"labels": {"app": True}})), id="a label that is no text"),
        pytest.param(crafted("[1]"), id="no object"),
        pytest.param(crafted("[" * 100_000), id="brackets"),
        pytest.param(crafted(json.dumps(WHO).replace('"reviews-v1"', "1" * 5000)), id="a long number"),
        pytest.param(crafted(state=b"\xff\xff"), id="no text of a filter"),
        pytest.param(crafted(state=asked({"headers": {"x-team": 5}})), id="a header that is no text"),
        pytest.param(crafted(state=asked({"headers": [1]})), id="headers without names"),
        pytest.param(crafted(at=-1), id="before the epoch"),
        pytest.param(crafted(at=MAX_TIME), id="in the year 10000"),
        pytest.param(crafted(metadata={"x": {"y": float("nan")}}), id="no number"),
        pytest.param(crafted(metadata={"filters.http.rbac": {"enforced_engine_result": 5}}), id="a result of no text"),
        pytest.param(crafted(metadata={"common": {"access_log_hint": [1]}}), id="a hint that is none"),
        pytest.param(crafted(metadata={"filters.http.ratelimit": {"rule": [1]}}), id="a limit that is no text"),
        pytest.param(crafted(metadata={"filters.http.jwt_authn": {"payload": [1]}}), id="claims without names"),
        pytest.param(
            crafted(metadata={"filters.http.jwt_authn": {"payload": {"a": 1}, "header": {"kid": [1]}}}),
            id="no name",
        ),
    ],
)
def test_what_no_envoy_writes_is_no_entry_and_those_beside_it_are_read(written: bytes) -> None:
    """Whatever is remembered or counted by it later, as a label of metrics, is text."""
    found = list(read_message(written))
    assert [type(one) for one in found] == [LogEntry, NotAnEntry, LogEntry]


@pytest.mark.parametrize(
    ("kind", "result"), [*((one, LogEntry) for one in (0, 3, 6)), *((one, NotAnEntry) for one in (1, 2, 4, 5, 9, 11))]
)
def test_what_is_told_before_the_end_of_a_request_is_no_record(kind: int, result: type) -> None:
    """It would say of a request that is still to be denied that it was allowed."""
    told = pb.StreamAccessLogsMessage.FromString(message("/ok"))
    told.http_logs.log_entry[0].common_properties.access_log_type = kind
    assert [type(one) for one in read_message(told.SerializeToString())] == [result]


def test_what_is_long_is_remembered_nowhere(tmp_path: Path) -> None:
    long = "x" * 60_000
    told = pb.StreamAccessLogsMessage.FromString(message("/ok"))
    common = told.http_logs.log_entry[0].common_properties
    common.custom_tags["authz"] = json.dumps(WHO | {"labels": {"app": long}})
    common.downstream_direct_remote_address.socket_address.address = long
    common.tls_properties.peer_certificate_properties.subject_alt_name.add(uri=f"spiffe://mesh.test/{long}")
    common.metadata.filter_metadata["envoy.filters.http.jwt_authn"].update({"payload": {"iss": "i", "sub": long}})
    remembering = (
        access_log._who, access_log._destination, access_log._source, access_log._accepted,
        access_stream._socket_address,
    )  # fmt: skip
    list(read_message(message("/ok")))
    before = [one.cache_info().currsize for one in remembering]
    (entry,) = read_message(told.SerializeToString())
    assert isinstance(entry, LogEntry)
    assert entry.attributes.authentication.token is not None
    assert entry.attributes.authentication.token.subject == long
    intake = Intake(Trail())
    intake.judge.replace(engine(tmp_path, TOKENS), 0.0)
    intake.take(entry, "grpc")
    assert (intake.results, intake.judge._tokens) == ({("grpc", "recorded"): 1}, {})
    added = [one.cache_info().currsize - size for one, size in zip(remembering, before, strict=True)]
    assert sum(added) <= 1  # an address beside it


@asynccontextmanager
async def taking(intake: Intake, *, alone: bool = False) -> AsyncIterator[Any]:
    """A port that takes streams: that of the check, or one of their own."""
    said: list[str] = []
    server: CheckServer | StreamServer
    if alone:
        server = StreamServer(AccessLogStream(intake).take, max_message_bytes=1 << 20)
        await server.start(["127.0.0.1:0"], said.append)
        assert [line.rpartition(":")[0] for line in said] == ["records   listening 127.0.0.1"]
    else:
        function = CheckFunction(Trail(), DecisionIds(0.0, b"abc"))
        server = CheckServer(function, refuse, max_message_bytes=1 << 20, take_stream=AccessLogStream(intake).take)
        await server.start(["127.0.0.1:0"])
        said.append(server.addresses[0])
    async with grpc.aio.insecure_channel(said[0].rpartition(" ")[2]) as channel:
        yield channel.stream_unary(
            f"/{ACCESS_LOG}/{STREAM_ACCESS_LOGS}", request_serializer=bytes, response_deserializer=bytes
        )
    await server.stop()


@pytest.fixture
def trail() -> FullTrail:
    return FullTrail()


@pytest.fixture
def intake(trail: FullTrail, tmp_path: Path) -> Intake:
    intake = Intake(trail)
    intake.judge.replace(engine(tmp_path), 0.0)
    return intake


@pytest.mark.parametrize("alone", [False, True])
async def test_entries_of_a_stream_are_recorded(intake: Intake, trail: FullTrail, alone: bool) -> None:
    async with taking(intake, alone=alone) as call:
        assert await call(iter([message("/ok/1", "/ok/2?page=1"), message("/ok/3")])) == b""
    assert [one.attributes.http and one.attributes.http.path for one in trail.entries] == [
        "/ok/1", "/ok/2?page=1", "/ok/3",
    ]  # fmt: skip
    assert intake.results == {("grpc", "recorded"): 3}
    assert intake.verdicts == {"agreed": 3}


@pytest.mark.parametrize(
    ("caller", "is_recorded"),
    [
        ("spiffe://cluster.local/ns/bookinfo/sa/reviews", True),
        ("spiffe://cluster.local/ns/bookinfo/sa/ratings", False),
        ("spiffe://cluster.local/ns/other/sa/reviews", False),
        ("spiffe://cluster.local/authz/ca", False),
        ("", True),
    ],
)
@pytest.mark.parametrize("alone", [False, True])
async def test_over_mutual_tls_a_sidecar_tells_of_itself_alone(
    intake: Intake, trail: FullTrail, tmp_path: Path, caller: str, is_recorded: bool, alone: bool
) -> None:
    """
    A member of the mesh must not write the record of another one's requests, nor have them counted as told.

    A certificate without a SPIFFE ID is of an authority of its own, as for checks.
    """
    intake.counts_seen = True
    authority = Pair("authority")
    server = Pair("server", authority)
    ca, _ = _write(authority, tmp_path, "ca")
    certificate, key = _write(server, tmp_path, "server")
    svid = Svid(authority, *([caller] if caller else []))
    pem = serialization.Encoding.PEM
    held = svid.key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    take, credentials = AccessLogStream(intake).take, ServerCertificate(certificate, key, ca).credentials()
    said: list[str] = []
    served: CheckServer | StreamServer
    if alone:
        served = StreamServer(take, max_message_bytes=1 << 20, credentials=credentials)
        await served.start(["127.0.0.1:0"], said.append)
    else:
        function = CheckFunction(Trail(), DecisionIds(0.0, b"abc"))
        served = CheckServer(
            function, refuse, max_message_bytes=1 << 20, is_mutual=True, credentials=credentials, take_stream=take
        )
        await served.start(["127.0.0.1:0"])
        said.append(served.addresses[0])
    shown = grpc.ssl_channel_credentials(ca.read_bytes(), held, svid.certificate.public_bytes(pem))
    try:
        async with grpc.aio.secure_channel(said[0].rpartition(" ")[2], shown) as channel:
            call = channel.stream_unary(
                f"/{ACCESS_LOG}/{STREAM_ACCESS_LOGS}", request_serializer=bytes, response_deserializer=bytes
            )
            await call(iter([message("/ok/1")]))
    finally:
        await served.stop()
    assert bool(trail.entries) is is_recorded
    assert intake.results == {("grpc", "recorded" if is_recorded else "refused"): 1}
    assert bool(intake.seen) is is_recorded


async def test_bytes_that_are_no_message_end_the_stream_with_an_error(intake: Intake) -> None:
    async with taking(intake) as call:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(iter([message("/ok/1"), b"\xff\xff"]))
    assert refused.value.code() is grpc.StatusCode.INTERNAL
    assert intake.results == {("grpc", "recorded"): 1}


async def test_an_entry_of_another_format_is_counted_and_the_rest_recorded(intake: Intake) -> None:
    foreign = pb.StreamAccessLogsMessage()
    foreign.http_logs.log_entry.add().request.path = "/ok"
    async with taking(intake) as call:
        await call(iter([foreign.SerializeToString(), message("/ok/1")]))
    assert intake.results == {("grpc", "unreadable"): 1, ("grpc", "recorded"): 1}


async def test_a_full_trail_holds_the_stream_back(intake: Intake, trail: FullTrail) -> None:
    trail.queued = 50
    async with taking(intake) as call:
        running = asyncio.ensure_future(call(iter([message("/ok/1")])))
        done, _ = await asyncio.wait([running], timeout=0.3)
        assert not done
        assert trail.entries == []
        trail.queued = 0
        await asyncio.wait_for(running, 10)
    assert len(trail.entries) == 1


async def test_what_has_come_of_a_stream_that_breaks_while_it_waits_is_recorded(
    intake: Intake, trail: FullTrail
) -> None:
    trail.queued = 50

    async def one() -> AsyncIterator[bytes]:
        yield message(*["/ok/1"] * (SLICE + 1))

    task = asyncio.create_task(AccessLogStream(intake).take(one()))
    await asyncio.sleep(0.05)
    assert (len(trail.entries), intake.held_since is None) == (0, False)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert len(trail.entries) == SLICE + 1
    assert intake.status().newest_at > 0


async def test_streams_that_wait_for_a_full_trail_ask_one_at_a_time_and_do_not_overrun_it(tmp_path: Path) -> None:
    class Counted(FullTrail):
        asked = 0
        queued = 50

        def status(self) -> TrailStatus:
            self.asked += 1
            return TrailStatus(self.queued + len(self.entries), 200, 0, 0, 0, 0, (), "", True)

    trail = Counted()
    intake = Intake(trail)
    intake.judge.replace(engine(tmp_path), 0.0)

    async def one(*paths: str) -> AsyncIterator[bytes]:
        yield message(*paths)

    trail.queued = 150
    streams = [asyncio.create_task(AccessLogStream(intake).take(one(*["/ok/1"] * SLICE))) for _ in range(200)]
    await asyncio.sleep(0.1)
    assert trail.asked < 40
    trail.queued = 0
    await asyncio.sleep(0.1)
    assert SLICE <= len(trail.entries) <= 100
    for task in streams:
        task.cancel()
    await asyncio.gather(*streams, return_exceptions=True)
    assert len(trail.entries) == 200 * SLICE  # what has come is recorded all the same


async def test_what_is_large_waits_until_hardly_anything_does(intake: Intake, trail: FullTrail) -> None:
    trail.queued = 16
    large = message("/ok/1", user_agent="x" * 100_000)
    async with taking(intake) as call:
        running = asyncio.ensure_future(call(iter([large])))
        assert await asyncio.wait_for(call(iter([message("/ok/2")])), 10) == b""
        assert len(trail.entries) == 1
        assert not running.done()
        trail.queued = 0
        await asyncio.wait_for(running, 10)
    assert len(trail.entries) == 2


async def test_a_failure_of_our_own_is_noted_and_stops_nothing(trail: FullTrail) -> None:
    intake = Intake(trail)  # without policies it cannot judge
    async with taking(intake) as call:
        await call(iter([message("/ok/1"), message("/ok/2")]))
    assert intake.results == {("grpc", "failed"): 2}
    assert [json.loads(note.line)["event"] for note in trail.notes] == ["access-log-failed"] * 2

"""Two real Envoys that decide by themselves, whose records the control plane takes on the port of discovery."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

from authz._proto import access_log_pb2 as pb
from authz._proto import delta_discovery_pb2 as wire
from authz.canary.canary_selection import CanarySelection
from authz.canary.canary_source import CanarySource
from authz.cli.control_records import record_settings
from authz.control.discovery.discovered import CLUSTER_TYPE
from authz.control.records import record_receiver
from authz.control.records.record_receiver import RecordReceiver
from authz.core.attributes import Workload
from authz.envoy.native.record_log import Subject
from authz.identity.ca import BUNDLE_FILE
from authz.identity.revocation import Revocations
from authz.telemetry import names
from tests.control.fleet.fleet_rig import API, WEB, Rig, allow, answers, until

METHOD = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs"
API_V1 = Workload("shop", frozenset({("app", "api")}), "api", "api-v1")


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """A mesh whose control plane takes records."""
    made = Rig(tmp_path)
    settings = record_settings((f"file:{tmp_path / 'audit.jsonl'}",), None, tmp_path / "keep", None)
    (tmp_path / "keep").mkdir()
    made.records = RecordReceiver(settings, tmp_path / "keep", time.time)
    return made


def recorded(rig: Rig) -> list[dict[str, Any]]:
    path = rig.folder / "audit.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


async def records_of(rig: Rig, path: str, status: str) -> dict[str, Any]:
    """Ask until the answer is that, and return the record of the last request."""
    effect = "allow" if status == "200" else "deny"
    await answers(rig.out, path, status)

    def found() -> list[dict[str, Any]]:
        return [one for one in recorded(rig) if (one["request"]["path"], one["effect"]) == (path, effect)]

    async def is_there() -> bool:
        return bool(found())

    await until(is_there)
    return found()[-1]


def figures(rig: Rig) -> dict[str, Any]:
    assert rig.records is not None
    return {metric.name: value for metric, value in rig.records.figures()}


@pytest.mark.envoy
async def test_who_was_denied_and_why_is_recorded_by_the_control_plane_and_nothing_is_written_beside_the_proxies(
    rig: Rig,
) -> None:
    rig.canary = CanarySource(rig.folder / "next", CanarySelection(names=frozenset({"api-v1"})))
    rig.join("web-v1", WEB)
    rig.join("api-v1", API)
    await rig.start()
    try:
        async with rig.application():
            with rig.envoy("web-v1"), rig.envoy("api-v1"):
                allowed = await records_of(rig, "/one", "200")
                assert allowed["source"]["principal"] == WEB.removeprefix("spiffe://")
                denied = await records_of(rig, "/two", "403")
                assert denied["nearest"]["rule"] == "shop/api/0"
                rig.write_policy(allow("/two"))
                changed = await records_of(rig, "/two", "200")
                assert changed["policy_version"] != allowed["policy_version"] == denied["policy_version"]
                (rig.folder / "next").mkdir()
                (rig.folder / "next" / "api.yaml").write_text(allow("/three"))
                candidate = await records_of(rig, "/three", "200")
                assert candidate["policy_version"] not in (changed["policy_version"], allowed["policy_version"])
                assert rig.plane is not None
                shown = rig.plane.page("/canary")
                assert isinstance(shown, dict)
                assert [(one["result"], one["workload"]) for one in shown["differences"]] == [
                    ("newly_allowed", "api-v1")
                ]
    finally:
        await rig.stop()
    found = figures(rig)
    assert found[names.CANDIDATE_DECISIONS.name]["newly_allowed",] >= 1
    assert set(found[names.NATIVE_VERDICTS.name]) == {("agreed",)}
    assert found[names.NATIVE_DISAGREEMENTS.name] == {}
    assert list((rig.state / "logs").iterdir()) == []


def entry(proxy: str = "api-v1", workload: Workload = API_V1, path: str = "/one") -> bytes:
    """A message of one entry, as a proxy sends it."""
    told = pb.StreamAccessLogsMessage()
    made = told.http_logs.log_entry.add()
    common = made.common_properties
    common.custom_tags["authz"] = Subject(workload, proxy, "inbound_80").who()
    common.start_time.seconds = int(time.time())
    common.metadata.filter_metadata["envoy.filters.http.rbac"].update({"enforced_engine_result": "allowed"})
    made.request.path, made.request.request_headers[":method"] = path, "GET"
    made.response.response_code.value = 200
    made.response.response_code_details = "via_upstream"
    return told.SerializeToString()


@asynccontextmanager
async def channel(rig: Rig, spiffe_id: str | None) -> AsyncIterator[grpc.aio.Channel]:
    """A connection to the control plane as somebody, or nobody."""
    chain, key = rig.credentials(spiffe_id) if spiffe_id is not None else (None, None)
    roots = (rig.folder / "ca" / BUNDLE_FILE).read_bytes()
    credentials = grpc.ssl_channel_credentials(roots, key, chain)
    async with grpc.aio.secure_channel(f"localhost:{rig.control}", credentials) as made:
        yield made


@asynccontextmanager
async def sent(rig: Rig, spiffe_id: str | None, *messages: bytes) -> AsyncIterator[None]:
    """Send these as somebody, or nobody, and end the stream. Raises what the receiver answers."""
    async with channel(rig, spiffe_id) as made:
        call = made.stream_unary(METHOD, request_serializer=bytes, response_deserializer=bytes)

        async def stream() -> AsyncIterator[bytes]:
            for message in messages:
                yield message

        await asyncio.wait_for(call(stream()), 20)
        yield


@pytest.mark.parametrize(
    ("caller", "message", "result"),
    [
        pytest.param(API, entry(), "recorded", id="its own"),
        pytest.param(WEB, entry(), "refused", id="of another workload"),
        pytest.param(API, entry(proxy="web-v1"), "refused", id="of another workload's proxy"),
        pytest.param(API, entry(proxy="stranger"), "refused", id="of a proxy that the mesh does not have"),
        pytest.param(API, entry(workload=Workload("shop", frozenset(), "web", "")), "refused", id="of another account"),
        pytest.param(
            API, entry(workload=Workload("shop", frozenset(), "api", "api-v2")), "recorded", id="of no workload"
        ),
        pytest.param("spiffe://mesh.test/authz/ca", entry(), "refused", id="of an authority, which is no workload"),
        pytest.param("spiffe://mesh.test/ns/shop/sa/api2", entry(), "refused", id="of a longer name"),
        pytest.param(API, pb.StreamAccessLogsMessage().SerializeToString(), None, id="nothing"),
    ],
)
async def test_an_entry_counts_when_it_is_of_a_proxy_of_the_caller(
    rig: Rig, caller: str, message: bytes, result: str | None
) -> None:
    await rig.start()
    try:
        async with sent(rig, caller, message):
            expected = {} if result is None else {("grpc", result): 1}
            assert figures(rig)[names.NATIVE_ENTRIES.name] == expected
    finally:
        await rig.stop()
    assert [one["destination"]["workload"] for one in recorded(rig)] == ["api-v1"] * (result == "recorded")


@pytest.mark.parametrize(
    ("caller", "message", "code"),
    [
        pytest.param(API, b"\xff\xff", grpc.StatusCode.INVALID_ARGUMENT, id="no message"),
        pytest.param(API, entry(path="/" * (1 << 20)), grpc.StatusCode.RESOURCE_EXHAUSTED, id="too long"),
        pytest.param(None, entry(), grpc.StatusCode.UNAVAILABLE, id="without a certificate"),
    ],
)
async def test_a_stream_that_is_none_is_refused(
    rig: Rig, caller: str | None, message: bytes, code: grpc.StatusCode
) -> None:
    await rig.start()
    try:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            async with sent(rig, caller, message):
                pytest.fail("it was taken")
        assert refused.value.code() is code
    finally:
        await rig.stop()
    assert recorded(rig) == []


async def test_a_stream_ends_when_its_identity_does(rig: Rig) -> None:
    await rig.start()
    assert rig.plane is not None
    stock = rig.plane._authority.stock
    try:
        stock.registrar.revocations = Revocations(spiffe_ids=frozenset({API}))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            async with sent(rig, API, entry()):
                pytest.fail("it was taken")
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    finally:
        await rig.stop()


async def test_a_sink_that_hangs_is_said_and_holds_up_neither_discovery_nor_the_end(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A FIFO that nobody reads, with a queue that is full at once."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    file = tmp_path / "audit.yaml"
    file.write_text(f'audit: ["file:{pipe}"]\naudit_capacity: 64\n')
    rig.records = RecordReceiver(record_settings((), file, tmp_path / "keep", None), tmp_path / "keep", time.time)
    monkeypatch.setattr(record_receiver, "HELD_SECONDS", 0.2)
    monkeypatch.setattr(rig.records._trail, "close", partial(rig.records._trail.close, 0.1))
    await rig.start()
    assert rig.plane is not None

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield entry(path=f"/{'x' * 900}")

    async def is_said() -> bool:
        assert rig.plane is not None
        return any("nothing is taken from proxies" in str(one["message"]) for one in rig.plane.causes())

    try:
        async with channel(rig, API) as made:
            call = made.stream_unary(METHOD, request_serializer=bytes, response_deserializer=bytes)(endless())
            await until(is_said, 20)
            async with rig.stream(WEB) as stream:
                asked = wire.DeltaDiscoveryRequest(type_url=CLUSTER_TYPE)
                asked.node.id = "web-v1"
                await stream.write(asked)
                assert (await asyncio.wait_for(stream.read(), 10)).resources
            call.cancel()
    finally:
        await rig.stop()
    assert "records were taken and are not written" in caplog.text
    pipe.read_bytes()  # lets the writer go


async def test_a_proxy_has_only_so_many_streams(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_receiver, "MAX_STREAMS", 1)
    await rig.start()
    ending = asyncio.Event()

    async def held() -> AsyncIterator[bytes]:
        yield entry()
        await ending.wait()

    async def is_taken() -> bool:
        return ("grpc", "recorded") in figures(rig)[names.NATIVE_ENTRIES.name]

    try:
        async with channel(rig, API) as first:
            call = first.stream_unary(METHOD, request_serializer=bytes, response_deserializer=bytes)(held())
            await until(is_taken, 10)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                async with sent(rig, API, entry()):
                    pytest.fail("it was taken")
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            async with sent(rig, WEB):  # another's are another's
                ending.set()
            await asyncio.wait_for(call, 10)
            async with sent(rig, API, entry()):
                assert figures(rig)[names.NATIVE_ENTRIES.name] == {("grpc", "recorded"): 2, ("grpc", "refused"): 1}
    finally:
        await rig.stop()


async def test_a_stream_ends_when_its_svid_does_though_it_began_before(rig: Rig) -> None:
    await rig.start()
    taken = asyncio.Event()
    try:
        chain, key = rig.credentials(API)
        roots = (rig.folder / "ca" / BUNDLE_FILE).read_bytes()
        credentials = grpc.ssl_channel_credentials(roots, key, chain)
        async with grpc.aio.secure_channel(f"localhost:{rig.control}", credentials) as channel:
            call = channel.stream_unary(METHOD, request_serializer=bytes, response_deserializer=bytes)

            async def outlives() -> AsyncIterator[bytes]:
                yield entry()
                await until(lambda: _is_one_recorded(rig))
                rig.skew = 30 * 24 * 3600.0
                taken.set()
                yield entry(path="/late")
                await asyncio.Event().wait()

            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await asyncio.wait_for(call(outlives()), 20)
        assert (taken.is_set(), refused.value.code()) == (True, grpc.StatusCode.UNAUTHENTICATED)
        assert figures(rig)[names.NATIVE_ENTRIES.name] == {("grpc", "recorded"): 1}
    finally:
        await rig.stop()


async def _is_one_recorded(rig: Rig) -> bool:
    return bool(figures(rig)[names.NATIVE_ENTRIES.name])


async def test_without_audit_nobody_takes_records(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    await rig.start()
    try:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            async with sent(rig, API, entry()):
                pytest.fail("it was taken")
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
    finally:
        await rig.stop()


@pytest.mark.parametrize("is_stopped", [False, True])
async def test_a_stream_that_is_old_or_of_a_control_plane_that_stops_ends_after_its_message(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, is_stopped: bool
) -> None:
    monkeypatch.setattr("authz.control.records.record_receiver.STREAM_SECONDS", 0.0 if not is_stopped else 1e6)
    await rig.start()
    try:
        assert rig.records is not None
        if is_stopped:
            rig.records.end()
        chain, key = rig.credentials(API)
        roots = (rig.folder / "ca" / BUNDLE_FILE).read_bytes()
        credentials = grpc.ssl_channel_credentials(roots, key, chain)
        async with grpc.aio.secure_channel(f"localhost:{rig.control}", credentials) as channel:
            call = channel.stream_unary(METHOD, request_serializer=bytes, response_deserializer=bytes)

            async def goes_on() -> AsyncIterator[bytes]:
                yield entry()
                await asyncio.Event().wait()

            assert await asyncio.wait_for(call(goes_on()), 20) == b""
        assert figures(rig)[names.NATIVE_ENTRIES.name] == {("grpc", "recorded"): 1}
    finally:
        await rig.stop()

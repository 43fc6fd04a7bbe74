"""The gRPC adapter with real sockets: addresses, health, drain, limits, cancellation."""

import asyncio
import os
import secrets
from pathlib import Path
from typing import Any

import grpc
import pytest

from authz._proto import health_pb2
from authz.core import resources as r
from authz.core.errors import SettingsError
from authz.core.providers import ProviderAnswer, ProviderQuestion
from authz.service.pending import Pending
from authz.service.ports.grpc_health import AUTHORIZATION, HEALTH
from authz.service.ports.http import AdminServer
from authz.service.server import CheckServer
from tests.service.messages import check_request, response
from tests.service.recording import Recorder
from tests.service.running import check_call, health_of, refuse, serving
from tests.service.test_check_function import ALLOW_OPEN, CUSTOM, MESH, function


@pytest.mark.parametrize("kind", ["tcp", "unix", "abstract"])
async def test_checks_are_answered_on_every_kind_of_address(kind: str, tmp_path: Path) -> None:
    addresses = {
        "tcp": "127.0.0.1:0",
        "unix": f"unix:{tmp_path}/run/authz.sock",
        "abstract": f"unix-abstract:authz-test-{secrets.token_hex(8)}",
    }
    async with serving(function(ALLOW_OPEN), addresses[kind]) as (_, channel):
        ask = check_call(channel)
        assert response(await ask(check_request(path="/open"))).status.code == 0
        assert response(await ask(check_request(path="/shut"))).status.code == 7


async def test_no_answer_is_an_rpc_error() -> None:
    async with serving(function(ALLOW_OPEN)) as (_, channel):
        assert response(await check_call(channel)(b"\xff\xff")).denied_response.status.code == 503


async def test_health_follows_what_it_is_told() -> None:
    async with serving(function()) as (server, channel):
        assert await health_of(channel) == "NOT_SERVING"
        server.health.set_serving(True)
        assert [await health_of(channel, name) for name in ("", AUTHORIZATION)] == ["SERVING", "SERVING"]
        server.health.set_serving(False)
        assert await health_of(channel) == "NOT_SERVING"
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await health_of(channel, "other")
        assert unknown.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_watcher_of_health_hears_every_change() -> None:
    async with serving(function()) as (server, channel):
        call = channel.unary_stream(f"/{HEALTH}/Watch", request_serializer=bytes, response_deserializer=bytes)(b"")
        heard = []
        for serving_now in (True, False, True, True):
            answer = await call.read()
            assert isinstance(answer, bytes)
            heard.append(health_pb2.HealthCheckResponse.FromString(answer).status)
            server.health.set_serving(serving_now)
        call.cancel()
    assert heard == [2, 1, 2, 1]


@pytest.mark.slow
async def test_draining_loses_no_request() -> None:
    """NOT_SERVING first; requests that come meanwhile, and those that run, are answered."""
    slow = asyncio.Event()

    async def slowly(pending: Pending) -> ProviderAnswer:
        await slow.wait()
        return ProviderAnswer(True)

    audit = Recorder()
    check = function(ALLOW_OPEN, CUSTOM, audit=audit, mesh=MESH)
    async with serving(check, ask=slowly) as (server, channel):
        server.health.set_serving(True)
        ask = check_call(channel)
        running = [asyncio.create_task(ask(check_request(path="/open"))) for _ in range(20)]
        await ask(check_request(path="/shut"))
        draining = asyncio.create_task(server.drain(0.1, 5))
        await asyncio.sleep(0)
        assert await health_of(channel) == "NOT_SERVING"
        assert response(await ask(check_request(path="/shut"))).status.code == 7
        await asyncio.sleep(0.15)
        assert not draining.done()
        slow.set()
        assert {response(answer).status.code for answer in await asyncio.gather(*running)} == {0}
        await draining
    assert len(audit.entries) == 22


async def test_a_caller_that_gives_up_leaves_nothing_behind() -> None:
    asked = asyncio.Event()
    cancelled = asyncio.Event()

    async def never(pending: Pending) -> ProviderAnswer:
        asked.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        raise AssertionError("unreachable")

    audit = Recorder()
    async with serving(function(ALLOW_OPEN, CUSTOM, audit=audit, mesh=MESH), ask=never) as (_, channel):
        call = asyncio.create_task(check_call(channel)(check_request(path="/open")))
        await asked.wait()
        call.cancel()
        await asyncio.wait_for(cancelled.wait(), 5)
    assert audit.entries == []


async def test_a_message_beyond_the_limit_is_refused_by_grpc() -> None:
    async with serving(function(ALLOW_OPEN), max_message_bytes=4096) as (_, channel):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await check_call(channel)(check_request(headers=[("x-a", "a" * 8192)]))
        assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_second_server_on_a_socket_is_refused(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/authz.sock"
    async with serving(function(ALLOW_OPEN), address) as (_, channel):
        second = CheckServer(function(), refuse, max_message_bytes=1 << 20)
        with pytest.raises(SettingsError, match="another server holds it"):
            await second.start([address])
        assert response(await check_call(channel)(check_request(path="/open"))).status.code == 0


async def test_a_second_server_on_a_port_is_refused() -> None:
    async with serving(function()) as (server, _):
        second = CheckServer(function(), refuse, max_message_bytes=1 << 20)
        with pytest.raises(SettingsError, match="in use"):
            await second.start(server.addresses)


async def nobody_asks(scope: object, receive: object, send: object) -> None:
    """An ASGI application."""


async def test_no_stranger_can_connect_to_a_socket_before_its_mode_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between binding and setting the mode the umask would say who may connect, and some say: everybody."""
    seen: list[int] = []
    set_mode = Path.chmod

    def chmod(path: Path, mode: int, **more: Any) -> None:
        seen.append(path.stat().st_mode & 0o777)
        set_mode(path, mode, **more)

    monkeypatch.setattr(Path, "chmod", chmod)
    before = os.umask(0)
    try:
        admin = AdminServer(nobody_asks, f"unix:{tmp_path}/admin.sock")
        async with serving(function(), f"unix:{tmp_path}/authz.sock"):
            assert (tmp_path / "authz.sock").stat().st_mode & 0o777 == 0o660
        await admin.stop()
    finally:
        os.umask(before)
    assert seen == [0o600, 0o600]
    assert os.umask(before) == before


async def test_a_socket_left_by_a_crash_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "authz.sock"
    server = await asyncio.start_unix_server(lambda *_: None, path)
    server.close()
    await server.wait_closed()
    if not path.exists():  # newer Pythons tidy up
        path.touch()
        path.unlink()
    async with serving(function(ALLOW_OPEN), f"unix:{path}") as (_, channel):
        assert response(await check_call(channel)(check_request(path="/open"))).status.code == 0
        assert path.stat().st_mode & 0o777 == 0o660


@pytest.mark.parametrize("address", ["unix:/proc/nowhere/a.sock", "nonsense.invalid:1"])
async def test_an_address_that_cannot_be_used_is_named(address: str) -> None:
    server = CheckServer(function(), refuse, max_message_bytes=1 << 20)
    with pytest.raises(SettingsError, match="cannot listen on"):
        await server.start([address])


async def test_custom_policies_ask_and_go_on() -> None:
    async def accept(pending: Pending) -> ProviderAnswer:
        assert isinstance(pending.question, ProviderQuestion)
        return ProviderAnswer(pending.question.provider == r.ExtensionProvider("ext", service="ext.example", port=9000))

    async with serving(function(ALLOW_OPEN, CUSTOM, mesh=MESH), ask=accept) as (_, channel):
        assert response(await check_call(channel)(check_request(path="/open"))).status.code == 0

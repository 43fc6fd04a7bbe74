"""One suite for grpcio and for Envoy hosting the workers: the same answers, and nobody harms anybody else."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

from authz._proto import health_pb2
from authz.core.errors import SettingsError
from authz.service.loading.loader import WORTH_BYTES
from authz.service.ports.grpc_health import AUTHORIZATION, HEALTH
from authz.service.workers.envoy_host import find_hosting
from tests.service.loading.test_reload import policy
from tests.service.messages import check_request, response, told
from tests.service.ports.test_server_tls import Pair
from tests.service.raw_http2 import framed, raw_connection
from tests.service.running import check_call, health_of

COMMAND = [sys.executable, "-c", "from authz.cli.serve import serve; serve()"]
LIMIT = 8192
PATIENCE_SECONDS = 90
"""For a process to start on a busy machine."""
SERVERS = ["grpcio", "envoy"]


def hosting_is_possible() -> bool:
    try:
        find_hosting()
    except SettingsError:
        return False
    return True


needs_hosting = pytest.mark.skipif(not hosting_is_possible(), reason="Envoy cannot host workers here")
both_servers = pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=needs_hosting if kind == "envoy" else ()) for kind in SERVERS]
)


@dataclass
class Service:
    """A running ``authz serve`` with everything it said."""

    process: subprocess.Popen[bytes]
    folder: Path
    kind: str = ""
    lines: list[str] = field(default_factory=list)
    _said: threading.Condition = field(default_factory=threading.Condition)

    def listen(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._said:
                self.lines.append(line.decode())
                self._said.notify_all()

    def says(self, pattern: str, count: int = 1) -> list[str]:
        """Wait until ``count`` lines match; their first groups."""

        def found() -> list[str]:
            matches = (re.search(pattern, line) for line in self.lines)
            return [match[match.lastindex or 0] for match in matches if match]

        with self._said:
            assert self._said.wait_for(lambda: len(found()) >= count, PATIENCE_SECONDS), f"{pattern}: {self.lines}"
        return found()

    async def says_soon(self, pattern: str, count: int = 1) -> list[str]:
        return await asyncio.to_thread(self.says, pattern, count)

    @property
    def addresses(self) -> list[str]:
        return self.says(r"listening (\S+?),? ?(?:in Envoy)?$")

    @property
    def records(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in (self.folder / "audit.jsonl").read_text().splitlines()]


def start(kind: str, folder: Path, *flags: str, listen: str = "127.0.0.1:0", **settings: object) -> Service:
    policies = folder / "policies"
    policies.mkdir(exist_ok=True)
    (policies / "allow.yaml").write_text(
        policy("allow", "ALLOW", "/open") + "---" + policy("custom", "ALLOW", "/custom")
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AUTHZ_", "GRPC_"))}
    told = ["--policies", str(policies), "--listen", listen, "--server", kind, "--drain-delay-seconds", "0.3"]
    told += ["--audit", f"file:{folder}/audit.jsonl", "--workers", "1"]
    given = {"max_message_bytes": LIMIT, **settings}
    environment |= {f"AUTHZ_{name.upper()}": str(value) for name, value in given.items()}
    process = subprocess.Popen(
        [*COMMAND, *told, *flags],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    service = Service(process, folder, kind)
    threading.Thread(target=service.listen, daemon=True).start()
    service.says("health is SERVING")
    service.says("listening ")
    return service


def finish(service: Service) -> None:
    if service.process.poll() is None:
        service.process.send_signal(signal.SIGTERM)
        try:
            service.process.wait(15)
        except subprocess.TimeoutExpired:
            service.process.kill()
    assert service.process.stderr is not None
    service.process.wait()
    service.process.stderr.close()


@pytest.fixture(scope="module", params=[pytest.param(k, marks=needs_hosting if k == "envoy" else ()) for k in SERVERS])
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    found = start(request.param, tmp_path_factory.mktemp(request.param))
    yield found
    finish(found)


@pytest.fixture
async def channel(service: Service) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(service.addresses[0]) as found:
        yield found


async def becomes(ask: Callable[[], Awaitable[object]], wanted: object) -> None:
    """Ask again and again until the answer is the wanted one."""
    while True:
        if await ask() == wanted:
            return
        await asyncio.sleep(0.02)


async def code_of(channel: grpc.aio.Channel, path: str) -> int:
    return response(await check_call(channel)(check_request(path=path))).status.code


async def recorded(service: Service, decision_id: object) -> dict[str, object]:
    """Wait for the record of a decision."""
    async with asyncio.timeout(10):
        while True:
            for record in service.records:
                if record["decision_id"] == decision_id:
                    return record
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(("path", "code"), [("/open", 0), ("/shut", 7)])
async def test_a_check_is_answered_and_recorded(
    service: Service, channel: grpc.aio.Channel, path: str, code: int
) -> None:
    answer = response(await check_call(channel)(check_request(path=path)))
    assert answer.status.code == code
    record = await recorded(service, told(answer)["decision_id"])
    assert record["effect"] == ("deny" if code else "allow")


async def test_the_metadata_of_the_call_is_read(service: Service, channel: grpc.aio.Channel) -> None:
    """The addresses and the trace that Envoy adds to the call reach the record."""
    call = channel.unary_unary(f"/{AUTHORIZATION}/Check", request_serializer=bytes, response_deserializer=bytes)
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    metadata = (("x-authz-remote-ip", "203.0.113.9"), ("x-authz-direct-ip", "198.51.100.7"), ("traceparent", parent))
    answer = response(await call(check_request(path="/open"), metadata=metadata))
    record = await recorded(service, told(answer)["decision_id"])
    assert "203.0.113.9" in json.dumps(record["source"])
    assert "198.51.100.7" in json.dumps(record["source"])
    assert "0af7651916cd43dd8448eb211c80319c" in json.dumps(record)


async def test_health_is_told(channel: grpc.aio.Channel) -> None:
    assert [await health_of(channel, name) for name in ("", AUTHORIZATION)] == ["SERVING", "SERVING"]
    with pytest.raises(grpc.aio.AioRpcError) as unknown:
        await health_of(channel, "other")
    assert unknown.value.code() is grpc.StatusCode.NOT_FOUND


async def test_health_can_be_watched(channel: grpc.aio.Channel) -> None:
    call = channel.unary_stream(f"/{HEALTH}/Watch", request_serializer=bytes, response_deserializer=bytes)(b"")
    answer = await call.read()
    assert isinstance(answer, bytes)
    assert health_pb2.HealthCheckResponse.FromString(answer).status == health_pb2.HealthCheckResponse.SERVING
    call.cancel()


GOOD = check_request(path="/open")


@pytest.mark.parametrize(
    ("call", "hosted", "grpcio"),
    [
        pytest.param({"body": framed(GOOD)}, "0", "0", id="good"),
        pytest.param({"body": framed(b"")}, "0", "0", id="an empty message is denied, the call succeeds"),
        pytest.param({"body": framed(b"\xff\xff")}, "0", "0", id="no CheckRequest is denied, the call succeeds"),
        pytest.param({"body": b""}, "13", "silent", id="no message"),
        pytest.param({"body": framed(GOOD)[:3]}, "13", "silent", id="half a prefix"),
        pytest.param({"body": framed(GOOD, length=len(GOOD) + 1)}, "13", "silent", id="ends too early"),
        pytest.param({"body": framed(GOOD) * 2}, "13", "0", id="two messages"),
        pytest.param({"body": framed(GOOD, flag=1)}, "12", "13", id="compressed, it does not say how"),
        pytest.param(
            {"body": framed(GOOD, flag=1), "extra": [("grpc-encoding", "snappy")]}, "12", "13", id="compressed oddly"
        ),
        pytest.param({"body": framed(GOOD, flag=8)}, "13", "0 or silent", id="unknown flags"),
        pytest.param({"body": framed(b"", length=0xFFFFFFFF)}, "8", "8", id="says four gigabytes"),
        pytest.param({"body": framed(bytes(LIMIT + 1))}, "8", "8", id="one byte too long"),
        pytest.param({"body": framed(bytes(3_000_000))}, "8", "8", id="much too long"),
        pytest.param({"body": framed(GOOD), "path": f"/{AUTHORIZATION}/Chuck"}, "12", "12", id="unknown method"),
        pytest.param({"body": framed(GOOD), "path": "/other.Service/Check"}, "12", "12", id="unknown service"),
        pytest.param({"body": framed(GOOD), "path": "/"}, "12", "12", id="no method"),
        pytest.param({"body": b"", "method": "GET"}, "http 405", "reset", id="GET"),
        pytest.param({"body": framed(GOOD), "method": "PUT"}, "http 405", "reset", id="PUT"),
        pytest.param({"body": b"{}", "content_type": "application/json"}, "http 415", "silent", id="JSON"),
        pytest.param({"body": b"\xff", "path": f"/{HEALTH}/Check"}, "13", "silent", id="no message to health"),
    ],
)
async def test_odd_calls_get_their_status_and_harm_nobody(
    service: Service, call: dict[str, object], hosted: str, grpcio: str
) -> None:
    """grpcio keeps silent about broken framing, until the caller hangs up; that is its own and not ours to mend."""
    expected = hosted if service.kind == "envoy" else grpcio
    async with raw_connection(service.addresses[0]) as connection:
        patience = 0.5 if "silent" in expected else 10.0
        answer = await connection.call(**call, patience_seconds=patience)  # type: ignore[arg-type]  # a table
        assert answer.status in expected.split(" or ")
        if answer.status == "0" and not bytes(call["body"]).startswith((framed(GOOD), framed(GOOD, flag=8))):  # type: ignore[call-overload]  # bytes
            assert response(answer.message).status.code != 0
    async with raw_connection(service.addresses[0]) as connection:
        good = await connection.call(framed(GOOD))
        assert (good.status, response(good.message).status.code) == ("0", 0)


async def test_the_other_streams_of_a_connection_do_not_notice(service: Service) -> None:
    async with raw_connection(service.addresses[0]) as connection:
        calls = [connection.call(framed(GOOD) if number % 2 else framed(GOOD, flag=1)) for number in range(60)]
        answers = await asyncio.gather(*calls)
    assert {answer.status for answer in answers[1::2]} == {"0"}
    assert not {answer.status for answer in answers[::2]} & {"0"}


async def test_a_reset_and_a_vanished_caller_leave_nothing_behind(service: Service) -> None:
    message = framed(check_request(path="/vanished"))
    async with raw_connection(service.addresses[0]) as connection:
        head = [(":method", "POST"), (":scheme", "http"), (":authority", "t"), (":path", f"/{AUTHORIZATION}/Check")]
        for _ in range(20):
            stream = connection.open([*head, ("te", "trailers"), ("content-type", "application/grpc")])
            await connection.send(stream, message[:40], end=False)
            connection.reset(stream)
        for _ in range(20):
            stream = connection.open([*head, ("te", "trailers"), ("content-type", "application/grpc")])
            await connection.send(stream, message[:40], end=False)
    async with raw_connection(service.addresses[0]) as connection:
        last = response((await connection.call(framed(GOOD))).message)
    await recorded(service, told(last)["decision_id"])
    assert "/vanished" not in json.dumps(service.records), "half a message is no request"


async def test_a_slow_caller_is_served_and_holds_up_nobody(service: Service) -> None:
    async with raw_connection(service.addresses[0]) as slow, raw_connection(service.addresses[0]) as quick:
        head = [(":method", "POST"), (":scheme", "http"), (":authority", "t"), (":path", f"/{AUTHORIZATION}/Check")]
        stream = slow.open([*head, ("te", "trailers"), ("content-type", "application/grpc")])
        body = framed(GOOD)
        for place in range(0, len(body), 60):
            await slow.send(stream, body[place : place + 60], end=False)
            assert (await quick.call(framed(GOOD))).status == "0"
        await slow.send(stream, b"")
        answer = await slow.answer(stream)
        assert (answer.status, response(answer.message).status.code) == ("0", 0)


@asynccontextmanager
async def http_provider(status: int, wait: asyncio.Event | None = None) -> AsyncIterator[int]:
    """An external authorizer that always says the same."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if wait is not None:
            await wait.wait()
        writer.write(f"HTTP/1.1 {status} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def custom(folder: Path, port: int) -> tuple[str, ...]:
    (folder / "policies").mkdir(exist_ok=True)
    (folder / "policies" / "custom.yaml").write_text("""
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: ask, namespace: shop}
spec:
  action: CUSTOM
  provider: {name: ext}
  rules: [{to: [{operation: {paths: ["/custom"]}}]}]
""")
    (folder / "mesh.yaml").write_text(
        "extensionProviders:\n- name: ext\n  envoyExtAuthzHttp:\n"
        f"    {{service: 127.0.0.1, port: {port}, timeout: 5s}}\n"
    )
    return ("--mesh", str(folder / "mesh.yaml"))


@both_servers
@pytest.mark.parametrize(("status", "code"), [(200, 0), (403, 7)])
@pytest.mark.slow
async def test_an_external_provider_is_asked(kind: str, status: int, code: int, tmp_path: Path) -> None:
    async with http_provider(status) as port:
        service = await asyncio.to_thread(start, kind, tmp_path, *custom(tmp_path, port))
        async with grpc.aio.insecure_channel(service.addresses[0]) as channel:
            answers = await asyncio.gather(
                *(check_call(channel)(check_request(path=path)) for path in ("/custom", "/open"))
            )
            assert [response(answer).status.code for answer in answers] == [code, 0]
        await asyncio.to_thread(finish, service)


@both_servers
@pytest.mark.slow
async def test_a_caller_that_waits_no_longer_is_not_decided_for(kind: str, tmp_path: Path) -> None:
    answer_now = asyncio.Event()
    async with http_provider(200, answer_now) as port:
        service = await asyncio.to_thread(start, kind, tmp_path, *custom(tmp_path, port))
        async with grpc.aio.insecure_channel(service.addresses[0]) as channel:
            call = channel.unary_unary(f"/{AUTHORIZATION}/Check", request_serializer=bytes, response_deserializer=bytes)
            with pytest.raises(grpc.aio.AioRpcError) as late:
                await call(check_request(path="/custom"), timeout=0.2)
            assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert response(await call(check_request(path="/open"))).status.code == 0
            answer_now.set()
        await asyncio.to_thread(finish, service)
    assert [record["effect"] for record in service.records] == ["allow"]


@both_servers
@pytest.mark.slow
async def test_a_unix_socket_is_served_and_guarded(kind: str, tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/run/authz.sock"
    service = await asyncio.to_thread(start, kind, tmp_path, listen=address)
    async with grpc.aio.insecure_channel(address) as channel:
        assert response(await check_call(channel)(GOOD)).status.code == 0
        assert (tmp_path / "run" / "authz.sock").stat().st_mode & 0o777 == 0o660
        second = await asyncio.to_thread(
            subprocess.run,
            [
                *COMMAND,
                "--policies",
                str(tmp_path / "policies"),
                "--listen",
                address,
                "--server",
                kind,
                "--workers",
                "1",
            ],
            capture_output=True,
            timeout=30,
            check=False,
        )
        assert second.returncode == 1
        assert b"another server holds it" in second.stderr
        assert response(await check_call(channel)(GOOD)).status.code == 0
    await asyncio.to_thread(finish, service)


@both_servers
@pytest.mark.slow
async def test_mtls_is_asked_for_and_certificates_rotate(kind: str, tmp_path: Path) -> None:
    first, second = Pair("ca one"), Pair("ca two")
    files = tmp_path / "tls"
    files.mkdir()
    Pair("server", first).write(files)
    (files / "ca.crt").write_bytes(first.pem)
    tls: dict[str, Any] = {
        "tls_certificate": files / "tls.crt",
        "tls_key": files / "tls.key",
        "tls_client_ca": files / "ca.crt",
    }
    service = await asyncio.to_thread(lambda: start(kind, tmp_path, **tls))
    address = service.addresses[0]

    async def ask(ca: Pair, client: Pair | None) -> int:
        credentials = grpc.ssl_channel_credentials(
            ca.pem, client.key_pem if client else None, client.pem if client else None
        )
        async with grpc.aio.secure_channel(address, credentials) as channel:
            call = channel.unary_unary(f"/{AUTHORIZATION}/Check", request_serializer=bytes, response_deserializer=bytes)
            return response(await call(GOOD, timeout=5)).status.code

    assert await ask(first, Pair("client", first)) == 0
    for client in (None, Pair("stranger", second)):
        with pytest.raises(grpc.aio.AioRpcError):
            await ask(first, client)
    Pair("server", second).write(files)
    async with asyncio.timeout(15):
        while True:
            try:
                assert await ask(second, Pair("client", first)) == 0
                break
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.1)
    await asyncio.to_thread(finish, service)


@both_servers
@pytest.mark.slow
async def test_policies_change_under_load_without_a_wrong_answer(kind: str, tmp_path: Path) -> None:
    """/open stays open and /shut stays shut through every reload; /now follows."""
    service = await asyncio.to_thread(start, kind, tmp_path)
    stop = asyncio.Event()
    answered = 0

    async def load(channel: grpc.aio.Channel, path: str, code: int) -> None:
        nonlocal answered
        ask = check_call(channel)
        while not stop.is_set():
            assert response(await ask(check_request(path=path))).status.code == code
            answered += 1

    async with grpc.aio.insecure_channel(service.addresses[0]) as channel:
        tasks = [asyncio.create_task(load(channel, path, code)) for path, code in (("/open", 0), ("/shut", 7)) * 4]
        for turn in range(6):
            wanted = 0 if turn % 2 else 7
            action = "ALLOW" if turn % 2 else "DENY"
            (tmp_path / "aside").write_text(policy("now", action, "/now"))
            (tmp_path / "aside").rename(tmp_path / "policies" / "now.yaml")
            async with asyncio.timeout(10):
                await becomes(lambda: code_of(channel, "/now"), wanted)
        (tmp_path / "policies" / "broken.yaml").write_text("kind: [")
        await service.says_soon("not loaded")
        stop.set()
        await asyncio.gather(*tasks)
    assert answered > 100
    await asyncio.to_thread(finish, service)
    assert len(service.records) >= answered, "every decision has its record"


@both_servers
@pytest.mark.slow
async def test_a_large_set_is_read_by_a_process_of_its_own(kind: str, tmp_path: Path) -> None:
    service = await asyncio.to_thread(start, kind, tmp_path)
    large = "---".join(policy(f"many-{number}", "ALLOW", f"/many/{number}") for number in range(2_000))
    assert len(large) > WORTH_BYTES
    async with grpc.aio.insecure_channel(service.addresses[0]) as channel:
        for text, said, now in (
            (large, "in force: 2002 Auth", 0),
            (large.replace("/many/1999", "/other"), "in force", 7),
            (large + "---" + policy("broken", "DENI", "/*"), r"large.yaml:\d+:.*AuthorizationPolicy shop/broken", 7),
        ):
            (tmp_path / "aside").write_text(text)
            (tmp_path / "aside").rename(tmp_path / "policies" / "large.yaml")
            await service.says_soon(said)
            async with asyncio.timeout(20):
                await becomes(lambda: code_of(channel, "/many/1999"), now)
            assert await code_of(channel, "/open") == 0
            assert await code_of(channel, "/shut") == 7
    assert "within the server" not in "".join(service.lines), "no process could be started"
    await asyncio.to_thread(finish, service)


@both_servers
@pytest.mark.slow
async def test_draining_loses_no_request(kind: str, tmp_path: Path) -> None:
    answer_now = asyncio.Event()
    async with http_provider(200, answer_now) as port:
        service = await asyncio.to_thread(start, kind, tmp_path, *custom(tmp_path, port))
        async with grpc.aio.insecure_channel(service.addresses[0]) as channel:
            ask = check_call(channel)
            running = [asyncio.create_task(ask(check_request(path="/custom"))) for _ in range(10)]
            await ask(GOOD)
            service.process.send_signal(signal.SIGTERM)
            await service.says_soon("draining")
            assert response(await ask(GOOD)).status.code == 0
            async with asyncio.timeout(5):
                await becomes(lambda: health_of(channel), "NOT_SERVING")
            await asyncio.sleep(0.5)
            assert service.process.poll() is None
            answer_now.set()
            assert {response(answer).status.code for answer in await asyncio.gather(*running)} == {0}
        assert await asyncio.to_thread(service.process.wait, 15) == 0
        await asyncio.to_thread(finish, service)
    assert len(service.records) == 12

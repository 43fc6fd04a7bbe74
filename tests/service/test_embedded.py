"""A sidecar that decides by itself: the server inside a real Envoy, with reload, keys, audit, metrics."""

import asyncio
import base64
import importlib.util
import json
import os
import subprocess
import sys
import sysconfig
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import jwt
import pytest

from authz.core.errors import SettingsError
from authz.envoy.check_filter import embedded_check_cluster, embedded_listener
from authz.envoy.messages import as_json
from authz.service.workers.envoy_host import embed, find_hosting, find_libpython
from tests.service.loading.test_reload import policy
from tests.service.test_both_servers import needs_hosting
from tests.service.workers.test_supervisor import envoy, load, proxy

TOKENS = """
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: tokens, namespace: shop}}
spec: {{jwtRules: [{{issuer: "https://issuer.test", jwksUri: "http://127.0.0.1:{port}/keys"}}]}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: known, namespace: shop}}
spec:
  rules:
  - from: [{{source: {{requestPrincipals: ["*"]}}}}]
    to: [{{operation: {{paths: ["/known"]}}}}]
"""


@pytest.fixture
def state(tmp_path: Path) -> Path:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "open.yaml").write_text(policy("open", "ALLOW", "/open"))
    (tmp_path / "run").mkdir()
    return tmp_path


def configuration() -> dict[str, object]:
    return proxy(as_json(embedded_check_cluster("api")), as_json(embedded_listener("api")))


def environment(state: Path) -> dict[str, str]:
    settings = {
        "AUTHZ_POLICIES": "policies",
        "AUTHZ_AUDIT": "file:audit.jsonl",
        "AUTHZ_ADMIN": "unix:run/authz.admin.sock",
    }
    return {**embed(state), **settings}


def secret(letter: str) -> bytes:
    return letter.encode() * 32


def key(letter: str) -> dict[str, str]:
    encoded = base64.urlsafe_b64encode(secret(letter)).decode().rstrip("=")
    return {"kty": "oct", "alg": "HS256", "kid": letter, "k": encoded}


def token(letter: str) -> str:
    return jwt.encode({"iss": "https://issuer.test", "sub": "me"}, secret(letter), "HS256", headers={"kid": letter})


async def becomes(ask: Callable[[], Awaitable[object]], wanted: object) -> None:
    async with asyncio.timeout(25):
        while True:
            if await ask() == wanted:
                return
            await asyncio.sleep(0.05)


@needs_hosting
@pytest.mark.envoy
@pytest.mark.slow
async def test_a_sidecar_decides_reloads_records_and_reports_by_itself(state: Path) -> None:
    async with envoy(state, configuration(), environment(state)) as url:
        async with httpx.AsyncClient(trust_env=False, base_url=url) as client:

            async def status(path: str) -> int:
                return (await client.get(path)).status_code

            await becomes(lambda: status("/open"), 200)
            assert await status("/shut") == 403
            (state / "policies" / "more.yaml").write_text(policy("more", "ALLOW", "/shut"))
            await becomes(lambda: status("/shut"), 200)
            (state / "policies" / "broken.yaml").write_text("kind: [")
            counted: Counter[tuple[str, int]] = Counter()
            stop = asyncio.Event()
            loads = [asyncio.create_task(load(url, path, stop, counted)) for path in ("/open", "/other") * 4]
            await asyncio.sleep(1)
            stop.set()
            await asyncio.gather(*loads)
            assert set(counted) == {("/open", 200), ("/other", 403)}
        transport = httpx.AsyncHTTPTransport(uds=str(state / "run" / "authz.admin.sock"))
        async with httpx.AsyncClient(transport=transport, base_url="http://admin") as admin:
            assert (await admin.get("/readyz")).status_code == 200
            assert (await admin.get("/healthz")).json()["status"] == "attention", "a refused change is told"
            assert "authz_decisions_total{" in (await admin.get("/metrics")).text
    records = [json.loads(line) for line in (state / "audit.jsonl").read_text().splitlines()]
    assert len(records) >= sum(counted.values()), "the end of Envoy loses no record"
    assert {record["destination"]["workload"] for record in records} <= {"", "api"}


def schedulers(pid: int | str = "self") -> dict[str, set[int]]:
    """Names of the threads of all processes below one, and how they are scheduled."""
    found: dict[str, set[int]] = {}
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            for thread in Path(f"/proc/{child}/task").iterdir():
                name = (thread / "comm").read_text().strip()
                found.setdefault(name, set()).add(os.sched_getscheduler(int(thread.name)))
            for name, others in schedulers(child).items():
                found.setdefault(name, set()).update(others)
    return found


only_linux = pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="only Linux has it")


@needs_hosting
@only_linux
@pytest.mark.envoy
@pytest.mark.slow
async def test_handing_over_does_not_interrupt_deciding_in_a_sidecar(state: Path) -> None:
    async with envoy(state, configuration(), environment(state)):

        async def scheduled() -> set[int]:
            return schedulers()["envoy"]

        await becomes(scheduled, {os.SCHED_OTHER, os.SCHED_BATCH})
        assert schedulers()["wrk:worker_0"] == {os.SCHED_OTHER}, "it carries traffic that does not wait for decisions"


@needs_hosting
@only_linux
@pytest.mark.envoy
@pytest.mark.slow
async def test_nor_do_the_workers_of_an_envoy_that_only_hosts(tmp_path: Path) -> None:
    (tmp_path / "open.yaml").write_text(policy("open", "ALLOW", "/open"))
    command = [sys.executable, "-m", "authz", "serve", "--server", "envoy", "--workers", "1", "--audit", "none"]
    process = await asyncio.create_subprocess_exec(
        *command, "--policies", str(tmp_path), "--listen", f"unix:{tmp_path}/authz.sock", stdin=subprocess.DEVNULL
    )

    async def workers() -> set[int]:
        return schedulers().get("wrk:worker_0", set())

    try:
        await becomes(workers, {os.SCHED_BATCH})
    finally:
        process.terminate()
        await process.wait()


@needs_hosting
@pytest.mark.envoy
@pytest.mark.slow
async def test_keys_are_fetched_and_rotate_inside_a_sidecar(state: Path) -> None:
    keys = [key("a")]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = json.dumps({"keys": keys}).encode()
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        writer.write(head.encode() + b"connection: close\r\n\r\n" + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    (state / "policies" / "tokens.yaml").write_text(TOKENS.format(port=server.sockets[0].getsockname()[1]))
    async with (
        server,
        envoy(state, configuration(), environment(state)) as url,
        httpx.AsyncClient(trust_env=False, base_url=url) as client,
    ):

        async def status(letter: str) -> int:
            headers = {"authorization": f"Bearer {token(letter)}"} if letter else {}
            return (await client.get("/known", headers=headers)).status_code

        await becomes(lambda: status("a"), 200)
        assert await status("") == 403
        keys[:] = [key("b")]
        await becomes(lambda: status("b"), 200)
        assert await status("a") == 401


@needs_hosting
@pytest.mark.envoy
@pytest.mark.slow
async def test_a_sidecar_without_usable_policies_does_not_start(state: Path) -> None:
    (state / "policies" / "open.yaml").write_text("kind: [")
    with pytest.raises(AssertionError, match="does not start"):
        async with envoy(state, configuration(), environment(state)):
            raise RuntimeError("it started")


def test_a_python_without_a_shared_library_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysconfig, "get_config_var", lambda name: None)
    monkeypatch.setattr(sys, "base_prefix", "/nowhere")
    monkeypatch.setattr(sys, "abiflags", "x")
    with pytest.raises(SettingsError, match=r"has no shared library libpython3\.\d+x\.so.*--server grpcio"):
        find_libpython()


def test_a_missing_module_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r"`pyvoy` is missing: install authz-mesh\[hosted\]"):
        find_hosting()


@needs_hosting
def test_embedding_again_replaces_the_link(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "authz-host.so").symlink_to("/nowhere")
    assert set(embed(tmp_path)) == {"LD_PRELOAD", "PYTHONHOME", "PYTHONPATH", "PYTHONSAFEPATH"}
    assert (tmp_path / "run" / "authz-host.so").resolve() == find_hosting().module

"""The whole service as a process: start, answer, admin side, drain on SIGTERM, and what stops it from starting."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import httpx
import pytest
from click.testing import CliRunner

from authz.cli import application
from tests.service.loading.test_reload import policy
from tests.service.messages import check_request, response, told
from tests.service.running import check_call, health_of

COMMAND = [sys.executable, "-c", "from authz.cli.serve import serve; serve()"]


def write_policies(folder: Path) -> Path:
    (folder / "policies").mkdir()
    (folder / "policies" / "allow.yaml").write_text(policy("allow", "ALLOW", "/open"))
    return folder / "policies"


class Worker:
    """A running ``authz serve`` and what it said on standard error."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []

    async def says(self, pattern: str) -> str:
        """Wait for a line; answer its first group or the whole."""
        assert self.process.stderr is not None
        async with asyncio.timeout(60):
            while line := (await self.process.stderr.readline()).decode():
                self.lines.append(line)
                if match := re.search(pattern, line):
                    return match[match.lastindex or 0]
        raise AssertionError(f"it never said {pattern}: {self.lines}")


@asynccontextmanager
async def worker(*flags: str, **settings: object) -> AsyncIterator[Worker]:
    """``authz serve`` with one worker of grpcio, unless the flags say otherwise: `auto` depends on the machine."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AUTHZ_", "GRPC_"))}
    environment |= {f"AUTHZ_{name.upper()}": str(value) for name, value in settings.items()}
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        "--server",
        "grpcio",
        "--workers",
        "1",
        *flags,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        yield Worker(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.slow
async def test_the_service_starts_answers_and_drains(tmp_path: Path) -> None:
    flags = ["--policies", str(write_policies(tmp_path)), "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
    flags += ["--listen", f"unix:{tmp_path}/authz.sock", "--drain-delay-seconds", "0.3"]
    async with worker(*flags) as service:
        address = await service.says(r"listening (127[^\s,]+)")
        admin = await service.says(r"admin     (\S+)/healthz")
        await service.says("health is SERVING")
        async with grpc.aio.insecure_channel(address) as channel, httpx.AsyncClient(trust_env=False) as http:
            ask = check_call(channel)
            allowed, denied = [response(await ask(check_request(path=path))) for path in ("/open", "/shut")]
            assert (allowed.status.code, denied.status.code) == (0, 7)
            assert await health_of(channel) == "SERVING"
            assert (await http.get(f"{admin}/readyz")).status_code == 200
            assert "authz_" in (await http.get(f"{admin}/metrics")).text
            service.process.send_signal(signal.SIGTERM)
            await service.says("NOT_SERVING")
            assert await health_of(channel) == "NOT_SERVING"
            assert response(await ask(check_request(path="/open"))).status.code == 0
            assert (await http.get(f"{admin}/readyz")).status_code == 503
        await service.says("stopped")
        assert await service.process.wait() == 0
        assert service.process.stdout is not None
        records = (await service.process.stdout.read()).decode().splitlines()
    assert len(records) == 3
    assert told(denied)["decision_id"] in records[1]


@pytest.mark.slow
async def test_a_unix_socket_is_served_too(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/authz.sock"
    async with worker("--policies", str(write_policies(tmp_path)), "--listen", address, "--audit", "none") as service:
        await service.says("health is SERVING")
        async with grpc.aio.insecure_channel(address) as channel:
            assert response(await check_call(channel)(check_request(path="/open"))).status.code == 0
            service.process.send_signal(signal.SIGHUP)  # which ends a process that does not know it
            await service.says("SIGHUP")
            assert response(await check_call(channel)(check_request(path="/open"))).status.code == 0


@pytest.mark.slow
async def test_what_a_server_decided_is_decided_again_out_of_its_archive(tmp_path: Path) -> None:
    """Two servers share the archive; the policies are others by the time somebody asks."""
    policies, log, archive = write_policies(tmp_path), tmp_path / "audit.jsonl", tmp_path / "archive"
    flags = ["--policies", str(policies), "--audit", f"file:{log}", "--archive", str(archive)]
    addresses = [f"unix:{tmp_path}/{name}.sock" for name in ("one", "two")]
    async with worker(*flags, "--listen", addresses[0]) as one, worker(*flags, "--listen", addresses[1]) as two:
        for service, address in zip((one, two), addresses, strict=True):
            await service.says("health is SERVING")
            async with grpc.aio.insecure_channel(address) as channel:
                for path in ("/open", "/shut"):
                    await check_call(channel)(check_request(path=path))
            service.process.send_signal(signal.SIGTERM)
            await service.says("stopped")
    (policies / "allow.yaml").write_text(policy("allow", "ALLOW", "/other"))
    done = CliRunner().invoke(application, ["replay", str(log), "--as-of", "--archive", str(archive), "-o", "json"])
    told_again = json.loads(done.stdout)
    assert (done.exit_code, told_again["records"], told_again["counts"]["same"]) == (0, 4, 4)
    now = CliRunner().invoke(application, ["replay", str(log), "-p", str(policies), "--archive", str(archive)])
    assert now.exit_code == 3
    assert "2 with another answer: 2 newly denied" in now.stdout
    assert len(list(archive.iterdir())) == 1


@pytest.mark.slow
async def test_it_is_not_ready_before_the_key_sets_are(tmp_path: Path) -> None:
    policies = write_policies(tmp_path)
    (policies / "jwt.yaml").write_text("""
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: jwt, namespace: shop}
spec: {jwtRules: [{issuer: a, jwksUri: "http://127.0.0.1:1/keys"}]}
""")
    flags = ["--policies", str(policies), "--listen", "127.0.0.1:0"]
    async with worker(*flags, keys_timeout_seconds=0.2) as service:
        address = await service.says(r"listening (127[^\s,]+)")
        assert "127.0.0.1:1/keys" in await service.says("waiting .*")
        async with grpc.aio.insecure_channel(address) as channel:
            assert await health_of(channel) == "NOT_SERVING"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (["--policies", "{}/policies"], 1, ":6:"),
        (["--policies", "{}/none"], 1, "cannot be read"),
        (["--policies", "{}/good", "--listen", "unix:/proc/none/a.sock"], 1, "cannot listen on"),
        (["--policies", "{}/good", "--listen", "127.0.0.1:0", "--admin", "nonsense"], 2, "is neither host:port nor"),
        (["--policies", "{}/good", "--audit", "nonsense"], 1, "`nonsense` is not a sink"),
        (["--max-token-bytes", "1"], 2, "set AUTHZ_MAX_TOKEN_BYTES, or `max_token_bytes` in the file of --config"),
        (["--nonsense"], 2, "No such option"),
    ],
)
def test_what_stops_it_from_starting_is_said_without_a_traceback(
    tmp_path: Path, flags: Sequence[str], code: int, said: str
) -> None:
    (write_policies(tmp_path)).rename(tmp_path / "good")
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "broken.yaml").write_text(policy("broken", "DENI", "/"))
    done = subprocess.run(
        [*COMMAND, "--workers", "1", *(flag.format(tmp_path) for flag in flags)],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.slow
async def test_a_server_that_nobody_asks_fetches_no_key_and_stops_while_it_gives_way(tmp_path: Path) -> None:
    policies = write_policies(tmp_path)
    (policies / "jwt.yaml").write_text(
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: jwt, namespace: default}\n"
        "spec: {jwtRules: [{issuer: 'https://a.test', jwksUri: 'http://127.0.0.1:9/keys'}]}\n"
    )
    (tmp_path / "logs").mkdir()
    flags = ["--policies", str(policies), "--listen", "none", "--access-logs", f"file:{tmp_path}/logs"]
    async with worker(*flags, audit="none", keys_timeout_seconds=30) as service:
        await service.says("health is SERVING")
        assert not [line for line in service.lines if "waiting" in line or "listening" in line]
        service.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(30):
            await service.process.communicate()
        assert service.process.returncode == 0

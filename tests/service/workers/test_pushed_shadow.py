"""A candidate that was pushed decides in shadow in a server whose policies come from the truth: both are real."""

import asyncio
from pathlib import Path

import grpc
import httpx
import pytest
from click.testing import CliRunner

from authz.cli import application
from tests.nats_server import truth_servers
from tests.service.loading.test_reload import policy as text_of
from tests.service.messages import check_request, response
from tests.service.running import check_call
from tests.service.test_app import worker

pytestmark = pytest.mark.slow  # a server starts


def run(*arguments: object) -> str:
    done = CliRunner().invoke(application, [*map(str, arguments)])
    assert done.exit_code == 0, done.output
    return done.stdout


async def test_a_pushed_candidate_decides_in_shadow_until_it_is_promoted(tmp_path: Path) -> None:
    live, following, keys = tmp_path / "live", tmp_path / "next", tmp_path / "keys"
    for folder, path in ((live, "/open"), (following, "/other")):
        folder.mkdir()
        (folder / "allow.yaml").write_text(text_of("allow", "ALLOW", path))
    run("bundle", "keygen", keys)
    with truth_servers(tmp_path / "truth") as servers:
        to = ("--to", servers.address, "--key", keys / "bundle.key")
        run("policies", "push", live, *to)
        socket = f"unix:{tmp_path}/authz.sock"
        flags = ["--policies", str(servers.address), "--policies-cache", str(tmp_path / "cache"), "--listen", socket]
        keys_flag = ["--policies-public-keys", str(keys / "bundle.pub"), "--admin", "127.0.0.1:0", "--audit", "none"]
        async with worker(*flags, *keys_flag) as service:
            admin = await service.says(r"admin     (\S+)/healthz")
            await service.says("health is SERVING")
            async with grpc.aio.insecure_channel(socket) as channel, httpx.AsyncClient(trust_env=False) as http:

                async def code() -> int:
                    return response(await check_call(channel)(check_request(path="/open"))).status.code

                run("policies", "push", following, *to, "--candidate", "--canary", "5%")
                version = await service.says(r"policy version (\w+) is the candidate")
                assert await code() == 0
                metrics = (await http.get(f"{admin}/metrics")).text
                assert 'authz_candidate_decisions_total{result="newly_denied"} 1.0' in metrics
                shown = (await http.get(f"{admin}/api/candidate")).json()
                assert (
                    shown["commands"]["promote"] == f"authz candidate promote --to {servers.address} --key bundle.key"
                )
                run("candidate", "promote", *to)
                for _ in range(2):  # in either order
                    said = f"policy version {version} is in force|is gone: nothing decides in shadow"
                    await service.says(said)
                assert await code() == 7
                await _one_of_a_stranger_is_none(tmp_path, str(servers.address), http, admin)
                assert await code() == 7


async def _one_of_a_stranger_is_none(folder: Path, url: str, http: httpx.AsyncClient, admin: str) -> None:
    (folder / "live" / "allow.yaml").write_text(text_of("allow", "ALLOW", "/third"))
    run("bundle", "keygen", folder / "others")
    key = folder / "others" / "bundle.key"
    run("policies", "push", folder / "live", "--to", url, "--key", key, "--candidate")
    async with asyncio.timeout(20):
        while "is refused: none of the keys" not in (await http.get(f"{admin}/healthz")).text:  # noqa: ASYNC110  # another process
            await asyncio.sleep(0.05)
    assert "authz_candidate_last_reload_successful 0.0" in (await http.get(f"{admin}/metrics")).text

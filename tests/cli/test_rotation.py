"""``authz rotation`` and the guards of ``authz ca root``, against real Envoys."""

import asyncio
import json
import time
from pathlib import Path

import pytest

from authz.core.spiffe import SpiffeId
from tests.cli.conftest import Run
from tests.control.authority.sds_mesh import SERVER_ID, load_on
from tests.control.authority.test_sds_envoy import mesh


def test_a_proxy_must_be_named(run: Run) -> None:
    assert run("rotation", "check").exit_code == 2
    assert run("rotation", "check", "--admin", "./nowhere.sock").exit_code == 3


@pytest.mark.envoy
@pytest.mark.slow
async def test_check_finds_nothing_and_then_every_kind_of_drift(run: Run, tmp_path: Path) -> None:
    async with mesh(tmp_path) as (_, ca):
        admins = ["--admin", f"{tmp_path}/server.admin", "--admin", f"{tmp_path}/client.admin"]

        def check(*arguments: str) -> tuple[int, str]:
            result = run("rotation", "check", *admins, *arguments)
            return result.exit_code, result.stdout

        code, out = await asyncio.to_thread(check, "--ca", "ca")
        assert code == 0, out
        assert SERVER_ID in out
        code, out = await asyncio.to_thread(check, "--ca", "ca", "-o", "metrics")
        assert code == 0
        assert f'authz_certificate_expiration_timestamp_seconds{{proxy="server",identity="{SERVER_ID}"}}' in out
        assert 'authz_certificate_drift{proxy="server",kind="superseded"} 0' in out
        code, out = await asyncio.to_thread(check, "--expiring-within", "7200", "-o", "json")
        assert code == 3
        assert {(d["proxy"], d["kind"]) for d in json.loads(out)["drift"]} == {
            ("server", "expiring"),
            ("client", "expiring"),
        }
        issued = ca.issue_svid(SpiffeId.parse(SERVER_ID), time.time())
        (tmp_path / "files").mkdir()
        (tmp_path / "files/tls.crt").write_bytes(issued.chain_pem)
        code, out = await asyncio.to_thread(check, "--certs", "files")
        assert code == 3
        assert f"server: superseded: `{SERVER_ID}` serves serial" in out
        assert "client: foreign:" in out


@pytest.mark.envoy
@pytest.mark.slow
async def test_the_drill_changes_the_root_under_load(run: Run, tmp_path: Path) -> None:
    async with mesh(tmp_path, per_connection=1) as (running, ca):
        admins = ["--admin", f"{tmp_path}/server.admin", "--admin", f"{tmp_path}/client.admin"]
        async with load_on(running.port) as load:
            result = await asyncio.to_thread(run, "rotation", "drill", "--ca", "ca", *admins)
        assert result.exit_code == 0, result.output
        steps = [line.split()[0] for line in result.stdout.splitlines() if not line.startswith(" ")]
        assert steps == ["prepared", "activated", "tainted", "retired"]
        assert "server trusts the new root" in result.stdout
        assert load.answers == {"200": load.total}
        assert not (tmp_path / "ca" / ca.active.id).exists()
        assert (await asyncio.to_thread(run, "rotation", "check", "--ca", "ca", *admins)).exit_code == 0
        assert await running.drift(time.time() + 60, running.server._registrar.ca) == []


@pytest.mark.envoy
@pytest.mark.slow
async def test_a_step_waits_for_every_proxy(run: Run, tmp_path: Path) -> None:
    """With the authority dead no proxy learns of the new root, so it must not be activated."""
    async with mesh(tmp_path) as (running, _):
        admins = ["--admin", f"{tmp_path}/server.admin", "--admin", f"{tmp_path}/client.admin"]
        await running.server.stop(0)
        assert (await asyncio.to_thread(run, "ca", "root", "prepare")).exit_code == 0
        refused = await asyncio.to_thread(run, "ca", "root", "activate", *admins)
        assert refused.exit_code == 3
        assert refused.stdout.splitlines()[0].startswith("server does not trust ")
        drill = await asyncio.to_thread(run, "rotation", "drill", "--ca", "ca", "--timeout", "1", *admins)
        assert drill.exit_code == 3
        assert "not in 1 s: server, client trusts the new root; the drill stops here" in drill.stderr
        for step in (["activate", "--unchecked"], ["taint"]):
            assert (await asyncio.to_thread(run, "ca", "root", *step)).exit_code == 0
        refused = await asyncio.to_thread(run, "ca", "root", "retire", *admins)
        assert refused.exit_code == 3
        assert "client still serves its certificates" in refused.stdout

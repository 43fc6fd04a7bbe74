"""A candidate pushed to a real NATS server, a control plane as a process, and two real Envoys that decide."""

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from authz.cli import application
from tests.control.fleet.fleet_rig import API, ask, free_ports, until
from tests.control.fleet.test_canary_envoys import TwoApis, allow
from tests.nats_server import NatsServers, truth_servers

pytestmark = [pytest.mark.envoy, pytest.mark.slow]  # Envoys tell their counts every second


class Fleet(TwoApis):
    """Policies come from the truth alone, and ``api-v2`` is who gets candidates."""

    def __init__(self, folder: Path, servers: NatsServers) -> None:
        super().__init__(folder)
        self.url = str(servers.address)
        self.report_seconds = 1
        (self.admin,) = free_ports(1)
        self.join("api-v1", API)
        self.join("api-v2", API)
        assert CliRunner().invoke(application, ["bundle", "keygen", str(folder / "keys")]).exit_code == 0

    def tell(self, *arguments: object, code: int = 0) -> Any:
        told = [*map(str, arguments), "--to", self.url, "-o", "json"]
        done = CliRunner().invoke(application, told)
        assert done.exit_code == code, done.output
        return json.loads(done.stdout)

    def push(self, path: str, *arguments: object) -> Any:
        self.write_policy(allow(path))
        told = ("policies", "push", self.policies, "--mesh", self.mesh, "--key", self.folder / "keys/bundle.key")
        return self.tell(*told, *arguments)

    def shown(self) -> dict[str, Any]:
        done = CliRunner().invoke(
            application, ["candidate", "status", "--admin", f"127.0.0.1:{self.admin}", "-o", "json"]
        )
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    @contextlib.contextmanager
    def controlled(self) -> Iterator[None]:
        """While ``authz control`` runs."""
        command = [
            *(sys.executable, "-m", "authz", "control", "--policies", self.url, "--truth", self.url),
            *("--policies-public-keys", "keys/bundle.pub", "--ca", "ca", "--keep", "keep", "--replica", "one"),
            *("--listen", f"127.0.0.1:{self.control}", "--admin", f"127.0.0.1:{self.admin}"),
        ]
        with (self.folder / "control.log").open("ab") as log:
            process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log)
        try:
            yield
        finally:
            process.terminate()
            process.wait(20)


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[NatsServers]:
    with truth_servers(tmp_path / "truth") as running:
        yield running


async def test_a_pushed_candidate_is_in_force_for_those_it_names_until_it_is_promoted_or_taken_back(
    tmp_path: Path, servers: NatsServers
) -> None:
    fleet = Fleet(tmp_path, servers)
    fleet.push("/one")
    async with fleet.application():
        with fleet.controlled(), fleet.envoy("api-v1"), fleet.envoy("api-v2"):
            await fleet.allowed("/one", "/one")
            told = fleet.push("/two", "--candidate", "--canary-workload", "api-v2", "--wait", 30)
            assert (told["acknowledged"], told["without"]) == (True, [])
            assert await ask(fleet.second, "/two") == "503", "whoever waited has it"
            await fleet.allowed("/one", "/two")
            candidate = told["candidate"]
            _is_told_by_who_has_it(fleet, candidate)
            shown = fleet.shown()
            assert (shown["state"], shown["number"], shown["chosen"]) == ("in force", candidate, ["api-v2"])
            fleet.tell("candidate", "abort", "-m", "by hand")
            await fleet.allowed("/one", "/one")
            assert (fleet.shown()["state"], fleet.shown()["reason"][-9:]) == ("aborted", ": by hand")
            fleet.push("/two", "--candidate", "--canary-workload", "api-v2")
            await fleet.allowed("/one", "/two")
            fleet.tell("candidate", "promote", "--key", tmp_path / "keys/bundle.key", "--wait", 30)
            await fleet.allowed("/two", "/two")
            _what_is_refused_ends_the_wait(fleet)
            await _what_refuses_too_much_is_taken_back_by_everybody(fleet)


def _is_told_by_who_has_it(fleet: Fleet, candidate: int) -> None:
    lines = CliRunner().invoke(application, ["candidate", "status", "--to", fleet.url]).stdout.splitlines()
    assert lines[-1] == "  one: in force for 1 proxy"
    done = CliRunner().invoke(application, ["fleet", "status", "--truth", fleet.url, "-o", "json"])
    shown = json.loads(done.stdout)
    assert [one["candidate"]["state"] for one in shown["replicas"]] == ["in force"]
    assert {one["name"]: one["candidate"] for one in shown["proxies"] if one["candidate"]} == {"api-v2": candidate}


def _what_is_refused_ends_the_wait(fleet: Fleet) -> None:
    """By a control plane that knows what its Envoys take."""
    header = 'rules: [{when: [{key: "request.headers[x\\ny]", values: [a]}], '
    fleet.write_policy(allow("/three").replace("rules: [{", header))
    told = (fleet.policies, "--key", fleet.folder / "keys/bundle.key", "--to", fleet.url, "--wait", 60)
    arguments = ("policies", "push", "--candidate", "--canary-workload", "api-v2", *told)
    done = CliRunner().invoke(application, [*map(str, arguments)])
    assert done.exit_code == 3, done.output
    assert "replica one: refused: `api-v2` cannot decide it by itself: " in done.stderr
    fleet.tell("candidate", "abort")


async def _what_refuses_too_much_is_taken_back_by_everybody(fleet: Fleet) -> None:
    """Counted by the Envoy itself: before, it refused nothing of what it is asked for."""

    async def has_told_before() -> bool:
        return await ask(fleet.second, "/two") == "503"

    await until(has_told_before)
    bound = ("--abort-above", "20%", "--abort-window", 30)
    number = fleet.push("/three", "--candidate", "--canary-workload", "api-v2", *bound)["candidate"]
    await fleet.allowed("/two", "/three")

    async def is_taken_back() -> bool:
        await asyncio.gather(*(ask(fleet.second, "/two") for _ in range(20)))
        return bool(fleet.shown()["state"] == "aborted")

    await until(is_taken_back)
    await fleet.allowed("/two", "/two")

    async def is_told() -> bool:
        return CliRunner().invoke(application, ["candidate", "status", "--to", fleet.url]).exit_code == 3

    await until(is_told)
    found = fleet.tell("candidate", "status", code=3)
    assert (found["candidate"], found["aborted"]["by"]) == (number, "one")
    assert found["aborted"]["reason"].startswith("`api-v2` refused ")

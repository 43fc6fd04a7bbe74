"""
One version in the place of another, and back, as docs/operations.md tells it: two servers behind a real Envoy, each
stopped and started while the other answers. No request is lost, and both versions read what the other one wrote.
"""

import asyncio
import json
import os
import re
import signal
from collections import Counter
from pathlib import Path

import httpx
import pytest

from authz.telemetry.names import BUILD
from tests.packaging.wheels import ROOT, build, install, renumbered
from tests.service.native.test_judge import entry, rule
from tests.service.workers.test_supervisor import envoy, load, sidecar

NEXT = "999.1.0"
POLICY = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: open, namespace: shop}
spec:
  rules:
  - to: [{operation: {paths: [/open]}}]
"""
SETTINGS = """\
policies: policies
server: grpcio
audit: {sinks: ['file:audit.jsonl'], chain: 'on'}
drain_delay_seconds: 1.5
"""
SERVER = ROOT / "packaging" / "systemd" / "authz@.service"


class Machine:
    """A folder in the place of /: the program below ``opt``, a link that leads to one of two versions."""

    def __init__(self, root: Path, versions: dict[str, Path]) -> None:
        self.root = root
        self._versions = versions
        self._running: dict[int, asyncio.subprocess.Process] = {}

    def choose(self, version: str) -> None:
        """Swap the link, as one ``ln -sfn`` and ``mv -T`` do."""
        aside = self.root / "aside"
        aside.symlink_to(self._versions[version].parent)
        aside.rename(self.root / "authz")

    async def run(self, *command: str) -> str:
        process = await asyncio.create_subprocess_exec(
            *command, cwd=self.root, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        told, _ = await process.communicate()
        assert process.returncode == 0, f"{command}: {told.decode()}"
        return told.decode()

    def _commands(self, line: str, index: int) -> list[list[str]]:
        """The unit's own commands, in this folder."""
        text = SERVER.read_text().replace("\\\n", " ")
        places = {"/opt/authz": str(self.root / "authz"), "/etc/authz/": "", "/run/authz": "run", "%i": str(index)}
        for place, here in places.items():
            text = text.replace(place, here)
        return [command.split() for command in re.findall(rf"^{line}=(.*)$", text, re.M)]

    async def start(self, index: int) -> None:
        """Until it is ready, as the unit's start is."""
        more = {"AUTHZ_ACCESS_LOGS": "file:logs"} if index == 0 else {}
        (server,) = self._commands("ExecStart", index)
        self._running[index] = await asyncio.create_subprocess_exec(*server, cwd=self.root, env={**os.environ, **more})
        for command in self._commands("ExecStartPost", index):
            await self.run(*command)

    async def stop(self, index: int) -> None:
        process = self._running.pop(index)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 60) == 0

    async def replace(self, version: str) -> None:
        """What the page says: change the link, then restart one after the other."""
        self.choose(version)
        for index in list(self._running):
            await self.stop(index)
            await self.start(index)

    async def versions(self) -> set[str]:
        """What each server says that it is."""
        found = set()
        for index in self._running:
            transport = httpx.AsyncHTTPTransport(uds=str(self.root / "run" / f"admin-{index}.sock"))
            async with httpx.AsyncClient(transport=transport, base_url="http://admin") as client:
                text = (await client.get("/metrics")).text
            found |= set(re.findall(rf'^{BUILD.name}{{.*version="([^"]+)"', text, re.M))
        return found

    def log(self, path: str) -> None:
        """What a proxy that decides by itself writes."""
        with (self.root / "logs" / "p.json").open("ab") as file:
            file.write(entry(path, allowed_by=rule("some")) + b"\n")

    def recorded(self) -> Counter[str]:
        """How often each path that a proxy wrote stands in the record."""
        lines = (json.loads(line) for line in (self.root / "audit.jsonl").read_text().splitlines())
        paths = (line["request"]["path"] for line in lines if "request" in line)
        return Counter(path for path in paths if path.startswith("/logged"))

    async def recorded_soon(self, path: str) -> None:
        for _ in range(600):
            if path in self.recorded():
                return
            await asyncio.sleep(0.05)
        pytest.fail(f"{path} is not in the record")


@pytest.fixture
def machine(built: tuple[Path, Path], programs: Path, tmp_path: Path) -> Machine:
    tree = renumbered(built[0], NEXT, tmp_path / "tree")
    other = install(build(tree, tmp_path / "dist")[1], tmp_path / "other")
    root = tmp_path / "root"
    for name in ("run", "logs", "policies"):
        (root / name).mkdir(parents=True)
    (root / "authz.yaml").write_text(SETTINGS)
    (root / "policies" / "open.yaml").write_text(POLICY)
    return Machine(root, {"now": programs, "next": other})


@pytest.mark.envoy
@pytest.mark.slow
async def test_an_upgrade_and_a_downgrade_lose_no_request_and_no_state(machine: Machine) -> None:
    counted: Counter[tuple[str, int]] = Counter()
    machine.choose("now")
    identity = "spiffe://cluster.local/ns/shop/sa/web"
    await machine.run("authz/bin/authz", "ca", "init", "--ca", "ca", "--trust-domain", "cluster.local")
    await asyncio.gather(machine.start(0), machine.start(1))
    async with envoy(machine.root, sidecar(machine.root, 2)) as url:
        stop = asyncio.Event()
        tasks = [asyncio.create_task(load(url, path, stop, counted)) for path in ("/open", "/shut") * 2]
        await asyncio.sleep(1.2)  # until the sidecar has asked both for their health
        seen = []
        for number, version in enumerate(("next", "now")):
            machine.log(f"/logged/{number}")
            await machine.recorded_soon(f"/logged/{number}")
            await machine.replace(version)
            seen.append(await machine.versions())
            if version == "next":
                await machine.run("authz/bin/authz", "ca", "issue", identity, "--ca", "ca", "--out", "certs")
            await machine.run("authz/bin/authz", "ca", "verify", "certs/tls.crt", "--ca", "ca")
            await machine.run("authz/bin/authz", "audit", "verify", "audit.jsonl")
        machine.log("/logged/last")
        await machine.recorded_soon("/logged/last")
        stop.set()
        await asyncio.gather(*tasks)
    await asyncio.gather(machine.stop(0), machine.stop(1))
    assert seen[0] == {NEXT}
    assert len(seen[1]) == 1
    assert seen[1] != seen[0]
    assert set(counted) == {("/open", 200), ("/shut", 403)}
    assert min(counted.values()) > 100
    assert machine.recorded() == {"/logged/0": 1, "/logged/1": 1, "/logged/last": 1}

"""
The check among containers: the same scenarios, run by a container that has the mesh's network and volumes.

It cannot end or start other containers. It asks whoever started it, by one JSON line on stdout, and is answered by one
on stdin: ``{"ask": "kill", "name": "custom"}``. Results are lines too; ``demo.checks.compose`` is the other side.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from authz.core.attributes import Json
from authz.demo.checks.clients import ClientPlace
from authz.demo.checks.runner import run_check
from authz.demo.checks.world import World
from authz.demo.commands import AUTHZ
from authz.demo.containers import read_layout
from authz.demo.layout import DemoError, Layout
from authz.identity.secret_files import write_file
from authz.mesh.nouns import Enforce

PROBES = Path("/probe")
"""Sockets of the relays, by workload."""
CONTROL = "control"
"""The container whose address issuer, authority, authorization server and the store of rate limits share."""


class Outside:
    """The side that can end and start containers. One question at a time."""

    async def kill(self, name: str) -> None:
        """End a container and keep it ended."""
        await self.ask("kill", name)

    async def revive(self, name: str) -> None:
        """Start it again."""
        await self.ask("revive", name)

    async def crash(self, name: str) -> bool:
        """Kill its process; True when it ended."""
        return await self.ask("crash", name) == "ended"

    async def ask(self, what: str, name: str = "") -> str:
        """Ask the other side, and wait for its answer. Raises DemoError."""
        say({"ask": what, "name": name})
        line = await asyncio.to_thread(sys.stdin.readline)
        answer = json.loads(line) if line else {"error": "nobody answers"}
        if "error" in answer:
            raise DemoError(f"{what} {name}: {answer['error']}")
        return str(answer["answer"])


class ContainerWorld(World):
    """Places are addresses of containers, loopback ports are reached by relays, and operators' logs are Docker's."""

    has_users = True

    def __init__(self, layout: Layout, outside: Outside) -> None:
        self._outside = outside
        super().__init__(layout, outside)

    def ingress(self) -> ClientPlace:
        gateway = next(workload for workload in self.layout.mesh.gateways if not workload.is_egress_gateway)
        return ClientPlace(self.layout.ingress_port, gateway.compose_address)

    def issuers(self) -> ClientPlace:
        return ClientPlace(self.layout.issuer_port, CONTROL)

    def inbound(self, workload: str) -> ClientPlace:
        found = self.layout.mesh.workload(workload)
        return ClientPlace(found.inbound[0].number, found.compose_address)

    def outbound(self, workload: str, port: int) -> ClientPlace:
        return ClientPlace(port, relay=PROBES / f"{workload}.sock")

    def egress(self, port: int) -> ClientPlace:
        gateway = next(workload for workload in self.layout.mesh.gateways if workload.is_egress_gateway)
        return ClientPlace(port, gateway.compose_address)

    def authority(self) -> ClientPlace:
        return ClientPlace(self.layout.ca_port, CONTROL)

    def enrolment(self) -> ClientPlace:
        return ClientPlace(self.layout.ca_enrol_port, CONTROL)

    def limits_store(self) -> ClientPlace:
        return ClientPlace(self.layout.limits_port, relay=PROBES / f"{CONTROL}.sock")

    def authority_socket(self) -> Path:
        return PROBES / "productpage-v1.sds.sock"

    @property
    def sidecar_selector(self) -> str:
        return f"unix:uid:{self.authority_socket().stat().st_uid}"

    def strangers_socket(self) -> Path:
        return self.layout.state / "run/ca/sds.sock"

    def admin(self, workload: str) -> Path:
        return self.layout.state / "proxies" / workload / f"{workload}.admin.sock"

    @property
    def entries(self) -> Path:
        return self.layout.state / "identities/entries.yaml"

    @asynccontextmanager
    async def impostor(self, configuration: str) -> AsyncIterator[None]:
        """A container waits for this file."""
        write_file(self.layout.state / "check" / "impostor.yaml", configuration.encode())
        try:
            yield
        finally:
            await self._outside.kill("impostor")

    @property
    def audit_log(self) -> Path:
        return self.layout.state / "audit"

    @property
    def spans(self) -> Path:
        return self.layout.state / "spans/spans.jsonl"

    def audit_logs(self) -> list[Path]:
        return sorted(self.audit_log.glob("*.jsonl"))

    async def operator_logs(self) -> list[str]:
        return [await self._outside.ask("log", AUTHZ)]

    async def logs(self) -> AsyncIterator[tuple[str, bytes]]:
        for directory in (self.layout.state / "logs", self.spans.parent, self.audit_log):
            for path in sorted(directory.iterdir()):
                if path.suffix == ".new":  # about to be renamed
                    continue
                yield path.name, path.read_bytes()
        for name in json.loads(await self._outside.ask("names")):
            yield name, (await self._outside.ask("log", name)).encode()


def say(line: dict[str, Json]) -> None:
    """Write one line for the other side."""
    print(json.dumps(line), flush=True)


async def check(pattern: str, enforce: Enforce) -> None:
    """Run the scenarios; each result is a line."""
    world = ContainerWorld(read_layout(enforce=enforce), Outside())
    async for result in run_check(world, pattern):
        scenario = result.scenario
        say(
            {
                "group": scenario.group,
                "name": scenario.name,
                "expected": scenario.expected,
                "actual": result.actual,
                "seconds": result.seconds,
                "remark": result.remark,
            }
        )


def main(arguments: Sequence[str]) -> None:
    """``python -m authz.demo.checks.inside [--enforce native] [PATTERN]``."""
    parser = argparse.ArgumentParser(prog="python -m authz.demo.checks.inside")
    parser.add_argument("pattern", nargs="?", default="")
    parser.add_argument("--enforce", choices=[way.value for way in Enforce], default=Enforce.CHECK.value)
    given = parser.parse_args(arguments)
    asyncio.run(check(given.pattern, Enforce(given.enforce)))


if __name__ == "__main__":
    main(sys.argv[1:])

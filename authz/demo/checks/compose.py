"""
The demo as containers, from the outside: start them, wait until all are healthy, run the check, take them away.

Nothing but the ``docker`` command line is used. The check itself runs in a container (``checks.inside``); ending and
starting other containers, which it cannot do from there, is done here when it asks.
"""

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from authz.core.attributes import Json
from authz.demo.checks.runner import Result
from authz.demo.checks.scenario import Scenario
from authz.demo.checks.world import World
from authz.demo.commands import AUTHZ
from authz.demo.layout import DemoError
from authz.mesh.nouns import Enforce

PROJECT = "bookinfo-check"
FILES = {
    Enforce.CHECK: ("docker-compose.yaml", "docs/compose/check.yaml"),
    Enforce.NATIVE: ("docker-compose.yaml", "docker-compose.native.yaml", "docs/compose/check.yaml"),
}
CHECK, BUILT = "check", "certificates"
"""Services: the one in which the check runs, and the one with the build that all services of the image share."""
COPIED = {"BOOKINFO_POLICIES": "policies", "BOOKINFO_TRAFFIC": "traffic", "BOOKINFO_IDENTITIES": "identities"}
"""Variables of docker-compose.yaml to the copies that they lead to."""
IDENTITIES = "docs/compose/identities"
REPLICAS = ("authz-0", "authz-1")
HEALTHY_SECONDS = 300.0
READY_SECONDS = 60.0
CRASH_SECONDS = 20.0
PAUSE_SECONDS = 0.5


@dataclass(slots=True)
class Containers:
    """The project of the check. ``up`` once, then ``down``."""

    root: Path
    """The checkout: where docker-compose.yaml is."""
    copies: Path
    """Directory with copies that the check may change, absolute: ``copy_inputs`` makes them."""
    enforce: Enforce = Enforce.CHECK
    """Who decides: the check, or every Envoy by itself."""
    _compose: tuple[str, ...] = ()
    ids: dict[str, str] = field(default_factory=dict)
    """Service to container."""

    async def up(self, *, build: bool) -> None:
        """Build if asked to, start, and wait until every container is healthy. Raises DemoError."""
        self._compose = await _compose_command(FILES[self.enforce])
        if build:
            await self._run("build", BUILT)
        await self._run("up", "-d", "--no-build")
        await self._wait_until_healthy()

    async def down(self) -> None:
        """Take everything away, the volumes of this project too."""
        if self._compose:
            await self._run("down", "-v", "--remove-orphans", "-t", "2")

    async def check(self, pattern: str) -> AsyncIterator[Result]:
        """Run the scenarios in the container ``check`` and yield results as they come. Raises DemoError."""
        inside = ("python", "-m", "authz.demo.checks.inside", "--enforce", self.enforce.value, "--", pattern)
        process = await asyncio.create_subprocess_exec(
            *("docker", "exec", "-i", self.ids[CHECK], *inside),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 24,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            while line := await process.stdout.readline():
                told = json.loads(line)
                if "ask" not in told:
                    yield _result(told)
                    continue
                process.stdin.write(json.dumps(await self._answer(told["ask"], told["name"])).encode() + b"\n")
                await process.stdin.drain()
        finally:
            if process.returncode is None and process.stdout.at_eof():
                await process.wait()
            elif process.returncode is None:
                process.kill()
        if process.returncode:
            raise DemoError(f"the check ended with code {process.returncode}")

    async def _answer(self, what: str, name: str) -> dict[str, Json]:
        services = REPLICAS if name == AUTHZ else (name,)
        try:
            if what == "kill":
                await _output("docker", "kill", *(self.ids[service] for service in services))
                return {"answer": "killed"}
            if what == "revive":
                containers = [self.ids[service] for service in services]
                await _output("docker", "start", *containers)
                await asyncio.gather(*(_wait_until_ready(container) for container in containers))
                return {"answer": "started"}
            if what == "crash":
                return {"answer": await self._crash(self.ids[name])}
            if what == "log":
                return {"answer": await _output("docker", "logs", self.ids[services[0]], merged=True)}
            return {"answer": json.dumps(sorted(self.ids))}
        except (DemoError, KeyError) as error:
            return {"error": str(error)}

    async def _crash(self, container: str) -> str:
        """
        End the process from inside: Docker starts it again, which it does not after ``docker kill``.

        SIGTERM, since the first process of a container is immune to signals that it has no handler for.
        """
        started = ("docker", "inspect", "-f", "{{.State.StartedAt}}", container)
        before = await _output(*started)
        await _output("docker", "exec", container, "sh", "-c", "kill -TERM 1")
        for _ in range(int(CRASH_SECONDS / PAUSE_SECONDS)):
            if await _output(*started) != before:
                return "ended"
            await asyncio.sleep(PAUSE_SECONDS)
        return "lives"

    async def _wait_until_healthy(self) -> None:
        label = '{{.Label "com.docker.compose.service"}}'
        told: list[str] = []
        for _ in range(int(HEALTHY_SECONDS / PAUSE_SECONDS)):
            lines = await _output(
                *("docker", "ps", "-a", "--no-trunc", "--filter", f"label=com.docker.compose.project={PROJECT}"),
                *("--format", f"{label}\t{{{{.ID}}}}\t{{{{.Status}}}}"),
            )
            rows = [line.split("\t") for line in lines.splitlines()]
            self.ids = {name: container for name, container, _ in rows}
            told = [f"{name}: {status}" for name, _, status in rows if "(healthy)" not in status]
            if rows and not told:
                return
            await asyncio.sleep(PAUSE_SECONDS)
        said = [await self._last_lines(line.partition(":")[0]) for line in told[:3]]
        raise DemoError(f"not healthy after {HEALTHY_SECONDS:.0f} s: {', '.join(told)}\n" + "\n".join(said))

    async def _last_lines(self, service: str) -> str:
        try:
            return await _output("docker", "logs", "--tail", "4", self.ids[service], merged=True)
        except (DemoError, KeyError):
            return ""

    async def _run(self, *arguments: str) -> None:
        await _output(*self._compose, *arguments, root=self.root, copies=self.copies, merged=True)


async def _wait_until_ready(container: str) -> None:
    """Ask as its health check does, without waiting for Docker to do so. Raises DemoError."""
    test = json.loads(await _output("docker", "inspect", "-f", "{{json .Config.Healthcheck.Test}}", container))
    for _ in range(int(READY_SECONDS / PAUSE_SECONDS)):
        if await _succeeds("docker", "exec", container, *test[1:]):
            return
        await asyncio.sleep(PAUSE_SECONDS)
    raise DemoError(f"not ready {READY_SECONDS:.0f} s after its start")


def copy_inputs(root: Path, policies: Path, traffic: Path, state: Path) -> Path:
    """
    Copy what the check may change, examples of traffic rules included, and return the directory of the copies.

    Its container has a user other than ours: it may write there, and to nothing else of ours.
    """
    copies = (state / "compose").absolute()
    for name, source in zip(COPIED.values(), (policies, traffic, root / IDENTITIES), strict=True):
        target = copies / name
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for file in sorted(source.rglob("*.y*ml*")):
            if not file.is_file() or file.name.startswith("."):
                continue
            path = target / file.relative_to(source)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.read_bytes())
            path.chmod(0o644)
        target.chmod(0o777)  # see above
    return copies


async def _compose_command(files: tuple[str, ...]) -> tuple[str, ...]:
    """Compose v2, else the older program. Raises DemoError."""
    if shutil.which("docker") is None:
        raise DemoError("there is no `docker` on the PATH")
    options = tuple(part for file in files for part in ("-f", file))
    for command in (("docker", "compose"), ("docker-compose",)):
        if shutil.which(command[0]) and await _succeeds(*command, "version"):
            return (*command, *options, "--project-directory", ".", "-p", PROJECT)
    raise DemoError("there is neither `docker compose` nor `docker-compose`")


async def _succeeds(*command: str) -> bool:
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*command, stdout=quiet, stderr=quiet)
    return await process.wait() == 0


async def _output(*command: str, root: Path | None = None, copies: Path | None = None, merged: bool = False) -> str:
    """Run to the end and return what it printed. Raises DemoError with the end of it."""
    places = {} if copies is None else {name: str(copies / kind) for name, kind in COPIED.items()}
    environment = dict(os.environ) | places
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=root,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT if merged else asyncio.subprocess.PIPE,
    )
    printed, complained = await process.communicate()
    if process.returncode:
        said = (printed + (complained or b"")).decode("utf-8", "replace").strip().splitlines()[-8:]
        raise DemoError(f"`{' '.join(command[:6])} …` failed:\n" + "\n".join(said))
    return printed.decode("utf-8", "replace").strip("\n")


async def _not_again(_: World) -> str:
    raise DemoError("this scenario ran in a container")


def _result(told: dict[str, Json]) -> Result:
    scenario = Scenario(str(told["group"]), str(told["name"]), str(told["expected"]), _not_again)
    seconds = told["seconds"]
    took = float(seconds) if isinstance(seconds, int | float) else 0.0
    return Result(scenario, str(told["actual"]), took, str(told["remark"]))

"""The test's side of a service that is hosted in Envoy: it starts the process, and tells it what to decide by."""

import asyncio
import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from authz.core.decided import Offer
from authz.envoy.hosting import APPLICATION
from authz.service.workers.envoy_host import HostedAt, find_hosting, hosting_command
from tests.envoy import inside
from tests.envoy.applications import Applications
from tests.envoy.corpus import Bench, Ready
from tests.envoy.deciding import LARGEST_MESSAGE_BYTES
from tests.service.recording import Recorder

LISTENER, CONTROL = "authz.sock", "control.sock"
STARTED_SECONDS = 60.0


@contextlib.contextmanager
def hosting(directory: Path) -> Iterator[Path]:
    """Run the Envoy of ``authz serve --server envoy`` with the tests' application in it; yields its directory."""
    found = find_hosting()
    at = HostedAt((f"unix:{directory / LISTENER}",), directory)
    command = hosting_command(found, at, max_message_bytes=LARGEST_MESSAGE_BYTES, socket_mode=0o600)
    configuration = directory / "envoy.json"
    text = configuration.read_text()
    assert APPLICATION in text
    configuration.write_text(text.replace(APPLICATION, inside.APPLICATION))
    environment = {**os.environ, **found.environment(), inside.CONTROL: str(directory / CONTROL)}
    process = subprocess.Popen(command, env=environment)
    try:
        yield directory
    finally:
        process.terminate()
        process.wait(10)


class HostedBench(Bench):
    """
    As ``Bench``, except that checks are answered by a worker inside Envoy.

    What is prepared here too is what the answers are compared with.
    """

    def __init__(self, around: Applications, state: Path, audit: Recorder, directory: Path) -> None:
        super().__init__(around, state, audit)
        self._directory = directory

    async def start(self) -> None:
        (self.state / "run" / "authz-0.sock").symlink_to(self._directory / LISTENER)
        async with asyncio.timeout(STARTED_SECONDS):
            while True:
                with contextlib.suppress(OSError):
                    self._reader, self._writer = await asyncio.open_unix_connection(self._directory / CONTROL)
                    break
                await asyncio.sleep(0.05)
        await self._tell("begin", self.around)

    async def stop(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()
        await self.close()

    async def begin(self, groups: list[Ready]) -> None:
        await super().begin(groups)
        for ready in groups:
            group = ready.group
            await self._tell("prepare", group.id, ready.texts, group.mesh, group.stubs, ready.snapshot.loaded_at)
        await self._tell("fetch_keys")

    async def put_in_force(self, ready: Ready) -> None:
        await self._tell("enforce", ready.group.id)

    async def recorded(self) -> list[Offer]:
        return await self._tell("take")

    async def _tell(self, method: str, *arguments: object) -> list[Offer]:
        """The answer to anything is what was recorded."""
        self._writer.write(inside.frame((method, arguments)))
        return cast("list[Offer]", await inside.read(self._reader))

"""
One place among the workers and the process that fills it: started, heard over its line, drained, ended.

The process is grpcio's worker or an Envoy that hosts one.
"""

import asyncio
import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from authz.core.errors import AuthzError, LoadError, SettingsError
from authz.service.ports.log import Announce
from authz.service.ports.signals import ignore_ending
from authz.service.workers.envoy_host import (
    HostedAt,
    Hosting,
    hosted_addresses,
    hosting_command,
    stop_listening,
)
from authz.service.workers.line import FINISH, NOT_SERVING, ORDER, Line, Order
from authz.service.workers.parent_death import die_with_parent
from authz.settings.settings import Settings

ADDRESS_SECONDS = 10.0
"""The time for an Envoy to open its addresses after the application started."""
STOP_SECONDS = 5.0
"""The time for a process to end after it finished, before it is killed."""


class Worker:
    """One place among the workers, and the process that fills it now."""

    def __init__(self, settings: Settings, index: int, directory: Path, hosting: Hosting | None, lock: int) -> None:
        self.index = index
        self.settings = settings
        self.addresses: tuple[str, ...] = ()
        self.restarts = 0
        self.is_serving = False
        self.process: asyncio.subprocess.Process | None = None
        self.serving = asyncio.Event()
        self.failure: AuthzError | None = None
        """Why the process ended, when it said so."""
        self._hosting = hosting
        self._lock = lock
        self._at = HostedAt(settings.listen, directory)
        self._finished = asyncio.Event()
        self._line: Line | None = None
        self._listening: asyncio.Task[None] | None = None

    @property
    def admin_socket(self) -> Path:
        """Unix socket of the worker's own administration."""
        return Path(self.settings.admin.removeprefix("unix:"))

    async def live(self, announce: Announce) -> int:
        """Run one process to its end; returns its exit code. Raises OSError or SettingsError when it cannot start."""
        ours, theirs = socket.socketpair()
        try:
            self.process = await self._spawn(theirs)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self._line = line = await Line.over(ours)
        self.failure = None
        self._finished.clear()
        try:
            async for message in line.told():
                self._hear(message, announce)
            return await self.process.wait()
        finally:
            if self.process.returncode is None:
                with suppress(ProcessLookupError):
                    self.process.kill()
                await self.process.wait()
            self._heard_serving(False)
            self._finished.set()
            if self._listening is not None:
                self._listening.cancel()
            await line.close()

    async def _spawn(self, control: socket.socket) -> asyncio.subprocess.Process:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AUTHZ_")}
        host = (
            str(self._at.directory) if self._hosting is not None and self.settings.tls_certificate is not None else ""
        )
        environment[ORDER] = Order(self.settings, self.index, control.fileno(), self._lock, host).write()
        if self._hosting is None:
            command = [sys.executable, "-m", "authz.service.workers.worker"]
        else:
            settings = self.settings
            files = [settings.tls_certificate, settings.tls_key, settings.tls_client_ca]
            command = hosting_command(
                self._hosting,
                self._at,
                max_message_bytes=settings.max_message_bytes,
                socket_mode=int(settings.socket_mode, 8),
                tls_files=files if settings.tls_certificate else (),
                is_judged=settings.peer_certificate != "off",
            )
            environment |= self._hosting.environment()
        return await asyncio.create_subprocess_exec(
            *command,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=(control.fileno(), self._lock),
            start_new_session=True,  # Ctrl-C reaches the supervisor only, which drains
            preexec_fn=_before_exec,
        )

    def _hear(self, message: dict[str, Any], announce: Announce) -> None:
        match message["word"]:
            case "say":
                announce(f"worker {self.index}  {message['text']}")
            case "started":
                if self._hosting is None:
                    self._listens(tuple(message["addresses"]), announce)
                else:
                    self._listening = asyncio.create_task(self._wait_for_envoy(announce), name="listening")
            case "serving" | "not-serving" as word:
                self._heard_serving(word == "serving")
            case "finished":
                self._finished.set()
            case "failed":
                self.failure = LoadError(()) if message["is_load"] else SettingsError("")
                self.failure.args = (message["text"],)  # the problems themselves are in the worker's log

    def _heard_serving(self, is_serving: bool) -> None:
        self.is_serving = is_serving
        self._note()

    def _listens(self, addresses: tuple[str, ...], announce: Announce) -> None:
        self.addresses = addresses
        if self._hosting is not None:
            for address in addresses:
                announce(f"worker {self.index}  listening {address}, in Envoy")
        self._note()

    def _note(self) -> None:
        """Ready means both: health says so, and somebody listens."""
        if self.is_serving and self.addresses:
            self.serving.set()
        else:
            self.serving.clear()

    async def _wait_for_envoy(self, announce: Announce) -> None:
        for _ in range(int(ADDRESS_SECONDS / 0.05)):
            try:
                self._listens(await hosted_addresses(self._at), announce)
                return
            except (OSError, ValueError, KeyError, TimeoutError):
                await asyncio.sleep(0.05)
        announce(f"worker {self.index}  does not listen: see Envoy's message above")

    def tell(self, word: str, **facts: Any) -> None:
        """Say something to the process, if there is one."""
        if self._line is not None:
            self._line.tell(word, **facts)

    async def stop(self, delay_seconds: float, grace_seconds: float) -> None:
        """Drain: NOT_SERVING, let the proxies notice, finish what runs, end (XA-127)."""
        process, line = self.process, self._line
        if process is None or line is None or process.returncode is not None:
            return
        line.tell(NOT_SERVING)
        await asyncio.sleep(delay_seconds)
        if self._hosting is not None:
            with suppress(OSError, TimeoutError):
                await stop_listening(self._at)
        line.tell(FINISH)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._finished.wait(), grace_seconds + STOP_SECONDS)
        await self.end(kill=self._hosting is None and not self._finished.is_set())

    async def end(self, *, kill: bool) -> None:
        """End the process now: SIGTERM, and SIGKILL if it does not obey."""
        process = self.process
        if process is None or process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), STOP_SECONDS)
            return
        with suppress(ProcessLookupError):
            process.kill()


def _before_exec() -> None:
    """
    In the child, ensure that it ends with the parent, and that no signal unknown to Envoy ends it, except SIGALRM.
    """
    die_with_parent()
    ignore_ending(leave=(signal.SIGALRM,))

"""
Several workers as one server: start them, start again what dies, roll them one after another, stop them.

A worker is a process with addresses of its own (XA-122), grpcio's or an Envoy that hosts it. It is restarted with
growing pauses, and ends with its supervisor: told by the kernel, and by the end of the line between them.
"""

import asyncio
import logging
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from authz.core.errors import AuthzError, LoadError, SettingsError
from authz.service.workers.choose import choose_server
from authz.service.workers.envoy_host import (
    HostedAt,
    Hosting,
    find_hosting,
    hosted_addresses,
    hosting_command,
    stop_listening,
)
from authz.service.workers.line import FINISH, NOT_SERVING, ORDER, Line, Order
from authz.service.workers.processes import die_with_parent
from authz.settings import Settings

if TYPE_CHECKING:
    from authz.service.app import Announce

_log = logging.getLogger("authz.supervisor")
_NUMBERED = re.compile(r"(.*?)(?:-(\d{1,6}))?(\.[^./]*)?", re.DOTALL)
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0
STEADY_SECONDS = 10.0
"""A worker that lived so long is restarted at once."""
ADDRESS_SECONDS = 10.0
"""For an Envoy to open its addresses after the application started."""
STOP_SECONDS = 5.0
"""For a process to end after it finished, before it is killed."""


def worker_count(settings: Settings) -> int:
    """The number of workers; 0 in the settings means one for each core that this process may use."""
    return settings.workers or len(os.sched_getaffinity(0))


def worker_address(listen: str, index: int) -> str:
    """
    The address of one of several workers: they count on from the address given, which is the first one's.

    ``127.0.0.1:9191``, ``:9192``; ``run/authz-0.sock``, ``run/authz-1.sock``; ``authz.sock``, ``authz-1.sock``;
    ``unix-abstract:authz``, ``authz-1``. A port chosen by the system is each worker's own.
    """
    if not index:
        return listen
    if not listen.startswith(("unix:", "unix-abstract:")):
        host, _, port = listen.rpartition(":")
        return f"{host}:{int(port) + index}" if port.isdigit() and int(port) else listen
    match = _NUMBERED.fullmatch(listen)
    assert match is not None, "the pattern takes every text"
    name, number, ending = match.groups()
    return f"{name}-{int(number or 0) + index}{ending or ''}"


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
        return Path(self.settings.admin.removeprefix("unix:"))

    async def live(self, announce: "Announce") -> int:
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
        environment[ORDER] = Order(self.settings, self.index, control.fileno(), self._lock).write()
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
            )
            environment |= self._hosting.environment()
        return await asyncio.create_subprocess_exec(
            *command,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=(control.fileno(), self._lock),
            start_new_session=True,  # Ctrl-C reaches the supervisor only, which drains
            preexec_fn=die_with_parent,
        )

    def _hear(self, message: dict[str, Any], announce: "Announce") -> None:
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

    def _listens(self, addresses: tuple[str, ...], announce: "Announce") -> None:
        self.addresses = addresses
        if self._hosting is not None:
            for address in addresses:
                announce(f"worker {self.index}  listening {address}, in Envoy")
        self._note()

    def _note(self) -> None:
        """Ready is both: health says so, and somebody listens."""
        if self.is_serving and self.addresses:
            self.serving.set()
        else:
            self.serving.clear()

    async def _wait_for_envoy(self, announce: "Announce") -> None:
        for _ in range(int(ADDRESS_SECONDS / 0.05)):
            try:
                self._listens(await hosted_addresses(self._at), announce)
                return
            except (OSError, ValueError, KeyError, TimeoutError):
                await asyncio.sleep(0.05)
        announce(f"worker {self.index}  does not listen: see Envoy's message above")

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
        """End the process now: SIGTERM, and SIGKILL for one that does not listen."""
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


class Supervisor:
    """All workers. ``start`` once, then ``stop`` once; ``roll`` in between."""

    def __init__(self, settings: Settings, announce: "Announce") -> None:
        """Raises SettingsError when the workers cannot be hosted here or their certificate cannot be used."""
        self.settings = settings
        self._announce = announce
        self._hosting = find_hosting() if settings.server == "envoy" else None
        if settings.tls_certificate is not None and settings.tls_key is not None:
            from authz.service.ports.tls import ServerCertificate  # takes grpc, which only its workers may need

            ServerCertificate(settings.tls_certificate, settings.tls_key, settings.tls_client_ca)  # tried, not used
        self._directory = Path(tempfile.mkdtemp(prefix="authz-"))
        self._lock = tempfile.TemporaryFile(dir=self._directory)  # noqa: SIM115  # until stop
        self.workers = [self._worker(index) for index in range(worker_count(settings))]
        self.is_stopping = False
        self.is_draining = False
        self._expected: set[int] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._rolling: asyncio.Task[None] | None = None
        self._first_failure: asyncio.Future[AuthzError] | None = None

    def _worker(self, index: int) -> Worker:
        own = self._directory / str(index)
        settings = self.settings.model_copy(
            update={
                "listen": tuple(worker_address(address, index) for address in self.settings.listen),
                "admin": f"unix:{own / 'admin.sock'}" if self.settings.admin else "",
                "workers": 1,
                # Logs are followed by one worker; streams go to whichever a proxy is connected to.
                "access_logs": tuple(name for name in self.settings.access_logs if not index or name == "grpc"),
                "drain_delay_seconds": 0.0,  # the supervisor waits
            }
        )
        return Worker(settings, index, own, self._hosting, self._lock.fileno())

    async def start(self) -> None:
        """
        Start all workers and return when every one listens; health follows when their keys are there.

        Raises:
            LoadError, SettingsError: a worker said why it does not start.
        """
        self._first_failure = asyncio.get_running_loop().create_future()
        self._tasks = [
            asyncio.create_task(self._keep(worker), name=f"worker {worker.index}") for worker in self.workers
        ]
        if not await _first(self._all_serving(), self._first_failure):
            raise self._first_failure.result()
        self._first_failure = None

    async def _all_serving(self) -> None:
        for worker in self.workers:
            await worker.serving.wait()

    async def _keep(self, worker: Worker) -> None:
        """Keep one place filled until the end."""
        loop, pause = asyncio.get_running_loop(), FIRST_PAUSE_SECONDS
        while not self.is_stopping:
            began = loop.time()
            try:
                code = await worker.live(self._announce)
                how = f"by signal {-code}" if code < 0 else f"with code {code}"
            except (OSError, AuthzError) as error:
                how = f"before it began: {error}"
                worker.failure = error if isinstance(error, AuthzError) else SettingsError(str(error))
            if self._first_failure is not None and not self._first_failure.done():
                told = f"worker {worker.index} ended {how} while it started; what it said stands above"
                self._first_failure.set_result(worker.failure or SettingsError(told))
                return
            if self.is_stopping:
                return
            if worker.index in self._expected:
                self._expected.discard(worker.index)
                continue
            worker.restarts += 1
            if loop.time() - began > STEADY_SECONDS:
                pause = FIRST_PAUSE_SECONDS
            _log.error("worker %d ended %s; it starts again in %.1f s", worker.index, how, pause)
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    def roll_soon(self) -> None:
        """Begin to roll; ignored while that is under way."""
        if self._rolling is None or self._rolling.done():
            self._rolling = asyncio.create_task(self.roll(), name="roll")

    async def roll(self) -> None:
        """
        Replace the workers one after another.

        The next one goes when the proxies have seen the last one healthy again. One that does not become so ends the
        rolling: the others keep serving.
        """
        settings = self.settings
        for worker in self.workers:
            self._announce(f"rolling   worker {worker.index}")
            self._expected.add(worker.index)
            await worker.stop(settings.drain_delay_seconds, settings.drain_grace_seconds)
            await asyncio.sleep(0)
            try:
                await asyncio.wait_for(worker.serving.wait(), settings.keys_timeout_seconds + ADDRESS_SECONDS)
            except TimeoutError:
                self._announce(f"rolling   stopped: worker {worker.index} is not ready again, the others stay")
                return
            await asyncio.sleep(settings.drain_delay_seconds)
        self._announce(f"rolled    {len(self.workers)} workers")

    async def stop(self, *, drain: bool = True) -> None:
        """Stop all workers, draining them side by side."""
        self.is_stopping = True
        if self._rolling is not None:
            self._rolling.cancel()
            await asyncio.gather(self._rolling, return_exceptions=True)
        settings = self.settings
        if drain:
            self.is_draining = True
            await asyncio.gather(
                *(w.stop(settings.drain_delay_seconds, settings.drain_grace_seconds) for w in self.workers)
            )
        else:
            await asyncio.gather(*(worker.end(kill=False) for worker in self.workers))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._lock.close()
        shutil.rmtree(self._directory, ignore_errors=True)


async def run(settings: Settings, announce: "Announce") -> None:
    """
    Serve until SIGTERM or SIGINT, with as many workers as the settings say; SIGHUP rolls them.

    Raises:
        LoadError, SettingsError: the start failed.
    """
    settings, why = choose_server(settings)
    if why:
        announce(f"server    {why}")
    if settings.server == "grpcio" and worker_count(settings) == 1:
        from authz.service.app import run as run_in_process  # 40 MB that a supervisor never uses

        await run_in_process(settings, announce)
        return
    from authz.service.workers.admin import WorkersAdmin  # needs httpx, which a single worker may never

    supervisor = Supervisor(settings, announce)
    admin: WorkersAdmin | None = None
    stopping, at_once = asyncio.Event(), asyncio.Event()
    _on_signals(lambda: (at_once if stopping.is_set() else stopping).set(), supervisor.roll_soon)
    try:
        if settings.admin:
            admin = WorkersAdmin(supervisor)
            await admin.start()
            announce(f"admin     {admin.url}/healthz")
        if await _first(supervisor.start(), stopping.wait()):
            announce(f"ready     {len(supervisor.workers)} workers serve")
            await stopping.wait()
        announce("draining  health is NOT_SERVING, press again to stop at once")
        if not await _first(supervisor.stop(), at_once.wait()):
            await supervisor.stop(drain=False)
        announce("stopped")
    except BaseException:
        await supervisor.stop(drain=False)
        raise
    finally:
        if admin is not None:
            await admin.stop()


def _on_signals(stop: Callable[[], object], roll: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGHUP, roll)


async def _first(work: Awaitable[object], other: Awaitable[object]) -> bool:
    """Do both until one is done; True when that is ``work``, whose exceptions pass."""
    tasks = [asyncio.ensure_future(work), asyncio.ensure_future(other)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if tasks[0].done():
            tasks[0].result()
            return True
        return False
    finally:
        for task in tasks:
            task.cancel()  # does nothing to what is done
        await asyncio.gather(*tasks, return_exceptions=True)

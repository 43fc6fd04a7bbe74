"""
Several workers as one server: start them, start again what dies, roll them one after another, stop them.

A worker is a process with addresses of its own (XA-122), grpcio's or an Envoy that hosts it. It is restarted with
growing pauses, and ends with its supervisor: told by the kernel, and by the end of the line between them.
"""

import asyncio
import logging
import shutil
import tempfile
from pathlib import Path
from typing import Any

from authz.core.errors import AuthzError, SettingsError
from authz.service.ports.log import Announce, other_log_level, set_log_level
from authz.service.ports.waiting import first_done
from authz.service.workers.addresses import worker_address, worker_count
from authz.service.workers.envoy_host import (
    find_hosting,
)
from authz.service.workers.line import LOG_LEVEL
from authz.service.workers.place import ADDRESS_SECONDS, Worker
from authz.settings.settings import Settings

_log = logging.getLogger("authz.supervisor")
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0
STEADY_SECONDS = 10.0
"""A worker that lived this long is restarted at once."""


class Supervisor:
    """All workers. ``start`` once, then ``stop`` once; ``roll`` in between."""

    def __init__(self, settings: Settings, announce: Announce) -> None:
        """Raises SettingsError when the workers cannot be hosted here or their certificate cannot be used."""
        self.settings = settings
        self._announce = announce
        self._hosting = find_hosting() if settings.server == "envoy" else None
        if settings.tls_certificate is not None and settings.tls_key is not None:
            from authz.service.ports.server_tls import ServerCertificate  # takes grpc, which only its workers may need

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
                # Logs are followed, and addresses of their own opened, by one worker, which so sees every entry. On
                # the addresses of the check streams go to whichever worker a proxy is connected to.
                "access_logs": tuple(name for name in self.settings.access_logs if not index or name == "grpc"),
                "rate_limits": () if index else self.settings.rate_limits,
                "http_doors": () if index else self.settings.http_doors,
                "access_log_admin": "" if index else self.settings.access_log_admin,
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
        if not await first_done(self._all_serving(), self._first_failure):
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
                told = f"worker {worker.index} ended {how} while it started; its output is above"
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
        """Begin to roll; ignored while rolling is under way, and with a single worker, whom nobody would replace."""
        if len(self.workers) == 1:
            self._announce("SIGHUP    changes nothing here: a single worker is not replaced, and policies are followed")
        elif self._rolling is None or self._rolling.done():
            self._rolling = asyncio.create_task(self.roll(), name="roll")

    async def roll(self) -> None:
        """
        Replace the workers one after another.

        The next one goes when the proxies have seen the last one healthy again. If one does not become healthy, rolling
        ends: the others keep serving.
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

    def tell(self, word: str, **facts: Any) -> None:
        """Pass a word on to every worker that runs."""
        for worker in self.workers:
            worker.tell(word, **facts)

    def switch_log_level(self) -> None:
        """Switch to debug and back, here and in all workers, including those that start later."""
        level = other_log_level(self.settings.log_level)
        set_log_level(level)
        for worker in self.workers:
            worker.settings = worker.settings.model_copy(update={"log_level": level})
        self.tell(LOG_LEVEL, level=level)

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

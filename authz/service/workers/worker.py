"""
One worker under the supervisor: its order, the line over which the two talk, and the grpcio worker's process.

Both kinds of worker, grpcio's and Envoy's, are the same ``App`` and obey the same words: ``not-serving``, then
``finish``. A worker whose supervisor is gone ends itself.
"""

import asyncio
import fcntl
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence

from authz.audit.entry import Entry
from authz.audit.sinks import StreamSink
from authz.core.errors import AuthzError, LoadError
from authz.service.app import App, ServerOf
from authz.service.ports.handshakes import HANDSHAKES
from authz.service.ports.log import log_to_stderr, other_log_level, set_log_level
from authz.service.ports.signals import ignore_ending, on_signals
from authz.service.workers.line import FINISH, LOG_LEVEL, NOT_SERVING, ORDER, REOPEN, Line, Order
from authz.settings.sections import LogSettings

LAST_SECONDS = 30
"""The time left to a worker without a supervisor, whatever it is doing."""


class GuardedStdout(StreamSink):
    """
    Standard output shared by workers.

    A full pipe would let a batch of one worker end up inside another's line, so each holds a lock while it writes.
    """

    def __init__(self, lock: int) -> None:
        super().__init__()
        self._lock = lock

    def write(self, entries: Sequence[Entry]) -> None:
        """Write a batch while holding the lock that all workers share."""
        fcntl.lockf(self._lock, fcntl.LOCK_EX)
        try:
            super().write(entries)
        finally:
            fcntl.lockf(self._lock, fcntl.LOCK_UN)


class SupervisedApp:
    """An ``App`` that reports to a supervisor and does what it is told."""

    def __init__(self, order: Order, line: Line, server: ServerOf | None) -> None:
        self._line = line
        settings = order.settings
        stdout = GuardedStdout(order.stdout_lock)
        self.app = App(settings, lambda text: line.tell("say", text=text), server=server, stdout=stdout)
        self._is_stopped = False

    async def start(self) -> None:
        """Raises what ``App.start`` does."""
        await self.app.start()
        self._line.tell("started", addresses=self.app.server.addresses)
        self._reporting = asyncio.create_task(self._report_health(), name="report")

    async def obey(self) -> bool:
        """Do what is told until the worker has finished; False when the supervisor is gone instead."""
        async for message in self._line.told():
            if message["word"] == NOT_SERVING:
                self.app.is_draining = True
                self.app.server.health.set_serving(False)
            elif message["word"] == REOPEN:
                self.app.trail.reopen()
            elif message["word"] == LOG_LEVEL:
                set_log_level(message["level"])
            elif message["word"] == FINISH:
                await self.stop(drain=True)
                self._line.tell("finished")
                return True
        return False

    async def stop(self, *, drain: bool) -> None:
        """Stop the parts; a second call does nothing."""
        if not self._is_stopped:
            self._is_stopped = True
            self._reporting.cancel()
            await self.app.stop(drain=drain)

    async def _report_health(self) -> None:
        health = self.app.server.health
        while True:
            changed = health.changed
            self._line.tell("serving" if health.is_serving else "not-serving")
            await changed.wait()


def tell_failure(line: Line, error: AuthzError) -> None:
    """Say why the worker does not start; every problem of the policies is in the log already."""
    line.tell("failed", text=str(error), is_load=isinstance(error, LoadError))


async def serve(order: Order) -> int:
    """A grpcio worker, until it has finished. Returns the exit code."""
    line = await Line.over(socket.socket(fileno=order.control))
    if order.settings.tls_certificate is not None:
        HANDSHAKES.of_grpc()
    try:
        worker = SupervisedApp(order, line, None)
        await worker.start()
    except AuthzError as error:
        tell_failure(line, error)
        await line.close()
        return 1
    obeying = asyncio.create_task(worker.obey())
    others: dict[signal.Signals, Callable[[], object]] = {
        signal.SIGINT: lambda: None,  # Ctrl-C is the supervisor's
        signal.SIGUSR1: worker.app.trail.reopen,
        signal.SIGUSR2: lambda: set_log_level(other_log_level(order.settings.log_level)),
    }
    on_signals(obeying.cancel, others, lambda text: line.tell("say", text=text), leave=(signal.SIGALRM,))
    try:
        if not await obeying:
            signal.alarm(LAST_SECONDS)
            await worker.stop(drain=True)
    except asyncio.CancelledError:  # told to by a signal, not by the supervisor
        signal.alarm(LAST_SECONDS)
        await worker.stop(drain=True)
    await line.close()
    return 0


def main() -> int:
    """Serve by the order in the environment; returns the exit code."""
    order = Order.read(os.environ.pop(ORDER))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the supervisor's
    ignore_ending(leave=(signal.SIGALRM,))  # until the worker has started
    log_to_stderr(LogSettings.of(order.settings), order.index)
    return asyncio.run(serve(order))


if __name__ == "__main__":
    sys.exit(main())

"""
The truth of a fleet in NATS JetStream, for callers without an event loop: every method waits, at most ``CALL_SECONDS``.

The client of NATS's maintainers runs in a thread of its own. It reconnects by itself; meanwhile every call fails at
once, for a change that were sent later, when its author believes that it failed, would be worse.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
from concurrent.futures import TimeoutError as NotInTime
from contextlib import suppress
from types import TracebackType
from typing import Any, TypeVar

import nats
import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from authz.core.errors import AuthzError
from authz.truth.failed_connection import FailedConnections
from authz.truth.truth_address import TruthAccess, TruthAddress, refuse_access
from authz.truth.truth_tls import API, API_OF_ROLES, inbox_prefix, path_of, tls_context

log = logging.getLogger("authz.truth")

CALL_SECONDS = 5.0
"""For one call, and for each request of a longer one."""
CONNECT_SECONDS = 2.0
"""For one server."""
PAUSE_SECONDS = 0.5
"""Between two attempts to connect."""
WRONG_LAST_SEQUENCE, NOT_STORED = (10071, 10164), 10077
"""The servers' codes for a condition that did not hold, and where there is no room in a bucket or on the disk."""
_Returned = TypeVar("_Returned")


def _is_news(record: logging.LogRecord) -> bool:
    """Not what asyncio says of every connection that begins with TLS, as those of this client do."""
    return "eof_received()" not in str(record.msg)


class TruthAway(AuthzError):
    """The truth does not answer, or has no majority; what was asked may or may not have happened."""


class TruthUntouched(TruthAway):
    """As before, and what was asked has certainly not happened."""


class TruthChanged(AuthzError):
    """Somebody else changed it meanwhile; nothing was done."""


class TruthRefused(AuthzError):
    """The servers do not allow it, or what is asked for is not there; the message says what."""


class TruthForbidden(TruthRefused):
    """As before, because of the role of this client."""


class TruthClient:
    """One connection. ``begin`` or ``with``; ``stop`` ends it."""

    def __init__(self, address: TruthAddress, access: TruthAccess, *, name: str = "authz") -> None:
        """
        Args:
            address: the servers.
            access: the certificate.
            name: shown by the servers' monitoring.

        Raises:
            SettingsError: address and access do not fit, or a file cannot be used.
        """
        refuse_access(address, access)
        self.address = address
        self.access = access
        self._name = name
        self._tls = tls_context(access)
        self.api = API if self._tls is None else API_OF_ROLES
        """Below it JetStream is asked: without TLS there are no roles."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="truth", daemon=True)
        self._client = Client()
        self._wakes: list[Callable[[], None]] = []
        self._heard: list[tuple[str, Callable[[], None]]] = []
        self._refusals: dict[asyncio.Future[str], str] = {}
        self._connecting: asyncio.Task[None] | None = None
        self._failures = FailedConnections(str(address), tls=self._tls is not None)
        self._subscribing: set[asyncio.Task[None]] = set()

    def begin(self) -> None:
        """Connect in the background, once; calls fail until this has succeeded."""
        if self._thread.is_alive():
            return
        logging.getLogger("asyncio").addFilter(_is_news)
        self._thread.start()
        self._loop.call_soon_threadsafe(self._start)

    def wait(self, seconds: float = CALL_SECONDS) -> bool:
        """Whether it is connected, after at most so many seconds."""
        try:
            return asyncio.run_coroutine_threadsafe(self._until_connected(seconds), self._loop).result(seconds + 1)
        except (NotInTime, RuntimeError):
            return False

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection now; the servers may have no majority all the same."""
        return bool(self._client.is_connected)

    @property
    def server_version(self) -> str:
        """What the server that we are connected to says of itself, ``nats server v2.10.27``; v0.0.0 of none."""
        return repr(self._client.connected_server_version).strip("<>")

    def on_change(self, wake: Callable[[], None]) -> None:
        """Call this after every reconnection, from the client's thread: what was missed must be looked at."""
        self._wakes.append(wake)

    def stop(self) -> None:
        """End the connection and the thread."""
        if not self._thread.is_alive():
            if self._thread.ident is None:  # it was never begun
                self._loop.close()
            return
        with suppress(NotInTime, nats.errors.Error, OSError):  # the servers notice by themselves
            asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(CALL_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CALL_SECONDS)
        if not self._thread.is_alive():
            self._loop.close()

    def __enter__(self) -> "TruthClient":
        """
        Connect, for a command.

        Raises:
            TruthAway: no server answers.
        """
        self.begin()
        if not self.wait():
            self.stop()
            raise TruthAway(str(self._failures))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End it."""
        self.stop()

    def call(
        self,
        work: Callable[[JetStreamContext], Coroutine[Any, Any, _Returned]],
        seconds: float = CALL_SECONDS,
        *,
        each: float = CALL_SECONDS,
        about: str = "",
    ) -> _Returned:
        """
        Run something in the client's thread, and wait for its answer. For the rooms of this package.

        ``each``: seconds for each of its requests. ``about``: a part of every subject that it sends to, by which it
        learns what is not allowed.

        Raises:
            TruthAway: no answer in time.
            TruthChanged: a condition on the revision did not hold.
            TruthRefused: the servers refuse it, or it is not there.
        """
        if not self._client.is_connected:
            raise TruthAway(str(self._failures))
        jetstream = self._client.jetstream(prefix=self.api, timeout=min(seconds, each))
        doing = self._unless_refused(work(jetstream), about)
        future = asyncio.run_coroutine_threadsafe(doing, self._loop)
        try:
            return future.result(seconds + 1)
        except nats.js.errors.ServiceUnavailableError as error:
            cannot = "cannot keep it" if error.err_code == NOT_STORED else "has no majority now"
            raise TruthAway(f"{self.address} {cannot}: {error.description}") from error
        except nats.js.errors.APIError as error:
            is_changed = isinstance(error, nats.js.errors.KeyWrongLastSequenceError)
            if is_changed or error.err_code in WRONG_LAST_SEQUENCE:  # the client's ``delete`` says it so
                raise TruthChanged("somebody else changed it meanwhile") from error
            raise TruthRefused(f"{self.address} refuses it: {error.description or type(error).__name__}") from error
        except (nats.errors.Error, OSError, NotInTime, TimeoutError, CancelledError) as error:
            future.cancel()
            raise TruthAway(f"{self.address} does not answer: {str(error) or type(error).__name__}") from error

    async def ask(self, subject: str) -> bytes:
        """A request that JetStream's client has no method for. For coroutines that ``call`` is given."""
        return bytes((await self._client.request(subject, timeout=CALL_SECONDS)).data)

    def connection(self) -> Client:
        """For coroutines of this package that ``call`` is given."""
        return self._client

    async def _unless_refused(self, work: Coroutine[Any, Any, _Returned], about: str) -> _Returned:
        """What is not allowed is never answered, and the servers say so beside it."""
        refused: asyncio.Future[str] = self._loop.create_future()
        task = self._loop.create_task(work)
        self._refusals[refused] = about
        try:
            await asyncio.wait((task, refused), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise TruthForbidden(f"{self.address} does not allow it: {refused.result()}")
        finally:
            del self._refusals[refused]
            task.cancel()

    def hear(self, subject: str, wake: Callable[[], None]) -> None:
        """
        In the client's thread, call this for whatever is sent to a subject, and when the servers begin to tell of it.

        What changed before they did is not told: so whoever is called has to look by itself.
        """
        self.on_change(wake)
        self._heard.append((subject, wake))
        self._loop.call_soon_threadsafe(self._hear)

    def _hear(self) -> None:
        """Once there is a connection; later the client subscribes again by itself."""
        while self._client.is_connected and self._heard:
            subject, wake = self._heard.pop()
            task = self._loop.create_task(self._subscribe(subject, wake))
            self._subscribing.add(task)
            task.add_done_callback(self._subscribing.discard)

    async def _subscribe(self, subject: str, wake: Callable[[], None]) -> None:
        async def heard(_: Msg) -> None:
            wake()

        try:
            await self._client.subscribe(subject, cb=heard)
            await self._client.flush()
            wake()
        except (nats.errors.Error, OSError) as error:
            log.warning("%s: %s", self.address, error)

    def _start(self) -> None:
        self._connecting = self._loop.create_task(self._connect())

    async def _connect(self) -> None:
        """Until it has succeeded once; later the client does so by itself."""
        while True:
            try:
                await self._client.connect(
                    servers=[f"nats://{server}" for server in self.address.servers],
                    name=self._name,
                    tls=self._tls,
                    tls_hostname=self.access.name or None,
                    tls_handshake_first=self._tls is not None,  # else who is between says that there is no TLS
                    inbox_prefix=inbox_prefix(path_of(self.access)),
                    error_cb=self._on_error,
                    disconnected_cb=self._on_disconnected,
                    reconnected_cb=self._on_reconnected,
                    connect_timeout=int(CONNECT_SECONDS),
                    reconnect_time_wait=PAUSE_SECONDS,  # type: ignore[arg-type]  # it is slept, and a fraction will do
                    max_reconnect_attempts=-1,
                    ping_interval=5,
                    pending_size=0,  # nothing is sent later that failed now
                )
            except (nats.errors.Error, OSError) as error:
                await self._on_error(error)
                await asyncio.sleep(PAUSE_SECONDS)
            else:
                self._failures.end(self.server_version)
                self._hear()
                self._wake()
                return

    async def _until_connected(self, seconds: float) -> bool:
        until = self._loop.time() + seconds
        while not self._client.is_connected and self._loop.time() < until:  # noqa: ASYNC110  # the client has no event
            await asyncio.sleep(0.02)
        return bool(self._client.is_connected)

    async def _close(self) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
        await self._client.close()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _on_error(self, error: Exception) -> None:
        said = str(error)
        log.debug("%s: %s", self.address, said)
        if not self._client.is_connected:
            self._failures.note(error)
        if "permissions violation" in said.lower():
            for refused, about in self._refusals.items():
                if about and about in said and not refused.done():
                    refused.set_result(said.removeprefix("nats: "))

    async def _on_disconnected(self) -> None:
        if self._client.is_closed:
            return
        log.warning("%s: the connection ended", self.address)
        if self._tls is not None and self.access.certificate is not None:
            try:
                self._tls.load_cert_chain(self.access.certificate, self.access.key)
            except OSError as error:
                log.error("%s: %s", self.access.certificate, error)

    async def _on_reconnected(self) -> None:
        log.info("%s: connected again", self.address)
        self._failures.end(self.server_version)
        self._wake()

    def _wake(self) -> None:
        for wake in self._wakes:
            wake()

"""
Where requests are counted: in Redis, for all replicas of the service, or in this process.

Windows are aligned to the clock, so a key names its window and one command to Redis counts. It is the script of the
library ``limits``; what is asked at the same time goes out together, over one connection: with one for each request, a
burst would exhaust them, and go uncounted. Within a process the library is not used, because its memory walks all keys
at every request.
"""

import asyncio
import logging
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

from authz.core.errors import SettingsError

_log = logging.getLogger("authz.rate_limits")
MEMORY = "memory"
PREFIX = "authz"
STORE_SECONDS = 0.15
"""The longest wait for one answer of Redis; a proxy waits a quarter of a second for us."""
EXCHANGE_SECONDS = 0.2
"""The longest time for an exchange with all its tries: a proxy that gave up before us would refuse without a record."""
PAUSE_SECONDS = 1.0
"""The time in which a store that failed is not asked again, so that no request waits for it."""
LATER_SECONDS = 5
"""How much longer than its window a key is kept, for clocks that differ."""
MOST_AT_ONCE = 100
"""Counts in one exchange with Redis; others wait for the next."""
MOST_KEYS = 200_000
"""Counters of one process; each takes some 200 bytes."""
_EXTRA = "install `authz-mesh[limits]`, or set `rate_limit_store` to memory"


class StoreDown(Exception):
    """Nobody can count now; the message says why, for the operator."""


class QuotaStore(Protocol):
    """Counts what was used in a window, by key; where it cannot, it raises StoreDown."""

    async def add(self, key: str, end: float, amount: int, now: float) -> int:
        """Count ``amount`` more in the window that ends at ``end`` (seconds since the epoch); what it has now."""

    async def close(self) -> None:
        """Let go of connections."""


class MemoryStore:
    """For one process alone: counters are lost when it ends, and others do not see them."""

    def __init__(self, most: int = MOST_KEYS) -> None:
        self._most = most
        self._windows: dict[float, dict[str, int]] = {}
        self._next_end = float("inf")

    async def add(self, key: str, end: float, amount: int, now: float) -> int:
        """As ``QuotaStore.add``. A full store fails, rather than forget what others have used."""
        if now >= self._next_end:
            self._windows = {at: counts for at, counts in self._windows.items() if at > now}
        counts = self._windows.setdefault(end, {})
        self._next_end = min(self._windows)
        if key not in counts and sum(map(len, self._windows.values())) >= self._most:
            raise StoreDown(f"{self._most} counters are all that this process keeps: use Redis")
        counts[key] = found = counts.get(key, 0) + amount
        return found

    async def close(self) -> None:
        """Nothing is held."""


class _Count(NamedTuple):
    """Something to be counted, and who waits for it."""

    key: str
    seconds: int
    """Until Redis forgets it."""
    amount: int
    now: float
    found: "asyncio.Future[int]"


class RedisStore:
    """For all replicas. A failure is reported once, and the store left alone for a moment."""

    def __init__(self, url: str, password: str = "", ca: Path | None = None) -> None:
        """Raises SettingsError where the library is missing or the URL cannot be used; no connection is made yet."""
        try:
            from limits.aio.storage import RedisStorage
            from limits.errors import ConfigurationError
            from redis.asyncio.retry import Retry
            from redis.backoff import NoBackoff
        except ImportError as error:
            raise SettingsError(f"setting `rate_limit_store`: the library for Redis is missing: {_EXTRA}") from error
        options: dict[str, object] = {"socket_timeout": STORE_SECONDS, "socket_connect_timeout": STORE_SECONDS}
        if password:
            options["password"] = password
        if ca is not None:
            options["ssl_ca_certs"] = str(ca)
        written = url.replace("unix://", "redis+unix://", 1) if url.startswith("unix://") else url
        # One more try: a connection from before Redis was restarted is found broken only when it is used.
        retry = Retry(NoBackoff(), 1)
        try:
            # Any: what goes out together is not in the library's own interface, but its script is used for it.
            self._storage: Any = RedisStorage(
                f"async+{written}",
                implementation="redispy",
                key_prefix=PREFIX,
                retry=retry,  # type: ignore[arg-type]  # passed on to the client as it is
                **options,  # type: ignore[arg-type]  # passed on to the client as they are
            )
        except (ConfigurationError, ValueError) as error:
            raise SettingsError(f"setting `rate_limit_store`: `{_shown(url)}` cannot be used: {error}") from error
        self._shown = _shown(url)
        self._asked_again_at = 0.0
        self._problem = ""
        self._waiting: list[_Count] = []
        self._exchange: asyncio.Task[None] | None = None

    async def add(self, key: str, end: float, amount: int, now: float) -> int:
        """As ``QuotaStore.add``. What is asked while Redis answers goes out together, in the next exchange."""
        if now < self._asked_again_at:
            raise StoreDown(self._problem)
        found: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Count(key, int(end - now) + LATER_SECONDS, amount, now, found))
        if self._exchange is None or self._exchange.done():
            self._exchange = asyncio.create_task(self._exchange_all(), name="rate limits")
        return await found

    async def _exchange_all(self) -> None:
        while self._waiting:
            asked, self._waiting = self._waiting[:MOST_AT_ONCE], self._waiting[MOST_AT_ONCE:]
            try:
                async with asyncio.timeout(EXCHANGE_SECONDS):
                    counts = [int(count or 0) for count in await self._counts(asked)]
                if len(counts) != len(asked):
                    raise ValueError("it answered something else than it was asked")
            except Exception as error:  # Redis', the network's, or a mistake of ours: nobody may wait for ever
                self._fail(asked, str(error) or type(error).__name__)
                continue
            if self._problem:
                self._problem = ""
                _log.warning("the store of rate limits, %s, answers again", self._shown)
            for one, count in zip(asked, counts, strict=True):
                if not one.found.done():  # the proxy may have given up
                    one.found.set_result(count)

    async def _counts(self, asked: list["_Count"]) -> list[Any]:
        bridge = self._storage.bridge
        async with bridge.get_connection().pipeline(transaction=False) as pipe:
            for one in asked:
                name = bridge.prefixed_key(one.key)
                if one.amount:
                    await bridge.lua_incr_expire([name], [one.seconds, one.amount], client=pipe)
                else:
                    pipe.get(name)
            found: list[Any] = await pipe.execute()
        return found

    def _fail(self, asked: list["_Count"], reason: str) -> None:
        if not self._problem:
            _log.error("the store of rate limits, %s, does not answer: %s", self._shown, reason)
        self._problem = reason
        self._asked_again_at = max(one.now for one in asked) + PAUSE_SECONDS
        waiting, self._waiting = self._waiting, []
        for one in (*asked, *waiting):
            if not one.found.done():
                one.found.set_exception(StoreDown(reason))

    async def close(self) -> None:
        """Close its connections."""
        if self._exchange is not None:
            self._exchange.cancel()
        with suppress(Exception):  # it may be gone
            await self._storage.bridge.get_connection().aclose()


def open_store(url: str, password_file: Path | None = None, ca: Path | None = None) -> QuotaStore:
    """
    The store that the settings name. Raises SettingsError.

    ``url``: ``memory``, ``redis://host:port/db``, ``rediss://…`` with TLS, or ``unix:///path``.
    """
    if url == MEMORY:
        return MemoryStore()
    password = ""
    if password_file is not None:
        try:
            password = password_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            message = f"setting `rate_limit_store_password`: `{password_file}` cannot be read"
            raise SettingsError(message) from error
    return RedisStore(url, password, ca)


def _shown(url: str) -> str:
    """The URL without user and password."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

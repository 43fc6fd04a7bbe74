"""
Key sets from the network: fetched when policies load, refreshed in the background, never waited for by a check.

Follows RA-38 and RA-39; where it departs, the constant says so. Last good keys stay in use while a refresh fails.
Knows neither how a key set is read nor what a state looks like: both are given, since ``tokens`` is another room.
asyncio; only ``hint`` may be called from other threads.
"""

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Generic, Protocol, TypeVar

from authz.core.errors import FetchError
from authz.core.resources import JwtRule
from authz.sources.keys.fetch import discover_key_uri, fetch_json, public_roots
from authz.sources.keys.http_proxy import NO_PROXIES, Proxies
from authz.sources.keys.key_sharing import KeySharing, SharedKeySet
from authz.sources.keys.needs import KeyNeed, key_needs
from authz.sources.keys.schedule import REFRESH_SECONDS, refresh_delay, retry_delay

HINT_SECONDS = 10.0
"""Least seconds between attempts for unknown key ids: the most that a client with made-up tokens can cause."""
DISCARD_SECONDS = 7 * 86400.0
"""A set that could not be refreshed for this long is discarded (RA-39)."""
MAX_PARALLEL_FETCHES = 8

_LOG = logging.getLogger(__name__)


class Keys(Protocol):
    """A key set: how many keys can be used, and why others cannot."""

    def __len__(self) -> int: ...

    @property
    def skipped(self) -> tuple[str, ...]:
        """Keys that are not used, with one line for each that says why."""


K = TypeVar("K", bound=Keys)
S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class KeySourceStatus:
    """One source as health and metrics show it."""

    source: str
    """``uri:<jwksUri>`` or ``oidc:<issuer>``, as ``JwtRule.keys_from``."""
    issuers: tuple[str, ...]
    """Issuers of the rules that use it, sorted; a rule without issuer adds none."""
    keys: int
    fetched_at: float | None
    last_error: str
    """Why the last attempt failed; empty when it succeeded."""
    fetches: int = 0
    """Attempts that gave a key set, since the source became needed."""
    failures: int = 0
    """Attempts that did not."""
    skipped: tuple[str, ...] = ()
    """Which keys of the set are not used and why, one line each."""


@dataclass(slots=True, eq=False)
class _Source(Generic[K]):
    keys_from: str
    need: KeyNeed
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    task: "asyncio.Task[None] | None" = None
    keys: K | None = None
    fetched_at: float | None = None
    error: str = ""
    failures: int = 0
    """Failures in a row."""
    fetches: int = 0
    all_failures: int = 0
    attempted_at: float = float("-inf")
    next_at: float | None = None
    is_hinted: bool = False


class KeySource(Generic[K, S]):
    """
    All key sets that a set of policies needs.

    ``key_sets`` is replaced whole, never edited: read it once per request.
    """

    key_sets: Mapping[str, S]
    """State by ``JwtRule.keys_from``, of every source that is needed, fetched or not."""

    def __init__(
        self,
        read: Callable[[str], K],
        state: Callable[[K | None, float | None, str], S],
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        refresh_seconds: float = REFRESH_SECONDS,
        ca_bundles: Mapping[str, str] | None = None,
        proxies: Proxies = NO_PROXIES,
        on_change: Callable[[Mapping[str, S]], None] | None = None,
        sharing: KeySharing | None = None,
    ) -> None:
        """
        Args:
            read: reads the text of a JWKS; ValueError refuses it.
            state: builds what ``key_sets`` holds from keys (None: never fetched), time of the fetch and last error.
            clock: seconds since the epoch.
            ca_bundles: PEM file by issuer or key URI; such a source trusts this bundle only.
            proxies: those by which issuers beyond this machine are reached.
            on_change: told of every new ``key_sets``.
            sharing: with the other servers of a fleet, one of which fetches for all; None fetches by itself.
        """
        self.key_sets = MappingProxyType({})
        self._read = read
        self._state = state
        self._clock = clock
        self._sleep = sleep
        self._refresh_seconds = refresh_seconds
        self._ca_bundles = dict(ca_bundles or {})
        self._proxies = proxies
        self._on_change = on_change
        self._sharing = sharing
        self._sources: dict[str, _Source[K]] = {}
        self._ready = asyncio.Event()
        self._ready.set()
        self._slots = asyncio.Semaphore(MAX_PARALLEL_FETCHES)
        self._public_roots: ssl.SSLContext | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def is_ready(self) -> bool:
        """Whether every needed source was fetched at least once."""
        return self._ready.is_set()

    def update(self, rules: Iterable[JwtRule]) -> None:
        """
        Fetch for these rules from now on; call it in the event loop.

        A source of both the old and the new rules keeps its keys and its schedule; it is known by its URI, or by the
        issuer to discover it from, so keys never pass to another URI.
        """
        self._loop = asyncio.get_running_loop()
        needs = key_needs(rules)
        for keys_from in self._sources.keys() - needs.keys():
            task = self._sources.pop(keys_from).task
            if task is not None:
                task.cancel()
        for keys_from, need in needs.items():
            known = self._sources.get(keys_from)
            if known is not None:
                known.need = need
                continue
            source = self._sources[keys_from] = _Source[K](keys_from, need)
            source.task = asyncio.create_task(self._run(source), name=f"keys {keys_from}")
        self._publish()

    async def wait_ready(self, timeout_seconds: float) -> bool:
        """Wait until every needed source was fetched once; False when that takes longer than the timeout."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._ready.wait()
        except TimeoutError:
            return False
        return True

    def hint(self, keys_from: str) -> None:
        """
        Say that a token named a key that the source does not have: refresh soon, at most every ``HINT_SECONDS``.

        Cheap, never blocks, safe in any thread; unknown sources are ignored.
        """
        source = self._sources.get(keys_from)
        if source is not None and not source.is_hinted and self._loop is not None:
            source.is_hinted = True
            self._loop.call_soon_threadsafe(source.wake.set)

    def status(self) -> tuple[KeySourceStatus, ...]:
        """Return one row per needed source, sorted by source."""
        return tuple(
            KeySourceStatus(
                source=source.keys_from,
                issuers=source.need.issuers,
                keys=0 if source.keys is None else len(source.keys),
                fetched_at=source.fetched_at,
                last_error=source.error,
                fetches=source.fetches,
                failures=source.all_failures,
                skipped=source.keys.skipped if source.keys is not None else (),
            )
            for _, source in sorted(self._sources.items())
        )

    async def close(self) -> None:
        """Stop refreshing; ``key_sets`` stays as it is."""
        tasks = [source.task for source in self._sources.values() if source.task is not None]
        self._sources.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._sharing is not None:
            await self._sharing.close()

    async def _run(self, source: _Source[K]) -> None:
        while True:
            async with self._slots:
                await self._attempt(source)
            self._publish()
            await self._wait_for_turn(source)

    async def _attempt(self, source: _Source[K]) -> None:
        """Fetch once, all requests together within the timeout (RA-39)."""
        source.attempted_at, source.next_at, source.is_hinted = self._clock(), None, False
        source.wake.clear()
        try:
            got = await self._obtain(source)
            keys = self._read(got.text)
            if not len(keys) and source.keys:
                # In a cluster Envoy refuses such a set and keeps the previous one (RA-37).
                why = f": {'; '.join(keys.skipped)}" if keys.skipped else ""
                raise FetchError(f"{source.keys_from}: the key set has no usable key{why}")
        except TimeoutError:
            self._failed(source, f"{source.keys_from}: no answer within {source.need.timeout_seconds:g} s")
        except (FetchError, ValueError) as error:
            text = str(error)
            self._failed(source, text if isinstance(error, FetchError) else f"{source.keys_from}: {text}")
        except Exception as error:
            # A refresh that dies for good is worse than one that fails for a reason nobody thought of.
            _LOG.exception("fetching the key set of %s", source.keys_from)
            self._failed(source, f"{source.keys_from}: internal error: {type(error).__name__}")
        else:
            if source.failures:
                _LOG.info("key set of %s is available again", source.keys_from)
            if keys.skipped and (source.keys is None or source.keys.skipped != keys.skipped):
                _LOG.warning("key set of %s: not used: %s", source.keys_from, "; ".join(keys.skipped))
            source.keys, source.fetched_at, source.error, source.failures = keys, got.fetched_at, "", 0
            source.fetches += 1
            source.next_at = source.fetched_at + self._good_for(got.headers)

    def _failed(self, source: _Source[K], reason: str) -> None:
        now = self._clock()
        source.failures += 1
        source.all_failures += 1
        source.error = reason
        source.next_at = now + retry_delay(source.failures)
        _LOG.warning("key set of %s not refreshed, attempt %d: %s", source.keys_from, source.failures, reason)
        if source.fetched_at is not None and now - source.fetched_at > DISCARD_SECONDS:
            source.keys = None

    async def _obtain(self, source: _Source[K]) -> SharedKeySet:
        async def fetch() -> tuple[str, Mapping[str, str]]:
            async with asyncio.timeout(source.need.timeout_seconds):
                return await self._fetch(source)

        if self._sharing is None:
            text, headers = await fetch()
            return SharedKeySet(text, headers, self._clock())
        return await self._sharing.obtain(source.keys_from, source.fetched_at, fetch, self._good_for)

    def _good_for(self, headers: Mapping[str, str]) -> float:
        return refresh_delay(headers, self._refresh_seconds)

    async def _fetch(self, source: _Source[K]) -> tuple[str, Mapping[str, str]]:
        context = await self._trust(source)
        uri = source.need.uri or await discover_key_uri(source.keys_from.removeprefix("oidc:"), context, self._proxies)
        document = await fetch_json(uri, context, self._proxies)
        return document.text, document.headers

    async def _trust(self, source: _Source[K]) -> ssl.SSLContext:
        """Return the roots for a source; a private bundle is read each time, so that it can be replaced."""
        for name in (source.need.uri, source.keys_from.removeprefix("oidc:"), *source.need.issuers):
            if name and name in self._ca_bundles:
                path = self._ca_bundles[name]
                try:
                    return ssl.create_default_context(cafile=path)
                except OSError as error:  # ssl.SSLError included
                    raise FetchError(f"CA bundle `{path}`: {error.strerror or error}") from error
        if self._public_roots is None:
            self._public_roots = await asyncio.to_thread(public_roots)
        return self._public_roots

    async def _wait_for_turn(self, source: _Source[K]) -> None:
        """Sleep until the next attempt is due; a hint brings it forward."""
        while source.next_at is not None and (delay := source.next_at - self._clock()) > 0:
            timer = asyncio.ensure_future(self._sleep(delay))
            waker = asyncio.ensure_future(source.wake.wait())
            try:
                await asyncio.wait({timer, waker}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for future in (timer, waker):
                    future.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await future
            if source.wake.is_set():
                source.wake.clear()
                source.next_at = min(source.next_at, source.attempted_at + HINT_SECONDS)

    def _publish(self) -> None:
        self.key_sets = MappingProxyType(
            {name: self._state(source.keys, source.fetched_at, source.error) for name, source in self._sources.items()}
        )
        if all(source.keys is not None for source in self._sources.values()):
            self._ready.set()
        else:
            self._ready.clear()
        if self._on_change is not None:
            self._on_change(self.key_sets)

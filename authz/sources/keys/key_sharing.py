"""
Key sets that the servers of a fleet fetch for one another: one asks the issuer, and the others take what it got.

Whoever wants a newer set than it has looks whether there is one, else takes a lease by compare-and-swap and fetches.
Whoever does not get the lease waits a little for what its holder fetches, and then asks the issuer itself. Nothing
here makes a set unavailable that could be fetched: where the store is away or silent, everything is as without it.

A set with a symmetric or private key is never put there. Who may write to the store decides nothing: a set is taken
only if it is sealed by one who may (``KeyStore.seal``), is of this source, newer than one's own, and so young that it
would not be fetched again yet.
"""

import asyncio
import hashlib
import json
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from authz.core.errors import AuthzError

_LOG = logging.getLogger(__name__)
WAIT_SECONDS = 3.0
"""For the set that somebody else fetches now."""
STORE_SECONDS = 2.0
"""For the store to answer: whoever starts waits for key sets, and not much longer."""
LOOK_SECONDS = 0.2
"""How often whoever waits looks."""
LEASE_SECONDS = 15.0
"""After which a holder is taken for dead."""
CLOCK_SECONDS = 60.0
"""By which the clocks of a fleet may differ."""
MAX_TEXT = 256 << 10
"""A longer set is fetched by everybody."""
_PUBLIC = ("RSA", "EC", "OKP")
_SECRET = frozenset({"d", "k", "p", "q", "dp", "dq", "qi", "oth"})
HEADERS = ("cache-control", "age")
"""What says how long a set is good for."""
_Returned = TypeVar("_Returned")


class KeyStore(Protocol):
    """What a fleet has in common. Called from threads; whatever fails raises AuthzError."""

    def get(self, name: str) -> tuple[bytes, int] | None:
        """A value and its revision; None when there is none."""

    def change(self, name: str, value: bytes, revision: int) -> bool:
        """Replace the value of this revision, 0 for the first; False when it is another by now."""

    def put(self, name: str, value: bytes) -> object:
        """Put a value, whatever there is."""

    def seal(self, payload: Mapping[str, Any]) -> bytes:
        """Sign a payload, so that those who may read it know that one of them wrote it."""

    def unseal(self, data: bytes, now: float) -> Mapping[str, Any]:
        """Read what one of them signed. Raises ValueError."""

    def close(self) -> None:
        """Let go of it."""


@dataclass(frozen=True, slots=True)
class SharedKeySet:
    """The text of a key set, not yet read, as it was fetched here or by another."""

    text: str
    headers: Mapping[str, str]
    """Lower-case names."""
    fetched_at: float
    """Seconds since the epoch."""


AskIssuer = Callable[[], Awaitable[tuple[str, Mapping[str, str]]]]
"""Asks the issuer, in bounded time; raises what says why it could not."""
GoodFor = Callable[[Mapping[str, str]], float]
"""Seconds until a set with these headers is fetched again."""


class KeySharing:
    """asyncio; used by one event loop."""

    def __init__(
        self,
        store: KeyStore,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        holder: str = "",
        store_seconds: float = STORE_SECONDS,
    ) -> None:
        """``holder`` tells this server from the others; by default it is random. Nothing is asked yet."""
        self._store = store
        self._store_seconds = store_seconds
        self._clock = clock
        self._sleep = sleep
        self._holder = holder or secrets.token_hex(8)
        self._problem = ""

    async def obtain(
        self, keys_from: str, newer_than: float | None, fetch: AskIssuer, good_for: GoodFor
    ) -> SharedKeySet:
        """
        Get a key set that is newer than one's own: from another server, or from the issuer for all.

        Raises whatever ``fetch`` does, and nothing else.
        """
        digest = hashlib.sha256(keys_from.encode()).hexdigest()[:40]
        found, is_held = await self._from_others(keys_from, digest, newer_than, good_for)
        if found is not None:
            return found
        try:
            text, headers = await fetch()
            got = SharedKeySet(text, headers, self._clock())
            if is_held is not None and len(text) <= MAX_TEXT and _is_public(text):
                await self._ask(lambda: self._store.put(f"set.{digest}", self._sealed(keys_from, got)))
        finally:
            if is_held:
                await self._ask(lambda: self._store.put(f"lease.{digest}", self._lease(0.0)))
        return got

    async def close(self) -> None:
        """Let go of the store."""
        await asyncio.to_thread(self._store.close)

    async def _from_others(
        self, keys_from: str, digest: str, newer_than: float | None, good_for: GoodFor
    ) -> tuple[SharedKeySet | None, bool | None]:
        """What another got, and whether the lease is ours because nobody did; None: the store cannot be used now."""
        until = self._clock() + WAIT_SECONDS
        while True:
            found = await self._ask(lambda: self._look(keys_from, digest, newer_than, good_for))
            if isinstance(found, SharedKeySet):
                return found, False
            is_held = await self._ask(lambda: self._take_lease(digest)) if found is not None else None
            if is_held is None or is_held or self._clock() >= until:
                return None, is_held
            await self._sleep(LOOK_SECONDS)

    async def _ask(self, work: Callable[[], _Returned]) -> _Returned | None:
        """None when the store cannot be used now, which is told once."""
        try:
            async with asyncio.timeout(self._store_seconds):
                answer = await asyncio.to_thread(work)
        except (AuthzError, TimeoutError) as error:
            why = str(error) or f"no answer within {self._store_seconds:g} s"
            if not self._problem:
                _LOG.warning("key sets are not shared: %s", why)
            self._problem = why
            return None
        if self._problem:
            _LOG.info("key sets are shared again")
            self._problem = ""
        return answer

    def _look(self, keys_from: str, digest: str, newer_than: float | None, good_for: GoodFor) -> SharedKeySet | bool:
        """False when there is none that may be taken."""
        entry = self._store.get(f"set.{digest}")
        if entry is None:
            return False
        now = self._clock()
        try:
            told = self._store.unseal(entry[0], now)
            if told["keys_from"] != keys_from:
                raise ValueError("it is of another source")
            headers = {name: str(value) for name, value in dict(told["headers"]).items() if name in HEADERS}
            found = SharedKeySet(str(told["text"]), headers, float(told["fetched_at"]))
        except (ValueError, KeyError, TypeError) as error:
            _LOG.warning("a shared key set of %s is not taken: %s", keys_from, error)
            return False
        is_young = now - good_for(headers) < found.fetched_at <= now + CLOCK_SECONDS
        return found if is_young and (newer_than is None or found.fetched_at > newer_than) else False

    def _take_lease(self, digest: str) -> bool:
        name, now = f"lease.{digest}", self._clock()
        entry = self._store.get(name)
        if entry is not None and now < _until(entry[0]) <= now + LEASE_SECONDS + CLOCK_SECONDS:
            return False
        return self._store.change(name, self._lease(now + LEASE_SECONDS), entry[1] if entry is not None else 0)

    def _lease(self, until: float) -> bytes:
        return json.dumps({"holder": self._holder, "until": until}).encode()

    def _sealed(self, keys_from: str, got: SharedKeySet) -> bytes:
        headers = {name: value for name, value in got.headers.items() if name in HEADERS}
        return self._store.seal(
            {"keys_from": keys_from, "text": got.text, "headers": headers, "fetched_at": got.fetched_at}
        )


def _is_public(text: str) -> bool:
    """Whether all who read the store may read it: no symmetric key, no private one, nothing that is no key."""
    try:
        keys = json.loads(text)["keys"]
        return all(key["kty"] in _PUBLIC and not key.keys() & _SECRET for key in keys)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False


def _until(lease: bytes) -> float:
    """0 for what is no lease."""
    try:
        return float(json.loads(lease)["until"])
    except (ValueError, KeyError, TypeError):
        return 0.0

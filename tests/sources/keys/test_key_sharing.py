"""Key sets that several servers share, with a store in memory; time is a number."""

import asyncio
import hashlib
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from authz.core.errors import AuthzError, FetchError
from authz.sources.keys.key_sharing import LEASE_SECONDS, MAX_TEXT, WAIT_SECONDS, KeySharing, SharedKeySet
from authz.sources.keys.schedule import refresh_delay

PUBLIC, NEWER = '{"keys": []}', '{"keys": [{"kty": "EC"}]}'
NOW = 1_800_000_000.0
SOURCE = "uri:https://issuer/keys"
DIGEST = hashlib.sha256(SOURCE.encode()).hexdigest()[:40]


@dataclass
class MemoryStore:
    """Changes by compare-and-swap; a value is sealed by its first bytes."""

    values: dict[str, tuple[bytes, int]] = field(default_factory=dict)
    is_away: bool = False
    looks: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, name: str) -> tuple[bytes, int] | None:
        if self.is_away:
            raise AuthzError("away")
        with self.lock:
            self.looks += name.startswith("set.")
            return self.values.get(name)

    def change(self, name: str, value: bytes, revision: int) -> bool:
        with self.lock:
            if self.values.get(name, (b"", 0))[1] != revision:
                return False
            self.values[name] = (value, revision + 1)
            return True

    def put(self, name: str, value: bytes) -> object:
        if self.is_away:
            raise AuthzError("away")
        with self.lock:
            self.values[name] = (value, self.values.get(name, (b"", 0))[1] + 1)
        return None

    def seal(self, payload: Mapping[str, Any]) -> bytes:
        return b"sealed" + json.dumps(payload).encode()

    def unseal(self, data: bytes, now: float) -> Mapping[str, Any]:
        if not data.startswith(b"sealed"):
            raise ValueError("its signature does not fit")
        told: Mapping[str, Any] = json.loads(data.removeprefix(b"sealed"))
        return told

    def close(self) -> None:
        pass


@dataclass
class Fleet:
    """Servers with one store, whose issuer counts how often it is asked."""

    store: MemoryStore = field(default_factory=MemoryStore)
    now: float = NOW
    asked: int = 0
    until: Callable[[], bool] = lambda: True
    """The issuer answers then."""
    error: FetchError | None = None
    text: str = '{"keys": []}'

    def server(self) -> KeySharing:
        return KeySharing(self.store, clock=lambda: self.now, sleep=self.sleep)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0.001)

    async def passing(self, seconds: float) -> None:
        self.now += seconds

    async def fetch(self) -> tuple[str, Mapping[str, str]]:
        self.asked += 1
        while not self.until():  # noqa: ASYNC110  # threads count
            await asyncio.sleep(0.001)
        if self.error is not None:
            raise self.error
        return self.text, {"cache-control": "max-age=600", "set-cookie": "secret"}

    async def obtain(self, server: KeySharing, newer_than: float | None = None) -> SharedKeySet:
        return await server.obtain(SOURCE, newer_than, self.fetch, lambda headers: refresh_delay(headers, 1200))


async def test_one_server_fetches_for_all_when_they_start_and_when_a_key_is_unknown() -> None:
    fleet = Fleet()
    servers = [fleet.server() for _ in range(20)]
    fleet.until = lambda: fleet.store.looks >= 2 * len(servers)  # while it fetches, the others look and wait
    async with asyncio.timeout(20):
        first = await asyncio.gather(*map(fleet.obtain, servers))
        assert (fleet.asked, {one.text for one in first}) == (1, {PUBLIC})
        fleet.now, fleet.text, fleet.store.looks = NOW + 30, NEWER, 0
        hinted = await asyncio.gather(*(fleet.obtain(one, NOW) for one in servers))
    assert (fleet.asked, {one.text for one in hinted}) == (2, {NEWER})
    assert {one.fetched_at for one in hinted} == {NOW + 30}
    assert {one.headers.get("cache-control") for one in hinted} == {"max-age=600"}
    assert not any(b"secret" in value for value, _ in fleet.store.values.values())


async def test_a_store_that_says_nothing_is_asked_once_and_delays_nobody_for_long() -> None:
    fleet, silent = Fleet(), threading.Event()

    class SilentStore(MemoryStore):
        def get(self, name: str) -> tuple[bytes, int] | None:
            self.looks += 1
            silent.wait(10)
            return None

    store = SilentStore()
    server = KeySharing(store, clock=lambda: fleet.now, store_seconds=0.05)
    try:
        async with asyncio.timeout(5):
            got = await fleet.obtain(server)
    finally:
        silent.set()
    assert (got.text, fleet.asked, store.looks, store.values) == (PUBLIC, 1, 1, {})


async def test_a_holder_that_does_nothing_is_not_waited_for_long() -> None:
    fleet = Fleet()
    server = KeySharing(fleet.store, clock=lambda: fleet.now, sleep=fleet.passing)
    fleet.store.put(f"lease.{DIGEST}", json.dumps({"holder": "dead", "until": NOW + LEASE_SECONDS}).encode())
    got = await fleet.obtain(server)
    assert (got.text, fleet.asked) == (PUBLIC, 1)
    assert WAIT_SECONDS <= fleet.now - NOW < WAIT_SECONDS + 1


@pytest.mark.parametrize("until", [b"nonsense", b'{"until": 1}', f'{{"until": {NOW + 9e9}}}'.encode()])
async def test_a_lease_that_has_ended_or_is_none_holds_nobody_up(until: bytes) -> None:
    fleet = Fleet()
    fleet.store.values[f"lease.{DIGEST}"] = (until, 7)
    assert (await fleet.obtain(fleet.server())).text == PUBLIC
    assert fleet.now == NOW
    assert json.loads(fleet.store.values[f"lease.{DIGEST}"][0])["until"] == 0, "and is given back"


async def test_without_the_store_the_issuer_is_asked_at_once() -> None:
    fleet = Fleet(MemoryStore(is_away=True))
    server = fleet.server()
    assert (await fleet.obtain(server)).text == PUBLIC
    fleet.store.is_away = False
    assert (await fleet.obtain(server)).text == PUBLIC
    assert fleet.asked == 2
    assert (await fleet.obtain(server)).text == PUBLIC
    assert fleet.asked == 2, "it is shared again"


async def test_a_holder_that_fails_lets_the_next_one_try_at_once() -> None:
    fleet = Fleet(error=FetchError("https://issuer: Connection refused"))
    with pytest.raises(FetchError, match="Connection refused"):
        await fleet.obtain(fleet.server())
    fleet.error = None
    assert (await fleet.obtain(fleet.server())).text == PUBLIC
    assert (fleet.asked, fleet.now) == (2, NOW)


@pytest.mark.parametrize(
    "changed",
    [
        {"keys_from": "uri:https://other/keys"},
        {"fetched_at": NOW - 601},
        {"fetched_at": NOW + LEASE_SECONDS + 3600},
        {"fetched_at": "soon"},
        {"headers": None},
        {"text": None, "forged": True},
    ],
    ids=["another source", "too old", "of the future", "no time", "no headers", "not sealed"],
)
async def test_a_set_that_may_not_be_taken_is_fetched(changed: dict[str, Any]) -> None:
    fleet = Fleet()
    payload = {"keys_from": SOURCE, "text": "theirs", "headers": {"cache-control": "max-age=600"}, "fetched_at": NOW}
    name = f"set.{DIGEST}"
    fleet.store.put(name, fleet.store.seal(payload))
    assert (await fleet.obtain(fleet.server())).text == "theirs"
    value = fleet.store.seal({**payload, **changed})
    fleet.store.put(name, value.removeprefix(b"sealed") if changed.get("forged") else value)
    assert (await fleet.obtain(fleet.server())).text == PUBLIC


async def test_what_one_has_is_not_taken_for_newer() -> None:
    fleet = Fleet()
    server = fleet.server()
    got = await fleet.obtain(server)
    await fleet.obtain(server, got.fetched_at)
    assert fleet.asked == 2


@pytest.mark.parametrize(
    "text",
    [
        f'{{"keys": []{" " * MAX_TEXT}}}',
        '{"keys": [{"kty": "EC"}, {"kty": "oct", "k": "c2VjcmV0"}]}',
        '{"keys": [{"kty": "RSA", "d": "c2VjcmV0"}]}',
        "no key set",
        '{"keys": [1]}',
    ],
    ids=["too long", "a symmetric key", "a private key", "no key set", "no key"],
)
async def test_what_is_not_for_everybody_is_fetched_by_each(text: str) -> None:
    fleet = Fleet(text=text)
    for server in (fleet.server(), fleet.server()):
        assert (await fleet.obtain(server)).text == text
    assert fleet.asked == 2
    assert not any(name.startswith("set.") for name in fleet.store.values)

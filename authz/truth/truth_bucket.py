"""
Buckets of the truth: values by key with a revision for compare-and-swap, and archives too large for a value.

Revisions count the changes of a bucket, from 1. Reads are answered by the leader, and never go back in time.
"""

import json
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

import nats.js.errors
from nats.js import JetStreamContext
from nats.js.api import KeyValueConfig, ObjectStoreConfig, StorageType
from nats.js.kv import KV_DEL, KV_PURGE, KeyValue

from authz.truth.truth_client import TruthClient, TruthRefused

POLICIES, SECURITY, KEY_SETS, FLEET, ARCHIVES = "policies", "security", "keysets", "fleet", "archives"
"""What buckets are for: revisions of policies and description; the authorities; keys of issuers; who runs what."""
LEDGER = "ledger"
"""What the authorities signed and refused."""
KEEPS = {POLICIES: 64, SECURITY: 1, KEY_SETS: 1, FLEET: 1, LEDGER: 1}
"""Values of a key that a bucket keeps; 64 is the most that NATS does."""
FORGETS_SECONDS = {LEDGER: 40 * 24 * 3600.0}
"""After so long a value is gone: no certificate of a workload lives longer than 30 days."""
MAX_VALUE_BYTES = 512 << 10
_Returned = TypeVar("_Returned")
ARCHIVE_SECONDS = 60.0
"""For an archive to come or go."""


@dataclass(frozen=True, slots=True)
class TruthEntry:
    """One value of a key."""

    key: str
    value: bytes = field(repr=False)
    revision: int
    """For the next change of this key."""
    created: float = 0.0
    """Seconds since the epoch, as the servers say; 0 where they were not asked."""


def bucket_name(fleet: str, what: str) -> str:
    """The name by which NATS knows a bucket; that of its stream has ``KV_`` before it, or ``OBJ_`` for archives."""
    return f"authz-{fleet}-{what}"


def make_buckets(client: TruthClient, replicas: int) -> tuple[str, ...]:
    """
    Make every bucket that is not there, kept by so many servers; return the names of those that were made.

    Raises:
        TruthAway, TruthRefused: as ``TruthClient.call``.
    """

    async def make(js: JetStreamContext) -> tuple[str, ...]:
        made = []
        for what, kept in KEEPS.items():
            name = bucket_name(client.address.fleet, what)
            try:
                await js.key_value(name)
            except nats.js.errors.NotFoundError:
                told = KeyValueConfig(
                    name,
                    history=kept,
                    replicas=replicas,
                    storage=StorageType.FILE,
                    max_value_size=MAX_VALUE_BYTES,
                    ttl=FORGETS_SECONDS.get(what),
                )
                await js.create_key_value(told)
                made.append(name)
        name = bucket_name(client.address.fleet, ARCHIVES)
        try:
            await js.object_store(name)
        except nats.js.errors.NotFoundError:
            await js.create_object_store(name, ObjectStoreConfig(replicas=replicas, storage=StorageType.FILE))
            made.append(name)
        return tuple(made)

    return client.call(make, 30.0)


class TruthBucket:
    """One bucket of values. Every method raises what ``TruthClient.call`` does."""

    def __init__(self, client: TruthClient, what: str) -> None:
        """``what`` is one of ``KEEPS``. Nothing is asked yet."""
        self._client = client
        self.name = bucket_name(client.address.fleet, what)

    def get(self, key: str) -> TruthEntry | None:
        """The newest value; None when there is none, or it was deleted."""

        async def work(store: KeyValue) -> TruthEntry | None:
            try:
                return _entry(await store.get(key))
            except nats.js.errors.KeyNotFoundError:
                return None

        return self._with(work)

    def create(self, key: str, value: bytes) -> int:
        """Put the first value; the revision. Raises TruthChanged when there is one."""
        return self._with(lambda store: store.create(key, value))

    def update(self, key: str, value: bytes, revision: int) -> int:
        """Replace the value of this revision; the new one. Raises TruthChanged when it is another by now."""
        return self._with(lambda store: store.update(key, value, revision))

    def put(self, key: str, value: bytes) -> int:
        """Put a value, whatever there is; the revision."""
        return self._with(lambda store: store.put(key, value))

    def delete(self, key: str, revision: int) -> None:
        """Delete the value of this revision: of several who do so, one succeeds. Raises TruthChanged for others."""
        self._with(lambda store: store.delete(key, revision))

    def entries(self, pattern: str = ">") -> dict[str, TruthEntry]:
        """The newest values by key; ``a.>`` are those below ``a``, ``a.*`` those one step below."""
        return {one.key: one for one in self._listed(pattern, include_history=False) if one.value}

    def history(self, key: str) -> tuple[TruthEntry, ...]:
        """Every kept value of a key, the oldest first."""
        return tuple(one for one in self._listed(key, include_history=True) if one.value)

    def now(self) -> float:
        """The time by the servers' clock, as in ``TruthEntry.created``: seconds since the epoch."""

        async def work(_: JetStreamContext) -> float:
            told = json.loads(await self._client.ask(f"$JS.API.STREAM.INFO.KV_{self.name}"))
            if "error" in told:
                raise TruthRefused(f"the bucket `{self.name}`: {told['error'].get('description')}")
            return datetime.fromisoformat(told["ts"]).timestamp()

        return self._client.call(work)

    def watch(self, pattern: str, wake: Callable[[], None]) -> None:
        """
        Call ``wake`` from the client's thread for every change and every reconnection, as long as there is a client.

        It is a hint, which may be lost: whoever waits looks by itself now and then.
        """
        self._client.on_change(lambda: self._client.run(self._follow(pattern, wake)))
        if self._client.is_connected:
            self._client.run(self._follow(pattern, wake))

    async def _follow(self, pattern: str, wake: Callable[[], None]) -> None:
        wake()
        store = await self._client.context().key_value(self.name)
        watcher = await store.watch(pattern, meta_only=True)
        async for entry in watcher:
            if entry is not None:
                wake()

    def _listed(self, pattern: str, *, include_history: bool) -> list[TruthEntry]:
        async def work(store: KeyValue) -> list[TruthEntry]:
            found: list[TruthEntry] = []
            watcher = await store.watch(pattern, include_history=include_history)
            try:
                async for entry in watcher:
                    if entry is None:
                        break
                    found.append(_entry(entry))
            finally:
                await watcher.stop()  # type: ignore[no-untyped-call]  # theirs
            return found

        return self._with(work)

    def _with(self, work: Callable[[KeyValue], Coroutine[Any, Any, _Returned]]) -> _Returned:
        async def call(js: JetStreamContext) -> _Returned:
            try:
                store = await js.key_value(self.name)
            except nats.js.errors.NotFoundError:
                raise TruthRefused(f"there is no bucket `{self.name}`: make it with `authz truth init`") from None
            return await work(store)

        return self._client.call(call)


class TruthArchives:
    """Archives by name, of any size. Every method raises what ``TruthClient.call`` does."""

    def __init__(self, client: TruthClient) -> None:
        """Nothing is asked yet."""
        self._client = client
        self.name = bucket_name(client.address.fleet, ARCHIVES)

    def put(self, name: str, data: bytes) -> None:
        """Put an archive. The same name must always be the same bytes."""

        async def work(js: JetStreamContext) -> None:
            await (await js.object_store(self.name)).put(name, data)

        self._client.call(work, ARCHIVE_SECONDS)

    def get(self, name: str, most: int) -> bytes | None:
        """Fetch an archive; None when there is none. Raises TruthRefused when it has more than ``most`` bytes."""

        async def work(js: JetStreamContext) -> bytes | None:
            store = await js.object_store(self.name)
            try:
                info = await store.get_info(name)
                if (info.size or 0) > most:
                    raise TruthRefused(f"the archive `{name}` has more than {most} bytes")
                return (await store.get(name)).data
            except nats.js.errors.ObjectNotFoundError:
                return None

        return self._client.call(work, ARCHIVE_SECONDS)

    def delete(self, name: str) -> None:
        """Delete an archive, if it is there."""

        async def work(js: JetStreamContext) -> None:
            try:
                await (await js.object_store(self.name)).delete(name)
            except nats.js.errors.ObjectNotFoundError:
                return

        self._client.call(work)


_DELETED = b""
"""What stands for a deleted value; values are never empty."""


def _entry(found: KeyValue.Entry) -> TruthEntry:
    if found.operation in (KV_DEL, KV_PURGE) or not found.value:
        return TruthEntry(found.key, _DELETED, found.revision or 0)
    created: object = found.created  # the library says that it is a number, and it is a time
    at = created.timestamp() if isinstance(created, datetime) else 0.0
    return TruthEntry(found.key, found.value, found.revision or 0, at)

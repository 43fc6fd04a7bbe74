"""
Buckets of the truth: values by key with a revision for compare-and-swap, and archives too large for a value.

Revisions count the changes of a bucket, from 1. Reads are answered by the leader, and never go back in time.
"""

import asyncio
import base64
import json
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

import nats.js.errors
from nats.js import JetStreamContext
from nats.js.api import ObjectInfo, RawStreamMsg
from nats.js.kv import KV_DEL, KV_OP, KV_PURGE, KeyValue

from authz.truth.truth_client import CALL_SECONDS, TruthClient, TruthRefused

POLICIES, SECURITY, KEY_SETS, FLEET, ARCHIVES = "policies", "security", "keysets", "fleet", "archives"
"""What buckets are for: revisions of policies and description; the authorities; keys of issuers; who runs what."""
LEDGER = "ledger"
"""What the authorities signed and refused."""
KEEPS = {POLICIES: 64, SECURITY: 1, KEY_SETS: 1, FLEET: 1, LEDGER: 1}
"""Values of a key that a bucket keeps; 64 is the most that NATS does."""
MAX_VALUE_BYTES = 512 << 10
_Returned = TypeVar("_Returned")
ARCHIVE_SECONDS = 60.0
"""For an archive to come or go."""
LIST_SECONDS = 30.0
"""For all values of a bucket, or all that are kept of a key."""
AT_ONCE = 64
"""Values that are asked for at the same time."""
_NO_STREAM = 10059
"""The servers' code."""


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


def stream_of(fleet: str, what: str) -> str:
    """The name of the stream that a bucket is."""
    return f"{'OBJ' if what == ARCHIVES else 'KV'}_{bucket_name(fleet, what)}"


def change_subject(fleet: str, what: str, pattern: str) -> str:
    """Where a change is told after it was kept: a bucket's key, or a pattern of keys."""
    return f"authz.changed.{fleet}.{what}.{pattern}"


class TruthFlooded(TruthRefused):
    """There is more than anybody would have written who means well."""


class TruthBucket:
    """One bucket of values. Every method raises what ``TruthClient.call`` does."""

    def __init__(self, client: TruthClient, what: str, *, seconds: float = CALL_SECONDS) -> None:
        """``what`` is one of ``KEEPS``; ``seconds``: for each answer. Nothing is asked yet."""
        self._client = client
        self._seconds = seconds
        self._what = what
        self.name = bucket_name(client.address.fleet, what)
        self._stream = stream_of(client.address.fleet, what)
        self._before = f"$KV.{self.name}."

    def get(self, key: str) -> TruthEntry | None:
        """The newest value; None when there is none, or it was deleted."""

        async def work(js: JetStreamContext) -> TruthEntry | None:
            try:
                return self._entry(await js.get_msg(self._stream, subject=f"{self._before}{key}"))
            except nats.js.errors.NotFoundError as error:
                if error.err_code == _NO_STREAM:
                    raise
                return None

        found = self._ask(work, self._seconds)
        return found if found is not None and found.value else None

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

    def entries(self, pattern: str = ">", *, most: int = 0) -> dict[str, TruthEntry]:
        """
        The newest values by key; ``a.>`` are those below ``a``, ``a.*`` those one step below.

        Raises TruthFlooded: there are more keys than ``most``, where that is not 0.
        """

        async def work(js: JetStreamContext) -> list[TruthEntry]:
            info = await js.stream_info(self._stream, subjects_filter=f"{self._before}{pattern}")
            subjects = sorted(info.state.subjects or ())
            if most and len(subjects) > most:
                raise TruthFlooded(f"more than {most} keys are below `{pattern}` in the bucket `{self.name}`")
            found: list[TruthEntry] = []
            for at in range(0, len(subjects), AT_ONCE):
                asked = (js.get_msg(self._stream, subject=subject) for subject in subjects[at : at + AT_ONCE])
                found += map(self._entry, await asyncio.gather(*asked))
            return found

        return {one.key: one for one in self._ask(work, LIST_SECONDS) if one.value}

    def history(self, key: str) -> tuple[TruthEntry, ...]:
        """Every kept value of a key, the oldest first."""

        async def work(js: JetStreamContext) -> tuple[TruthEntry, ...]:
            found: list[TruthEntry] = []
            at = 1
            try:
                while True:
                    message = await js.get_msg(self._stream, seq=at, subject=f"{self._before}{key}", next=True)
                    found.append(self._entry(message))
                    at = found[-1].revision + 1
            except nats.js.errors.NotFoundError as error:
                if error.err_code == _NO_STREAM:
                    raise
            return tuple(one for one in found if one.value)

        return self._ask(work, LIST_SECONDS)

    def now(self) -> float:
        """The time by the servers' clock, as in ``TruthEntry.created``: seconds since the epoch."""

        async def work(_: JetStreamContext) -> float:
            told = json.loads(await self._client.ask(f"{self._client.api}.STREAM.INFO.{self._stream}"))
            if "error" in told:
                raise TruthRefused(f"the bucket `{self.name}`: {told['error'].get('description')}")
            return datetime.fromisoformat(told["ts"]).timestamp()

        return self._client.call(work, about=self.name)

    def watch(self, pattern: str, wake: Callable[[], None]) -> None:
        """
        Call ``wake`` from the client's thread for every change and every reconnection, as long as there is a client.

        It is a hint, which may be lost: whoever waits looks by itself now and then.
        """
        self._client.hear(change_subject(self._client.address.fleet, self._what, pattern), wake)

    def _ask(self, work: Callable[[JetStreamContext], Coroutine[Any, Any, _Returned]], seconds: float) -> _Returned:
        async def call(js: JetStreamContext) -> _Returned:
            try:
                return await work(js)
            except nats.js.errors.NotFoundError as error:
                if error.err_code == _NO_STREAM:
                    raise _without_bucket(self.name) from None
                raise

        return self._client.call(call, seconds, each=self._seconds, about=self.name)

    def _entry(self, message: RawStreamMsg) -> TruthEntry:
        operation = (message.headers or {}).get(KV_OP)
        is_gone = operation in (KV_DEL, KV_PURGE)
        at = message.time.timestamp() if message.time is not None else 0.0
        key = (message.subject or "").removeprefix(self._before)
        return TruthEntry(key, _DELETED if is_gone else message.data or _DELETED, message.seq or 0, at)

    def _with(self, work: Callable[[KeyValue], Coroutine[Any, Any, _Returned]]) -> _Returned:
        async def call(js: JetStreamContext) -> _Returned:
            try:
                store = await js.key_value(self.name)
            except nats.js.errors.NotFoundError:
                raise _without_bucket(self.name) from None
            return await work(store)

        return self._client.call(call, self._seconds, about=self.name)


class TruthArchives:
    """Archives by name, of any size. Every method raises what ``TruthClient.call`` does."""

    def __init__(self, client: TruthClient) -> None:
        """Nothing is asked yet."""
        self._client = client
        self.name = bucket_name(client.address.fleet, ARCHIVES)
        self._stream = stream_of(client.address.fleet, ARCHIVES)

    def put(self, name: str, data: bytes) -> None:
        """Put an archive. The same name must always be the same bytes."""

        async def work(js: JetStreamContext) -> None:
            await (await js.object_store(self.name)).put(name, data)

        self._client.call(work, ARCHIVE_SECONDS, about=self.name)

    def get(self, name: str, most: int) -> bytes | None:
        """
        Fetch an archive; None when there is none. What it is, its reader judges.

        Raises:
            TruthRefused: it has more than ``most`` bytes, or is not whole.
        """
        before = f"$O.{self.name}"

        async def work(js: JetStreamContext) -> bytes | None:
            store = await js.object_store(self.name)
            try:
                info: ObjectInfo = await store.get_info(name)
            except nats.js.errors.ObjectNotFoundError:
                return None
            except (nats.js.errors.BadObjectMetaError, ValueError, TypeError, KeyError):
                raise TruthRefused(f"what is said of the archive `{name}` is damaged") from None
            size = info.size or 0
            if size > most:
                raise TruthRefused(f"the archive `{name}` has more than {most} bytes")
            data = bytearray()
            at = 1
            while len(data) < size:
                try:
                    part = await js.get_msg(self._stream, seq=at, subject=f"{before}.C.{info.nuid}", next=True)
                except nats.js.errors.NotFoundError:
                    raise TruthRefused(f"the archive `{name}` is not whole") from None
                data += part.data or b""
                at = (part.seq or at) + 1
            if len(data) != size:
                raise TruthRefused(f"the archive `{name}` is not whole")
            return bytes(data)

        return self._client.call(work, ARCHIVE_SECONDS, about=self.name)

    def names(self) -> tuple[str, ...]:
        """Every archive that there is, and whatever else has a name there."""
        before = f"$O.{self.name}.M."

        async def work(js: JetStreamContext) -> tuple[str, ...]:
            info = await js.stream_info(self._stream, subjects_filter=f"{before}>")
            return tuple(sorted(_archive_name(one.removeprefix(before)) for one in info.state.subjects or ()))

        return self._client.call(work, ARCHIVE_SECONDS, about=self.name)

    def delete(self, name: str) -> None:
        """Delete an archive, if it is there, so that nothing of it stays."""

        async def work(js: JetStreamContext) -> None:
            try:
                info: ObjectInfo = await (await js.object_store(self.name)).get_info(name, show_deleted=True)
            except nats.js.errors.ObjectNotFoundError:
                return
            encoded = base64.urlsafe_b64encode(name.encode()).decode()
            for subject in (f"$O.{self.name}.M.{encoded}", f"$O.{self.name}.C.{info.nuid}"):
                await js.purge_stream(self._stream, subject=subject)

        self._client.call(work, about=self.name)


_DELETED = b""
"""What stands for a deleted value; values are never empty."""


def _archive_name(encoded: str) -> str:
    try:
        return base64.urlsafe_b64decode(encoded).decode()
    except ValueError:  # somebody else's
        return encoded


def _without_bucket(name: str) -> TruthRefused:
    return TruthRefused(f"there is no bucket `{name}`: make it with `authz truth init`")

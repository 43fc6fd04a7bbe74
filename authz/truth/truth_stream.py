"""
A stream of the truth: records that are appended, kept in order, and read again by whoever may.

Written at least once: a record that was sent and not acknowledged is sent again. The servers drop what they have seen
within ``SEEN_SECONDS``; what comes again later has a subject of its own, by which readers know what to look at twice.
"""

import asyncio
import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import nats.errors
import nats.js.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js import JetStreamContext
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    ConsumerInfo,
    DeliverPolicy,
    DiscardPolicy,
    Header,
    StorageType,
    StreamConfig,
)

from authz.truth.truth_bucket import bucket_name
from authz.truth.truth_client import CALL_SECONDS, TruthAway, TruthClient, TruthRefused

AUDIT = "audit"
"""What streams are for: records of decisions."""
FIRST, AGAIN = "first", "again"
"""The last part of a subject: sent for the first time, or after a time that was not acknowledged."""
SEEN_SECONDS = 120.0
"""How long the servers know the keys of records that they have."""
MAX_IN_FLIGHT = 512
"""Records that wait for an acknowledgement at once."""
PAGE = 500
"""Records that are read at once."""
ATTEMPTS = 3
"""To read the same page, when servers change in the middle."""
_IDLE_SECONDS = 60.0
"""After which the servers forget a reader that went away."""
_PULL_SECONDS = 1.0
_LOOK_SECONDS = 0.1
"""How often whoever waits for acknowledgements looks whether there is still a connection."""
_NO_RESPONDERS = "503"


@dataclass(frozen=True, slots=True)
class StreamRecord:
    """One record, to be written."""

    key: str
    """Equal keys are one record."""
    data: bytes = field(repr=False)
    is_again: bool = False
    """Whether it was sent before without an answer."""


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """One record as the servers have it."""

    sequence: int
    """Its place, from 1."""
    key: str
    data: bytes = field(repr=False)
    is_again: bool


@dataclass(frozen=True, slots=True)
class StreamBegin:
    """Where reading begins: at a place, or at a time."""

    sequence: int = 1
    at: float | None = None
    """What the servers got since then, in seconds since the epoch, where the place is the first."""


def stream_name(fleet: str, what: str = AUDIT) -> str:
    """The name by which NATS knows a stream."""
    return bucket_name(fleet, what)


def stream_subject(fleet: str, kind: str, what: str = AUDIT) -> str:
    """Where records are written: ``FIRST`` or ``AGAIN``; ``>`` stands for both."""
    return f"authz.{fleet}.{what}.{kind}"


def make_stream(client: TruthClient, replicas: int, *, max_bytes: int = 0, max_age_seconds: float = 0.0) -> bool:
    """
    Make the stream of audit records, kept by so many servers; False when it is there.

    Nobody can delete single records or empty it. Where ``max_bytes`` is reached, new records are refused rather than
    old ones forgotten; what is older than ``max_age_seconds`` goes. 0 is no bound.

    Raises:
        TruthAway, TruthRefused: as ``TruthClient.call``.
    """
    name = stream_name(client.address.fleet)
    told = StreamConfig(
        name=name,
        subjects=[stream_subject(client.address.fleet, ">")],
        storage=StorageType.FILE,
        num_replicas=replicas,
        discard=DiscardPolicy.NEW,
        max_bytes=max_bytes or -1,
        max_age=max_age_seconds,
        duplicate_window=min(SEEN_SECONDS, max_age_seconds) if max_age_seconds else SEEN_SECONDS,
        deny_delete=True,
        deny_purge=True,
    )

    async def make(js: JetStreamContext) -> bool:
        try:
            await js.stream_info(name)
        except nats.js.errors.NotFoundError:
            await js.add_stream(told)
            return True
        return False

    return client.call(make, 30.0)


class TruthStream:
    """The stream of audit records. Every method raises what ``TruthClient.call`` does."""

    def __init__(self, client: TruthClient) -> None:
        """Nothing is asked yet."""
        self._client = client
        self.name = stream_name(client.address.fleet)
        self._inbox = ""
        self._acks: Subscription | None = None
        self._waiting: _Acknowledged | None = None

    def publish(self, records: Sequence[StreamRecord], seconds: float = CALL_SECONDS) -> None:
        """
        Write records, at most ``MAX_IN_FLIGHT``, and wait until the servers have every one of them.

        Raises:
            TruthAway, TruthRefused: some may have been written; all of them are to be sent again, as such.
        """
        self._client.call(lambda _: self._publish(records, seconds), seconds)

    def last(self) -> int:
        """The sequence of the newest record; 0 where there is none."""

        async def ask(js: JetStreamContext) -> int:
            try:
                return (await js.stream_info(self.name)).state.last_seq
            except nats.js.errors.NotFoundError:
                raise TruthRefused(f"there is no stream `{self.name}`: make it with `authz truth init`") from None

        return self._client.call(ask)

    def read(self, begin: StreamBegin, until: int, kind: str = ">") -> Iterator[StoredRecord]:
        """
        Read the records up to a sequence, in order. Nothing of the reader stays on the servers.

        ``kind`` is as for ``stream_subject``.
        """
        reader = StreamReader(self._client, begin, kind)
        try:
            while page := reader.page():
                for stored in page:
                    if stored.sequence > until:
                        return
                    yield stored
        finally:
            reader.stop()

    async def _publish(self, records: Sequence[StreamRecord], seconds: float) -> None:
        connection = self._client.connection()
        if self._acks is None:
            self._inbox = connection.new_inbox()
            self._acks = await connection.subscribe(f"{self._inbox}.*", cb=self._acknowledge)
        waiting = self._waiting = _Acknowledged(len(records), connection.new_inbox()[-6:])
        fleet = self._client.address.fleet
        first, again = stream_subject(fleet, FIRST), stream_subject(fleet, AGAIN)
        try:
            for number, record in enumerate(records):
                await connection.publish(
                    again if record.is_again else first,
                    record.data,
                    reply=f"{self._inbox}.{waiting.mark}-{number}",
                    headers={Header.MSG_ID.value: record.key, Header.EXPECTED_STREAM.value: self.name},
                )
            async with asyncio.timeout(seconds):
                while not waiting.is_over.is_set():
                    if not connection.is_connected:
                        raise TruthAway(f"{self._client.address} does not answer: the connection ended")
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(waiting.is_over.wait(), _LOOK_SECONDS)
        except TimeoutError:
            subject = stream_subject(fleet, ">")
            raise TruthAway(
                f"{self._client.address} did not acknowledge records; may this client write to `{subject}`?"
            ) from None
        finally:
            self._waiting = None
        if waiting.error is not None:
            raise waiting.error

    async def _acknowledge(self, message: Msg) -> None:
        waiting = self._waiting
        mark, _, number = message.subject.rpartition(".")[2].partition("-")
        if waiting is None or mark != waiting.mark:
            return  # of records that are going to be sent again
        if message.headers and message.headers.get(Header.STATUS.value) == _NO_RESPONDERS:
            waiting.fail(TruthAway(f"there is no stream `{self.name}` now: `authz truth init` makes it"))
        elif b'"error"' in message.data:
            told = json.loads(message.data)["error"]
            text = f"{self._client.address} refuses records: {told.get('description', 'no reason given')}"
            waiting.fail(TruthAway(text) if told.get("code") == 503 else TruthRefused(text))
        else:
            waiting.take(int(number))


class _Acknowledged:
    """The acknowledgements of some records that are on their way."""

    def __init__(self, number: int, mark: str) -> None:
        self.mark = mark
        """Tells them from those of earlier records."""
        self.is_over = asyncio.Event()
        self.error: TruthAway | TruthRefused | None = None
        self._missing = set(range(number))
        if not number:
            self.is_over.set()

    def take(self, number: int) -> None:
        self._missing.discard(number)
        if not self._missing:
            self.is_over.set()

    def fail(self, error: TruthAway | TruthRefused) -> None:
        self.error = self.error or error
        self.is_over.set()


class StreamReader:
    """Reads a stream in pages, each once. Its methods raise what ``TruthClient.call`` does."""

    def __init__(self, client: TruthClient, begin: "StreamBegin" = StreamBegin(), kind: str = ">") -> None:
        """``kind`` as for ``stream_subject``. Nothing is asked yet."""
        self._client = client
        self._at = begin.at
        self._name = stream_name(client.address.fleet)
        self._subject = stream_subject(client.address.fleet, kind)
        self._last = begin.sequence - 1
        """Sequence of the last record that was read."""
        self._pulls: JetStreamContext.PullSubscription | None = None
        self._delivered = 0
        self._left = 0

    def page(self) -> list[StoredRecord]:
        """
        The next records in order, at most ``PAGE``; empty when there are none now, and later there may be.

        Raises:
            TruthAway: servers changed and it did not work again either.
        """
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._client.call(self._page)
            except TruthAway:
                self._forget()
                if attempt == ATTEMPTS or not self._client.wait():
                    raise
        raise AssertionError("the last attempt returns or raises")

    def stop(self) -> None:
        """Let the servers forget this reader now rather than soon."""
        if self._pulls is None:
            return
        with contextlib.suppress(TruthAway, TruthRefused):

            async def end(js: JetStreamContext) -> None:
                name = self._pulls._consumer if self._pulls is not None else ""  # they tell it nowhere else
                await js.delete_consumer(self._name, str(name))

            self._client.call(end)
        self._forget()

    def _forget(self) -> None:
        self._pulls = None

    async def _page(self, js: JetStreamContext) -> list[StoredRecord]:
        if self._pulls is None:
            await self._begin(js)
        pulls = self._pulls
        assert pulls is not None
        if not self._left:
            self._left = (await pulls.consumer_info()).num_pending or 0
            if not self._left:
                return []
        try:
            messages = await pulls.fetch(min(PAGE, self._left), timeout=_PULL_SECONDS)
        except nats.errors.TimeoutError:
            self._left = 0
            raise
        page: list[StoredRecord] = []
        for message in messages:
            told = message.metadata
            self._delivered += 1
            if told.sequence.consumer != self._delivered:  # one was lost on its way: go on behind the last one
                self._forget()
                break
            self._last, self._left = told.sequence.stream, told.num_pending
            key = (message.headers or {}).get(Header.MSG_ID.value, "")
            is_again = message.subject.endswith(f".{AGAIN}")
            page.append(StoredRecord(told.sequence.stream, key, message.data, is_again))
        if not page:
            raise nats.errors.Error("records were lost on their way")  # and are asked for again
        return page

    async def _begin(self, js: JetStreamContext) -> None:
        told = ConsumerConfig(
            ack_policy=AckPolicy.NONE, inactive_threshold=_IDLE_SECONDS, mem_storage=True, num_replicas=1
        )
        if self._last > 0:
            told.deliver_policy, told.opt_start_seq = DeliverPolicy.BY_START_SEQUENCE, self._last + 1
        elif self._at is not None:
            at = datetime.fromtimestamp(self._at, UTC)
            told.deliver_policy, told.opt_start_time = DeliverPolicy.BY_START_TIME, at
        try:
            self._pulls = await js.pull_subscribe(self._subject, stream=self._name, config=told)
        except nats.js.errors.NotFoundError:
            raise TruthRefused(f"there is no stream `{self._name}`: make it with `authz truth init`") from None
        info: ConsumerInfo = await self._pulls.consumer_info()
        self._delivered, self._left = 0, info.num_pending or 0

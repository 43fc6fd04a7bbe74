"""Reading a stream of the truth: in order, each record once, from a place or a time; readers leave nothing behind."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import nats.errors
import nats.js.errors
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, ConsumerInfo, DeliverPolicy, Header

from authz.truth.truth_client import TruthAway, TruthClient, TruthRefused
from authz.truth.truth_stream import AGAIN, stream_name, stream_subject

PAGE = 500
"""Records that are read at once."""
ATTEMPTS = 3
"""To read the same page, when servers change in the middle."""
_IDLE_SECONDS = 60.0
"""After which the servers forget a reader that went away."""
_PULL_SECONDS = 1.0


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


def read_stream(client: TruthClient, begin: StreamBegin, until: int, kind: str = ">") -> Iterator[StoredRecord]:
    """
    Read the records up to a sequence, in order. Nothing of the reader stays on the servers.

    ``kind`` is as for ``stream_subject``.

    Raises:
        TruthAway, TruthRefused: as ``TruthClient.call``.
    """
    reader = StreamReader(client, begin, kind)
    try:
        while page := reader.page():
            for stored in page:
                if stored.sequence > until:
                    return
                yield stored
    finally:
        reader.stop()


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

"""
A stream of the truth: records that are appended, kept in order, and read again by whoever may.

Written at least once: a record that was sent and not acknowledged is sent again. The servers drop what they have seen
within ``SEEN_SECONDS``; what comes again later has a subject of its own, by which readers know what to look at twice.
"""

import asyncio
import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import nats.errors
import nats.js.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js import JetStreamContext
from nats.js.api import (
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

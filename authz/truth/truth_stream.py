"""
A stream of the truth: records that are appended, kept in order, and read again by whoever may.

Written at least once: a record that was sent and not acknowledged is sent again. The servers drop what they have seen
within ``SEEN_SECONDS``; what comes again later has a subject of its own, by which readers know what to look at twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import nats.errors
import nats.js.errors
from nats.js import JetStreamContext
from nats.js.api import (
    DiscardPolicy,
    Header,
    StorageType,
    StreamConfig,
)

from authz.truth.many_answers import ManyAnswers, TruthRequest
from authz.truth.truth_bucket import bucket_name
from authz.truth.truth_client import CALL_SECONDS, TruthClient, TruthRefused

AUDIT = "audit"
"""What streams are for: records of decisions."""
FIRST, AGAIN = "first", "again"
"""The last part of a subject: sent for the first time, or after a time that was not acknowledged."""
SEEN_SECONDS = 120.0
"""How long the servers know the keys of records that they have."""
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
        self._answers = ManyAnswers(client)
        fleet = client.address.fleet
        self._first, self._again = stream_subject(fleet, FIRST), stream_subject(fleet, AGAIN)

    def publish(self, records: Sequence[StreamRecord], seconds: float = CALL_SECONDS) -> None:
        """
        Write records, at most ``MAX_IN_FLIGHT``, and wait until the servers have every one of them.

        Raises:
            TruthAway, TruthRefused: some may have been written; all of them are to be sent again, as such.
        """
        told = [
            TruthRequest(
                self._again if record.is_again else self._first,
                record.data,
                {Header.MSG_ID.value: record.key, Header.EXPECTED_STREAM.value: self.name},
            )
            for record in records
        ]
        for answer in self._answers.ask(told, seconds):
            if "error" in answer:
                why = answer["error"].get("description", "no reason given")
                raise TruthRefused(f"{self._client.address} refuses records: {why}")

    def extent(self) -> tuple[int, int]:
        """The sequences of the oldest and the newest record; the second is the smaller where there are none."""

        async def ask(js: JetStreamContext) -> tuple[int, int]:
            try:
                state = (await js.stream_info(self.name)).state
            except nats.js.errors.NotFoundError:
                raise TruthRefused(f"there is no stream `{self.name}`: make it with `authz truth init`") from None
            return state.first_seq, state.last_seq

        return self._client.call(ask)

"""
Reading a stream of the truth: in order, each record once, from a place or a time.

Records are asked for by their place, many at once, so that a reader is nothing that the servers know of.
"""

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from authz.truth.many_answers import ManyAnswers, TruthRequest
from authz.truth.truth_client import CALL_SECONDS, TruthAway, TruthClient, TruthRefused
from authz.truth.truth_stream import AGAIN, TruthStream, stream_name, stream_subject

PAGE = 256
"""Records that are asked for at once."""
ATTEMPTS = 3
"""To read the same page, when servers change in the middle."""
_NO_MESSAGE = 10037
"""The servers' code."""


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """One record as the servers have it."""

    sequence: int
    """Its place, from 1."""
    data: bytes = field(repr=False)
    at: float
    """When the servers got it, seconds since the epoch."""


class StreamReader:
    """Every method raises what ``TruthClient.call`` does."""

    def __init__(self, client: TruthClient) -> None:
        """Nothing is asked yet."""
        self._client = client
        self._stream = TruthStream(client)
        self._answers = ManyAnswers(client)
        fleet = client.address.fleet
        self._subject = f"{client.api}.STREAM.MSG.GET.{stream_name(fleet)}"
        self._again = stream_subject(fleet, AGAIN)

    def extent(self) -> tuple[int, int]:
        """As ``TruthStream.extent``."""
        return self._stream.extent()

    def first_since(self, at: float, first: int, last: int) -> int:
        """The place of the first record between these that the servers got then or later; ``last + 1``: none."""
        while first <= last:
            middle = (first + last) // 2
            found = self._get([{"seq": middle}])[0]
            if found is None or found.at < at:  # what is not there any longer is older
                first = middle + 1
            else:
                last = middle - 1
        return first

    def records(self, first: int, last: int) -> Iterator[StoredRecord]:
        """The records between these places, both included; what is not there any longer is left out."""
        for begin in range(first, last + 1, PAGE):
            places = range(begin, min(begin + PAGE, last + 1))
            yield from filter(None, self._get([{"seq": place} for place in places]))

    def sent_again(self, first: int, last: int) -> Iterator[StoredRecord]:
        """Those of them that were sent before without an answer: few."""
        while first <= last:
            found = self._get([{"seq": first, "next_by_subj": self._again}])[0]
            if found is None or found.sequence > last:
                return
            yield found
            first = found.sequence + 1

    def _get(self, wanted: list[dict[str, Any]]) -> list[StoredRecord | None]:
        requests = [TruthRequest(self._subject, json.dumps(one).encode()) for one in wanted]
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return [self._stored(answer) for answer in self._answers.ask(requests, CALL_SECONDS)]
            except TruthAway:
                if attempt == ATTEMPTS or not self._client.wait():
                    raise
        raise AssertionError("the last attempt returns or raises")

    def _stored(self, answer: dict[str, Any]) -> StoredRecord | None:
        if "error" in answer:
            if answer["error"].get("err_code") == _NO_MESSAGE:
                return None
            raise TruthRefused(f"{self._client.address} refuses to read: {answer['error'].get('description')}")
        told = answer["message"]
        at = datetime.fromisoformat(told["time"]).timestamp()
        return StoredRecord(told["seq"], base64.b64decode(told.get("data", "")), at)

"""Many requests at once over one connection, each with its answer: a tenth of the work of asking one by one."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from nats.aio.msg import Msg
from nats.js.api import Header

from authz.truth.truth_client import TruthAway, TruthClient, TruthRefused

MAX_IN_FLIGHT = 512
"""Requests without an answer at the same time."""
_LOOK_SECONDS = 0.1
"""How often whoever waits looks whether there is still a connection."""
_NO_RESPONDERS = "503"
_UNAVAILABLE = 503


@dataclass(frozen=True, slots=True)
class TruthRequest:
    """One request."""

    subject: str
    data: bytes = field(repr=False)
    headers: Mapping[str, str] | None = None


class ManyAnswers:
    """Used by one thread at a time."""

    def __init__(self, client: TruthClient) -> None:
        """Nothing is asked yet."""
        self._client = client
        self._inbox = ""
        self._mark = 0
        """Tells answers from those to earlier requests."""
        self._answers: dict[str, Msg] = {}
        self._wanted = 0
        self._are_there = asyncio.Event()

    def ask(self, requests: Sequence[TruthRequest], seconds: float) -> list[dict[str, Any]]:
        """
        Send requests, at most ``MAX_IN_FLIGHT``, and return the answers, JSON objects, in their order.

        Raises:
            TruthAway: an answer is missing; any of the requests may have been served.
            TruthRefused: as ``TruthClient.call``.
        """
        found = self._client.call(lambda _: self._ask(requests, seconds), seconds)
        return [self._read(request, message) for request, message in zip(requests, found, strict=True)]

    async def _ask(self, requests: Sequence[TruthRequest], seconds: float) -> list[Msg]:
        connection = self._client.connection()
        if not self._inbox:
            inbox = connection.new_inbox()
            await connection.subscribe(f"{inbox}.*.*", cb=self._take)
            self._inbox = inbox
        self._mark += 1
        self._answers.clear()
        self._are_there.clear()
        self._wanted = len(requests)
        before = f"{self._inbox}.{self._mark}."
        try:
            async with asyncio.timeout(seconds):
                for number, one in enumerate(requests):
                    headers = dict(one.headers) if one.headers is not None else None
                    await connection.publish(one.subject, one.data, reply=f"{before}{number}", headers=headers)
                while len(self._answers) < self._wanted:
                    if not connection.is_connected:
                        raise TruthAway(f"{self._client.address} does not answer: the connection ended")
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._are_there.wait(), _LOOK_SECONDS)
        except TimeoutError:
            subjects = ", ".join(sorted({one.subject for one in requests})[:3])
            raise TruthAway(f"{self._client.address} does not answer; may this client send to {subjects}?") from None
        return [self._answers[f"{before}{number}"] for number in range(len(requests))]

    async def _take(self, message: Msg) -> None:
        if message.subject.startswith(f"{self._inbox}.{self._mark}."):
            self._answers[message.subject] = message
            if len(self._answers) >= self._wanted:
                self._are_there.set()

    def _read(self, request: TruthRequest, message: Msg) -> dict[str, Any]:
        if message.headers and message.headers.get(Header.STATUS.value) == _NO_RESPONDERS:
            raise TruthAway(f"{self._client.address}: nobody answers for {request.subject} now; `authz truth init`?")
        try:
            answer: dict[str, Any] = json.loads(message.data)
        except ValueError:
            raise TruthRefused(f"{self._client.address} does not answer as JetStream does") from None
        if (answer.get("error") or {}).get("code") == _UNAVAILABLE:
            raise TruthAway(f"{self._client.address}: {answer['error'].get('description', 'not available now')}")
        return answer

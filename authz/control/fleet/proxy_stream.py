"""One open stream of discovery: what its proxy says waits in an inbox, and when it is to end at the latest."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from math import isfinite
from time import monotonic

from authz.control.discovery.conversation import Conversation, Request
from authz.identity.registration import SvidPeer
from authz.identity.renewal import Holder

MAX_INBOX = 16
"""Requests of one stream that wait; further ones wait in the connection."""
ANSWER_SECONDS = 10.0
"""The longest that a proxy's answer is waited for before what refers to it is sent all the same."""
GRAIN_SECONDS = 0.25
"""Who waits for so long may wait for this much longer, so that many are looked at together."""
ENDING_SHARE, ENDING_SECONDS = 0.1, 60.0
"""Streams end in the last part of what their certificates have left, so that those of a batch do not end together."""


def ends_at(expires_at: float, now: float, share: float) -> float:
    """
    When a stream ends that a certificate opened.

    Args:
        expires_at: of the certificate.
        now: seconds since the epoch, as all of these.
        share: random, from 0 to 1: 0 is at the end, 1 is the earliest.
    """
    if not isfinite(expires_at):
        return expires_at
    return expires_at - share * min(ENDING_SECONDS, ENDING_SHARE * max(0.0, expires_at - now))


class Inbox:
    """
    What one task puts and another takes: an ``asyncio.Queue`` for one of each, at a third of its price.

    Thousands of streams wake at a change of all, and each answers.
    """

    __slots__ = ("_items", "_loop", "_room", "_taker")

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None  # asking for it is a call of the system
        self._items: deque[Request | None] = deque()
        self._taker: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None

    def full(self) -> bool:
        """Whether ``put`` would wait."""
        return len(self._items) >= MAX_INBOX

    def empty(self) -> bool:
        """Whether ``get`` would wait."""
        return not self._items

    def put_nowait(self, item: Request | None) -> None:
        """Put one, even when it is full."""
        self._items.append(item)
        if self._taker is not None and not self._taker.done():
            self._taker.set_result(None)

    async def put(self, item: Request | None) -> None:
        """Put one when there is room."""
        while self.full():
            self._room = self._future()
            await self._room
        self.put_nowait(item)

    async def get(self) -> Request | None:
        """Take the oldest when there is one."""
        while not self._items:
            self._taker = self._future()
            await self._taker
        item = self._items.popleft()
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        return item

    def _future(self) -> "asyncio.Future[None]":
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop.create_future()


class Waits:
    """
    Streams that are looked at some seconds after each came here, all by one timer.

    A timer for each response of each stream, set and taken back or left to run out, would cost as much as the response.
    """

    def __init__(self, seconds: float, look: Callable[["ProxyStream"], None]) -> None:
        """``look`` is called with each stream, a quarter of a second late at most."""
        self._seconds = seconds
        self._look = look
        self._waiting: deque[tuple[float, ProxyStream]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, stream: "ProxyStream") -> None:
        """Look at this one later; it may be here several times."""
        self._waiting.append((monotonic() + self._seconds, stream))
        if self._timer is None:
            self._run_in(self._seconds)

    def _run_in(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._run)

    def _run(self) -> None:
        now = monotonic()
        while self._waiting and self._waiting[0][0] <= now:
            self._look(self._waiting.popleft()[1])
        self._timer = None
        if self._waiting:
            self._run_in(max(self._waiting[0][0] - now, GRAIN_SECONDS))


@dataclass(slots=True, eq=False)
class ProxyStream:
    """One open stream. ``inbox`` takes requests and, as None, the word that something changed."""

    evidence: SvidPeer
    ends_at: float
    """Seconds since the epoch."""
    number: int = 0
    """In the order in which they were opened: of several of one proxy, the newest is the one that it uses."""
    node: str = ""
    """The proxy that it is of, as its first request said."""
    conversation: Conversation = field(default_factory=Conversation)
    inbox: Inbox = field(default_factory=Inbox)
    holders: tuple[Holder, ...] = ()
    """It asks for no certificates."""
    is_told: bool = False
    is_starting: bool = False
    is_out_of_patience: bool = False
    is_closed: bool = False
    told: set[str] = field(default_factory=set)
    """Names that were refused to it, so that each is recorded once."""
    _waits_since: float | None = None
    """By the clock that never goes back; None while every response was answered."""
    _ending: asyncio.TimerHandle | None = None

    def wake(self) -> None:
        """A full inbox needs none: every request that is taken from there looks at the world again."""
        if not self.is_told and not self.inbox.full():
            self.is_told = True
            self.inbox.put_nowait(None)

    def end_in(self, seconds: float) -> None:
        """Wake it when it is to end, though nothing else happens."""
        if isfinite(seconds):
            self._ending = asyncio.get_running_loop().call_later(max(0.0, seconds), self.wake)

    def watch(self, waits: Waits) -> None:
        """Wait for the proxy's answers, but not for ever: ``waits`` is to ``look`` after ``ANSWER_SECONDS``."""
        if self.conversation.is_settled:
            self._waits_since = None
        elif self._waits_since is None and not self.conversation.is_impatient:
            self._waits_since = monotonic()
            waits.add(self)

    def look(self) -> None:
        """See for how long an answer has been waited for."""
        if self._waits_since is None or self.is_closed:
            return
        if self._waits_since + ANSWER_SECONDS <= monotonic():
            self._waits_since, self.is_out_of_patience = None, True
            self.wake()

    async def read(self, requests: AsyncIterator[Request]) -> None:
        """Move requests to the inbox; the last word wakes the loop so that it sees the end."""
        try:
            async for request in requests:
                await self.inbox.put(request)
        finally:
            if not self.inbox.full():
                self.inbox.put_nowait(None)

    def close(self) -> None:
        """Wait for nothing any more."""
        self.is_closed = True
        if self._ending is not None:
            self._ending.cancel()

"""One open stream of discovery: what its proxy says waits in an inbox, and when it is to end at the latest."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from math import isfinite

from authz.control.discovery.conversation import Conversation, Request
from authz.identity.registration import SvidPeer
from authz.identity.renewal import Holder

MAX_INBOX = 16
"""Requests of one stream that wait; further ones wait in the connection."""
ANSWER_SECONDS = 10.0
"""The longest that a proxy's answer is waited for before what refers to it is sent all the same."""
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
    inbox: asyncio.Queue[Request | None] = field(default_factory=lambda: asyncio.Queue(MAX_INBOX))
    holders: tuple[Holder, ...] = ()
    """It asks for no certificates."""
    is_told: bool = False
    is_starting: bool = False
    is_out_of_patience: bool = False
    told: set[str] = field(default_factory=set)
    """Names that were refused to it, so that each is recorded once."""
    _patience: asyncio.TimerHandle | None = None
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

    def watch(self) -> None:
        """Wait for the proxy's answers, but not for ever."""
        if self.conversation.is_settled:
            if self._patience is not None:
                self._patience.cancel()
                self._patience = None
        elif self._patience is None and not self.conversation.is_impatient:

            def wake() -> None:
                self._patience, self.is_out_of_patience = None, True
                self.wake()

            self._patience = asyncio.get_running_loop().call_later(ANSWER_SECONDS, wake)

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
        for timer in (self._patience, self._ending):
            if timer is not None:
                timer.cancel()

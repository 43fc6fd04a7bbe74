"""
Who builds the records now: the event loop after its answers, or the writer's thread.

Two threads that both want the interpreter cost a third more than one that does the work of both, so plain records are
built by the event loop that made the decisions. It passes on unbuilt whatever takes long, and where it stalls or
does not exist, the writer builds. Offers stay in order in either case.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

from authz.audit.builder import EntryBuilder
from authz.audit.entry import Entry
from authz.core.decided import Offer

BATCH = 256
"""The most records written with one call of a sink."""
CallSoon = Callable[[Callable[[], None]], object]
"""An event loop's own: run this when the work at hand is done."""
_BREATH = 16
"""Records built before the writer lets other threads run: it must not hold the interpreter against a check."""
_BREATH_SECONDS = 50e-6


class Handover:
    """The two queues between the check path and the sinks: offers that wait to be built, entries to be written."""

    def __init__(self, builder: EntryBuilder, capacity: int) -> None:
        """``capacity`` is what the queues hold in normal times; the work is hurried where they fill up."""
        self._builder = builder
        self._capacity = capacity
        self._queue: deque[Offer | Entry | threading.Event] = deque()
        self._built: deque[Entry | Offer | threading.Event] = deque()
        """
        Everything the event loop has been through, in order; an offer that it left to the writer is there unchanged.
        """
        self._call_soon: CallSoon | None = None
        self._is_called = False
        self._passes = 0
        """The number of times the event loop has built; when that stands still, the writer builds."""
        self._seen_passes = -1
        """The number that the writer last saw."""
        self._is_urgent = False
        self._building = threading.Lock()
        """Held by whoever takes from ``_queue`` or builds; the event loop never waits for it."""

    def __len__(self) -> int:
        """How many decisions wait, built or not."""
        return len(self._queue) + len(self._built)

    def use_loop(self, call_soon: CallSoon | None) -> None:
        """Build in this event loop from now on, whose thread makes all offers; None builds in the writer."""
        self._call_soon = call_soon

    def put(self, offer: Offer) -> None:
        """Add one decision; on the check path."""
        self._queue.append(offer)
        if not self._is_called and self._call_soon is not None:
            self._is_called = True
            try:
                self._call_soon(self._build_soon)
            except RuntimeError:  # the loop is closed: from now on the writer builds
                self._call_soon = None

    def pass_on(self, entry: Entry) -> None:
        """Put what is built already behind the offers so far."""
        self._queue.append(entry)

    def mark(self, reached: threading.Event) -> None:
        """Set ``reached`` when everything put so far was written; the writer builds at once."""
        self._queue.append(reached)
        self._is_urgent = True

    def batches(self, *, everything: bool) -> Iterator[tuple[list[Entry], list[threading.Event]]]:
        """
        Take what waits for the writer, a batch at a time: entries to write, then events to set.

        ``everything`` also builds what the event loop would have built.
        """
        builds = everything or self._call_soon is None or self._is_urgent or self._passes == self._seen_passes
        self._seen_passes, self._is_urgent = self._passes, False
        # Where the loop builds, only what is there now: chasing it would take the interpreter from it.
        left = len(self._built)
        while (builds and self._queue) or (self._built and (builds or left > 0)):
            left -= BATCH
            yield self._take(builds=builds)

    def _build_soon(self) -> None:
        """Build in the event loop what waits, but leave to the writer whatever takes long."""
        self._is_called = False
        if not self._building.acquire(blocking=False):
            self._is_urgent = True  # the writer is at it and will take the rest too
            return
        try:
            self._passes += 1
            self._build_waiting(len(self._queue), is_loop=True)
        finally:
            self._building.release()

    def _build_waiting(self, most: int, *, is_loop: bool) -> None:
        """Move from the queue to what is built, in order. The lock is held."""
        queue, built, takes_long = self._queue, self._built, self._builder.takes_long
        for number in range(min(most, len(queue))):
            if not is_loop and number % _BREATH == _BREATH - 1 and len(queue) < self._capacity // 2:
                time.sleep(_BREATH_SECONDS)
            item = queue.popleft()
            if not isinstance(item, Offer) or (is_loop and takes_long(item)):
                built.append(item)
            elif (entry := self._build(item)) is not None:
                built.append(entry)

    def _build(self, offer: Offer) -> Entry | None:
        return self._builder.build(offer, is_hurried=len(self) > self._capacity // 8)

    def _take(self, *, builds: bool) -> tuple[list[Entry], list[threading.Event]]:
        entries: list[Entry] = []
        waiting: list[threading.Event] = []
        try:
            if builds and self._queue:
                with self._building:
                    self._build_waiting(BATCH, is_loop=False)
            built = self._built
            for _ in range(min(len(built), BATCH)):
                item = built.popleft()
                if isinstance(item, threading.Event):
                    waiting.append(item)
                    continue
                if isinstance(item, Offer):
                    with self._building:
                        entry = self._build(item)
                else:
                    entry = item
                if entry is not None:
                    entries.append(entry)
        except BaseException:
            for event in waiting:  # whoever waits is let go whatever happens
                event.set()
            raise
        return entries, waiting

"""
Reading audit records back from the stream of a fleet, each once.

A record that was sent again may be there twice, when its writer was away for longer than the servers remember. All
that were sent again are known before the first is read, so nothing else need be remembered. What a record is known by
is found from itself: the key that its writer sent decides nothing here.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator

from authz.audit.query import RecordFilter, Skipped, read_record
from authz.audit.stored_key import record_key
from authz.core.decided import Record
from authz.truth.truth_client import TruthClient
from authz.truth.truth_stream import AGAIN, TruthStream
from authz.truth.truth_stream_reader import StoredRecord, StreamBegin, StreamReader, read_stream

_CLOCK_SECONDS = 60.0
"""By which the clocks of servers and writers may differ."""
_REMEMBERED = 100_000
_WINDOW = 1000


def find_stored(
    client: TruthClient, wanted: RecordFilter, skipped: Skipped | None = None, *, first: int = 1
) -> Iterator[Record]:
    """
    Find the records that are there now, in the order in which the servers got them, from the place ``first``.

    Raises:
        TruthAway, TruthRefused: as ``TruthClient.call``.
    """
    last = TruthStream(client).last()
    at = wanted.since - _CLOCK_SECONDS if wanted.since is not None else None
    begin = StreamBegin(first, at if first <= 1 else None)  # a record is stored after its decision
    again = {record_key(stored.data) for stored in read_stream(client, begin, last, AGAIN)}
    told: set[str] = set()
    for stored in read_stream(client, begin, last):
        if again and (key := record_key(stored.data)) in again:
            if key in told:
                continue
            told.add(key)
        record = _record(client, stored, skipped)
        if record is not None and wanted.holds(record):
            yield record


def newest_stored(
    client: TruthClient, wanted: RecordFilter, number: int, skipped: Skipped | None = None
) -> deque[Record]:
    """The newest records, at most so many, without reading all that is there. Raises as ``find_stored``."""
    window, last = max(_WINDOW, number), TruthStream(client).last()
    while True:
        first = last - window + 1
        found = deque(find_stored(client, wanted, skipped if first <= 1 else None, first=max(first, 1)), maxlen=number)
        if len(found) == number or first <= 1:
            return found
        window *= 8


def follow_stored(client: TruthClient, wanted: RecordFilter, wait: Callable[[], bool]) -> Iterator[Record]:
    """
    Yield records as they arrive after this call; ``wait`` is called when there are none, False ends it.

    What is sent again is not shown again if it is among the last hundred thousand.
    """
    return _follow(client, TruthStream(client).last(), wanted, wait)


def _follow(client: TruthClient, last: int, wanted: RecordFilter, wait: Callable[[], bool]) -> Iterator[Record]:
    reader = StreamReader(client, StreamBegin(last + 1))
    seen: OrderedDict[str, None] = OrderedDict()
    try:
        while True:
            page = reader.page()
            for stored in page:
                key = record_key(stored.data)
                if key in seen:
                    continue
                seen[key] = None
                if len(seen) > _REMEMBERED:
                    seen.popitem(last=False)
                record = _record(client, stored, None)
                if record is not None and wanted.holds(record):
                    yield record
            if not page and not wait():
                return
    finally:
        reader.stop()


def _record(client: TruthClient, stored: StoredRecord, skipped: Skipped | None) -> Record | None:
    record = read_record(stored.data)
    if record is None and skipped is not None:
        skipped.note(f"{client.address}:{stored.sequence}")
    return record

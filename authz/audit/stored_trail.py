"""
Reading audit records back from the stream of a fleet, each once.

A record that was sent again may be there twice, when its writer was away for longer than the servers remember. All
that were sent again are known before the first is read, so nothing else need be remembered. What a record is known by
is found from itself: the key that its writer sent decides nothing here.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import suppress

from authz.audit.query import RecordFilter, Skipped, read_record
from authz.audit.stored_key import record_key
from authz.core.decided import Record
from authz.truth.truth_client import TruthAway, TruthClient
from authz.truth.truth_stream_reader import StoredRecord, StreamReader

_CLOCK_SECONDS = 60.0
"""By which the clocks of servers and writers may differ."""
_REMEMBERED = 100_000
_WINDOW = 1000


def find_stored(
    client: TruthClient, wanted: RecordFilter, skipped: Skipped | None = None, *, newest: int = 0
) -> Iterator[Record]:
    """
    Find the records that are there now, in the order in which the servers got them; only among the ``newest``, if any.

    Raises:
        TruthAway, TruthRefused: as ``TruthClient.call``.
    """
    reader = StreamReader(client)
    first, last = reader.extent()
    if newest:
        first = max(first, last - newest + 1)
    if wanted.since is not None:  # a record is stored after its decision
        first = reader.first_since(wanted.since - _CLOCK_SECONDS, first, last)
    again = {record_key(stored.data) for stored in reader.sent_again(first, last)}
    told: set[str] = set()
    for stored in reader.records(first, last):
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
    first, last = StreamReader(client).extent()
    window = max(_WINDOW, number)
    while True:
        is_all = window >= last - first + 1
        found = deque(find_stored(client, wanted, skipped if is_all else None, newest=window), maxlen=number)
        if len(found) == number or is_all:
            return found
        window *= 8


def follow_stored(client: TruthClient, wanted: RecordFilter, wait: Callable[[], bool]) -> Iterator[Record]:
    """
    Yield records as they arrive after this call; ``wait`` is called when there are none, False ends it.

    What is sent again is not shown again if it is among the last hundred thousand. While servers are away it waits.
    """
    reader = StreamReader(client)
    return _follow(client, reader, reader.extent()[1], wanted, wait)


def _follow(
    client: TruthClient, reader: StreamReader, read: int, wanted: RecordFilter, wait: Callable[[], bool]
) -> Iterator[Record]:
    seen: OrderedDict[str, None] = OrderedDict()
    while True:
        last = read
        with suppress(TruthAway):
            last = reader.extent()[1]
            for stored in reader.records(read + 1, last):
                read = stored.sequence
                key = record_key(stored.data)
                if key in seen:
                    continue
                seen[key] = None
                if len(seen) > _REMEMBERED:
                    seen.popitem(last=False)
                record = _record(client, stored, None)
                if record is not None and wanted.holds(record):
                    yield record
            read = last
        if not wait():
            return


def _record(client: TruthClient, stored: StoredRecord, skipped: Skipped | None) -> Record | None:
    record = read_record(stored.data)
    if record is None and skipped is not None:
        skipped.note(f"{client.address}:{stored.sequence}")
    return record

"""
Reports in the bucket of a fleet: one replica writes its own, whoever asks reads all.

Methods wait for the servers, and raise what ``TruthClient.call`` does; what was not written is written the next time.
"""

import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from threading import Lock

from authz.truth.farewell import FAREWELL_SECONDS, Farewell
from authz.truth.fleet_report import (
    CONTROL,
    PROXIES,
    REPLICA,
    SERVE,
    SERVER,
    ProxyReport,
    ReplicaReport,
    Reported,
    is_replica_name,
    part_count,
    part_of,
    part_value,
    read_part,
    read_replica,
    replica_value,
)
from authz.truth.truth_bucket import FLEET, MAX_VALUE_BYTES, TruthBucket, TruthEntry, TruthFlooded
from authz.truth.truth_client import TruthChanged, TruthClient

log = logging.getLogger("authz.truth")
FEW_PARTS = 8
"""So many changed parts are asked for one by one, and more of them all at once."""
MAX_ODD = 20
"""Of so many names that are none it is said, once for each."""
MAX_SERVERS = 10_000
"""Reports of servers, which are read one by one."""
FLOODED = "which of them run what nobody knows; give readers names of their own, `authz truth config --member`"
TRIES = 5
"""Parts change while they are read."""


class ReportWriter:
    """Writes one replica's reports. ``take`` and ``write`` are called by one thread at a time."""

    def __init__(self, client: TruthClient, name: str) -> None:
        """Nothing is asked yet; ``name`` as ``check_replica_name`` wants it."""
        self._bucket = TruthBucket(client, FLEET)
        self._name = name
        self._parts: list[dict[str, ProxyReport]] = [{}]
        self._written: list[int] = [0]
        self._due: set[int] = {0}
        self._revision: int | None = None
        self._is_first = True
        self._lock, self._is_over = Lock(), False
        self._farewell = Farewell(client)
        self.has_double = False
        """Whether another process reports by this name."""

    def take(self, changed: Mapping[str, ProxyReport | None]) -> None:
        """Note proxies that are other than before; None: it is not in the mesh any more."""
        for name, proxy in changed.items():
            number = part_of(name, len(self._parts))
            if proxy is None:
                self._parts[number].pop(name, None)
            else:
                self._parts[number][name] = proxy
            self._due.add(number)
        found = sum(map(len, self._parts))
        parts = part_count(found, 0 if self._is_first else len(self._parts))
        if parts != len(self._parts):
            everybody = [pair for part in self._parts for pair in part.items()]
            self._parts = [{} for _ in range(parts)]
            for name, proxy in everybody:
                self._parts[part_of(name, parts)][name] = proxy
            self._written, self._due = [0] * parts, set(range(parts))

    def write(self, report: ReplicaReport) -> None:
        """Write the parts that changed, and then the report that means them. Nothing after ``withdraw``."""
        with self._lock:
            if not self._is_over:
                self._write(report)

    def _write(self, report: ReplicaReport) -> None:
        if self._is_first:
            for key, entry in self._bucket.entries(f"{PROXIES}.{self._name}.*").items():
                self._bucket.delete(key, entry.revision)
            self._is_first = False
        for number in sorted(self._due):
            value = part_value(self._parts[number].values(), len(self._parts), MAX_VALUE_BYTES)
            self._written[number] = self._bucket.put(f"{PROXIES}.{self._name}.{number}", value)
            self._due.discard(number)
        key, value = f"{REPLICA}.{self._name}", replica_value(replace(report, parts=tuple(self._written)))
        revision, self._revision = self._revision, None  # whatever is raised: nobody knows then what is there
        self._revision = self._bucket.put(key, value) if revision is None else self._update(key, value, revision)

    def withdraw(self) -> None:
        """Take the report away: this replica is not missed. At most about ``FAREWELL_SECONDS``, until ``hurry``."""
        until = time.monotonic() + FAREWELL_SECONDS
        self._is_over = True
        with self._lock:  # after what is being written
            if not self.has_double:
                self._farewell.say(f"{REPLICA}.{self._name}", f"{PROXIES}.{self._name}.*", until=until)

    def hurry(self) -> None:
        """End ``withdraw``, whatever has come of it. From any thread."""
        self._farewell.hurry()

    def _update(self, key: str, value: bytes, revision: int) -> int:
        try:
            written = self._bucket.update(key, value, revision)
        except TruthChanged:
            if not self.has_double:
                log.error("another process reports as `%s`: give each replica a name of its own", self._name)
            self.has_double = True
            self._due.update(range(len(self._parts)))  # the other one has written over them
            raise
        self.has_double = False
        return written


class ReportReader:
    """Reads the reports of all replicas; what has not changed since the last time is not asked for again."""

    def __init__(self, client: TruthClient, *, but: str = "") -> None:
        """Nothing is asked yet; ``but`` is the name of a replica that is not asked for: one's own."""
        self._bucket = TruthBucket(client, FLEET)
        self._but = but
        self._read: dict[str, tuple[int, int, tuple[ProxyReport, ...]]] = {}
        self._odd: set[str] = set()

    def read(self) -> tuple[list[Reported], float]:
        """Every report, and what time it is by the servers' clock."""
        found: list[Reported] = []
        for _ in range(TRIES):
            found = self._all()
            if all(one.is_whole for one in found):
                break
        return found, self._bucket.now()

    def forget(self, name: str) -> bool:
        """Take away what a replica reported that will not come back; False when there is none of that name."""
        keys: dict[str, TruthEntry] = {}
        for pattern in (f"{REPLICA}.{name}", f"{SERVER}.{name}", f"{PROXIES}.{name}.*"):
            keys |= self._bucket.entries(pattern)
        for key, entry in keys.items():
            self._bucket.delete(key, entry.revision)
        return bool(keys)

    def _all(self) -> list[Reported]:
        found = self._named(self._bucket.entries(f"{REPLICA}.*"))
        heads = [_read_head(key, entry) for key, entry in found.items() if key != f"{REPLICA}.{self._but}"]
        self._fetch(
            {
                f"{PROXIES}.{head.report.name}.{number}": change
                for head in heads
                for number, change in enumerate(head.report.parts)
            }
        )
        return [*map(self._with_proxies, heads), *self._servers()]

    def _servers(self) -> list[Reported]:
        """One that is silent and tells why, where there are so many that somebody must have invented them."""
        try:
            found = self._bucket.entries(f"{SERVER}.*", most=MAX_SERVERS)
        except TruthFlooded as error:
            at = self._bucket.now()
            told = ReplicaReport("all-servers", SERVE, at, "", 0.0, f"{error}: {FLOODED}")
            return [Reported(at, told, is_whole=False)]
        return [_read_head(key, entry) for key, entry in self._named(found).items()]

    def _named(self, entries: Mapping[str, TruthEntry]) -> dict[str, TruthEntry]:
        """Those of names by which somebody may report: others have no meaning, and nobody could forget them."""
        found = {key: entry for key, entry in entries.items() if is_replica_name(key.partition(".")[2])}
        for key in entries.keys() - found.keys() - self._odd:
            if len(self._odd) < MAX_ODD:
                log.error("%r is no name of a report: somebody with the role of a server wrote it", key)
                self._odd.add(key)
        return found

    def _fetch(self, wanted: Mapping[str, int]) -> None:
        self._read = {key: known for key, known in self._read.items() if key in wanted}
        due = [key for key, change in wanted.items() if key not in self._read or self._read[key][0] != change]
        if len(due) > FEW_PARTS:
            entries = self._bucket.entries(f"{PROXIES}.>")
        else:
            entries = {key: entry for key in due if (entry := self._bucket.get(key)) is not None}
        for key in due:
            if key in entries:
                try:
                    self._read[key] = (entries[key].revision, *read_part(entries[key].value))
                except ValueError as error:
                    log.error("the report `%s` cannot be read: %s", key, error)

    def _with_proxies(self, head: Reported) -> Reported:
        proxies: list[ProxyReport] = []
        is_whole, parts = head.is_whole, head.report.parts
        for number, change in enumerate(parts):
            revision, count, part = self._read.get(f"{PROXIES}.{head.report.name}.{number}", (0, 0, ()))
            is_whole = is_whole and revision >= change and count == len(parts)
            proxies += part
        return replace(head, proxies=tuple(proxies), is_whole=is_whole)


def _read_head(key: str, entry: TruthEntry) -> Reported:
    """Without its proxies; not whole when it cannot be read."""
    prefix, _, name = key.partition(".")
    kind = SERVE if prefix == SERVER else CONTROL
    try:
        report = replace(read_replica(entry.value), name=name, kind=kind)
    except ValueError as error:
        log.error("the report `%s` cannot be read: %s", key, error)
        broken = ReplicaReport(name, kind, entry.created, "", 0.0, "its report cannot be read")
        return Reported(entry.created, broken, is_whole=False)
    return Reported(entry.created, report)

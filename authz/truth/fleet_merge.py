"""
Who runs what: the reports of all replicas put together. Pure: the time is an argument.

A proxy that is connected at any replica is connected, and the newest report about it counts. What a silent replica said
is not known any more: its proxies are *unknown* until another replica has them. Times of a replica are corrected by how
much its clock differs from that of whoever keeps the reports, so that a wrong clock makes nothing older or newer.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field

from authz.canary.candidate_standing import CandidateStanding, CandidateState
from authz.truth.fleet_report import (
    CONTROL,
    ProxyReport,
    RefusedResource,
    Reported,
    has_reached,
    revision_number,
)
from authz.truth.reported_candidate import candidate_json

SILENT_SECONDS = 30.0
"""A replica that has not reported for so long is silent."""
CLOCK_SECONDS = 5.0
"""A replica's clock that differs by more is wrong; what a report needs on its way counts as well."""
_TIMES = frozenset(("since", "heard_at", "acknowledged_at", "refused_at", "certificate_expires"))
CURRENT, BEHIND, REFUSING, MISSING, UNKNOWN, SILENT = "current", "behind", "refusing", "missing", "unknown", "silent"


@dataclass(frozen=True, slots=True)
class ReplicaView:
    """One replica, as it is seen now. Times in seconds since the epoch, by the clock of whoever keeps the reports."""

    name: str
    kind: str
    state: str
    """``current``; ``behind``: it has an older revision; ``refusing``: it cannot use what is there; ``silent``."""
    revision: str
    since: float
    """When that came into force."""
    heard_at: float
    clock_offset: float
    """By how many seconds its clock is ahead."""
    certificate_expires: float
    problem: str
    proxies: int
    """Those that are connected at it."""
    candidate: CandidateStanding | None = None
    """What became there of the candidate of the fleet, as it last said; None: it knows of none."""

    @property
    def refuses_candidate(self) -> bool:
        """Whether it lives, and refuses the candidate."""
        found = self.candidate
        return self.state != SILENT and found is not None and found.state is CandidateState.REFUSED

    @property
    def has_wrong_clock(self) -> bool:
        """Whether its clock differs by more than a report takes."""
        return abs(self.clock_offset) > CLOCK_SECONDS


@dataclass(frozen=True, slots=True)
class ProxyView:
    """One proxy, as it is seen now. Times as those of a replica; 0: never, or not known."""

    name: str
    state: str
    """
    ``current``: it has acknowledged all that the newest revision has for it; ``behind``; ``refusing``; ``missing``: it
    is connected nowhere; ``unknown``: the replica that it was connected at is silent.
    """
    revision: str
    """The newest of which it has acknowledged all; empty: not known."""
    replica: str
    """Where it is connected, or was last; empty: nowhere yet."""
    since: float
    """When it became current, or ceased to be."""
    acknowledged_at: float = 0.0
    refused_at: float = 0.0
    certificate_expires: float = 0.0
    refusals: tuple[RefusedResource, ...] = ()
    waits: tuple[str, ...] = ()
    """As in a report, while it is connected."""
    candidate: int = 0
    """The candidate that its replica has in force for it: current, it has it; 0 for none."""


@dataclass(frozen=True, slots=True)
class FleetView:
    """A whole fleet at a time."""

    now: float
    revision: str
    """The newest that any replica has in force, or the one that was asked about; empty: there is no replica."""
    replicas: tuple[ReplicaView, ...]
    proxies: tuple[ProxyView, ...] = field(repr=False)

    @property
    def skew_seconds(self) -> float:
        """For how long the replica or proxy that is behind longest has been so, silent and unknown ones included."""
        late = [one.since for one in self.proxies if one.state in (BEHIND, REFUSING, UNKNOWN) and one.since]
        late += [one.heard_at for one in self.replicas if one.state == SILENT and one.heard_at]
        late += [self._newest_since for one in self.replicas if one.state in (BEHIND, REFUSING)]
        return max((self.now - since for since in late), default=0.0)

    @property
    def _newest_since(self) -> float:
        return min((one.since for one in self.replicas if one.state == CURRENT), default=self.now)

    def lagging(self, older_than: float) -> "Iterator[ReplicaView | ProxyView]":
        """
        Whoever is not as it should be: all but those that are current, and those that are behind for a shorter time.

        A replica that refuses a candidate is not, either.

        Args:
            older_than: for how many seconds somebody may be behind.
        """
        for replica in self.replicas:
            is_new = replica.state == BEHIND and self.now - self._newest_since <= older_than
            if (replica.state != CURRENT and not is_new) or replica.refuses_candidate:
                yield replica
        for proxy in self.proxies:
            if proxy.state != CURRENT and not (proxy.state == BEHIND and self.now - proxy.since <= older_than):
                yield proxy

    def without(self, revision: str) -> "Iterator[ReplicaView | ProxyView]":
        """Every live replica and proxy that has not acknowledged a revision, or a newer one; unknown ones are live."""
        for replica in self.replicas:
            if replica.state == SILENT or not has_reached(replica.revision, revision):
                yield replica
        for proxy in self.proxies:
            if proxy.state == UNKNOWN or (proxy.state != MISSING and not has_reached(proxy.revision, revision)):
                yield proxy

    def has(self, revision: str) -> bool:
        """Whether every live replica and proxy has acknowledged a revision, or a newer one; nobody has without any."""
        return bool(self.replicas) and not any(True for _ in self.without(revision))


@dataclass(frozen=True, slots=True)
class _Seen:
    """One proxy at one replica, its times corrected."""

    proxy: ProxyReport
    source: Reported
    is_silent: bool

    def at(self, time: float) -> float:
        """A time of the replica's clock by that of whoever keeps the reports."""
        return _at(self.source, time)

    @property
    def rank(self) -> tuple[bool, float]:
        """Whose word counts most: who lives and has it connected, and heard of it last."""
        proxy = self.proxy
        if proxy.is_connected and self.is_silent:
            return False, self.source.at
        return proxy.is_connected, self.at(max(proxy.since, proxy.acknowledged_at, proxy.refused_at))


def merge_reports(
    reports: Iterable[Reported], now: float, *, silent_seconds: float = SILENT_SECONDS, revision: str = ""
) -> FleetView:
    """
    Put reports together.

    Args:
        reports: one of each replica.
        now: by the clock that their ``at`` is of.
        silent_seconds: how old a report may be.
        revision: what everybody should have; empty: the newest that a living replica has.
    """
    found = sorted(reports, key=lambda one: (one.report.name, one.report.kind))
    silent = {_key(one) for one in found if now - one.at > silent_seconds or not one.is_whole}
    living = [one for one in found if _key(one) not in silent]
    newest = revision or _newest([one for one in living if one.report.kind == CONTROL] or living or found)
    best: dict[str, _Seen] = {}
    for source in found:
        for proxy in source.proxies:
            seen = _Seen(proxy, source, _key(source) in silent)
            before = best.get(proxy.name)
            if before is None or seen.rank > before.rank:
                best[proxy.name] = seen
    begun = min((_since(one) for one in living if has_reached(one.report.revision, newest)), default=now)
    proxies = tuple(_proxy_view(best[name], newest, begun, now) for name in sorted(best))
    counts = Counter(view.replica for view in proxies if view.state not in (MISSING, UNKNOWN))
    replicas = tuple(
        _replica_view(
            one,
            newest,
            counts[one.report.name] if one.report.kind == CONTROL else 0,
            is_silent=_key(one) in silent,
        )
        for one in found
    )
    return FleetView(now, newest, replicas, proxies)


def view_json(view: FleetView) -> dict[str, object]:
    """For programs; times in seconds since the epoch, null where there is none."""

    def shown(one: ReplicaView | ProxyView) -> dict[str, object]:
        found: dict[str, object] = {name: getattr(one, name) for name in one.__slots__}
        candidate = one.candidate
        found["candidate"] = (
            candidate_json(candidate) if isinstance(candidate, CandidateStanding) else candidate or None
        )
        for name in _TIMES & found.keys():
            found[name] = found[name] or None
        return found

    return {
        "now": view.now,
        "revision": view.revision,
        "skew_seconds": round(view.skew_seconds, 3),
        "replicas": [{**shown(one), "has_wrong_clock": one.has_wrong_clock} for one in view.replicas],
        "proxies": [{**shown(one), "refusals": [asdict(refused) for refused in one.refusals]} for one in view.proxies],
    }


def _newest(sources: Iterable[Reported]) -> str:
    """The highest number; where revisions have none, what came into force last."""

    def rank(one: Reported) -> tuple[int, float]:
        number = revision_number(one.report.revision)
        return (-1 if number is None else number), _since(one)

    return max(sources, key=rank).report.revision if (sources := list(sources)) else ""


def _replica_view(source: Reported, newest: str, proxies: int, *, is_silent: bool) -> ReplicaView:
    report = source.report
    if is_silent:
        state = SILENT
    elif report.problem:
        state = REFUSING
    else:
        state = CURRENT if has_reached(report.revision, newest) else BEHIND
    return ReplicaView(
        report.name,
        report.kind,
        state,
        report.revision,
        _since(source),
        source.at,
        report.clock - source.at,
        report.certificate_expires,
        report.problem,
        proxies,
        report.candidate,
    )


def _proxy_view(seen: _Seen, newest: str, begun: float, now: float) -> ProxyView:
    proxy, report = seen.proxy, seen.source.report
    revision = report.revision if proxy.is_current else proxy.revision
    since = seen.at(proxy.since)
    if not proxy.is_connected:
        state = MISSING
    elif seen.is_silent:
        state, since = UNKNOWN, seen.source.at
        revision = ""
    elif proxy.refusals:
        state = REFUSING
    elif not proxy.is_current:
        state = BEHIND
    elif has_reached(revision, newest):
        state = CURRENT
    else:  # it has all that its replica has, which has not the newest
        state, since = BEHIND, begun
    times = (seen.at(proxy.acknowledged_at), seen.at(proxy.refused_at))
    replica = report.name if proxy.since or proxy.is_connected else ""
    return ProxyView(
        proxy.name,
        state,
        revision,
        replica,
        min(since, now),
        *times,
        proxy.certificate_expires,
        proxy.refusals,
        proxy.waits if state in (BEHIND, REFUSING) else (),
        proxy.candidate,
    )


def _key(source: Reported) -> tuple[str, str]:
    return source.report.kind, source.report.name


def _at(source: Reported, time: float) -> float:
    return time - (source.report.clock - source.at) if time else 0.0


def _since(source: Reported) -> float:
    return _at(source, source.report.since)

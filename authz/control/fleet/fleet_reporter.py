"""
What this control plane and its proxies run: reported to the truth of the fleet, and what all replicas report together.

Only proxies of which something changed are looked at. Without a truth the fleet is this one replica.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass
from math import isfinite
from typing import Protocol

from authz.canary.candidate_standing import CandidateStanding
from authz.control.authority.figures import Figured
from authz.control.fleet.discovery_server import DiscoveryServer
from authz.control.fleet.fleet_figures import ProxyState
from authz.core.errors import AuthzError
from authz.telemetry import fleet_names
from authz.truth.fleet_merge import (
    BEHIND,
    CURRENT,
    MISSING,
    REFUSING,
    SILENT,
    UNKNOWN,
    FleetView,
    merge_reports,
)
from authz.truth.fleet_report import CONTROL, ProxyReport, RefusedResource, ReplicaReport, Reported

log = logging.getLogger("authz.control.discovery")

LOOK_SECONDS = 1.0
"""How often somebody looks whether something changed."""
HEARTBEAT_SECONDS = 8.0
"""A report is written at least so often."""
HEAR_SECONDS = 3.0
"""How often it is read what others report."""
TRUSTED_SECONDS = 600.0
"""For so long a silent replica is believed to serve its proxies."""
DOUBLE = "another process reports by the same name: give each replica a name of its own, `--replica`"
AT_ONCE = 500
"""Proxies that are looked at before other work has its turn."""


class ReportWriting(Protocol):
    """Where reports go: ``truth.report_store.ReportWriter``."""

    has_double: bool

    def take(self, changed: "dict[str, ProxyReport | None]") -> None:
        """Note proxies that are other than before."""

    def write(self, report: ReplicaReport) -> None:
        """Write what changed. Raises AuthzError."""

    def withdraw(self) -> None:
        """Take the report away, for some seconds at most. Raises AuthzError."""

    def hurry(self) -> None:
        """End ``withdraw``."""


class ReportReading(Protocol):
    """Where reports come from: ``truth.report_store.ReportReader``."""

    def read(self) -> tuple[list[Reported], float]:
        """Every report, and the time by the clock that they are of. Raises AuthzError."""


@dataclass(frozen=True, slots=True)
class ReportStore:
    """The truth of the fleet."""

    writer: ReportWriting
    reader: ReportReading


@dataclass(frozen=True, slots=True)
class OwnState:
    """What a report says of this process."""

    problem: str = ""
    """Why what is there is not in force."""
    certificate_expires: float = 0.0
    """Of its doors."""
    candidate: CandidateStanding | None = None
    """Of the fleet."""
    chosen: tuple[str, ...] = ()
    """The proxies that it is in force for, and that have been told."""


@dataclass(frozen=True, slots=True)
class Replica:
    """This process in its fleet."""

    name: str = "control"
    store: ReportStore | None = None
    """None: nobody else is told."""


class FleetReporter:
    """``run`` until cancelled, then ``withdraw``; ``view`` and ``own`` at any time, in the loop of the discovery."""

    def __init__(
        self,
        discovery: DiscoveryServer,
        replica: Replica,
        own: Callable[[], OwnState],
        *,
        clock: Callable[[], float],
    ) -> None:
        """
        Args:
            discovery: whose proxies they are.
            replica: its name, and who is told.
            own: what to say of this process.
            clock: seconds since the epoch.
        """
        self.name = replica.name
        self.problem = ""
        """Why the fleet does not know what runs here; empty when it does."""
        self._discovery = discovery
        self._own = own
        self._clock = clock
        self._store = replica.store
        self.is_told = replica.store is not None
        """Whether there are others who are told, and heard."""
        self._rows: dict[str, ProxyReport] = {}
        self._untold: dict[str, ProxyReport | None] = {}
        self._told: tuple[str, OwnState] | None = None
        self._told_at = 0.0
        self._heard: tuple[list[Reported], float, float] | None = None
        self._chosen: tuple[int, tuple[str, ...]] = (0, ())
        self._having: frozenset[str] = frozenset()
        self._served: dict[str, frozenset[str]] = {}
        """Whom each other replica served when its report could last be read."""

    def own(self) -> Reported:
        """This replica alone."""
        own = self._look_at_all()
        now = self._clock()
        return Reported(now, self._report(now, own), tuple(self._rows.values()))

    def view(self) -> FleetView:
        """The whole fleet: this replica as it is, the others as they last reported."""
        own = self.own()
        if self._heard is None:
            return merge_reports([own], own.at)
        reports, at, heard = self._heard
        now = at + max(0.0, own.at - heard)  # by the servers' clock, as far as ours has gone on
        others = [one for one in reports if (one.report.kind, one.report.name) != (CONTROL, self.name)]
        return merge_reports([*others, Reported(now, own.report, own.proxies)], now)

    def figures(self) -> Figured:
        """Every metric of the fleet with what it is now."""
        view = self.view()
        replicas, proxies = (Counter(one.state for one in found) for found in (view.replicas, view.proxies))
        yield fleet_names.FLEET_SKEW, view.skew_seconds
        yield fleet_names.FLEET_REPLICAS, {(word,): replicas[word] for word in (CURRENT, BEHIND, REFUSING, SILENT)}
        yield (
            fleet_names.FLEET_PROXIES,
            {(word,): proxies[word] for word in (CURRENT, BEHIND, REFUSING, MISSING, UNKNOWN)},
        )
        yield fleet_names.FLEET_REPORTED, not self.problem

    @property
    def elsewhere(self) -> Set[str] | None:
        """
        The proxies that other replicas serve; None where that cannot be known.

        Those of a replica that has been silent for a short time are among them: it may serve them all the same. Of one
        whose report cannot be read now, or not all of it, those are that it served before.
        """
        if self._heard is None or self.problem:
            return None
        reports, at, heard = self._heard
        now = at + max(0.0, self._clock() - heard)
        found: set[str] = set()
        for one in reports:
            if one.report.kind == CONTROL and one.report.name != self.name and now - one.at <= TRUSTED_SECONDS:
                served = self._served.get(one.report.name)
                if served is None:
                    return None
                found |= served
        return frozenset(found)

    async def run(self) -> None:
        """Report what changes, until cancelled. Without a store there is nothing to do."""
        while self._store is not None:
            try:
                await self._turn(self._store)
            except Exception:  # must not end the reporting altogether
                log.exception("reporting to the fleet failed")
            await asyncio.sleep(LOOK_SECONDS)

    async def withdraw(self) -> None:
        """Say farewell: who ends in order is not missed."""
        if self._store is not None:
            try:
                await asyncio.to_thread(self._store.writer.withdraw)
            except AuthzError as error:
                log.warning("the report of this replica stays: %s", error)

    def hurry(self) -> None:
        """Whoever ends it does not want to wait for its farewell."""
        if self._store is not None:
            self._store.writer.hurry()

    async def _turn(self, store: ReportStore) -> None:
        changed = list(self._discovery.standings.take_changed() | self._chosen_anew(self._own()))
        for begin in range(0, len(changed), AT_ONCE):
            self._look(set(changed[begin : begin + AT_ONCE]))
            await asyncio.sleep(0)
        # What changed meanwhile belongs to it: a report must never call a proxy current at a revision that came later.
        own = self._look_at_all()
        now, state = self._clock(), (self._discovery.standings.revision, own)
        is_due = self._untold or state != self._told or not 0 <= now - self._told_at < HEARTBEAT_SECONDS
        try:
            if is_due:
                untold, self._untold = self._untold, {}
                await asyncio.to_thread(_write, store.writer, untold, self._report(now, own))
                self._told, self._told_at = state, now
            if self._heard is None or not 0 <= now - self._heard[2] < HEAR_SECONDS:
                self._heard = (*await asyncio.to_thread(store.reader.read), self._clock())
                self._served |= {one.report.name: _connected(one) for one in self._heard[0] if one.is_whole}
            self._note(DOUBLE if store.writer.has_double else "")
        except AuthzError as error:
            self._note(DOUBLE if store.writer.has_double else str(error))

    def _note(self, problem: str) -> None:
        if problem != self.problem:
            if problem:
                log.error("the fleet does not know what runs here: %s", problem)
            else:
                log.info("the fleet knows again what runs here")
        self.problem = problem

    def _report(self, now: float, own: OwnState) -> ReplicaReport:
        standings = self._discovery.standings
        return ReplicaReport(
            self.name, CONTROL, now, standings.revision, standings.since, own.problem, own.certificate_expires,
            candidate=own.candidate,
        )  # fmt: skip

    def _look_at_all(self) -> OwnState:
        """Everything as it is at one moment: what is reported together was so together."""
        own = self._own()
        self._look(self._discovery.standings.take_changed() | self._chosen_anew(own))
        return own

    def _chosen_anew(self, own: OwnState) -> frozenset[str]:
        """The proxies that are given another candidate than before, or none any more; from now on rows say so."""
        before, having = self._chosen[0], self._having
        number = own.candidate.number if own.candidate is not None else 0
        if (number, own.chosen) == self._chosen:
            return frozenset()
        self._chosen, self._having = (number, own.chosen), frozenset(own.chosen)
        return having ^ self._having if number == before else having | self._having

    def _look(self, changed: Set[str]) -> None:
        for name in changed:
            row = self._row(name)
            if row is None:
                self._rows.pop(name, None)
            else:
                self._rows[name] = row
            if self._store is not None:
                self._untold[name] = row

    def _row(self, name: str) -> ProxyReport | None:
        state, standing = self._discovery.state(name), self._discovery.standings.of(name)
        if state is None:
            return None
        refusals = [
            RefusedResource(kind, one.refused, one.rejection) for kind, one in state.types.items() if one.rejection
        ]
        expires = state.certificate_expires
        return ProxyReport(
            name,
            state.is_connected,
            state.is_current,
            "" if state.is_current else standing.revision,
            standing.since,
            standing.acknowledged_at,
            standing.refused_at,
            expires if isfinite(expires) else 0.0,
            tuple(refusals) if state.is_connected else (),
            tuple(_waits(state)) if state.is_connected else (),
            self._chosen[0] if name in self._having else 0,
        )


def _waits(state: ProxyState) -> Iterator[str]:
    """A line for each type that is overdue."""
    for kind, one in state.types.items():
        if one.is_overdue:
            yield f"{kind}: {'; '.join(one.waits)}" if one.waits else kind


def _write(writer: ReportWriting, untold: dict[str, ProxyReport | None], report: ReplicaReport) -> None:
    writer.take(untold)
    writer.write(report)


def _connected(reported: Reported) -> frozenset[str]:
    return frozenset(proxy.name for proxy in reported.proxies if proxy.is_connected)

"""
The control plane as a process: the mesh followed and served to every Envoy of the fleet, beside the authority.

A change of policies, description or key sets that cannot be used keeps what is in force and says so. When this process
dies, Envoys keep what they have; when it is back, they come back and get what differs.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Set
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

import grpc

from authz.admin.fleet_page import fleet_file
from authz.canary.canary_source import CanarySource
from authz.control.authority.authority_server import AuthorityServer
from authz.control.authority.figures import Figured
from authz.control.authority.sds import Identify
from authz.control.authority.stock import Stock
from authz.control.canary_follower import CanaryFollower
from authz.control.envoy_validation import Validator
from authz.control.fleet.canary_watch import CanaryWatch
from authz.control.fleet.discovery_server import DiscoveryServer
from authz.control.fleet.fleet_figures import fleet_figures, fleet_json, source_figures
from authz.control.fleet.fleet_health import FleetHealth
from authz.control.fleet.fleet_reporter import FleetReporter, OwnState, Replica
from authz.control.fleet.fleet_snapshot import Fleet, FleetSnapshot
from authz.control.fleet.gone_proxies import GoneProxies
from authz.control.fleet.steadfast_follower import SteadfastFollower
from authz.control.kept_inputs import InputPaths
from authz.control.mesh_follower import MeshFollower
from authz.control.records.record_receiver import RecordReceiver
from authz.core.policies_by_workload import PoliciesByWorkload
from authz.envoy.native.binary import EnvoyError
from authz.envoy.options import Listeners, Records, RenderOptions
from authz.envoy.packed_tree import Unpackable
from authz.envoy.rendered_files import write_files
from authz.mesh.nouns import Mesh, MeshWorkload
from authz.sources.keys.key_sharing import KeySharing
from authz.telemetry.status import PolicySourceStatus
from authz.truth.fleet_merge import view_json
from authz.truth.fleet_report import digest_revision, reported_json

FLEET_PAGE = "/fleet"
GRAIN_SECONDS = 0.02
"""By so much the time of a file may be too early."""
REPORT_PAGE, VIEW_PAGE = "/fleet/report", "/fleet/view"
CANARY_PAGE = "/canary"


@dataclass(frozen=True, slots=True)
class MeshSources:
    """Where the truth is."""

    policies: Path
    """A directory, read with its subfolders, or a file."""
    mesh: Path
    traffic: Path | None = None
    """More of the description."""
    keep: Path = Path("state")
    """
    A directory for what has to outlive the process: what was last in force, who was connected, and documents of the
    issuers of browser logins.
    """
    ca_bundles: Mapping[str, str] = field(default_factory=dict)
    """PEM file by issuer or key URI, as the setting ``jwks_ca_bundles``."""
    canary: CanarySource | None = None
    """A candidate for a part of the mesh."""
    sharing: KeySharing | None = None
    """With other controls, one of which fetches key sets for all."""


class ControlPlane:
    """``start`` in a running event loop, ``run`` until cancelled, ``stop``. The authority's ``Guest``."""

    def __init__(
        self,
        sources: MeshSources,
        options: RenderOptions,
        authority: AuthorityServer,
        *,
        clock: Callable[[], float],
        say: Callable[[str], None],
        validator: Validator | None = None,
        gone_after: float = 0.0,
        replica: Replica | None = None,
        source: Callable[[], PolicySourceStatus | None] = lambda: None,
        records: RecordReceiver | None = None,
    ) -> None:
        """
        Args:
            sources: what is followed.
            options: how it is rendered; where listeners come from is always this process.
            authority: whose door for holders of an SVID is ours, too.
            clock: seconds since the epoch.
            say: is given one line for people about every change.
            validator: shows changed filters to an Envoy before proxies get them; None: nobody does.
            gone_after: for how many seconds a proxy is away until its endpoints are unhealthy for others; 0: they
                stay.
            replica: by which name it reports what it and its proxies run, and where; None: nowhere.
            source: how the source of published policies is; None: they are not published.
            records: takes what proxies record of their decisions; None: they write files of their own.
        """
        self.discovery = DiscoveryServer(clock=clock)
        self.reporter = FleetReporter(self.discovery, replica or Replica(), self._own_state, clock=clock)
        self.health = FleetHealth(self.discovery, GoneProxies(gone_after), sources.keep, say)
        self.health.elsewhere = self._elsewhere
        self._clock = clock
        self._source = source
        self._authority = authority
        self._keep = sources.keep
        self._say = say
        self._snapshot = FleetSnapshot()
        self._records = records
        self._version = ""
        authority.guest = self
        self._delivering, self._has_fresh = Lock(), False

        def follow(paths: InputPaths) -> MeshFollower:
            carrier = Records.FILE if records is None else Records.CONTROL
            told = replace(options, listeners=Listeners.ADS, records=carrier)
            made = MeshFollower(
                paths.policies, paths.mesh, sources.keep, told, clock=clock, say=say, ca_bundles=sources.ca_bundles,
                validator=validator, traffic=paths.traffic, sharing=sources.sharing,
                deliver=partial(self._deliver, paths is not there),
            )  # fmt: skip
            made.canary = CanaryFollower(sources.canary, paths.policies, paths.mesh, sources.keep, clock=clock, say=say)
            return made

        there = InputPaths(sources.policies, sources.mesh, sources.traffic)
        self._follower = SteadfastFollower(follow, there, sources.keep, say)
        self._watch = CanaryWatch(lambda: self.canary, clock)
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def canary(self) -> CanaryFollower:
        """The candidate."""
        return self._follower.canary

    async def start(self) -> None:
        """
        Make the whole fleet once, then open the doors.

        Raises:
            LoadError: policies, description or the authority's files have problems.
            EnvoyError: Envoy refuses the filters.
            SettingsError: an address or the authority cannot be used.
            OSError: a file cannot be read.
        """
        self._loop = asyncio.get_running_loop()
        self.health.restore()
        if self._records is not None:
            self._records.start()
        await self._follower.start()
        await self._authority.start()

    async def run(self) -> None:
        """Follow what changes, until cancelled."""
        beside = [
            asyncio.create_task(self.health.run(), name="health of the fleet"),
            asyncio.create_task(self.reporter.run(), name="report"),
        ]
        try:
            await self._follower.run()
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)

    async def stop(self) -> None:
        """Close the doors; Envoys keep what they have."""
        if self._records is not None:
            self._records.end()
        await self.reporter.withdraw()
        await self._follower.close()
        await self._authority.stop()
        if self._records is not None:
            await self._records.close()

    def reopen(self) -> None:
        """Open files of records again, after somebody has renamed them."""
        if self._records is not None:
            self._records.reopen()

    def handlers(self, stock: Stock, identify: Identify) -> "tuple[grpc.GenericRpcHandler[Any, Any], ...]":
        """Aggregated discovery, reports of requests, and records of decisions."""
        made = [self.discovery.handler(stock, identify), self._watch.handler(stock, identify)]
        if self._records is not None:
            made.append(self._records.handler(stock, identify))
        return tuple(made)

    def figures(self) -> Figured:
        """Metrics of discovery."""
        kept = len(self.health.kept)
        yield from fleet_figures(self.health.states(), self.discovery.figures, self.discovery.streams, kept)
        yield from self.reporter.figures()
        if (source := self._source()) is not None:
            yield from source_figures(source)
        yield from self._watch.figures()
        if self._records is not None:
            yield from self._records.figures()

    def causes(self) -> Iterable[dict[str, object]]:
        """Proxies that refused something, and a change that is not in force."""
        if self._follower.problem:
            message = f"a change is not in force: {self._follower.problem}"
            yield {"part": "mesh", "message": message, "blocks": False}
        source = self._source()
        if source is not None and source.problem:
            yield {"part": "policies", "message": source.problem, "blocks": False}
        yield from self.health.causes()
        if self._records is not None:
            yield from self._records.causes()
        if self.reporter.problem:
            message = f"the fleet does not know what runs here: {self.reporter.problem}"
            yield {"part": "report", "message": message, "blocks": False}
        if self.canary.problem:
            message = f"the candidate is not in force as it is: {self.canary.problem}"
            yield {"part": "candidate", "message": message, "blocks": False}
        for state in (one for one in self.discovery.states() if not one.is_current):
            for short, one in state.types.items():
                if one.rejection:
                    message = f"{state.name} refused {short} {one.refused}: {one.rejection}"
                    yield {"part": "proxy", "message": message, "blocks": False}

    def page(self, path: str) -> object | None:
        """
        Every proxy with what it took and refused; the report of this replica; the fleet as all report it, and its page;
        a candidate.
        """
        if path == CANARY_PAGE:
            return self._watch.shown() | (self._records.compared() if self._records is not None else {})
        if path == FLEET_PAGE:
            return fleet_json(self.health.states(), self._version)
        if path == REPORT_PAGE:
            return reported_json(self.reporter.own())
        return view_json(self.reporter.view()) if path == VIEW_PAGE else fleet_file(path)

    def _own_state(self) -> OwnState:
        """
        What is reported of this process. A published revision is claimed when all that is in force was read after it
        had been taken: policies, description and what is beside them are in several files.
        """
        source = self._source()
        if source is not None and source.revision and self._follower.read_at > source.taken_at + GRAIN_SECONDS:
            self.discovery.standings.revise(source.revision, self._clock())
        problem = self._follower.problem or (source.problem if source is not None else "")
        canary = self.canary
        return OwnState(problem, self._authority.own_expires, canary.standing, canary.delivered_to)

    def _deliver(
        self,
        is_kept: bool,
        mesh: Mesh,
        files: Mapping[str, bytes],
        policies: PoliciesByWorkload,
        some: tuple[MeshWorkload, ...] | None,
    ) -> None:
        """Make the fleet of what was rendered, and publish it. In a thread. Raises EnvoyError, OSError."""
        assert self._loop is not None, "rendered only after the start"
        if some is None:
            write_files(self._keep, {name: data for name, data in files.items() if name.startswith("login/")})
        with self._delivering:  # while what was kept is served, what is there may be tried
            if is_kept and self._has_fresh:
                return
            self._has_fresh = not is_kept
            try:
                fleet = self._snapshot.make(mesh.workloads, files, some)
            except Unpackable as error:
                self._has_fresh = False
                raise EnvoyError(f"what was rendered cannot be sent: {error}") from error
            names = None if some is None else [workload.name for workload in some]
            self._loop.call_soon_threadsafe(self._publish, fleet, mesh, policies, names)

    def _elsewhere(self) -> Set[str] | None:
        """Other authorities are those of other control planes, whose proxies only a truth tells."""
        if self.reporter.is_told:
            return self.reporter.elsewhere
        return None if self._authority.stock.registrar.ca.others else frozenset()

    def _publish(self, fleet: Fleet, mesh: Mesh, policies: PoliciesByWorkload, some: Collection[str] | None) -> None:
        version = policies.version
        if self._records is not None:  # before anybody decides by them
            self._records.replace(policies, mesh)
        changed = self.health.publish(fleet, mesh, some)
        if some is None:
            self._watch.follow(fleet)
        if self._source() is None:
            self.discovery.standings.revise(digest_revision(version), self._clock())
        self._version = version
        if changed:
            everybody = len(mesh.workloads)
            self._say(f"published version {version}: {len(changed)} of {everybody} proxies have something new")

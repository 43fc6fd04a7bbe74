"""
Which proxies are gone, looked at every second, and what of that others are told: their endpoints are unhealthy.

Only endpoints travel, and only to proxies that have them. Who was connected and who was gone is noted in a file, so
that a restart brings nobody back who is gone, and takes nobody out who had no time to come back.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import replace
from pathlib import Path
from time import monotonic

from authz.control.fleet.discovery_server import DiscoveryServer
from authz.control.fleet.endpoint_health import EndpointHealth
from authz.control.fleet.fleet_figures import ProxyState
from authz.control.fleet.fleet_snapshot import Fleet, FleetMember
from authz.control.fleet.gone_proxies import LOOK_SECONDS, GoneProxies
from authz.envoy.rendered_files import write_files
from authz.mesh.nouns import Mesh

NOTED_FILE = "proxies.json"
NOTE_LOOKS = 5
"""Every so many looks it is noted who is connected: after a start, that changes all the time."""
SHOWN = 5
"""How many names a line for people has."""
log = logging.getLogger("authz.control.health")


class FleetHealth:
    """What stands between the fleet as it is made and the fleet as it is served."""

    def __init__(
        self,
        discovery: DiscoveryServer,
        gone: GoneProxies,
        keep: Path,
        say: Callable[[str], None],
        *,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """
        Args:
            discovery: serves the fleet, and knows who is connected.
            gone: says who is gone.
            keep: the directory in which that is noted.
            say: is given one line for people about everybody who is gone, or back.
            clock: seconds, which never go back.
        """
        self.elsewhere: Callable[[], Set[str] | None] = frozenset
        """Names of the proxies that other control planes of this mesh serve; None where that cannot be known."""
        self._discovery = discovery
        self._gone = gone
        self._keep = keep
        self._say = say
        self._clock = clock
        self._overlay = EndpointHealth()
        self._fleet: dict[str, FleetMember] = {}
        self._mesh: Mesh | None = None
        self._noted = ""
        self._is_noted = False
        """Whether nobody has looked since that was noted."""
        self._laid: Set[str] = frozenset()
        """Who was gone in what is served."""
        self._looked: tuple[int, Set[str] | None] | None = None
        """What the last look was told."""

    def restore(self) -> None:
        """Begin with what was noted, if anything was."""
        try:
            self._noted = (self._keep / NOTED_FILE).read_text()
        except (OSError, ValueError):
            return
        self._gone.restore(self._noted)

    def publish(self, fleet: Fleet, mesh: Mesh, some: Iterable[str] | None = None) -> tuple[str, ...]:
        """
        Serve a fleet; return the names of proxies for which something changed.

        Args:
            fleet: everybody, or those of ``some``.
            mesh: the workloads that these are the proxies of.
            some: members of the fleet of before, which alone may be other than they were; None: any may.
        """
        self._mesh = mesh
        if some is None:
            self._fleet = dict(fleet)
        else:
            self._fleet |= fleet
        return self._serve(some)

    async def run(self) -> None:
        """Look for ever."""
        looks = 0
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            looks += 1
            has_changed = self.look()
            if has_changed or (looks % NOTE_LOOKS == 0 and not self._is_noted):
                await self._note()

    def look(self) -> bool:
        """See who is gone or back; whether somebody is."""
        if self._mesh is None:
            return False
        told = self._discovery.moves, self.elsewhere()
        if told == self._looked and not self._gone.is_anybody_away:
            return False  # as every second of a fleet at rest, whose size must not matter
        self._looked, self._is_noted = told, False
        before = self._gone.gone
        connected, left = self._discovery.connected_and_left
        gone = self._gone.look(
            self._clock(),
            connected,
            self._has_listeners,
            members=self._fleet,
            left=left,
            elsewhere=told[1],
        )
        if gone == before:
            return False
        served = self._serve()
        for names, what in ((gone - before, "gone"), (before - gone & self._fleet.keys(), "back")):
            if names:
                self._say(f"{what:<9} {_listed(names)}: {len(served)} proxies are told")
                log.warning("%s: %s", what, ", ".join(sorted(names)))
        return True

    @property
    def kept(self) -> tuple[str, ...]:
        """Endpoints, by name, of which too many are gone, so that all of them stay."""
        return self._overlay.kept

    def states(self) -> Iterator[ProxyState]:
        """Every proxy, by name."""
        gone = self._gone.gone
        for state in self._discovery.states():
            yield replace(state, is_gone=True) if state.name in gone else state

    def causes(self) -> Iterable[dict[str, object]]:
        """Destinations that stay as they are though more than half of them is gone."""
        if self.kept:
            message = f"more than half is gone, so all endpoints stay: {_listed(self.kept)}"
            yield {"part": "endpoints", "message": message, "blocks": False}

    def _has_listeners(self, name: str) -> bool:
        """Whether a proxy is connected and has taken its listeners: before, it receives nothing."""
        state = self._discovery.state(name)
        return state is not None and state.is_connected and "lds" in state.types and bool(state.types["lds"].accepted)

    def _serve(self, some: Iterable[str] | None = None) -> tuple[str, ...]:
        before = self._overlay.kept
        mesh, there = self._mesh, frozenset(name for name in self._gone.gone if name in self._fleet)
        if there != self._laid:
            some, self._laid = None, there
        workloads = () if mesh is None else [mesh.workload(name) for name in there]
        served = self._overlay.lay_over(self._fleet, workloads, some)
        told = self._discovery.publish(served, some)
        if new := sorted({*self._overlay.kept} - {*before}):
            self._say(f"kept      all endpoints of {_listed(new)}: more than half is gone")
            log.error("more than half is gone, so all endpoints stay: %s", ", ".join(new))
        return told

    async def _note(self) -> None:
        self._is_noted, noted = True, self._gone.noted()
        if noted == self._noted:
            return
        try:
            await asyncio.to_thread(write_files, self._keep, {NOTED_FILE: noted.encode()})
            self._noted = noted
        except OSError as error:
            self._is_noted = False
            log.error("cannot write `%s`: %s", error.filename or self._keep, error.strerror or error)


def _listed(names: Iterable[str]) -> str:
    found = sorted(names)
    more = len(found) - SHOWN
    return ", ".join(f"`{name}`" for name in found[:SHOWN]) + (f" and {more} more" if more > 0 else "")

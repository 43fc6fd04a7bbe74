"""
Endpoints of workloads that are gone, marked as unhealthy for whoever calls them.

Laid over a fleet as it was made: what is not touched is the very object of before, so that nobody else is woken.
Where more than half of a destination would be unhealthy, nothing is marked: then the reason is rather on the way from
the proxies to here, and callers would do the same (Envoy's panic threshold, 50 %).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from authz._proto import endpoints_pb2 as wire
from authz.control.discovery.discovered import ENDPOINTS_TYPE, Discovered, TypeWorld
from authz.control.fleet.fleet_snapshot import Fleet, FleetMember
from authz.mesh.nouns import MeshWorkload

_Place = tuple[str, int]
"""Address and port."""
_NOTHING: TypeWorld = {}


@dataclass(slots=True)
class _Marked:
    """What became of one resource."""

    of: Discovered
    places: frozenset[_Place]
    made: Discovered | None
    """None: too many are gone, so that it stays as it is."""


@dataclass(slots=True)
class EndpointHealth:
    """Lays who is gone over a fleet; costs nothing while nobody is."""

    kept: tuple[str, ...] = ()
    """Endpoints, by name, of which too many are gone; sorted."""
    _gone: frozenset[_Place] = frozenset()
    """The places that were laid over last."""
    _served: dict[str, FleetMember] = field(default_factory=dict)
    """What that was."""
    _before: dict[str, FleetMember] = field(default_factory=dict)
    """Members whose endpoints are known."""
    _known: dict[str, Discovered] = field(default_factory=dict)
    """Endpoints by name; those that are no more do no harm."""
    _places: dict[str, frozenset[_Place]] = field(default_factory=dict)
    _names: dict[_Place, set[str]] = field(default_factory=dict)
    """By place: the endpoints in which it is."""
    _marked: dict[str, _Marked] = field(default_factory=dict)
    _laid: dict[str, tuple[FleetMember, Mapping[str, Discovered], FleetMember]] = field(default_factory=dict)
    """By name: the member as it was made, what was laid over it, and what that is."""

    def lay_over(self, fleet: Fleet, gone: Iterable[MeshWorkload], some: Iterable[str] | None = None) -> Fleet:
        """
        The fleet in which endpoints of these workloads are unhealthy; without any, the very one that was given.

        Args:
            fleet: as it was made.
            gone: the workloads.
            some: the members that alone may be other than last time; None: any may.

        Returns:
            A member that is as it was is the very object of before. Where only some were looked at, so is the fleet, in
            which they are replaced: who compares with what was has to keep that.
        """
        places = frozenset(place for workload in gone for place in places_of(workload))
        if not places:
            self._forget()
            return fleet
        is_whole = some is None or places != self._gone
        members = fleet if is_whole or some is None else {name: fleet[name] for name in some}
        new = self._learn(members)
        marked, served = ({}, dict(fleet)) if is_whole else (self._marked, self._served)
        for name in {name for place in places for name in self._names.get(place, ())} if is_whole else new:
            if found := self._places[name] & places:
                marked[name] = self._mark(name, found)
            else:
                marked.pop(name, None)
        if is_whole:
            there_are = {name for one in members.values() for name in one.world.get(ENDPOINTS_TYPE, _NOTHING)}
            marked = {name: one for name, one in marked.items() if name in there_are}
        over = {name: one.made for name, one in marked.items() if one.made is not None}
        for name, member in members.items():
            there = member.world.get(ENDPOINTS_TYPE, _NOTHING)
            served[name] = self._lay(member, {one: over[one] for one in there.keys() & over.keys()})
        self.kept = tuple(sorted(name for name, one in marked.items() if one.made is None))
        self._gone, self._marked, self._served = places, marked, served
        self._laid = {name: one for name, one in self._laid.items() if name in fleet} if is_whole else self._laid
        return served

    def _forget(self) -> None:
        self.kept, self._gone, self._served = (), frozenset(), {}
        for known in (self._before, self._known, self._places, self._names, self._marked, self._laid):
            known.clear()

    def _learn(self, members: Fleet) -> set[str]:
        """Read which places are where, of what is new: endpoints by name."""
        new = set()
        for member_name, member in members.items():
            if self._before.get(member_name) is member:
                continue
            self._before[member_name] = member
            for name, one in member.world.get(ENDPOINTS_TYPE, _NOTHING).items():
                if self._known.get(name) is one:
                    continue
                new.add(name)
                self._known[name] = one
                for place in self._places.get(name, ()):
                    self._names[place].discard(name)
                found = self._places[name] = frozenset(place for _, place in _endpoints(_read(one)))
                for place in found:
                    self._names.setdefault(place, set()).add(name)
        return new

    def _mark(self, name: str, places: frozenset[_Place]) -> _Marked:
        """Endpoints with these places unhealthy."""
        resource, before = self._known[name], self._marked.get(name)
        if before is not None and before.of is resource and before.places == places:
            return before
        assignment = _read(resource)
        endpoints = list(_endpoints(assignment))
        unhealthy = [endpoint for endpoint, place in endpoints if place in places]
        if 2 * len(unhealthy) > len(endpoints):
            return _Marked(resource, places, None)
        for endpoint in unhealthy:
            endpoint.health_status = wire.UNHEALTHY
        made = Discovered.pack(ENDPOINTS_TYPE, name, assignment.SerializeToString(deterministic=True))
        return _Marked(resource, places, made)

    def _lay(self, member: FleetMember, own: Mapping[str, Discovered]) -> FleetMember:
        if not own:
            self._laid.pop(member.name, None)
            return member
        before = self._laid.get(member.name)
        if before is not None and before[0] is member and before[1] == own:
            return before[2]
        world = {**member.world, ENDPOINTS_TYPE: {**member.world[ENDPOINTS_TYPE], **own}}
        made = FleetMember(member.name, member.spiffe_id, world)
        self._laid[member.name] = member, own, made
        return made


def places_of(workload: MeshWorkload) -> frozenset[tuple[str, int]]:
    """Where a workload's proxy receives: address and port."""
    ports = [port.number for port in workload.inbound] + [server.port for server in workload.servers]
    return frozenset((workload.address, number) for number in (*ports, *workload.ports.values()))


def _read(resource: Discovered) -> wire.ClusterLoadAssignment:
    return wire.ClusterLoadAssignment.FromString(resource.message)


def _endpoints(assignment: wire.ClusterLoadAssignment) -> Iterator[tuple[wire.LbEndpoint, _Place]]:
    """Every endpoint with its place; that of a socket has no address."""
    for group in assignment.endpoints:
        for one in group.lb_endpoints:
            address = one.endpoint.address.socket_address
            yield one, (address.address, address.port_value)

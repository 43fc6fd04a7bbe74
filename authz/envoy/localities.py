"""
Endpoints by place: shares and priorities, as one proxy sees them from where it runs.

Facts from Istio's ``loadbalancer.go``. Endpoint files are shared by all proxies unless places make a difference.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from envoy_data_plane.envoy.config.core.v3 import Locality
from envoy_data_plane.envoy.config.endpoint.v3 import ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints

from authz.mesh.locality_values import WorkloadLocality
from authz.mesh.traffic_policy import LocalityBalancing, TrafficPolicy

_NETWORK = "topology.istio.io/network"


@dataclass(frozen=True, slots=True)
class PlacedEndpoint:
    """An endpoint, and what decides its share and priority."""

    endpoint: LbEndpoint
    locality: WorkloadLocality
    labels: Mapping[str, str]
    """With those of its place."""
    weight: int
    """0: as much as every other."""


@dataclass(slots=True)
class _Group:
    locality: WorkloadLocality
    members: list[PlacedEndpoint]
    priority: int = 0
    weight: int | None = None

    @property
    def sum(self) -> int:
        return sum(member.weight or 1 for member in self.members)


def shared_assignment(cluster: str, endpoints: Sequence[PlacedEndpoint]) -> ClusterLoadAssignment:
    """Endpoints for proxies wherever they run: one group, and weights if any endpoint has one."""
    members = [_weighted(one, needed=any(other.weight for other in endpoints)) for one in endpoints]
    groups = [LocalityLbEndpoints(lb_endpoints=members)] if members else []
    return ClusterLoadAssignment(cluster_name=cluster, endpoints=groups)


def effective(policy: TrafficPolicy) -> LocalityBalancing | None:
    """The locality settings that hold; None where they are turned off, or could have no effect."""
    said = policy.load_balancer.locality if policy.load_balancer else None
    found = said or LocalityBalancing()
    if not found.enabled or (found.distribute is None and policy.outlier is None):
        return None  # nothing would notice that a place has failed
    return found


def placed_assignment(
    cluster: str,
    endpoints: Sequence[PlacedEndpoint],
    balancing: LocalityBalancing,
    place: WorkloadLocality,
    labels: Mapping[str, str],
) -> ClusterLoadAssignment | None:
    """
    Endpoints as a proxy at ``place`` with these labels (those of the place among them) takes them.

    None when that is what every proxy takes: one priority, and no shares.
    """
    groups = _grouped(endpoints)
    if balancing.distribute is not None:
        if not _distribute(groups, balancing.distribute, place):
            return None
    else:
        if balancing.failover_priority and labels:
            groups = _by_labels(groups, balancing.failover_priority, labels)
        if not balancing.failover_priority or balancing.failover:
            _by_place(groups, balancing.failover, place)
        if not any(group.priority for group in groups) and len({g.priority for g in groups}) <= 1:
            return None
    found = [
        LocalityLbEndpoints(
            locality=Locality(region=group.locality.region, zone=group.locality.zone, sub_zone=group.locality.subzone),
            lb_endpoints=[_weighted(member, needed=True) for member in group.members],
            load_balancing_weight=group.sum if group.weight is None else group.weight,
            priority=group.priority,
        )
        for group in groups
    ]
    return ClusterLoadAssignment(cluster_name=cluster, endpoints=found)


def _weighted(one: PlacedEndpoint, *, needed: bool) -> LbEndpoint:
    if needed:
        one.endpoint.load_balancing_weight = one.weight or 1
    return one.endpoint


def _grouped(endpoints: Sequence[PlacedEndpoint]) -> list[_Group]:
    found: dict[WorkloadLocality, _Group] = {}
    for one in endpoints:
        found.setdefault(one.locality, _Group(one.locality, [])).members.append(one)
    return [found[place] for place in sorted(found)]


def _distribute(
    groups: list[_Group], distribute: Sequence[tuple[str, Sequence[tuple[str, int]]]], place: WorkloadLocality
) -> bool:
    """Give groups their shares; what gets none loses its endpoints. Whether a rule is about ``place``."""
    shares = next((shares for source, shares in distribute if place.matches(source)), None)
    if shares is None:
        return False
    left = list(groups)
    for pattern, share in shares:
        fitting = [group for group in left if group.locality.matches(pattern)]
        left = [group for group in left if group not in fitting]
        total = sum(group.sum for group in fitting)
        for group in fitting:
            group.weight = math.ceil(group.sum * share / total)
    for group in left:
        group.members, group.weight = [], group.sum
    return True


def _by_labels(groups: list[_Group], wanted: Sequence[str], labels: Mapping[str, str]) -> list[_Group]:
    """Split groups by how many of the wanted labels their endpoints share with the proxy, from the first on."""
    found: list[_Group] = []
    for group in groups:
        split: dict[int, _Group] = {}
        for member in group.members:
            priority = _label_priority(member.labels, wanted, labels)
            split.setdefault(priority, _Group(group.locality, [], priority)).members.append(member)
        found += [split[priority] for priority in sorted(split)]
    _without_gaps(found)
    return found


def _label_priority(endpoint: Mapping[str, str], wanted: Sequence[str], proxy: Mapping[str, str]) -> int:
    other_network = 0
    for i, written in enumerate(wanted):
        label, has_value, value = written.partition("=")
        expected = value if has_value and "=" not in value else proxy.get(label, "")
        if endpoint.get(label, "") == expected:
            continue
        if i == 0 and wanted[0] == _NETWORK:
            other_network = len(wanted)
            continue
        return len(wanted) - i + other_network
    return other_network


def _by_place(groups: list[_Group], failover: Sequence[tuple[str, str]], place: WorkloadLocality) -> None:
    target = next((target for source, target in failover if source == place.region), None)
    for group in groups:
        distance = place.distance(group.locality)
        if distance == 3 and target is not None and group.locality.region != target:
            distance = 4
        group.priority = group.priority * 5 + distance
    _without_gaps(groups)


def _without_gaps(groups: list[_Group]) -> None:
    """Envoy wants priorities from 0 without a gap."""
    order = {priority: i for i, priority in enumerate(sorted({group.priority for group in groups}))}
    for group in groups:
        group.priority = order[group.priority]

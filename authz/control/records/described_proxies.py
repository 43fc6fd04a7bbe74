"""
The proxies of a mesh as the receiver of their records needs them: by name, with identity and workload.

What an entry says of its workload is text of a listener. The description counts, as it is now or was until lately: an
Envoy still has connections of a listener that was replaced, and entries of a proxy that was taken out are on their way.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from authz.core.attributes import Workload
from authz.core.resources import MeshConfig
from authz.core.spiffe import SpiffeId
from authz.mesh.nouns import Mesh, MeshWorkload
from authz.wire.access_log import LogEntry

LATELY_SECONDS = 660.0
"""Envoy keeps connections of a replaced listener for 600 s, and then has a minute to tell of them."""


class DescribedProxies:
    """One for a receiver; all calls are in one event loop."""

    def __init__(self) -> None:
        self._mesh = Mesh(MeshConfig())
        self._now: Mapping[str, MeshWorkload] = {}
        self._before: dict[str, tuple[MeshWorkload, float]] = {}
        """Those that are no more, or have other labels or another account, and when they ceased to be."""
        self._workloads: dict[int, Workload] = {}
        """By identity of what is in ``_now`` and ``_before``."""
        self._counts: Counter[SpiffeId] = Counter()

    def replace(self, mesh: Mesh, now: float) -> None:
        """Go by this description; ``now`` in seconds since the epoch."""
        if mesh is self._mesh:
            return
        self._mesh, before = mesh, self._now
        self._now = {one.name: one for one in mesh.workloads}
        self._before = {name: one for name, one in self._before.items() if now - one[1] < LATELY_SECONDS}
        for name, one in before.items():
            new = self._now.get(name)
            if new is not one and (new is None or _who(new) != _who(one)):
                self._before[name] = one, now
        self._workloads.clear()
        self._counts = Counter(one.spiffe_id for one in self._now.values())

    def count(self, spiffe_id: SpiffeId) -> int:
        """How many proxies have that identity."""
        return self._counts[spiffe_id]

    def settled(self, entry: LogEntry, caller: SpiffeId, now: float) -> LogEntry | None:
        """
        The entry with its proxy's workload as described; None when the caller has no proxy of this name.

        An entry whose namespace or account is another is returned as it is: who takes it compares these with the
        caller's certificate.
        """
        one, lately = self._now.get(entry.proxy), self._before.get(entry.proxy)
        described = [one] if one is not None and one.spiffe_id == caller else []
        if lately is not None and lately[0].spiffe_id == caller and now - lately[1] < LATELY_SECONDS:
            described.append(lately[0])
        if not described:
            return None
        destination = entry.attributes.destination
        told = destination.workload
        if any(told == self._workload(each) for each in described):
            return entry
        counts = self._workload(described[0])
        if (told.namespace, told.service_account) != (counts.namespace, counts.service_account):
            return entry
        return entry._replace(
            attributes=replace(entry.attributes, destination=replace(destination, workload=counts)), alike=None
        )

    def _workload(self, one: MeshWorkload) -> Workload:
        found = self._workloads.get(id(one))
        if found is None:
            found = self._workloads[id(one)] = one.workload
        return found


def _who(one: MeshWorkload) -> tuple[object, ...]:
    return one.spiffe_id, one.namespace, one.service_account, one.labels

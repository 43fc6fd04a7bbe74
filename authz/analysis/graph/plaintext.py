"""
Who still sends without mutual TLS, and where STRICT is therefore safe: a plan from what was recorded.

Pure: requests in, verdicts out. What was not seen is not safe: a workload without a record, or a window that is too
short, is a "no" with its reason. Gateways have no verdict, since PeerAuthentication does not hold for them (PA-14).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

DAY_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class Seen:
    """One recorded decision, as far as it matters here. ``time`` in seconds since the epoch."""

    time: float
    namespace: str
    workload: str
    """Name of the destination; empty when its sidecar gave none."""
    port: int
    """0 when it is not known."""
    source_ip: str
    """Empty behind a Unix socket."""
    is_mtls: bool
    is_allowed: bool


@dataclass(frozen=True, slots=True)
class KnownWorkload:
    """A workload of the mesh description."""

    namespace: str
    name: str
    is_gateway: bool = False


@dataclass(slots=True)
class PlaintextSender:
    """Requests without mutual TLS from one address to one port."""

    source_ip: str
    source: str
    """Name of the workload at that address; empty when nobody or several are known there."""
    port: int
    allowed: int = 0
    """These would be refused under STRICT."""
    refused: int = 0
    """These are refused already, and would be then."""
    last_seen: float = 0.0


@dataclass(slots=True)
class ObservedWorkload:
    """The observations of one destination, and what follows from them."""

    namespace: str
    name: str
    mtls: int = 0
    first_seen: float = 0.0
    last_seen: float = 0.0
    senders: list[PlaintextSender] = field(default_factory=list)
    """Most requests first."""
    problem: str = "no request was recorded"
    """Why STRICT is not safe; empty when it is."""

    @property
    def is_safe(self) -> bool:
        """Whether STRICT would refuse nobody who is allowed now."""
        return not self.problem

    @property
    def plaintext(self) -> int:
        """Requests that came without mTLS."""
        return sum(sender.allowed + sender.refused for sender in self.senders)


@dataclass(frozen=True, slots=True)
class StrictPlan:
    """Everything, sorted by namespace and name."""

    workloads: tuple[ObservedWorkload, ...]
    begin: float
    """Time of the first record of the window; with ``end`` 0 when there is none."""
    end: float

    @property
    def window_seconds(self) -> float:
        """Length of the window."""
        return self.end - self.begin

    @property
    def is_safe(self) -> bool:
        """Whether every workload is safe, and there is at least one."""
        return bool(self.workloads) and all(workload.is_safe for workload in self.workloads)

    def namespaces(self) -> dict[str, bool]:
        """Whether STRICT is safe for a whole namespace: for every workload in it."""
        found: dict[str, bool] = {}
        for workload in self.workloads:
            found[workload.namespace] = found.get(workload.namespace, True) and workload.is_safe
        return found


def plan_strict(
    requests: Iterable[Seen],
    known: Iterable[KnownWorkload] = (),
    names: Mapping[str, str] | None = None,
    minimum_seconds: float = DAY_SECONDS,
) -> StrictPlan:
    """
    Judge every destination.

    Args:
        requests: in any order.
        known: workloads that must have been seen; gateways among them are left out.
        names: source address to the workload there.
        minimum_seconds: a shorter window proves nothing, because it misses what sends once a day.
    """
    known = tuple(known)
    gateways = {(workload.namespace, workload.name) for workload in known if workload.is_gateway}
    found = {(w.namespace, w.name): ObservedWorkload(w.namespace, w.name) for w in known if not w.is_gateway}
    senders: dict[tuple[str, str, int, str], PlaintextSender] = {}
    begin = end = 0.0
    for seen in requests:
        begin, end = min(begin or seen.time, seen.time), max(end, seen.time)
        key = (seen.namespace, seen.workload)
        if key in gateways:
            continue
        workload = found.get(key)
        if workload is None:
            workload = found[key] = ObservedWorkload(*key)
        workload.first_seen = min(workload.first_seen or seen.time, seen.time)
        workload.last_seen = max(workload.last_seen, seen.time)
        if seen.is_mtls:
            workload.mtls += 1
            continue
        sender = senders.get((*key, seen.port, seen.source_ip))
        if sender is None:
            sender = PlaintextSender(seen.source_ip, (names or {}).get(seen.source_ip, ""), seen.port)
            senders[(*key, seen.port, seen.source_ip)] = sender
            workload.senders.append(sender)
        if seen.is_allowed:
            sender.allowed += 1
        else:
            sender.refused += 1
        sender.last_seen = max(sender.last_seen, seen.time)
    for workload in found.values():
        workload.senders.sort(key=lambda sender: (-sender.allowed - sender.refused, sender.source_ip, sender.port))
        workload.problem = _problem(workload, end - begin, minimum_seconds)
    return StrictPlan(tuple(sorted(found.values(), key=lambda w: (w.namespace, w.name))), begin, end)


def _problem(workload: ObservedWorkload, window_seconds: float, minimum_seconds: float) -> str:
    allowed = sum(sender.allowed for sender in workload.senders)
    if allowed:
        where = ", ".join(str(port) for port in sorted({s.port for s in workload.senders if s.allowed}) if port)
        plural = "" if allowed == 1 else "s"
        return f"{allowed} request{plural} without mutual TLS would be refused" + (f", port {where}" if where else "")
    if not workload.last_seen:
        return "no request was recorded"
    if window_seconds < minimum_seconds:
        return f"observed for only {span(window_seconds)}; {span(minimum_seconds)} are required"
    return ""


def address_names(pairs: Iterable[tuple[str, str]], is_shared: Callable[[str], bool]) -> dict[str, str]:
    """Address to name, without addresses that several workloads share, or that ``is_shared`` says are everybody's."""
    found: dict[str, set[str]] = {}
    for address, name in pairs:
        found.setdefault(address, set()).add(name)
    return {a: next(iter(names)) for a, names in found.items() if len(names) == 1 and not is_shared(a)}


def span(seconds: float) -> str:
    """``45s``, ``10m``, ``7h``, ``2d 3h``."""
    whole = int(seconds)
    days, hours, minutes = whole // 86_400, whole % 86_400 // 3600, whole % 3600 // 60
    if days:
        return f"{days}d {hours}h" if hours else f"{days}d"
    if hours:
        return f"{hours}h {minutes}m" if minutes else f"{hours}h"
    return f"{minutes}m" if minutes else f"{whole}s"

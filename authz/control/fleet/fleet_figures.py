"""What a control plane knows of its proxies, for people and for metrics."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import islice
from math import isfinite

from authz.control.authority.figures import Figured
from authz.control.authority.sds import SHOWN_CHARACTERS
from authz.telemetry import fleet_names, names
from authz.telemetry.status import PolicySourceStatus

WORDS = ("current", "refusing", "missing", "gone", "behind")
"""What a proxy is, for people."""
MOST_REFUSALS = 100
"""Of which there is a metric each: a change that all refuse must not fill a Prometheus."""


@dataclass(frozen=True, slots=True)
class TypeState:
    """One type of one proxy."""

    accepted: str = ""
    """The version that it took last; empty: none yet."""
    refused: str = ""
    """The version that it refused; empty when it took the last one."""
    rejection: str = ""
    """Envoy's own words about that."""
    is_waiting: bool = False
    """Whether it has not yet answered what it was sent."""
    is_overdue: bool = False
    """Whether that has been so for long."""
    waits: tuple[str, ...] = ()
    """What it may wait for, or not say, where that can be known."""


@dataclass(frozen=True, slots=True)
class ProxyState:
    """One proxy."""

    name: str
    spiffe_id: str
    is_connected: bool = False
    is_current: bool = False
    """Whether it has taken all that there is for it now."""
    certificate_expires: float = 0.0
    """Of the SVID by which it last connected, seconds since the epoch; 0: it never has."""
    types: Mapping[str, TypeState] = field(default_factory=dict)
    """By Envoy's short name: ``lds``."""
    is_gone: bool = False
    """Whether it has been away for so long that its endpoints are unhealthy for others."""

    @property
    def is_refusing(self) -> bool:
        """Whether it refused something and has not taken a newer one."""
        return any(one.rejection for one in self.types.values())


@dataclass(slots=True)
class FleetFigures:
    """Counts since the start, by type."""

    pushes: Counter[str] = field(default_factory=Counter)
    acknowledged: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    """Peers, and names of other workloads."""


def fleet_json(states: Iterable[ProxyState], version: str) -> dict[str, object]:
    """The answer of ``/fleet``: ``version`` is that of the policies."""
    proxies = []
    for state in states:
        shown = asdict(state)
        expires = shown.pop("certificate_expires")
        shown["certificate_expires"] = expires if expires and isfinite(expires) else None
        proxies.append(shown)
    return {"policies": version, "proxies": proxies}


def fleet_figures(states: Iterable[ProxyState], figures: FleetFigures, streams: int, kept: int) -> Figured:
    """Every metric of discovery with what it is now; ``kept``: destinations of which too many proxies are gone."""
    found = list(states)
    counts = Counter(map(_word, found))
    yield fleet_names.XDS_PROXIES, {(word,): counts[word] for word in WORDS}
    yield fleet_names.XDS_KEPT_ENDPOINTS, kept
    yield fleet_names.XDS_STREAMS, streams
    yield fleet_names.XDS_PUSHES, _by_type(figures.pushes)
    yield fleet_names.XDS_ACKNOWLEDGED, _by_type(figures.acknowledged)
    yield fleet_names.XDS_REJECTED, _by_type(figures.rejected)
    yield fleet_names.XDS_REFUSED, figures.refused
    late = (one for one in found if one.is_connected and not one.is_current)  # who is current has answered everything
    asked = (item for one in late for item in one.types.items())
    yield fleet_names.XDS_OVERDUE, _by_type(Counter(short for short, kind in asked if kind.is_overdue))
    yield fleet_names.XDS_REFUSALS, dict.fromkeys(islice(_refusals(found), MOST_REFUSALS), 1.0)


def _refusals(states: Iterable[ProxyState]) -> Iterator[tuple[str, ...]]:
    """Labels of everything that a proxy refuses now."""
    for state in states:
        if not state.is_current:
            for short, kind in state.types.items():
                if kind.rejection:
                    yield state.name, short, kind.refused, kind.rejection[:SHOWN_CHARACTERS]


def source_figures(source: PolicySourceStatus) -> Figured:
    """How the source of published policies is, as a server says it."""
    yield names.PUBLISHED_INFO, {(source.source, source.revision): 1.0} if source.revision else {}
    yield names.PUBLISHED_REVISION, source.number
    yield names.PUBLISHED_CREATED, source.created
    yield names.PUBLISHED_ASKED, source.asked_at
    yield names.PUBLISHED_FAILING, float(bool(source.error))
    yield names.PUBLISHED_ASKINGS, {("success",): source.successes, ("failure",): source.failures}


def _word(state: ProxyState) -> str:
    """One of ``WORDS``."""
    if state.is_gone:
        return "gone"
    if state.is_current:
        return "current"
    if not state.is_connected:
        return "missing"
    return "refusing" if state.is_refusing else "behind"


def _by_type(counts: Counter[str]) -> dict[tuple[str, ...], float]:
    return {(short,): counts[short] for short in sorted({*counts, "cds", "ecds", "eds", "lds", "rds", "sds"})}

"""
The counters behind the metrics: adding to plain integers in dictionaries; ``metrics`` renders them for Prometheus.
"""

import functools
import importlib.metadata
import threading
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import NamedTuple

from authz.core.attributes import AttributeContext, Authentication, AuthenticationOutcome, HttpRequest, Source, Workload
from authz.core.decided import Offer
from authz.core.decision import RuleReference
from authz.core.spiffe import SpiffeId
from authz.telemetry.names import (
    AUDIT_MATCHES,
    CONNECTIONS,
    DECISIONS,
    DRY_RUN,
    DURATION,
    PROVIDERS,
    REQUESTS,
    TOKENS,
    Metric,
)

DURATION_BUCKETS = (20e-6, 50e-6, 100e-6, 200e-6, 500e-6, 1e-3, 2e-3, 5e-3, 10e-3, 50e-3, 0.2, 1.0)
"""Upper bounds in seconds; a decision takes some tens of microseconds, a provider milliseconds."""
PROVIDER_BUCKETS = (1e-3, 2e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25, 1.0, 5.0)
MAX_SERIES = 5_000
"""The most series of one metric; the rest is counted under OTHER, so that nobody can fill our memory or Prometheus'."""
_MAX_ALIKE = 1_000
"""Kinds of decisions counted apart before they are folded into labels; each keeps what is counted of one request."""
_MAX_TYPE = 64
_MAX_IDENTITY = 2048
"""Characters of an identity that count: the longest SPIFFE ID."""
OTHER = "_other"
UNKNOWN = "unknown"
"""Istio's word for a label whose value is not known."""


@functools.cache
def program_version() -> str:
    """Version of the installed package; ``0`` when it runs from a directory that was never installed."""
    try:
        return importlib.metadata.version("authz-mesh")
    except importlib.metadata.PackageNotFoundError:
        return "0"


@dataclass(slots=True)
class Histogram:
    """Counts by bucket, the last one being everything above, and the sum."""

    bounds: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def add(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def merge(self, other: "Histogram") -> None:
        """Add the counts of another histogram with the same bounds."""
        self.counts = [ours + theirs for ours, theirs in zip(self.counts, other.counts, strict=True)]
        self.total += other.total

    def copy(self) -> "Histogram":
        """A histogram with the same counts, which changes by itself."""
        copied = Histogram(self.bounds)
        copied.merge(self)
        return copied


Labels = tuple[str, ...]
Counts = dict[Labels, int]


class _WorkloadLabels(NamedTuple):
    namespace: str
    name: str
    app: str
    version: str


class _Alike:
    """Decisions that count under the same labels: one of them, and how many."""

    __slots__ = ("count", "offer", "seconds")

    def __init__(self, offer: Offer) -> None:
        self.offer = offer._replace(attributes=_counted(offer.attributes))
        self.count = 0
        self.seconds = Histogram(DURATION_BUCKETS)


class Telemetry:
    """
    The counters of decisions. ``observe`` may be called from any thread.

    Decisions are counted by the nouns they share and turned into labels when somebody reads: most are alike.
    """

    def __init__(self, max_series: int = MAX_SERIES) -> None:
        self._max_series = max_series
        self._lock = threading.Lock()
        self._alike: dict[tuple[object, ...], _Alike] = {}
        self._peers: dict[str, tuple[str, str]] = {}
        self._counts: dict[Metric, Counts] = {
            metric: {} for metric in (DECISIONS, DRY_RUN, AUDIT_MATCHES, TOKENS, REQUESTS, CONNECTIONS)
        }
        self._histograms: dict[Metric, dict[Labels, Histogram]] = {DURATION: {}, PROVIDERS: {}}

    def observe(self, offer: Offer) -> None:
        """Count one decision."""
        attributes, decision, _, _, duration, cache_hit, timings, _ = offer
        http, identities = attributes.http, attributes.source.identities
        rule = decision.rule
        # Shared nouns are known by identity; ``_Alike`` keeps them alive, so that no id is used twice.
        key = (
            id(attributes.destination),
            id(rule),
            identities[0][:_MAX_IDENTITY] if identities else attributes.source.is_unproven,
            decision.effect,
            decision.stage,
            decision.status,
            attributes.authentication.outcome,
            cache_hit,
            None if http is None else "content-type" in http.headers and _is_grpc(http),
            id(decision.audit_rule),
            decision.dry_run_deny,
            decision.dry_run_allow,
        )
        with self._lock:
            alike = self._alike.get(key)
            if alike is None:
                if len(self._alike) >= _MAX_ALIKE:
                    self._fold()
                alike = self._alike[key] = _Alike(offer)
            alike.count += 1
            seconds = alike.seconds
            if duration > 0.0:  # nobody knows how long a decision took that Envoy made
                seconds.counts[bisect_left(DURATION_BUCKETS, duration)] += 1
                seconds.total += duration
            for timing in timings:
                if timing[0].startswith("provider."):
                    self._measure(PROVIDERS, (timing.detail,), PROVIDER_BUCKETS).add(timing.duration_seconds)

    @property
    def counts(self) -> dict[Metric, Counts]:
        """A copy of the counters by labels."""
        with self._lock:
            self._fold()
            return {metric: dict(counts) for metric, counts in self._counts.items()}

    @property
    def histograms(self) -> dict[Metric, dict[Labels, Histogram]]:
        """A copy of the histograms by labels."""
        with self._lock:
            self._fold()
            return {
                metric: {labels: histogram.copy() for labels, histogram in histograms.items()}
                for metric, histograms in self._histograms.items()
            }

    def rule_hits(self) -> dict[tuple[str, str, int], int]:
        """Count by (namespace, policy, index) how often a rule decided, audited, or would have (dry run)."""
        hits: dict[tuple[str, str, int], int] = {}
        counts = self.counts
        for metric in (DECISIONS, DRY_RUN, AUDIT_MATCHES):
            for labels, count in counts[metric].items():
                namespace, policy, index = labels[-3:]
                if index.isdigit():
                    key = (namespace, policy, int(index))
                    hits[key] = hits.get(key, 0) + count
        return hits

    def _fold(self) -> None:
        """Turn what was counted by nouns into labels. Called with the lock."""
        for alike in self._alike.values():
            self._label(alike.offer, alike.count, alike.seconds)
        self._alike.clear()

    def _label(self, offer: Offer, count: int, seconds: Histogram) -> None:
        attributes, decision = offer.attributes, offer.decision
        workload = _workload(attributes.destination.workload)
        effect = decision.effect.value
        place = (workload.namespace, workload.name)
        self._count(DECISIONS, (*place, effect, decision.stage.value, *_rule(decision.rule)), count)
        self._measure(DURATION, (effect,), DURATION_BUCKETS).merge(seconds)
        self._label_request(offer, workload, count)
        outcome = attributes.authentication.outcome
        if outcome is not AuthenticationOutcome.NONE:
            self._count(TOKENS, (outcome.value, str(bool(offer.cache_hit)).lower()), count)
        if decision.audit_rule is not None:
            self._count(AUDIT_MATCHES, _rule(decision.audit_rule), count)
        for action, result in (("DENY", decision.dry_run_deny), ("ALLOW", decision.dry_run_allow)):
            if result is not None:
                self._count(DRY_RUN, (*place, action, result.effect.value, *_rule(result.rule)), count)

    def _label_request(self, offer: Offer, workload: _WorkloadLabels, count: int) -> None:
        attributes = offer.attributes
        identities = attributes.source.identities
        account, namespace = self._peer(identities[0]) if identities else (UNKNOWN, UNKNOWN)
        secured = "mutual_tls" if identities else UNKNOWN if attributes.source.is_unproven else "none"
        peers = ("destination", account, namespace, workload.name, workload.namespace, workload.app, workload.version)
        if attributes.http is None:
            self._count(CONNECTIONS, (*peers, "tcp", secured), count)
            return
        protocol = "grpc" if _is_grpc(attributes.http) else "http"
        code = str(offer.decision.status) if offer.decision.status else UNKNOWN
        self._count(REQUESTS, (*peers, protocol, code, secured), count)

    def _count(self, metric: Metric, labels: Labels, count: int) -> None:
        counts = self._counts[metric]
        if labels not in counts and len(counts) >= self._max_series:
            labels = (OTHER,) * len(labels)
        counts[labels] = counts.get(labels, 0) + count

    def _measure(self, metric: Metric, labels: Labels, bounds: tuple[float, ...]) -> Histogram:
        histograms = self._histograms[metric]
        if labels not in histograms and len(histograms) >= self._max_series:
            labels = (OTHER,) * len(labels)
        return histograms.setdefault(labels, Histogram(bounds))

    def _peer(self, identity: str) -> tuple[str, str]:
        """Service account and namespace of a peer: as bounded as the certificates a CA signs."""
        found = self._peers.get(identity)
        if found is None:
            try:
                spiffe = SpiffeId.parse(identity)
                found = (spiffe.service_account or UNKNOWN, spiffe.namespace or UNKNOWN)
            except ValueError:
                found = (UNKNOWN, UNKNOWN)
            if len(self._peers) >= self._max_series:
                self._peers.clear()
            self._peers[identity] = found
        return found


def _counted(attributes: AttributeContext) -> AttributeContext:
    """What labels are made from, without headers and claims: those of a thousand requests may be hundreds of MB."""
    http = attributes.http
    if http is not None:
        types = tuple(one[:_MAX_TYPE] for one in http.headers.get("content-type", ())[:1])
        http = HttpRequest("", "", "", {"content-type": types})
    outcome = Authentication(attributes.authentication.outcome)
    identities = tuple(one[:_MAX_IDENTITY] for one in attributes.source.identities[:1])
    source = Source(identities, is_unproven=attributes.source.is_unproven)
    return AttributeContext(source, attributes.destination, http, authentication=outcome)


def _workload(workload: Workload) -> _WorkloadLabels:
    labels = dict(workload.labels)
    return _WorkloadLabels(
        workload.namespace or UNKNOWN,
        workload.name or workload.service_account or UNKNOWN,
        labels.get("app", UNKNOWN),
        labels.get("version", UNKNOWN),
    )


def _is_grpc(http: HttpRequest) -> bool:
    content = http.headers.get("content-type", ())
    return len(content) > 0 and content[0].startswith("application/grpc")


def _rule(rule: RuleReference | None) -> tuple[str, str, str]:
    return (rule.namespace, rule.policy, str(rule.index)) if rule is not None else ("", "", "")

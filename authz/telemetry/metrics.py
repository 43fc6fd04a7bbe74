"""
The counters rendered for Prometheus when it asks; nothing here runs on the check path.

A part that cannot be read is left out and counted: a broken status must not take the other metrics away.
"""

import logging
from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.gc_collector import GCCollector
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.utils import floatToGoString

from authz.telemetry import counters as t
from authz.telemetry import names
from authz.telemetry.counters import Histogram, Labels, Telemetry
from authz.telemetry.names import Metric
from authz.telemetry.status import (
    CandidateStatus,
    IntrospectionStatus,
    NativeStatus,
    PolicySourceStatus,
    RateLimitStatus,
    ServiceStatus,
    TrailStatus,
)

_log = logging.getLogger("authz.audit")


def counter(metric: Metric, values: Mapping[Labels, float]) -> Family:
    """Render one counter."""
    family = CounterMetricFamily(metric.name.removesuffix("_total"), metric.help, labels=metric.labels)
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family


def gauge(metric: Metric, values: Mapping[Labels, float]) -> Family:
    """Render one gauge."""
    family = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family


def histogram(metric: Metric, values: Mapping[Labels, Histogram]) -> Family:
    """Render one histogram with cumulative buckets."""
    family = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
    for labels, value in values.items():
        buckets, so_far = [], 0
        for bound, count in zip((*value.bounds, float("inf")), tuple(value.counts), strict=True):
            so_far += count
            name = floatToGoString(bound)  # type: ignore[no-untyped-call]  # the library left it bare
            buckets.append((name, float(so_far)))
        family.add_metric(labels, buckets, value.total)
    return family


class TelemetryCollector:
    """Collects counters, the service's status and the trail's."""

    def __init__(
        self,
        telemetry: Telemetry,
        status: Callable[[], ServiceStatus],
        trail: Callable[[], TrailStatus],
        is_ready: Callable[[], bool],
    ) -> None:
        self._telemetry = telemetry
        self._status = status
        self._trail = trail
        self._is_ready = is_ready
        self._errors = 0

    def describe(self) -> list[Family]:
        """Describe nothing: registering must not ask the service, which may not be assembled yet."""
        return []

    def collect(self) -> Iterator[Family]:
        """Render everything, one part after the other."""
        for part in (self._counters, self._service, self._audit, self._health):
            try:
                families = list(part())
            except Exception:
                _log.exception("a part of the metrics could not be read")
                self._errors += 1
                continue
            yield from families
        yield counter(names.COLLECT_ERRORS, {(): self._errors})

    def _counters(self) -> Iterator[Family]:
        for metric, counts in self._telemetry.counts.items():
            yield counter(metric, counts)
        for metric, histograms in self._telemetry.histograms.items():
            yield histogram(metric, histograms)

    def _health(self) -> Iterator[Family]:
        yield gauge(names.READY, {(): float(self._is_ready())})
        yield gauge(names.BUILD, {(t.program_version(),): 1.0})

    def _service(self) -> Iterator[Family]:
        status = self._status()
        reload = status.reload
        yield counter(names.RELOADS, {("success",): reload.successes, ("failure",): reload.failures})
        yield gauge(names.RELOAD_OK, {(): float(reload.is_ok)})
        yield gauge(names.RELOAD_TIME, {(): reload.loaded_at})
        yield gauge(names.POLICY_INFO, {(reload.policy_version,): 1.0} if reload.policy_version else {})
        yield gauge(names.POLICIES, {(kind,): float(number) for kind, number in reload.documents})
        if status.policy_source is not None:
            yield from _policy_source(status.policy_source)
        yield gauge(names.KEY_SET_KEYS, {(k.name,): float(k.keys) for k in status.key_sets})
        yield gauge(names.KEY_SET_FETCHED, {(k.name,): k.fetched_at or 0.0 for k in status.key_sets})
        yield gauge(names.KEY_SET_STALE, {(k.name,): float(bool(k.error)) for k in status.key_sets})
        yield counter(names.JWKS_SUCCESS, {(): sum(k.successes for k in status.key_sets)})
        yield counter(names.JWKS_FAIL, {(): sum(k.failures for k in status.key_sets)})
        cache = status.token_cache
        if cache is not None:
            yield counter(names.CACHE_HITS, {(): cache.hits})
            yield counter(names.CACHE_MISSES, {(): cache.misses})
            yield gauge(names.CACHE_ENTRIES, {(): float(cache.entries)})
            yield gauge(names.CACHE_CAPACITY, {(): float(cache.capacity)})
        yield from _introspections(status.introspections)
        yield gauge(names.CERTIFICATE, {(c.kind, c.namespace, c.workload): c.not_after for c in status.certificates})
        yield counter(names.HANDSHAKES_REFUSED, {(): status.refused_handshakes})
        yield counter(names.SIDECAR_REMARKS, {(kind,): number for kind, number in status.sidecar_remarks})
        trust = status.peer_trust
        if trust is not None:
            yield counter(names.PEER_TRUST_RELOADS, {("success",): trust.successes, ("failure",): trust.failures})
            yield gauge(names.PEER_TRUST_OK, {(): float(not trust.problem)})
            yield gauge(names.PEER_TRUST_TIME, {(): trust.loaded_at})
        if status.native is not None:
            yield from _native(status.native)
        if status.rate_limits is not None:
            yield from _rate_limits(status.rate_limits)
        if status.candidate is not None:
            yield from _candidate(status.candidate, status.policy_source)
        roots = [c.not_after for c in status.certificates if c.kind == "root"]
        yield gauge(names.ROOT_EXPIRY, {(): min(roots)} if roots else {})

    def _audit(self) -> Iterator[Family]:
        trail = self._trail()
        yield gauge(names.QUEUED, {(): float(trail.queued)})
        yield gauge(names.QUEUE_CAPACITY, {(): float(trail.capacity)})
        yield counter(
            names.DROPPED, {("queue_full",): trail.dropped, ("rule",): trail.filtered, ("failed",): trail.failed}
        )
        results: dict[Labels, int] = {}
        for sink in trail.sinks:
            results[sink.name, "written"] = sink.written
            results[sink.name, "lost"] = sink.lost
        yield counter(names.SINK_RECORDS, results)
        yield gauge(names.SINK_OK, {(sink.name,): float(not sink.error) for sink in trail.sinks})
        yield gauge(names.SINK_WAITING, {(sink.name,): float(sink.waiting or 0) for sink in trail.sinks})


def _policy_source(source: PolicySourceStatus) -> Iterator[Family]:
    yield gauge(names.PUBLISHED_INFO, {(source.source, source.revision): 1.0} if source.revision else {})
    yield gauge(names.PUBLISHED_REVISION, {(): float(source.number)})
    yield gauge(names.PUBLISHED_CREATED, {(): source.created})
    yield gauge(names.PUBLISHED_ASKED, {(): source.asked_at})
    yield gauge(names.PUBLISHED_FAILING, {(): float(bool(source.error))})
    yield counter(names.PUBLISHED_ASKINGS, {("success",): source.successes, ("failure",): source.failures})


def _introspections(found: tuple[IntrospectionStatus, ...]) -> Iterator[Family]:
    counts: dict[Labels, int] = {}
    for one in found:
        results = {"hit": one.hits, "miss": one.misses, "refused": one.refusals, "failed": one.failures}
        counts |= {(one.issuer, result): number for result, number in results.items()}
    yield counter(names.INTROSPECTIONS, counts)
    yield gauge(names.INTROSPECTION_FAILING, {(one.issuer,): float(bool(one.error)) for one in found})


def _rate_limits(limits: RateLimitStatus) -> Iterator[Family]:
    yield counter(names.RATE_LIMITS, {(*key,): number for key, number in limits.results.items()})
    yield counter(names.RATE_LIMITS_UNKNOWN, {(): limits.unknown})
    yield gauge(names.RATE_LIMITS_FAILING, {(): float(bool(limits.problem))})


def _candidate(candidate: CandidateStatus, source: PolicySourceStatus | None) -> Iterator[Family]:
    version = candidate.reload.policy_version
    yield counter(names.CANDIDATE_DECISIONS, {(result,): number for result, number in candidate.results.items()})
    yield gauge(names.CANDIDATE_INFO, {(version,): 1.0} if version else {})
    is_refused = source is not None and bool(source.candidate_problem)
    yield gauge(names.CANDIDATE_OK, {(): float(candidate.reload.is_ok and not is_refused)})


def _native(native: NativeStatus) -> Iterator[Family]:
    yield counter(names.NATIVE_ENTRIES, {(*key,): number for key, number in native.entries.items()})
    yield counter(names.NATIVE_VERDICTS, {(result,): number for result, number in native.verdicts.items()})
    yield counter(names.NATIVE_DISAGREEMENTS, {(*key,): number for key, number in native.disagreements.items()})
    yield gauge(names.NATIVE_NEWEST, {(): native.newest_at})
    yield gauge(names.NATIVE_WAITING, {(): float(native.waiting_bytes)})
    yield gauge(names.NATIVE_FOLLOWING, {(): float(not native.problem)})
    yield counter(names.NATIVE_MISSING, {(proxy,): number for proxy, number in native.missing.items()})
    yield gauge(names.NATIVE_UNCOMPARED, {(proxy,): float(bad) for proxy, bad in native.unreachable.items()})
    yield gauge(names.NATIVE_IN_FORCE, {(proxy,): float(good) for proxy, good in native.in_force.items()})


def metrics_registry(collector: TelemetryCollector) -> CollectorRegistry:
    """Build a registry of our own with the collector and the metrics of the process and the garbage collector."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


def render_metrics(registry: CollectorRegistry, accept: str = "") -> tuple[bytes, str]:
    """Render the page as (body, content type) in the form that ``accept`` prefers."""
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type

"""
Every metric and span name of the house, and the counters behind them.

Counting is adding to plain integers in dictionaries; ``metrics`` renders them when Prometheus asks.
Labels are few and bounded: workloads, policies and rules yes, paths and principals never.
Where Istio counts the same thing, its name and labels are used, so that existing dashboards read them.
"""

import functools
import importlib.metadata
import threading
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import NamedTuple

from authz.audit.record import Offer
from authz.core.attributes import AuthenticationOutcome, HttpRequest, Workload
from authz.core.decision import RuleReference
from authz.core.spiffe import SpiffeId

SPAN_NAME = "authz.decide"
LOG_EVENT = "authz.decision"
SPAN_EVENTS = {"token": "authz.token.verify", "provider": "authz.provider.ask", "stage": "authz.stage"}
"""First part of a timing's name to the name of its span event."""
SPAN_ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "http.request.method": ("request", "method"),
    "url.path": ("request", "path"),
    "url.scheme": ("request", "scheme"),
    "server.address": ("request", "host"),
    "server.port": ("destination", "port"),
    "network.protocol.version": ("request", "protocol"),
    "user_agent.original": ("request", "user_agent"),
    "client.address": ("source", "remote_ip"),
    "network.peer.address": ("source", "ip"),
    "network.peer.port": ("source", "port"),
    "tls.client.server_name": ("sni",),
    "enduser.id": ("token", "subject"),
    "authz.decision_id": ("decision_id",),
    "authz.effect": ("effect",),
    "authz.stage": ("stage",),
    "authz.reason": ("reason",),
    "authz.status": ("status",),
    "authz.rule": ("rule", "name"),
    "authz.rule.file": ("rule", "file"),
    "authz.rule.line": ("rule", "line"),
    "authz.source.principal": ("source", "principal"),
    "authz.source.mtls": ("source", "mtls"),
    "authz.destination.workload": ("destination", "workload"),
    "authz.destination.namespace": ("destination", "namespace"),
    "authz.token.issuer": ("token", "issuer"),
    "authz.token.key_id": ("token", "key_id"),
    "authz.token.digest": ("token", "digest"),
    "authz.token.cached": ("token", "cached"),
    "authz.audit": ("audit",),
    "authz.would_deny": ("would_deny",),
    "authz.would_deny.by": ("by",),
    "authz.policy_version": ("policy_version",),
    "authz.x_request_id": ("x_request_id",),
}
"""Span attribute to its field in the audit record."""
SPAN_CONSTANTS = {
    "rpc.system": "grpc",
    "rpc.service": "envoy.service.auth.v3.Authorization",
    "rpc.method": "Check",
}
"""Of every span: it is the server's side of Envoy's call."""


class Metric(NamedTuple):
    """Name, help and labels of one metric; the kind is counter, gauge or histogram."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ()


_RULE = ("policy_namespace", "policy", "rule")
_WORKLOAD = ("namespace", "workload")
_ISTIO = (
    "reporter",
    "source_workload",
    "source_workload_namespace",
    "destination_workload",
    "destination_workload_namespace",
    "destination_app",
    "destination_version",
    "request_protocol",
    "response_code",
    "connection_security_policy",
)

DECISIONS = Metric("authz_decisions_total", "counter", "Decisions made", (*_WORKLOAD, "effect", "stage", *_RULE))
DURATION = Metric("authz_decision_duration_seconds", "histogram", "Time from request to answer", ("effect",))
DRY_RUN = Metric(
    "authz_dry_run_results_total",
    "counter",
    "What dry-run policies would have answered",
    (*_WORKLOAD, "action", "result", *_RULE),
)
AUDIT_MATCHES = Metric("authz_audit_policy_matches_total", "counter", "Requests an AUDIT rule matched", _RULE)
TOKENS = Metric("authz_tokens_total", "counter", "Tokens judged", ("outcome", "cached"))
PROVIDERS = Metric("authz_provider_duration_seconds", "histogram", "Time an external provider took", ("provider",))
REQUESTS = Metric(
    "istio_requests_total",
    "counter",
    "HTTP requests asked about; response_code is `unknown` for accepted ones, because the upstream answers them",
    _ISTIO,
)
CONNECTIONS = Metric(
    "istio_tcp_connections_opened_total",
    "counter",
    "TCP connections asked about",
    tuple(label for label in _ISTIO if label != "response_code"),
)
CACHE_HITS = Metric("authz_token_cache_hits_total", "counter", "Tokens found verified in the cache")
CACHE_MISSES = Metric("authz_token_cache_misses_total", "counter", "Tokens that had to be verified")
CACHE_ENTRIES = Metric("authz_token_cache_entries", "gauge", "Tokens in the cache")
CACHE_CAPACITY = Metric("authz_token_cache_capacity", "gauge", "Most tokens the cache holds")
KEY_SET_KEYS = Metric("authz_key_set_keys", "gauge", "Usable keys of a key set; 0 when it was never read", ("key_set",))
KEY_SET_FETCHED = Metric(
    "authz_key_set_fetched_timestamp_seconds",
    "gauge",
    "When a key set was last read successfully; 0 when never",
    ("key_set",),
)
KEY_SET_STALE = Metric("authz_key_set_failing", "gauge", "1 while the last read of a key set failed", ("key_set",))
JWKS_SUCCESS = Metric("pilot_jwks_resolver_network_fetch_success_total", "counter", "Key sets fetched")
JWKS_FAIL = Metric("pilot_jwks_resolver_network_fetch_fail_total", "counter", "Key sets that could not be fetched")
RELOADS = Metric("authz_policy_reloads_total", "counter", "Reloads of the policies", ("result",))
RELOAD_OK = Metric("authz_policy_last_reload_successful", "gauge", "0 while a refused change waits to be repaired")
RELOAD_TIME = Metric(
    "authz_policy_last_reload_success_timestamp_seconds", "gauge", "When the policies in force were loaded"
)
POLICY_INFO = Metric("authz_policy_info", "gauge", "Version of the policies in force", ("version",))
POLICIES = Metric("authz_policies", "gauge", "Documents in force", ("kind",))
PEER_TRUST_RELOADS = Metric(
    "authz_peer_trust_reloads_total", "counter", "Readings of trust bundles and the revocation list", ("result",)
)
PEER_TRUST_OK = Metric(
    "authz_peer_trust_last_reload_successful",
    "gauge",
    "0 while a change of trust bundles or revocations is refused and the last good one stays",
)
PEER_TRUST_TIME = Metric(
    "authz_peer_trust_last_reload_success_timestamp_seconds",
    "gauge",
    "When the trust bundles and revocations in force were read",
)
QUEUED = Metric("authz_audit_queue_entries", "gauge", "Decisions waiting to be recorded")
QUEUE_CAPACITY = Metric("authz_audit_queue_capacity", "gauge", "Most decisions that may wait")
DROPPED = Metric("authz_audit_dropped_total", "counter", "Decisions without a record", ("cause",))
SINK_RECORDS = Metric("authz_audit_sink_records_total", "counter", "Records by sink", ("sink", "result"))
SINK_OK = Metric("authz_audit_sink_healthy", "gauge", "0 while a sink fails", ("sink",))
CERTIFICATE = Metric(
    "authz_certificate_expiry_timestamp_seconds", "gauge", "When a certificate expires", ("kind", *_WORKLOAD)
)
ROOT_EXPIRY = Metric(
    "citadel_server_root_cert_expiry_timestamp", "gauge", "When the root certificate expires, in seconds"
)
READY = Metric("authz_ready", "gauge", "1 when requests are answered", ())
BUILD = Metric("authz_build_info", "gauge", "Version of this program", ("version",))
COLLECT_ERRORS = Metric("authz_metrics_errors_total", "counter", "Parts of this page that could not be read")

METRICS = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
"""All that a process tells of itself, for the documentation and its test."""
WORKER_SERVING = Metric("authz_worker_serving", "gauge", "1 while a worker answers checks", ("worker",))
WORKER_RESTARTS = Metric(
    "authz_worker_restarts_total", "counter", "Workers started again after they ended by themselves", ("worker",)
)
WORKER_METRICS = (WORKER_SERVING, WORKER_RESTARTS)
"""Told beside them where several workers share an admin port."""

DURATION_BUCKETS = (20e-6, 50e-6, 100e-6, 200e-6, 500e-6, 1e-3, 2e-3, 5e-3, 10e-3, 50e-3, 0.2, 1.0)
"""Upper bounds in seconds; a decision takes some tens of microseconds, a provider milliseconds."""
PROVIDER_BUCKETS = (1e-3, 2e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25, 1.0, 5.0)
MAX_SERIES = 5_000
"""Of one metric; what comes beyond is counted under OTHER, so that nobody can fill our memory or Prometheus'."""
_MAX_ALIKE = 1_000
"""Kinds of decisions counted apart before they are folded into labels; each keeps one request alive."""
OTHER = "_other"
UNKNOWN = "unknown"
"""Istio's word for a label whose value is not known."""


@functools.cache
def program_version() -> str:
    """Version of the installed package; ``0`` when it runs from a directory that was never installed."""
    try:
        return importlib.metadata.version("authz")
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
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def merge(self, other: "Histogram") -> None:
        self.counts = [ours + theirs for ours, theirs in zip(self.counts, other.counts, strict=True)]
        self.total += other.total

    def copy(self) -> "Histogram":
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
        self.offer = offer
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
        attributes, decision, _, _, duration, cache_hit, timings = offer
        http, identities = attributes.http, attributes.source.identities
        rule = decision.rule
        # By identity where nouns are shared; ``_Alike`` keeps them alive, so that no id is used twice.
        key = (
            id(attributes.destination),
            id(rule),
            identities[0] if identities else None,
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
        secured = "mutual_tls" if identities else "none"
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

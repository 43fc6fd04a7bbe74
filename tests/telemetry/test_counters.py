import json
import timeit
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from authz.core.attributes import (
    AttributeContext,
    Authentication,
    AuthenticationOutcome,
    Destination,
    HttpRequest,
    Source,
    Token,
    Workload,
)
from authz.core.decided import Offer, Timing
from authz.core.decision import Decision, DryRunResult, Effect
from authz.telemetry import names
from authz.telemetry.counters import Telemetry
from authz.telemetry.metrics import TelemetryCollector, metrics_registry, render_metrics
from authz.telemetry.names import Metric
from authz.telemetry.status import (
    CacheStatus,
    CertificateStatus,
    IntrospectionStatus,
    KeySetStatus,
    NativeStatus,
    PeerTrustStatus,
    PolicySourceStatus,
    RateLimitStatus,
    ReloadStatus,
    ServiceStatus,
    SinkStatus,
    TrailStatus,
)
from tests.telemetry import metric_sets

MakeOffer = Callable[..., Offer]
TRAIL = TrailStatus(3, 8192, 10, 1, 2, 0, (SinkStatus("stdout", 10), SinkStatus("otlp", 9, 1, 1, "gone")), "", True)
STATUS = ServiceStatus(
    ReloadStatus("v7", 1_700_000_000.0, False, 4, 1, (), (("AuthorizationPolicy", 12),)),
    (
        KeySetStatus("oidc:https://issuer", 2, 1_700_000_100.0, "", 5, 1),
        KeySetStatus("uri:x", 0, None, "refused", 0, 3),
    ),
    CacheStatus(70, 30, 20, 10_000),
    (CertificateStatus("workload", 1_800_000_000.0, "bookinfo", "reviews-v2"), CertificateStatus("root", 1.9e9)),
    peer_trust=PeerTrustStatus(1_700_000_000.0, "revoked.txt cannot be read", 2, 1),
    native=NativeStatus(
        {("file", "recorded"): 9},
        {"agreed": 8},
        {("bookinfo", "reviews-v1"): 1},
        1_700_000_100.0,
        512,
        {"p": 3},
        {"p": True},
        in_force={"p": False},
    ),
    rate_limits=RateLimitStatus({("bookinfo", "reviews", "0", "refused"): 4}, 2, "refused"),
    policy_source=PolicySourceStatus("https://h/b", "7", 7, 1.6e9, 1.7e9, 1.7e9, "expired", successes=3, failures=2),
    introspections=(IntrospectionStatus("https://asked", 7, 5, 2, 1, "no answer"),),
)


def page(telemetry: Telemetry, status: ServiceStatus = STATUS, trail: TrailStatus = TRAIL) -> dict[str, Any]:
    """Samples of the rendered page: name to {labels: value}."""
    collector = TelemetryCollector(telemetry, lambda: status, lambda: trail, lambda: True)
    body, _ = render_metrics(metrics_registry(collector))
    samples: dict[str, Any] = {}
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            samples.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return samples


def test_a_decision_is_counted_by_workload_effect_stage_and_rule(make_offer: MakeOffer) -> None:
    telemetry = Telemetry()
    telemetry.observe(make_offer())
    telemetry.observe(make_offer())
    assert telemetry.counts[names.DECISIONS] == {
        ("bookinfo", "reviews-v2", "deny", "deny", "bookinfo", "deny-ratings", "0"): 2
    }


@pytest.mark.parametrize(
    ("changes", "metric", "labels"),
    [
        (
            {},
            names.REQUESTS,
            (
                "destination", "productpage", "bookinfo", "reviews-v2", "bookinfo", "reviews", "v2",
                "http", "403", "mutual_tls",
            ),
        ),
        ({"http": {"headers": {"content-type": ("application/grpc+proto",)}}}, names.REQUESTS, ("grpc",)),
        ({"attributes": AttributeContext(Source(), Destination(Workload("db")))}, names.CONNECTIONS, ("tcp", "none")),
        (
            {"attributes": AttributeContext(Source(("spiffe://x",)), Destination(Workload("db")))},
            names.CONNECTIONS,
            ("unknown", "mutual_tls"),
        ),
    ],
)  # fmt: skip
def test_what_istio_counts_is_counted_under_istios_name(
    make_offer: MakeOffer, changes: dict[str, Any], metric: Metric, labels: tuple[str, ...]
) -> None:
    telemetry = Telemetry()
    telemetry.observe(make_offer(**changes))
    ((found, count),) = telemetry.counts[metric].items()
    assert count == 1
    assert set(labels) <= set(found)
    assert len(found) == len(metric.labels)


def test_an_accepted_request_has_a_code_that_only_the_upstream_knows(make_offer: MakeOffer, allowed: Decision) -> None:
    telemetry = Telemetry()
    telemetry.observe(make_offer(decision=allowed))
    assert next(iter(telemetry.counts[names.REQUESTS]))[-2] == "unknown"


def test_tokens_dry_runs_audits_and_providers_are_counted(make_offer: MakeOffer, denial: Decision) -> None:
    telemetry = Telemetry()
    decision = replace(denial, audit=True, audit_rule=denial.rule, dry_run_deny=DryRunResult(Effect.DENY, denial.rule))
    telemetry.observe(make_offer(decision=decision, timings=(Timing("provider.ask", 0.0, 0.004, "opa"),)))
    assert telemetry.counts[names.TOKENS] == {("accepted", "true"): 1}
    assert telemetry.counts[names.AUDIT_MATCHES] == {("bookinfo", "deny-ratings", "0"): 1}
    assert telemetry.counts[names.DRY_RUN] == {
        ("bookinfo", "reviews-v2", "DENY", "deny", "bookinfo", "deny-ratings", "0"): 1
    }
    assert telemetry.histograms[names.PROVIDERS][("opa",)].total == 0.004
    assert telemetry.rule_hits() == {("bookinfo", "deny-ratings", 0): 3}


def test_no_label_ever_holds_a_path_a_principal_or_a_token(make_offer: MakeOffer, secret: str) -> None:
    telemetry = Telemetry()
    telemetry.observe(make_offer())
    body, _ = render_metrics(metrics_registry(TelemetryCollector(telemetry, lambda: STATUS, lambda: TRAIL, bool)))
    for forbidden in ("/reviews/1", "cluster.local/ns", "spiffe://", secret, "jason", "203.0.113.9"):
        assert forbidden not in body.decode()


def test_what_is_not_yet_folded_keeps_no_request_alive(make_offer: MakeOffer) -> None:
    long = "x" * 10_000
    http = HttpRequest("GET", long, f"/{long}", {"content-type": (long,), "x-long": (long,)})
    token = Token({"sub": long}, "https://issuer", long)
    attributes = AttributeContext(
        Source((f"spiffe://{long}",)), Destination(Workload("shop")), http, "",
        Authentication(AuthenticationOutcome.ACCEPTED, token), {"filter": {"long": long}},
    )  # fmt: skip
    telemetry = Telemetry()
    telemetry.observe(make_offer(attributes=attributes, decision_id="1"))
    (alike,) = telemetry._alike.values()
    assert long[:100] not in repr(replace(alike.offer.attributes, source=Source()))
    counts = telemetry.counts
    assert (f"spiffe://{long}" not in telemetry._peers, len(counts[names.REQUESTS]), len(counts[names.TOKENS])) == (
        True,
        1,
        1,
    )


def test_labels_are_bounded_and_nothing_is_lost_beyond(make_offer: MakeOffer) -> None:
    telemetry = Telemetry(max_series=3)
    for number in range(10):
        attributes = AttributeContext(Source(), Destination(Workload(f"ns-{number}")))
        telemetry.observe(make_offer(attributes=attributes))
    counts = telemetry.counts[names.DECISIONS]
    assert len(counts) == 4
    assert sum(counts.values()) == 10
    assert counts[("_other",) * 7] == 7


def test_the_page_shows_everything_that_is_named(make_offer: MakeOffer, denial: Decision, allowed: Decision) -> None:
    telemetry = Telemetry()
    decision = replace(denial, audit_rule=denial.rule, dry_run_deny=DryRunResult(Effect.ALLOW))
    telemetry.observe(make_offer(decision=decision, timings=(Timing("provider.ask", 0.0, 0.004, "opa"),)))
    telemetry.observe(make_offer(attributes=AttributeContext(Source(), Destination(Workload("db"))), decision=allowed))
    shown = page(telemetry)
    for metric in metric_sets.PROCESS:
        name = f"{metric.name}_bucket" if metric.kind == "histogram" else metric.name
        assert shown[name], metric.name


def test_the_page_shows_the_statuses() -> None:
    shown = page(Telemetry())
    expected = {
        ("authz_access_log_entries_total", (("carrier", "file"), ("result", "recorded"))): 9,
        (
            "authz_rate_limit_requests_total",
            (("policy", "reviews"), ("policy_namespace", "bookinfo"), ("result", "refused"), ("rule", "0")),
        ): 4,
        ("authz_rate_limit_store_failing", ()): 1,
        ("authz_rate_limit_unknown_rules_total", ()): 2,
        ("authz_native_verified_total", (("result", "agreed"),)): 8,
        ("authz_native_disagreements_total", (("namespace", "bookinfo"), ("workload", "reviews-v1"))): 1,
        ("authz_access_log_newest_timestamp_seconds", ()): 1_700_000_100.0,
        ("authz_access_log_waiting_bytes", ()): 512,
        ("authz_access_log_following", ()): 1,
        ("authz_access_log_missing_total", (("proxy", "p"),)): 3,
        ("authz_access_log_uncompared", (("proxy", "p"),)): 1,
        ("authz_native_filters_in_force", (("proxy", "p"),)): 0,
        ("authz_peer_trust_reloads_total", (("result", "failure"),)): 1,
        ("authz_peer_trust_last_reload_successful", ()): 0,
        ("authz_peer_trust_last_reload_success_timestamp_seconds", ()): 1.7e9,
        ("authz_policy_info", (("version", "v7"),)): 1,
        ("authz_policy_source_info", (("revision", "7"), ("source", "https://h/b"))): 1,
        ("authz_policy_source_revision", ()): 7,
        ("authz_policy_source_created_timestamp_seconds", ()): 1.6e9,
        ("authz_policy_source_last_success_timestamp_seconds", ()): 1.7e9,
        ("authz_policy_source_failing", ()): 1,
        ("authz_policy_source_requests_total", (("result", "failure"),)): 2,
        ("authz_policy_last_reload_successful", ()): 0,
        ("authz_policy_last_reload_success_timestamp_seconds", ()): 1.7e9,
        ("authz_policy_reloads_total", (("result", "failure"),)): 1,
        ("authz_policies", (("kind", "AuthorizationPolicy"),)): 12,
        ("authz_key_set_fetched_timestamp_seconds", (("key_set", "oidc:https://issuer"),)): 1_700_000_100,
        ("authz_key_set_fetched_timestamp_seconds", (("key_set", "uri:x"),)): 0,
        ("authz_key_set_failing", (("key_set", "uri:x"),)): 1,
        ("pilot_jwks_resolver_network_fetch_fail_total", ()): 4,
        ("authz_token_cache_hits_total", ()): 70,
        ("authz_token_introspections_total", (("issuer", "https://asked"), ("result", "hit"))): 7,
        ("authz_token_introspections_total", (("issuer", "https://asked"), ("result", "failed"))): 1,
        ("authz_token_introspection_failing", (("issuer", "https://asked"),)): 1,
        ("authz_audit_dropped_total", (("cause", "queue_full"),)): 1,
        ("authz_audit_sink_healthy", (("sink", "otlp"),)): 0,
        (
            "authz_certificate_expiry_timestamp_seconds",
            (("kind", "workload"), ("namespace", "bookinfo"), ("workload", "reviews-v2")),
        ): 1.8e9,
        ("citadel_server_root_cert_expiry_timestamp", ()): 1.9e9,
    }
    assert {(name, labels): shown[name][labels] for name, labels in expected} == expected


def test_buckets_are_cumulative(make_offer: MakeOffer) -> None:
    telemetry = Telemetry()
    for seconds in (1e-6, 20e-6, 21e-6, 5.0):
        telemetry.observe(make_offer(duration_seconds=seconds))
    buckets = {dict(k)["le"]: v for k, v in page(telemetry)["authz_decision_duration_seconds_bucket"].items()}
    assert (buckets["2e-05"], buckets["5e-05"], buckets["1.0"], buckets["+Inf"]) == (2, 3, 3, 4)


def test_a_broken_status_takes_no_other_metric_away(make_offer: MakeOffer) -> None:
    def broken() -> ServiceStatus:
        raise RuntimeError("our mistake")

    telemetry = Telemetry()
    telemetry.observe(make_offer())
    registry = metrics_registry(TelemetryCollector(telemetry, broken, lambda: TRAIL, lambda: True))
    body = render_metrics(registry)[0].decode()
    assert "authz_metrics_errors_total 1.0" in body
    assert "authz_decisions_total{" in body
    assert "authz_audit_queue_entries 3.0" in body


def test_counting_a_decision_is_cheap(make_offer: MakeOffer) -> None:
    """It happens in the writer's thread; on the check path only when the queue is full."""
    telemetry, offer = Telemetry(), make_offer()
    fields = {f"field {number}": ["a value", number] for number in range(12)}
    cost = min(timeit.repeat(lambda: telemetry.observe(offer), number=1_000, repeat=7))
    assert cost < min(timeit.repeat(lambda: json.dumps(fields), number=1_000, repeat=7))

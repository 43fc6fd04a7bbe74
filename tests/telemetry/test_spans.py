import timeit
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from authz.audit.builder import RecordSteps
from authz.audit.omissions import RecordRules
from authz.audit.trail import AuditTrail
from authz.audit.writer import build_record
from authz.core.attributes import AttributeContext, read_field
from authz.core.decided import Offer, Timing, TraceIds
from authz.core.decision import Decision, Effect, Stage
from authz.telemetry.otlp import OtlpTarget, service_resource, span_exporter
from authz.telemetry.spans import DecisionTracer, parse_trace_parent, span_attributes
from tests.audit.collector import GrpcCollector, HttpCollector
from tests.audit.recent import RecentSink

MakeOffer = Callable[..., Offer]
TRACE, PARENT = "a" * 32, "b" * 16


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracer(exporter: InMemorySpanExporter) -> Iterator[DecisionTracer]:
    made = DecisionTracer([exporter], root_ratio=1.0)
    yield made
    made.close()


def run(tracer: DecisionTracer, offer: Offer, rules: RecordRules | None = None) -> RecentSink:
    sink = RecentSink()
    trail = AuditTrail([sink], steps=RecordSteps(tracer=tracer, rules=rules or RecordRules()))
    trail.start()
    trail.record(offer)
    assert trail.close()
    return sink


def with_parent(attributes: AttributeContext, trace_parent: str) -> AttributeContext:
    return replace(attributes, trace_parent=trace_parent)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"00-{TRACE}-{PARENT}-01", (TRACE, PARENT, True)),
        (f"00-{TRACE}-{PARENT}-00", (TRACE, PARENT, False)),
        (f"00-{TRACE}-{PARENT}-03", (TRACE, PARENT, True)),
        (f"cc-{TRACE}-{PARENT}-01-more", (TRACE, PARENT, True)),
        (f"00-{TRACE}-{PARENT}-01-more", None),
        (f"ff-{TRACE}-{PARENT}-01", None),
        (f"00-{'0' * 32}-{PARENT}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE.upper()}-{PARENT}-01", None),
        (f"00-{TRACE}-{PARENT}-01\n", None),
        ("", None),
        ("00", None),
    ],
)
def test_a_trace_parent_is_read_as_w3c_says(text: str, expected: tuple[str, str, bool] | None) -> None:
    assert parse_trace_parent(text) == expected


@given(st.from_regex(r"[0f][0-9f]-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-[a-z]*)?", fullmatch=True))
def test_a_trace_parent_is_read_as_the_sdk_reads_it(text: str) -> None:
    context = get_current_span(TraceContextTextMapPropagator().extract({"traceparent": text})).get_span_context()
    ours = parse_trace_parent(text)
    assert (ours is not None) == context.is_valid
    if ours is not None:
        assert ours == (f"{context.trace_id:032x}", f"{context.span_id:016x}", context.trace_flags.sampled)


def test_the_span_is_a_child_of_envoys_check_span(
    exporter: InMemorySpanExporter, tracer: DecisionTracer, make_offer: MakeOffer
) -> None:
    """XA-170: the parent is the traceparent of the Check call; the record names our span."""
    record = run(tracer, make_offer()).entries[0].record
    (span,) = exporter.get_finished_spans()
    assert span.parent is not None
    assert span.context is not None
    assert (f"{span.parent.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE, PARENT)
    assert f"{span.context.span_id:016x}" == record["span_id"]
    assert record["trace_id"] == TRACE
    assert (span.name, span.kind) == ("authz.decide", SpanKind.SERVER)
    assert (span.start_time, span.end_time) == (1_700_000_000_250_000_000, 1_700_000_000_250_050_000)


def test_a_span_speaks_the_semantic_conventions(
    exporter: InMemorySpanExporter, tracer: DecisionTracer, make_offer: MakeOffer, secret: str
) -> None:
    run(tracer, make_offer())
    (span,) = exporter.get_finished_spans()
    attributes = dict(span.attributes or {})
    assert attributes["http.request.method"] == "GET"
    assert attributes["url.path"] == "/reviews/1"
    assert attributes["client.address"] == "203.0.113.9"
    assert (attributes["server.address"], attributes["server.port"]) == ("reviews", 9080)
    assert (attributes["network.protocol.name"], attributes["network.protocol.version"]) == ("http", "1.1")
    assert attributes["rpc.service"] == "envoy.service.auth.v3.Authorization"
    assert "error.type" not in attributes
    assert attributes["authz.effect"] == "deny"
    assert attributes["authz.rule"] == "ns[bookinfo]-policy[deny-ratings]-rule[0]"
    assert attributes["authz.source.mtls"] is True
    assert "authz.would_deny" not in attributes
    assert secret not in span.to_json()


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("reviews", "reviews"),
        ("reviews:9080", "reviews"),
        ("10.0.0.1:80", "10.0.0.1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("reviews:", "reviews:"),
    ],
)
def test_the_servers_address_has_no_port(make_offer: MakeOffer, host: str, expected: str) -> None:
    assert span_attributes(build_record(make_offer(http={"host": host})))["server.address"] == expected


@pytest.mark.parametrize(
    ("written", "expected"), [("rojo=1,congo=2", {"rojo": "1", "congo": "2"}), ("", {}), ("not a state", {})]
)
def test_the_state_of_the_trace_is_passed_on(
    exporter: InMemorySpanExporter,
    tracer: DecisionTracer,
    make_offer: MakeOffer,
    attributes: AttributeContext,
    written: str,
    expected: dict[str, str],
) -> None:
    run(tracer, make_offer(attributes=replace(attributes, trace_state=written)))
    (span,) = exporter.get_finished_spans()
    assert span.context is not None
    assert dict(span.context.trace_state) == expected


def test_a_failure_of_ours_is_an_error(
    exporter: InMemorySpanExporter, tracer: DecisionTracer, make_offer: MakeOffer
) -> None:
    run(tracer, make_offer(decision=Decision(Effect.DENY, Stage.INTERNAL, "internal error", status=503)))
    assert dict(exporter.get_finished_spans()[0].attributes or {})["error.type"] == "internal"


def test_what_is_redacted_in_the_trail_is_redacted_in_the_span(
    exporter: InMemorySpanExporter, tracer: DecisionTracer, make_offer: MakeOffer
) -> None:
    run(tracer, make_offer(), RecordRules.parse(("$.token.subject",)))
    assert dict(exporter.get_finished_spans()[0].attributes or {})["enduser.id"] == "***"


@pytest.mark.parametrize(
    ("trace_parent", "root_ratio", "spans", "trace_id", "span_id"),
    [
        (f"00-{TRACE}-{PARENT}-00", 1.0, 0, TRACE, PARENT),
        (f"00-{TRACE}-{PARENT}-01", 0.0, 1, TRACE, None),
        ("", 0.0, 0, "", ""),
        ("garbage", 0.0, 0, "", ""),
        ("", 1.0, 1, None, None),
    ],
)
def test_sampling_follows_the_parent_and_never_drops_the_record(
    exporter: InMemorySpanExporter,
    make_offer: MakeOffer,
    attributes: AttributeContext,
    trace_parent: str,
    root_ratio: float,
    spans: int,
    trace_id: str | None,
    span_id: str | None,
) -> None:
    """XA-172, XA-173. None stands for a fresh id."""
    tracer = DecisionTracer([exporter], root_ratio=root_ratio)
    sink = run(tracer, make_offer(attributes=with_parent(attributes, trace_parent)))
    assert len(exporter.get_finished_spans()) == spans
    record = sink.entries[0].record
    for found, expected in ((record["trace_id"], trace_id), (record["span_id"], span_id)):
        assert found == expected if expected is not None else found not in ("", PARENT)


def test_a_decision_without_a_trace_begins_one(
    exporter: InMemorySpanExporter, tracer: DecisionTracer, make_offer: MakeOffer, attributes: AttributeContext
) -> None:
    run(tracer, make_offer(attributes=with_parent(attributes, "")))
    assert exporter.get_finished_spans()[0].parent is None


@pytest.mark.parametrize(
    ("effect", "stage", "events"),
    [
        (Effect.DENY, Stage.JWT, ["identity", "normalization", "peer-authentication", "custom", "jwt=deny"]),
        (Effect.DENY, Stage.IDENTITY, ["identity=deny"]),
        (
            Effect.ALLOW,
            Stage.DEFAULT,
            ["identity", "normalization", "peer-authentication", "custom", "jwt", "deny", "allow=allow"],
        ),
        (Effect.DENY, Stage.INTERNAL, []),
    ],
)
def test_a_span_has_an_event_for_each_stage_that_was_reached(
    exporter: InMemorySpanExporter,
    tracer: DecisionTracer,
    make_offer: MakeOffer,
    effect: Effect,
    stage: Stage,
    events: list[str],
) -> None:
    run(tracer, make_offer(decision=Decision(effect, stage, "because")))
    (span,) = exporter.get_finished_spans()
    names = []
    for event in span.events:
        found = dict(event.attributes or {})
        ending = found["authz.stage.result"]
        names.append(f"{found['authz.stage']}{'' if ending == 'continue' else f'={ending}'}")
    assert names == events
    assert span.status.is_ok is (stage is not Stage.INTERNAL)


def test_what_was_timed_becomes_an_event_at_its_time(
    exporter: InMemorySpanExporter, tracer: DecisionTracer, make_offer: MakeOffer
) -> None:
    timings = (
        Timing("token.verify", 1_700_000_000.5, 0.00012, "accepted"),
        Timing("provider.ask", 1_700_000_001.0, 0.02, "opa"),
    )
    run(tracer, make_offer(timings=timings))
    token, provider = exporter.get_finished_spans()[0].events[:2]
    assert (token.name, token.timestamp) == ("authz.token.verify", 1_700_000_000_500_000_000)
    assert dict(token.attributes or {}) == {"authz.duration_us": 120.0, "authz.token.outcome": "accepted"}
    assert provider.name == "authz.provider.ask"
    assert dict(provider.attributes or {}) == {"authz.duration_us": 20_000.0, "authz.provider.name": "opa"}


def _identity(directory: Path) -> tuple[bytes, bytes, Path]:
    """A self-signed certificate for localhost: (key, chain, file of the chain)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]), False
        )
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    file = directory / "ca.pem"
    file.write_bytes(certificate)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private, certificate, file


@pytest.mark.parametrize("kind", ["grpc", "grpc-tls", "http"])
def test_spans_reach_a_real_collector(tmp_path: Path, make_offer: MakeOffer, kind: str) -> None:
    key, chain, ca_file = _identity(tmp_path)
    collector: GrpcCollector | HttpCollector
    headers = {"x-team": "bookinfo"}
    if kind == "http":
        collector = HttpCollector()
        target = OtlpTarget(collector.endpoint, "http", headers)
    else:
        collector = GrpcCollector((key, chain) if kind == "grpc-tls" else None)
        target = OtlpTarget(collector.endpoint, "grpc", headers, str(ca_file) if kind == "grpc-tls" else "")
    try:
        tracer = DecisionTracer([span_exporter(target)], resource=service_resource("worker-1"))
        run(tracer, make_offer())
        received = collector.received
        assert received.arrived.wait(10)
    finally:
        collector.close()
    assert received.spans[0].name == "authz.decide"
    assert received.spans[0].parent_span_id.hex() == PARENT
    assert received.headers["x-team"] == "bookinfo"
    assert received.resources[0]["service.name"] == "authz"
    assert received.resources[0]["service.instance.id"] == "worker-1"
    assert tracer.problem == ""


def test_a_collector_that_is_gone_costs_neither_time_nor_records(make_offer: MakeOffer) -> None:
    collector = HttpCollector()
    collector.close()
    target = OtlpTarget(f"{collector.endpoint}/v1/traces", "http", timeout_seconds=0.1)
    tracer = DecisionTracer([span_exporter(target)], delay_seconds=60)
    sink = RecentSink()
    trail = AuditTrail([sink], steps=RecordSteps(tracer=tracer))
    trail.start()
    trail.record(make_offer())
    assert trail.flush()
    assert len(sink.entries) == 1
    tracer.flush()
    assert trail.status().tracing == "spans could not be exported; see the log"
    trail.close()


def test_tls_files_that_cannot_be_read_fail_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        span_exporter(OtlpTarget("https://collector:4317", ca_file=str(tmp_path / "absent.pem")))


def test_an_unsampled_span_costs_a_fraction_of_a_sampled_one(
    exporter: InMemorySpanExporter, make_offer: MakeOffer, attributes: AttributeContext
) -> None:
    tracer = DecisionTracer([exporter])

    def cost(flags: str) -> float:
        offer = make_offer(attributes=with_parent(attributes, f"00-{TRACE}-{PARENT}-{flags}"))
        return min(timeit.repeat(lambda: tracer.finish(tracer.begin(offer), offer, {}), number=200, repeat=7))

    unsampled = cost("00")
    assert exporter.get_finished_spans() == ()
    assert unsampled < cost("01") / 3
    tracer.close()


def test_a_span_without_parent_has_ids_of_the_right_length(make_offer: MakeOffer) -> None:
    tracer = DecisionTracer(())
    trace = tracer.begin(make_offer(attributes=replace(make_offer().attributes, trace_parent="")))
    assert (len(trace.trace_id), len(trace.span_id), trace.parent_id, trace.is_sampled) == (32, 16, "", True)
    assert isinstance(trace, TraceIds)
    assert read_field({}, "trace_id") is None

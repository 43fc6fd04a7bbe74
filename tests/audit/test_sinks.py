import json
import os
from collections.abc import Callable

import pytest

from authz.audit.sinks import OtlpSink, StreamSink, log_exporter
from authz.audit.trail import AuditTrail
from authz.core.decided import Offer
from authz.core.decision import Decision
from authz.telemetry.otlp import OtlpTarget
from tests.audit.collector import GrpcCollector, HttpCollector
from tests.audit.recent import RecentSink

MakeOffer = Callable[..., Offer]


def test_standard_output_gets_json_lines_and_stays_open(make_offer: MakeOffer) -> None:
    reading, writing = os.pipe()
    trail = AuditTrail([StreamSink(writing)])
    trail.start()
    trail.record(make_offer(decision_id="a"))
    trail.record(make_offer(decision_id="b"))
    assert trail.close()
    os.write(writing, b"still open\n")
    os.close(writing)
    with os.fdopen(reading) as opened:
        lines = opened.read().splitlines()
    assert [json.loads(line)["decision_id"] for line in lines[:2]] == ["a", "b"]
    assert lines[2] == "still open"


def test_a_reader_that_went_away_is_reported(make_offer: MakeOffer) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    trail = AuditTrail([StreamSink(writing)])
    trail.start()
    trail.record(make_offer())
    assert trail.flush()
    assert trail.status().sinks[0].error == "[Errno 32] Broken pipe"
    trail.close()
    os.close(writing)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_records_reach_a_real_collector_as_logs(
    make_offer: MakeOffer, allowed: Decision, protocol: str, secret: str
) -> None:
    collector: GrpcCollector | HttpCollector = GrpcCollector() if protocol == "grpc" else HttpCollector()
    recent = RecentSink()
    try:
        sink = OtlpSink(log_exporter(OtlpTarget(collector.endpoint, protocol)), delay_seconds=60)
        trail = AuditTrail([sink, recent])
        trail.start()
        trail.record(make_offer())
        trail.record(make_offer(decision=allowed))
        assert trail.close()
        received = collector.received
        assert received.arrived.wait(10)
    finally:
        collector.close()
    denial, acceptance = received.logs
    assert denial.body.string_value == recent.entries[0].line.decode()
    assert denial.trace_id.hex() == "a" * 32
    assert (denial.severity_text, acceptance.severity_text) == ("WARN", "INFO")
    assert denial.time_unix_nano == 1_700_000_000_250_000_000
    assert {a.key: a.value.string_value for a in denial.attributes}["authz.decision_id"] == "d-1"
    assert secret.encode() not in denial.SerializeToString()
    assert trail.status().sinks[0].error == ""


def test_a_log_collector_that_is_gone_is_reported(make_offer: MakeOffer) -> None:
    collector = HttpCollector()
    collector.close()
    target = OtlpTarget(f"{collector.endpoint}/v1/logs", "http", timeout_seconds=0.1)
    trail = AuditTrail([OtlpSink(log_exporter(target), delay_seconds=60)])
    trail.start()
    trail.record(make_offer())
    trail.close()
    assert trail.status().sinks[0].error == "records could not be exported; see the log"


def test_memory_keeps_only_the_newest(make_offer: MakeOffer) -> None:
    sink = RecentSink(2)
    trail = AuditTrail([sink])
    trail.start()
    for number in range(3):
        trail.record(make_offer(decision_id=str(number)))
    assert trail.close()
    assert [entry.record["decision_id"] for entry in sink.entries] == ["1", "2"]

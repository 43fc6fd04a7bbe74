"""The demo's stand-in for a collector takes what real exporters send."""

import asyncio
import json
from pathlib import Path

from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export import SpanExportResult

from authz.demo.collector import SpanFile, make_server, read_spans
from authz.telemetry.otlp import OtlpTarget, span_exporter

TRACE = "a" * 32
EXPORT = ParseDict(
    {
        "resourceSpans": [
            {
                "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "reviews-v1.bookinfo"}}]},
                "scopeSpans": [
                    {
                        "spans": [
                            {
                                "name": "ingress",
                                "kind": "SPAN_KIND_SERVER",
                                "startTimeUnixNano": "1700000000000000000",
                                "endTimeUnixNano": "1700000000001500000",
                                "attributes": [
                                    {"key": "list", "value": {"arrayValue": {"values": [{"intValue": "1"}]}}},
                                    {"key": "yes", "value": {"boolValue": True}},
                                    {"key": "nothing", "value": {}},
                                ],
                                "status": {"code": "STATUS_CODE_ERROR"},
                            }
                        ]
                    }
                ],
            }
        ]
    },
    ExportTraceServiceRequest(),
)
EXPORT.resource_spans[0].scope_spans[0].spans[0].trace_id = bytes.fromhex(TRACE)
EXPORT.resource_spans[0].scope_spans[0].spans[0].span_id = b"\x01" * 8


def test_a_span_becomes_one_flat_object() -> None:
    (span,) = read_spans(EXPORT)
    assert span == {
        "service": "reviews-v1.bookinfo",
        "trace_id": TRACE,
        "span_id": "01" * 8,
        "parent_id": "",
        "trace_state": "",
        "name": "ingress",
        "kind": "server",
        "start": "2023-11-14T22:13:20.000000Z",
        "duration_us": 1500.0,
        "failed": True,
        "attributes": {"list": [1], "yes": True, "nothing": None},
        "events": [],
    }


def test_the_newest_spans_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "spans.jsonl"
    file = SpanFile(path, most_bytes=1000)
    for _ in range(5):
        file.write(EXPORT)
    assert path.stat().st_size <= 1000
    assert {json.loads(line)["trace_id"] for line in path.read_text().splitlines()} == {TRACE}
    assert [found.name for found in tmp_path.glob("*.1")] == ["spans.jsonl.1"]


async def test_an_exporter_delivers_over_a_socket(tmp_path: Path) -> None:
    """The very exporter of the authorization server, with an endpoint as the demo gives it."""
    server = make_server(SpanFile(tmp_path / "spans.jsonl"))
    address = f"unix:{tmp_path}/otlp.sock"
    server.add_insecure_port(address)
    await server.start()
    exporter = span_exporter(OtlpTarget(address))
    try:
        assert await asyncio.to_thread(exporter.export, ()) is SpanExportResult.SUCCESS
    finally:
        exporter.shutdown()
        await server.stop(None)
    assert (tmp_path / "spans.jsonl").read_text() == ""

"""
The demo's stand-in for an OpenTelemetry collector: it takes spans by OTLP/gRPC and writes each as one JSON line.

    python -m authz.demo.collector --listen unix:run/otlp.sock --out spans/spans.jsonl

Envoys and the authorization server send to it exactly what they would send to a real collector, which your own mesh
puts in its place. The newest spans are kept: beyond ``MOST_BYTES`` the file is renamed to ``<name>.1``.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"
MOST_BYTES = 50_000_000
MOST_MESSAGE_BYTES = 64 << 20
Value = str | bool | int | float | list["Value"] | dict[str, "Value"] | None


def read_spans(request: ExportTraceServiceRequest) -> Iterator[dict[str, Value]]:
    """Flatten one export: a span is an object of its own, with the name of the service that made it."""
    for resource in request.resource_spans:
        service = _attributes(resource.resource.attributes).get("service.name", "")
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield {"service": service} | _span(span)


def _span(span: Span) -> dict[str, Value]:
    return {
        "trace_id": span.trace_id.hex(),
        "span_id": span.span_id.hex(),
        "parent_id": span.parent_span_id.hex(),
        "trace_state": span.trace_state,
        "name": span.name,
        "kind": Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
        "start": _time(span.start_time_unix_nano),
        "duration_us": (span.end_time_unix_nano - span.start_time_unix_nano) / 1000,
        "failed": span.status.code == span.status.STATUS_CODE_ERROR,
        "attributes": _attributes(span.attributes),
        "events": [
            {"name": event.name, "time": _time(event.time_unix_nano), "attributes": _attributes(event.attributes)}
            for event in span.events
        ],
    }


def _attributes(pairs: Sequence[KeyValue]) -> dict[str, Value]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Value:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(element) for element in value.array_value.values]
    if kind == "kvlist_value":
        return _attributes(value.kvlist_value.values)
    if kind == "bytes_value":
        return value.bytes_value.hex()
    found: Value = getattr(value, kind) if kind else None
    return found


def _time(nanoseconds: int) -> str:
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC).isoformat(timespec="microseconds")[:-6] + "Z"


class SpanFile:
    """Appends whole lines. Used by one thread."""

    def __init__(self, path: Path, most_bytes: int = MOST_BYTES) -> None:
        self._path = path
        self._most_bytes = most_bytes

    def write(self, request: ExportTraceServiceRequest) -> None:
        """Append the spans of one export. Raises OSError."""
        lines = "".join(f"{json.dumps(span, ensure_ascii=False)}\n" for span in read_spans(request)).encode()
        if lines and self._path.exists() and self._path.stat().st_size + len(lines) > self._most_bytes:
            self._path.replace(self._path.with_name(f"{self._path.name}.1"))
        with self._path.open("ab") as file:
            file.write(lines)


def make_server(file: SpanFile) -> grpc.aio.Server:
    """An OTLP endpoint of spans; logs and metrics are not taken."""

    async def export(
        request: ExportTraceServiceRequest, context: "grpc.aio.ServicerContext[object, object]"
    ) -> ExportTraceServiceResponse:
        file.write(request)
        return ExportTraceServiceResponse()

    server = grpc.aio.server(options=[("grpc.max_receive_message_length", MOST_MESSAGE_BYTES)])
    method = grpc.unary_unary_rpc_method_handler(
        export,
        request_deserializer=ExportTraceServiceRequest.FromString,
        response_serializer=ExportTraceServiceResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Export": method}),))
    return server


async def _serve(listen: str, out: Path) -> None:
    server = make_server(SpanFile(out))
    server.add_insecure_port(listen)
    await server.start()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    await stopping.wait()
    await server.stop(1)


def main(arguments: Sequence[str]) -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m authz.demo.collector", description=(__doc__ or "").split("\n")[1])
    parser.add_argument("--listen", required=True, help="host:port or unix:PATH")
    parser.add_argument("--out", type=Path, required=True, help="file of JSON lines")
    given = parser.parse_args(arguments)
    os.umask(0o007)  # members of the group may send spans, as proxies with users of their own do
    asyncio.run(_serve(given.listen, given.out))


if __name__ == "__main__":
    main(sys.argv[1:])

"""A real OTLP collector for tests: gRPC and HTTP on loopback, with or without TLS; keeps what it receives."""

import threading
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Received:
    """What arrived, and an event that says that something did."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.logs: list[LogRecord] = []
        self.resources: list[dict[str, str]] = []
        self.headers: dict[str, str] = {}
        self.arrived = threading.Event()

    def take_spans(self, request: trace_service_pb2.ExportTraceServiceRequest) -> None:
        for resource_spans in request.resource_spans:
            self.resources.append({a.key: a.value.string_value for a in resource_spans.resource.attributes})
            for scope_spans in resource_spans.scope_spans:
                self.spans.extend(scope_spans.spans)
        self.arrived.set()

    def take_logs(self, request: logs_service_pb2.ExportLogsServiceRequest) -> None:
        for resource_logs in request.resource_logs:
            for scope_logs in resource_logs.scope_logs:
                self.logs.extend(scope_logs.log_records)
        self.arrived.set()


class _Traces(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self, received: Received) -> None:
        self.received = received

    def Export(
        self,
        request: trace_service_pb2.ExportTraceServiceRequest,
        context: grpc.ServicerContext,
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        self.received.headers.update({key: str(value) for key, value in context.invocation_metadata()})
        self.received.take_spans(request)
        return trace_service_pb2.ExportTraceServiceResponse()


class _Logs(logs_service_pb2_grpc.LogsServiceServicer):
    def __init__(self, received: Received) -> None:
        self.received = received

    def Export(
        self,
        request: logs_service_pb2.ExportLogsServiceRequest,
        context: grpc.ServicerContext,
    ) -> logs_service_pb2.ExportLogsServiceResponse:
        self.received.take_logs(request)
        return logs_service_pb2.ExportLogsServiceResponse()


class GrpcCollector:
    """OTLP by gRPC; with ``identity`` (key, chain) it speaks TLS."""

    def __init__(self, identity: tuple[bytes, bytes] | None = None) -> None:
        self.received = Received()
        self._server = grpc.server(futures.ThreadPoolExecutor(2))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(_Traces(self.received), self._server)  # type: ignore[no-untyped-call]  # generated
        logs_service_pb2_grpc.add_LogsServiceServicer_to_server(_Logs(self.received), self._server)  # type: ignore[no-untyped-call]  # generated
        if identity is None:
            port = self._server.add_insecure_port("127.0.0.1:0")
        else:
            port = self._server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([identity]))
        scheme = "http" if identity is None else "https"
        self.endpoint = f"{scheme}://localhost:{port}" if identity else f"{scheme}://127.0.0.1:{port}"
        self._server.start()

    def close(self) -> None:
        self._server.stop(None).wait()


class HttpCollector:
    """OTLP by HTTP."""

    def __init__(self) -> None:
        received = self.received = Received()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                received.headers.update({key.lower(): value for key, value in self.headers.items()})
                if self.path == "/v1/traces":
                    received.take_spans(trace_service_pb2.ExportTraceServiceRequest.FromString(body))
                else:
                    received.take_logs(logs_service_pb2.ExportLogsServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

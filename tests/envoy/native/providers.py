"""
Real providers for CUSTOM policies: an HTTP and a gRPC server in this process, and a port where nobody listens.

What they answer is told by headers of the request itself, so that the engine can be given the same answer.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc

from authz._proto import ext_authz_pb2 as pb
from authz.core.attributes import Json
from authz.core.providers import ProviderAnswer, ProviderQuestion
from authz.core.resources import ExtensionProvider
from authz.envoy.native.value_matchers import TYPE, Message
from authz.service.ports.grpc_health import AUTHORIZATION
from authz.service.provider_calls import read_grpc_answer, read_http_answer
from tests.envoy.rig import free_ports

VERDICT, GRANTED = "x-verdict", "x-role"
VERDICTS = ("", "deny", "teapot", "error", "grant")
"""Values of VERDICT in requests: allowed, refused, refused with a status of its own, broken, allowed with a header."""
STUBS = ("allow", "deny", "error")
"""Servers that always answer the same."""
_SHOWN = (VERDICT,)
PROVIDERS = (
    ExtensionProvider(
        "ext", "http", "ext.shop.svc.cluster.local", 8000, 5.0,
        include_request_headers_in_check=_SHOWN, headers_to_upstream_on_allow=(GRANTED,),
    ),
    ExtensionProvider("grpc", "grpc", "grpc.shop.svc.cluster.local", 9000, 5.0, status_on_error=503),
    ExtensionProvider("down", "http", "down.shop.svc.cluster.local", 8001, 5.0, status_on_error=503),
    ExtensionProvider("open", "grpc", "down.shop.svc.cluster.local", 8001, 5.0, fail_open=True),
    ExtensionProvider("broken", "grpc", problems=("no port",)),
)  # fmt: skip


def cluster_of(provider: ExtensionProvider) -> str:
    return f"provider-{provider.name}"


def answer(question: ProviderQuestion) -> ProviderAnswer:
    """What the servers here answer, as the service reads it."""
    provider, http = question.provider, question.attributes.http
    if provider.name in ("down", "open"):
        return ProviderAnswer(False, error="nobody listens")
    verdict = http.headers.get(VERDICT, ("",))[0] if http is not None else ""
    if provider.protocol == "http":
        status, headers, body = _http(verdict)
        return read_http_answer(provider, status, headers, body)
    if verdict == "error":
        return ProviderAnswer(False, error="broken")
    return read_grpc_answer(_grpc(verdict).SerializeToString())


def _http(verdict: str) -> tuple[int, list[tuple[str, str]], str]:
    status = {"deny": 403, "teapot": 418, "error": 500}.get(verdict, 200)
    return status, [(GRANTED, "admin")] if verdict == "grant" else [], "no" if status != 200 else ""


def _grpc(verdict: str) -> Any:
    response = pb.CheckResponse()
    response.status.code = 7 if verdict in ("deny", "teapot") else 0
    if verdict == "teapot":
        response.denied_response.status.code = 418
        response.denied_response.body = "no"
    elif verdict == "grant":
        option = response.ok_response.headers.add()
        option.header.key, option.header.value = GRANTED, "admin"
        option.append.value = False
    return response


class _Http(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    verdict = ""

    def __getattr__(self, name: str) -> Callable[[], None]:
        if not name.startswith("do_"):
            raise AttributeError(name)
        return self._answer

    def _answer(self) -> None:
        status, headers, body = _http(self.headers.get(VERDICT, self.verdict))
        self.rfile.read(int(self.headers.get("content-length", "0")))
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        """Quiet."""


@contextlib.contextmanager
def providers() -> Iterator[list[Message]]:
    """Run the servers; what is given are their clusters for Envoy."""
    (nobody,) = free_ports(1)
    with contextlib.ExitStack() as stack:
        ports = {"ext": stack.enter_context(_http_server("")), "grpc": stack.enter_context(_grpc_server(""))}
        ports |= {"down": nobody, "open": nobody}
        found = [_cluster(cluster_of(one), one.protocol, ports[one.name]) for one in PROVIDERS if one.is_usable]
        for verdict in STUBS:
            found.append(_cluster(stub_cluster("http", verdict), "http", stack.enter_context(_http_server(verdict))))
            found.append(_cluster(stub_cluster("grpc", verdict), "grpc", stack.enter_context(_grpc_server(verdict))))
        yield found


def stub_cluster(protocol: str, verdict: str) -> str:
    """The cluster of a server that always answers the same."""
    return f"{protocol}-{verdict}"


@contextlib.contextmanager
def _http_server(verdict: str) -> Iterator[int]:
    handler = type("Handler", (_Http,), {"verdict": verdict})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@contextlib.contextmanager
def _grpc_server(verdict: str) -> Iterator[int]:
    def check(message: bytes, context: "grpc.ServicerContext") -> bytes:
        asked: Mapping[str, str] = pb.CheckRequest.FromString(message).attributes.request.http.headers
        told = asked.get(VERDICT, verdict)
        if told == "error":
            context.abort(grpc.StatusCode.INTERNAL, "broken")
        found: bytes = _grpc(told).SerializeToString()
        return found

    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool, options=[("grpc.so_reuseport", 0)])
        handler = grpc.unary_unary_rpc_method_handler(check)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(AUTHORIZATION, {"Check": handler}),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield port
        finally:
            server.stop(None)


def _cluster(name: str, protocol: str, port: int) -> Message:
    address: Json = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    endpoints: Json = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    found: Message = {
        "name": name,
        "type": "STATIC",
        "load_assignment": {"cluster_name": name, "endpoints": endpoints},
    }
    if protocol == "grpc":
        options: Message = {
            "@type": f"{TYPE}envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        }
        found["typed_extension_protocol_options"] = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options}
    return found

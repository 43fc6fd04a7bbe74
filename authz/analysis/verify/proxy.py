"""One real Envoy with listeners of its own, and a client that sends exactly the bytes it is given."""

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
from types import TracebackType
from typing import Any, BinaryIO

from authz.analysis.verify.trial_certificates import Identities
from authz.core.attributes import Json
from authz.envoy.native.binary import RUNTIME, EnvoyError, envoy_text, find_envoy
from authz.envoy.native.linear import Filter
from authz.envoy.native.value_matchers import TYPE, Message

ROUTER: Message = {
    "name": "envoy.filters.http.router",
    "typed_config": {"@type": f"{TYPE}envoy.extensions.filters.http.router.v3.Router"},
}
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
START_SECONDS = 120.0
LOG_SECONDS = 30.0


@dataclass(frozen=True)
class Endpoints:
    """A connection's ends as the PROXY header tells them; None: no PROXY header."""

    source: str
    destination: str
    port: int

    def header(self) -> bytes:
        """The line before everything else."""
        source, destination = self.source, self.destination
        family = "TCP6" if ":" in source + destination else "TCP4"
        if family == "TCP6":
            source, destination = (one if ":" in one else f"::ffff:{one}" for one in (source, destination))
        return f"PROXY {family} {source} {destination} 40000 {self.port}\r\n".encode()


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


def listener(name: str, filters: Sequence[Filter | Message], certificates: Path, **fields: Json) -> Message:
    """A listener for plain text and mTLS, with addresses from the PROXY protocol."""
    network: Json = manager([one.as_extension() if isinstance(one, Filter) else one for one in filters], **fields)
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


class Connection:
    """
    One connection to a listener; a context manager.

    Raises OSError when it cannot be made or breaks, ValueError for a server name that no hello can have.
    """

    def __init__(self, port: int, ends: Endpoints, context: ssl.SSLContext | None, sni: str, source: str) -> None:
        if "\0" in sni or b"\0" in sni.encode("idna"):  # looked at first: a half-made TLS socket would stay open
            raise ValueError("a server name has no null byte")
        plain = socket.create_connection(("127.0.0.1", port), 30, (source, 0) if source else None)
        self._socket: socket.socket = plain
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            plain.sendall(ends.header())
            if context is not None:
                self._socket = context.wrap_socket(plain, server_hostname=sni or None)
        except BaseException:
            plain.close()
            raise
        self._reader: BinaryIO = self._socket.makefile("rb")

    def __enter__(self) -> "Connection":
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection."""
        self._reader.close()
        self._socket.close()

    def send(self, request: bytes) -> Told:
        """Send one request and wait for its answer: Envoy closes after an answer of its own to a pipelined one."""
        self._socket.sendall(request)
        status = self._reader.readline()
        if not status:
            raise ConnectionError("Envoy closed the connection")
        headers: dict[str, str] = {}
        while (line := self._reader.readline().rstrip(b"\r\n")) != b"":
            name, _, value = line.decode("utf-8", "surrogateescape").partition(":")
            headers[name] = value.strip()
        has_body = not request.startswith(b"HEAD ")
        body = self._reader.read(int(headers.get("content-length", "0"))) if has_body else b""
        return Told(int(status.split()[1]), body.decode(), headers)


@dataclass
class Running:
    """An Envoy that runs; ``ports`` by name of the listener."""

    ports: dict[str, int]
    identities: Identities
    admin: int
    process: "subprocess.Popen[bytes]"
    log: Path

    def logged(self, number: int) -> dict[str, dict[str, Any]]:
        """The lines of the access log by number of the request, once there are so many. Raises EnvoyError."""
        end = time.monotonic() + LOG_SECONDS
        while time.monotonic() < end:
            lines = self.log.read_bytes().rpartition(b"\n")[0].splitlines() if self.log.exists() else []
            if len(lines) >= number:
                return {str(line["n"]): line for line in map(json.loads, lines)}
            time.sleep(0.02)
        raise EnvoyError(f"Envoy logged {len(lines)} of {number} requests")

    def logged_of(self, numbers: set[str]) -> dict[str, dict[str, Any]]:
        """The lines of these requests, once all are there. Raises EnvoyError."""
        end = time.monotonic() + LOG_SECONDS
        while True:
            found = self.logged(0)
            if numbers <= found.keys():
                return found
            if time.monotonic() > end:
                raise EnvoyError(f"Envoy logged nothing of {len(numbers - found.keys())} requests")
            time.sleep(0.05)

    def connect(self, name: str, ends: Endpoints, *, identity: str = "", sni: str = "", source: str = "") -> Connection:
        """
        Connect to a listener, by mTLS where there is an identity; ``source`` is the address of the client.

        Raises OSError, and ValueError for an identity or server name that cannot be written.
        """
        context = self.identities.client(identity) if identity else None
        return Connection(self.ports[name], ends, context, sni, source)

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
        source = ends.source if bind else ""
        with self.connect(name, ends, identity=identity, sni=sni, source=source) as connection:
            return [connection.send(request) for request in requests]


@contextlib.contextmanager
def running(
    directory: Path,
    listeners: Sequence[Message],
    identities: Identities,
    *arguments: str,
    timeout: float = START_SECONDS,
    clusters: Sequence[Message] = (),
    binary: str = "",
) -> Iterator[Running]:
    """Run Envoy until the listeners answer. Raises EnvoyError with Envoy's text when it does not start."""
    config: Message = {
        "node": {"id": "native", "cluster": "native"},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "static_resources": {"listeners": list(listeners), "clusters": list(clusters)},
        "layered_runtime": {"layers": [{"name": "as-istio", "static_layer": dict(RUNTIME)}]},
    }
    (directory / "envoy.json").write_text(json.dumps(config))
    told, errors = directory / "admin", directory / "envoy.log"
    command = [find_envoy(binary), "-c", str(directory / "envoy.json"), "--use-dynamic-base-id"]
    command += ["--concurrency", "1", "--file-flush-interval-msec", "20", "--log-level", "error"]
    command += ["--admin-address-path", str(told), *arguments]
    with errors.open("wb") as log:
        process = subprocess.Popen(command, cwd=directory, stderr=log)  # noqa: S603  # the Envoy that was asked for
    try:
        end = time.monotonic() + timeout
        admin = 0
        while True:
            if process.poll() is not None or time.monotonic() > end:
                raise EnvoyError(f"Envoy does not start: {envoy_text(errors.read_text(errors='replace'))}")
            if not admin and told.exists() and (text := told.read_text()):
                admin = int(text.rpartition(":")[2])
            if admin and _ready(admin):
                break
            time.sleep(0.02)
        found = _get(admin, "/listeners?format=json")["listener_statuses"]
        ports = {
            one["name"]: one["local_address"]["socket_address"]["port_value"]
            for one in found
            if "socket_address" in one["local_address"]
        }
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

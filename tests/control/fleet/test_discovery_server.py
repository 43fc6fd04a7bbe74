"""The control plane asked without an Envoy: who gets what, and what is written down of who does not."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from authz._proto import delta_discovery_pb2 as wire
from authz.control.discovery.discovered import CLUSTER_TYPE, ENDPOINTS_TYPE, LISTENER_TYPE, SECRET_TYPE
from authz.control.discovery.subscription import MAX_WORDS
from authz.control.fleet import discovery_server
from authz.control.fleet.discovery_server import MAX_STREAMS, STARTING
from authz.identity.certificate_template import SVID_TTL_SECONDS
from tests.control.fleet.fleet_rig import API, WEB, Rig, until


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    made = Rig(tmp_path)
    await made.start()
    yield made
    await made.stop()


def wanting(type_url: str, *names: str, node: str = "web-v1") -> wire.DeltaDiscoveryRequest:
    request = wire.DeltaDiscoveryRequest(type_url=type_url, resource_names_subscribe=names)
    request.node.id = node
    return request


async def read(call: Any) -> wire.DeltaDiscoveryResponse:
    response = await call.read()
    assert isinstance(response, wire.DeltaDiscoveryResponse), "the stream has ended"
    return response


async def test_a_proxy_gets_its_own_clusters_and_is_shown_as_connected(rig: Rig) -> None:
    async with rig.stream(WEB) as call:
        await call.write(wanting(CLUSTER_TYPE))
        names = [resource.name for resource in (await read(call)).resources]
        assert "outbound|80||api.shop.svc.cluster.local" in names
        assert rig.status()["web-v1"]["is_connected"]
        assert not rig.status()["api-v1"]["is_connected"]


@pytest.mark.parametrize(
    ("type_url", "name"),
    [(SECRET_TYPE, API), (ENDPOINTS_TYPE, "app_api-v1_{inbound}"), (LISTENER_TYPE, "inbound_{inbound}")],
    ids=["secret", "endpoints", "listener"],
)
async def test_what_is_another_workloads_does_not_exist_for_a_proxy_and_asking_is_recorded(
    rig: Rig, caplog: pytest.LogCaptureFixture, type_url: str, name: str
) -> None:
    asked = name.format(inbound=rig.inbound)
    async with rig.stream(WEB) as call:
        with caplog.at_level(logging.WARNING, "authz.discovery"):
            await call.write(wanting(type_url, asked, "nobody-has-this"))
            response = await read(call)
            assert list(response.resources) == []
            assert list(response.removed_resources) == sorted([asked, "nobody-has-this"])
    (line,) = [json.loads(record.message) for record in caplog.records if record.name == "authz.discovery"]
    assert (line["peer"], line["node"]) == (WEB, "web-v1")
    assert f"`{asked}` is of another workload" in line["refused"]


@pytest.mark.parametrize(
    ("spiffe_id", "node"),
    [(WEB, "api-v1"), (WEB, "nobody"), (WEB, ""), ("spiffe://mesh.test/ns/shop/sa/other", "web-v1")],
)
async def test_a_node_that_is_not_of_the_svid_gets_nothing(rig: Rig, spiffe_id: str, node: str) -> None:
    async with rig.stream(spiffe_id) as call:
        await call.write(wanting(CLUSTER_TYPE, node=node))
        assert await call.code() is grpc.StatusCode.PERMISSION_DENIED
        assert "has no proxy" in await call.details()
    assert rig.plane is not None
    assert rig.plane.discovery.figures.refused == 1


async def test_a_stream_cannot_become_another_proxys(rig: Rig) -> None:
    async with rig.stream(WEB) as call:
        await call.write(wanting(CLUSTER_TYPE))
        await read(call)
        await call.write(wanting(LISTENER_TYPE, node="api-v1"))
        assert await call.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_streams_end_before_their_certificate_does_though_nothing_else_happens(rig: Rig) -> None:
    async with rig.stream(WEB) as named, rig.stream(API) as silent:
        await named.write(wanting(CLUSTER_TYPE))
        await read(named)
        rig.skew = 2 * SVID_TTL_SECONDS
        async with asyncio.timeout(30):
            codes = [(await call.code(), await call.details()) for call in (named, silent)]
        for code, details in codes:
            assert code is grpc.StatusCode.PERMISSION_DENIED
            assert "expires" in details


async def test_a_proxy_has_a_few_streams_at_most(rig: Rig) -> None:
    async with rig.stream(WEB) as first, rig.stream(WEB) as second, rig.stream(WEB) as third, rig.stream(WEB) as last:
        opened = [first, second, third, last]
        assert len(opened) == MAX_STREAMS
        for call in opened:
            await call.write(wanting(CLUSTER_TYPE))
            await read(call)
        async with rig.stream(WEB) as more:
            await more.write(wanting(CLUSTER_TYPE))
            assert await more.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_streams_that_say_nothing_take_nobodys_turn(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery_server, "START_SECONDS", 3600.0)
    monkeypatch.setattr(discovery_server, "FIRST_SECONDS", 3.0)
    async with AsyncExitStack() as opened, asyncio.timeout(30):
        silent = [await opened.enter_async_context(rig.stream(API)) for _ in range(STARTING)]

        async def are_open() -> bool:
            assert rig.plane is not None
            return rig.plane.discovery.opened == STARTING

        await until(are_open)
        async with rig.stream(WEB) as call:
            await call.write(wanting(CLUSTER_TYPE))
            assert (await read(call)).resources
        assert {await call.code() for call in silent} == {grpc.StatusCode.DEADLINE_EXCEEDED}


async def test_a_proxy_is_shown_as_its_newest_stream_is(rig: Rig) -> None:
    async with AsyncExitStack() as opened:
        for _ in range(MAX_STREAMS):  # the others may be of connections that are no more
            call = await opened.enter_async_context(rig.stream(WEB))
            await call.write(wanting(CLUSTER_TYPE))
            response = await read(call)
        await call.write(wire.DeltaDiscoveryRequest(type_url=CLUSTER_TYPE, response_nonce=response.nonce))

        async def is_shown() -> bool:
            return not rig.status()["web-v1"]["types"]["cds"]["is_waiting"]

        await until(is_shown, 10)


async def test_a_proxy_that_refuses_in_a_loop_fills_no_log(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    async with rig.stream(WEB) as call:
        await call.write(wanting(CLUSTER_TYPE))
        response = await read(call)
        refusal = wire.DeltaDiscoveryRequest(type_url=CLUSTER_TYPE, response_nonce=response.nonce)
        refusal.error_detail.message = "x" * 100_000
        for _ in range(200):
            await call.write(refusal)
        await call.write(wanting(ENDPOINTS_TYPE, "nobody-has-this"))
        await read(call)
    assert len(rig.status()["web-v1"]["types"]["cds"]["rejection"]) == MAX_WORDS
    assert 0 < len(caplog.text) < 50 * MAX_WORDS


async def test_a_proxy_that_answers_nothing_holds_up_nobody(rig: Rig) -> None:
    async with rig.stream(WEB) as slow, rig.stream(API) as other:
        await slow.write(wanting(CLUSTER_TYPE))
        await read(slow)
        rig.write_mesh("---\n" + ADDED.format(port=rig.out))
        await other.write(wanting(CLUSTER_TYPE, node="api-v1"))
        assert (await read(other)).resources


ADDED = """apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: more, namespace: shop}}
spec:
  hosts: [more.shop.svc.cluster.local]
  location: MESH_INTERNAL
  ports: [{{number: {port}, name: http, protocol: HTTP}}]
  workloadSelector: {{labels: {{app: api}}}}
"""


async def test_a_change_that_cannot_be_used_keeps_what_is_in_force_and_says_so(rig: Rig) -> None:
    assert rig.plane is not None
    rig.write_policy("kind: Nonsense\n", "broken.yaml")

    async def is_said() -> bool:
        assert rig.plane is not None
        return any(cause["part"] == "mesh" for cause in rig.plane.causes())

    await until(is_said)
    async with rig.stream(WEB) as call:
        await call.write(wanting(CLUSTER_TYPE))
        assert (await read(call)).resources

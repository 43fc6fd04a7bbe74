"""Two real Envoys that have everything but their bootstrap from the control plane, over mutual TLS."""

import signal
import socket
import subprocess
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from envoy_data_plane.envoy.config.cluster.v3 import Cluster, ClusterDiscoveryType
from envoy_data_plane.envoy.config.core.v3 import Address, SocketAddress, SocketAddressProtocol, TypedExtensionConfig
from envoy_data_plane.envoy.config.endpoint.v3 import ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints
from envoy_data_plane.envoy.extensions.network.dns_resolver.cares.v3 import CaresDnsResolverConfig
from envoy_data_plane.google.protobuf import Any as AnyMessage

from authz._proto import delta_discovery_pb2 as wire
from authz.control.discovery.discovered import CLUSTER_TYPE, LISTENER_TYPE, Discovered
from authz.control.fleet import proxy_stream
from authz.telemetry import fleet_names
from tests.control.fleet.fleet_rig import API, WEB, Rig, allow, answers, ask, free_ports, until

pytestmark = pytest.mark.envoy


async def test_a_fleet_follows_policies_and_description_shows_what_it_refuses_and_outlives_its_control(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(tmp_path)
    rig.join("web-v1", WEB)
    rig.join("api-v1", API)
    await rig.start()
    try:
        async with rig.application():
            with rig.envoy("web-v1"), rig.envoy("api-v1") as second:
                await _policies_reach_only_whom_they_concern(rig)
                await _renewed_certificates_are_taken_from_their_files(rig)
                await _listeners_follow_the_description(rig)
                await _a_refusal_is_shown_and_the_last_good_one_stays(rig)
                await _a_refusal_that_envoy_does_not_say_yet_is_told(rig, monkeypatch)
                await _without_control_all_goes_on_and_with_it_again_what_differs_comes(rig)
                await _who_is_gone_is_sent_nothing_until_it_is_back(rig)
                await _a_machine_that_says_no_farewell_is_missed(rig, second)
    finally:
        await rig.stop()


async def _policies_reach_only_whom_they_concern(rig: Rig) -> None:
    await answers(rig.out, "/one", "200")
    assert await ask(rig.out, "/two") == "403"
    await rig.everybody_is_current()
    assert rig.plane is not None
    before, pushes = rig.status(), rig.plane.discovery.figures.pushes.copy()
    rig.write_policy(allow("/two"))
    await answers(rig.out, "/two", "200")
    assert await ask(rig.out, "/one") == "403"
    await rig.everybody_is_current()
    assert rig.plane.discovery.figures.pushes - pushes == {"ecds": 1}
    after = rig.status()
    assert after["web-v1"] == before["web-v1"]
    assert {short for short, kind in after["api-v1"]["types"].items() if kind != before["api-v1"]["types"][short]} == {
        "ecds"
    }


async def _renewed_certificates_are_taken_from_their_files(rig: Rig) -> None:
    before = rig.served("api-v1")
    rig.join("api-v1", API)

    async def is_taken() -> bool:
        now = rig.served("api-v1")
        return bool(now) and not now & before  # those of the mesh, and the one that is shown to the control plane

    await until(is_taken)


async def _listeners_follow_the_description(rig: Rig) -> None:
    old = rig.out
    (rig.out,) = free_ports(1)
    rig.write_mesh()
    await answers(rig.out, "/two", "200")
    await answers(old, "/two", "ConnectionRefusedError")


async def _another_listener_comes_and_the_refusal_is_shown_all_the_same(rig: Rig) -> None:
    (more,) = free_ports(1)
    port = f"{{port: {{number: {more}, protocol: HTTP, name: more}}, hosts: [./api.shop.svc.cluster.local]}}"
    rig.mesh.write_text(rig.mesh.read_text().replace("egress: [", f"egress: [{port}, "))
    await answers(more, "/two", "200")

    async def is_answered() -> bool:
        return not rig.status()["web-v1"]["types"]["lds"]["is_waiting"]

    await until(is_answered)
    assert rig.status()["web-v1"]["types"]["lds"]["rejection"]
    assert not rig.status()["web-v1"]["is_current"]


async def _a_refusal_is_shown_and_the_last_good_one_stays(rig: Rig) -> None:
    assert rig.plane is not None
    good = rig.out
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        rig.out = taken.getsockname()[1]
        rig.write_mesh()

        async def is_refused() -> bool:
            return bool(rig.status()["web-v1"]["types"]["lds"]["rejection"])

        await until(is_refused)
        listeners = rig.status()["web-v1"]["types"]["lds"]
        assert "ddress already in use" in listeners["rejection"] or "cannot bind" in listeners["rejection"]
        assert listeners["refused"]
        assert [cause["part"] for cause in rig.plane.causes()] == ["proxy"]
        told = dict(rig.plane.figures())[fleet_names.XDS_REFUSALS]
        assert told == {("web-v1", "lds", listeners["refused"], listeners["rejection"][:200]): 1}
        assert not rig.status()["web-v1"]["is_current"]
        await _another_listener_comes_and_the_refusal_is_shown_all_the_same(rig)
    rig.out = good
    rig.write_mesh()
    await answers(rig.out, "/two", "200")
    await rig.everybody_is_current()


async def _a_refusal_that_envoy_does_not_say_yet_is_told(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """It refuses one cluster, and says nothing of it while another one waits for the DNS."""
    assert rig.plane is not None
    monkeypatch.setattr(proxy_stream, "ANSWER_SECONDS", 0.5)
    fleet = dict(rig.plane.discovery._fleet)
    web = fleet["web-v1"]

    def publish(**more: Cluster) -> None:
        packed = {name: _packed(name, one) for name, one in more.items()}
        world = {**web.world, CLUSTER_TYPE: {**web.world[CLUSTER_TYPE], **packed}}
        assert rig.plane is not None
        rig.plane.discovery.publish({**fleet, "web-v1": replace(web, world=world)})

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        bad = Cluster(name="bad", type=ClusterDiscoveryType.EDS)  # from where it has its endpoints it does not say
        publish(bad=bad, slow=_asking_at(silent.getsockname()[1]))

        async def is_told() -> bool:
            return bool(rig.status()["web-v1"]["types"]["cds"]["waits"])

        await until(is_told)
        told = rig.status()["web-v1"]["types"]["cds"]
        assert told["rejection"] == ""
        assert [line.partition(":")[0] for line in told["waits"]] == [
            "`bad` may be refused", "`slow` may wait for its certificate or the DNS, or be refused",
        ]  # fmt: skip
        (row,) = (one for one in rig.plane.reporter.view().proxies if one.name == "web-v1")
        assert row.waits[0].startswith("cds: `bad` may be refused")
        publish(bad=bad)

        async def is_refused() -> bool:
            return "bad" in rig.status()["web-v1"]["types"]["cds"]["rejection"]

        await until(is_refused)
    publish()
    await rig.everybody_is_current()


def _packed(name: str, cluster: Cluster) -> Discovered:
    return Discovered.pack(CLUSTER_TYPE, name, bytes(cluster), (name,) if name == "bad" else ())


def _asking_at(port: int) -> Cluster:
    """One with an endpoint whose address is asked for at a port of this machine."""

    asked = SocketAddress(address="127.0.0.1", port_value=port, protocol=SocketAddressProtocol.UDP)
    resolver = CaresDnsResolverConfig(resolvers=[Address(socket_address=asked)])
    address = Address(socket_address=SocketAddress(address="slow.example", port_value=80))
    endpoint = LbEndpoint(endpoint=Endpoint(address=address))
    told = TypedExtensionConfig(name="envoy.network.dns_resolver.cares", typed_config=AnyMessage.pack(resolver))
    return Cluster(
        name="slow",
        type=ClusterDiscoveryType.STRICT_DNS,
        typed_dns_resolver_config=told,
        load_assignment=ClusterLoadAssignment("slow", [LocalityLbEndpoints(lb_endpoints=[endpoint])]),
    )


async def _without_control_all_goes_on_and_with_it_again_what_differs_comes(rig: Rig) -> None:
    await rig.stop()
    rig.gone_after = 1.0
    assert await ask(rig.out, "/two") == "200"
    rig.write_policy(allow("/three"))
    await rig.start()
    await answers(rig.out, "/three", "200")
    assert await ask(rig.out, "/two") == "403"
    await rig.everybody_is_current()
    assert rig.plane is not None
    assert rig.plane.discovery.figures.pushes["ecds"] == 1
    assert rig.plane.discovery.figures.pushes["lds"] == 0


SECOND = """---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: api-v2, namespace: shop}}
spec: {{address: 192.0.2.1, serviceAccount: api, labels: {{app: api}}, ports: {{http: {port}}}}}
"""


async def _who_is_gone_is_sent_nothing_until_it_is_back(rig: Rig) -> None:
    """``api-v2`` is a stream without an Envoy, at an address of nobody."""
    assert rig.plane is not None
    rig.write_mesh(SECOND.format(port=rig.inbound))
    await until(_web_holds_second_for(rig, "healthy"))
    figures = rig.plane.discovery.figures
    await _connect_as_second(rig, until_back=False)
    before = figures.pushes.copy()
    await until(_web_holds_second_for(rig, "/failed_eds_health"))
    assert figures.pushes - before == {"eds": 1}
    assert {name for name, one in rig.status().items() if one["is_gone"]} == {"api-v2"}
    assert {await ask(rig.out, "/three") for _ in range(8)} == {"200"}
    await _connect_as_second(rig, until_back=True)
    assert [line.partition(":")[0] for line in rig.said if "api-v2" in line] == [
        "gone      `api-v2`",
        "back      `api-v2`",
    ]


def _web_holds_second_for(rig: Rig, flags: str) -> Callable[[], Awaitable[bool]]:
    async def is_so() -> bool:
        return f"192.0.2.1:{rig.inbound}::health_flags::{flags}\n".encode() in rig.asked("web-v1", "/clusters")

    return is_so


async def _connect_as_second(rig: Rig, *, until_back: bool) -> None:
    """Take the listeners of ``api-v2``, and stay until it is no longer gone if so."""
    async with rig.stream(API) as call:
        request = wire.DeltaDiscoveryRequest(type_url=LISTENER_TYPE)
        request.node.id = "api-v2"
        await call.write(request)
        response = await call.read()
        await call.write(wire.DeltaDiscoveryRequest(type_url=LISTENER_TYPE, response_nonce=response.nonce))
        if until_back:
            await until(_web_holds_second_for(rig, "healthy"))
            assert not rig.status()["api-v2"]["is_gone"]


async def _a_machine_that_says_no_farewell_is_missed(rig: Rig, process: "subprocess.Popen[bytes]") -> None:
    async def is_missed() -> bool:
        return not rig.status()["api-v1"]["is_connected"]

    assert not await is_missed()
    process.send_signal(signal.SIGSTOP)
    try:
        await until(is_missed)
    finally:
        process.send_signal(signal.SIGCONT)

"""A candidate in force for one of two real Envoys, promoted, and taken back."""

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable
from fractions import Fraction
from pathlib import Path

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum

from authz.canary.canary_judge import AbortBound
from authz.canary.canary_selection import CanarySelection
from authz.canary.canary_source import CanarySource
from authz.identity.ca import BUNDLE_FILE
from authz.service.loading.promotion import promote
from tests.control.fleet.fleet_rig import API, MESH, WEB, Rig, answers, ask, free_ports, until

pytestmark = pytest.mark.envoy


def allow(path: str) -> str:
    return (
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: api, namespace: shop}\n"
        f'spec: {{rules: [{{to: [{{operation: {{paths: ["{path}"]}}}}]}}]}}\n'
    )


def allow_port(port: int) -> str:
    return (
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: api, namespace: shop}\n"
        f"spec: {{rules: [{{to: [{{operation: {{ports: ['{port}']}}}}]}}]}}\n"
    )


class TcpApi(Rig):
    """``api-v1`` takes connections in plaintext, and knows nothing of HTTP."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.candidate = folder / "next"

    def write_mesh(self, more: str = "") -> None:
        text = MESH.format(out=self.out, inbound=self.inbound, app=self.app).rpartition("---\n")[0]
        self._replace(self.mesh, text.replace("protocol: HTTP", "protocol: TCP") + more)

    def write_policy(self, text: str, name: str = "api.yaml") -> None:
        self._replace(self.policies / name, text)

    async def connects(self) -> bool:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.inbound)
            with contextlib.closing(writer):
                writer.write(b"GET / HTTP/1.1\r\n\r\n")
                return await reader.readline() != b""
        except OSError:
            return False


class TwoApis(Rig):
    """``api-v1`` and ``api-v2`` take plaintext, so that no client of the mesh is needed."""

    def __init__(self, folder: Path) -> None:
        self.second, self.nobody = free_ports(2)
        super().__init__(folder)
        self.candidate = folder / "next"

    def write_mesh(self, more: str = "") -> None:
        added = "---\n".join(MESH.format(out=self.out, inbound=self.inbound, app=self.app).split("---\n")[3:6])
        for old, new in (
            ("api-v1", "api-v2"),
            ("app: api", "app: two"),
            ("name: api,", "name: two,"),
            ("api.shop", "two.shop"),
            (str(self.app), str(self.nobody)),
            (str(self.inbound), str(self.second)),
        ):
            added = added.replace(old, new)
        super().write_mesh(f"---\n{added}{more}")

    def write_candidate(self, path: str) -> None:
        self.candidate.mkdir(exist_ok=True)
        self._replace(self.candidate / "api.yaml", allow(path))

    def write_policy(self, text: str, name: str = "api.yaml") -> None:
        self._replace(self.policies / name, text)

    async def allowed(self, first: str, second: str) -> None:
        """Each allows its own path, and not that of the other; there is no application behind ``api-v2``."""
        await answers(self.inbound, first, "200")
        await answers(self.second, second, "503")
        if first != second:
            assert await ask(self.inbound, second) == "403"
            assert await ask(self.second, first) == "403"


async def test_one_of_two_proxies_gets_a_candidate_which_is_promoted_or_taken_back(tmp_path: Path) -> None:
    rig = TwoApis(tmp_path)
    rig.canary = CanarySource(rig.candidate, CanarySelection(names=frozenset({"api-v2"})))
    rig.report_seconds = 1
    rig.write_policy(allow("/one"))
    rig.join("api-v1", API)
    rig.join("api-v2", API)
    await rig.start()
    try:
        async with rig.application():
            with rig.envoy("api-v1"), rig.envoy("api-v2"):
                await rig.allowed("/one", "/one")
                await _only_the_chosen_one_changes(rig)
                await _reports_count_for_their_own_workload_alone(rig)
                promote(rig.candidate, rig.policies, "v2")
                await rig.allowed("/two", "/two")
                await _what_is_aborted_is_taken_back(rig)
    finally:
        await rig.stop()


async def test_a_candidate_is_aborted_by_what_envoy_counts_of_refused_connections(tmp_path: Path) -> None:
    rig = TcpApi(tmp_path)
    bound = AbortBound(Fraction(1, 2), 60)
    rig.canary = CanarySource(rig.candidate, CanarySelection(names=frozenset({"api-v1"})), bound)
    rig.report_seconds = 1
    rig.write_policy(allow_port(rig.inbound))
    rig.join("api-v1", API)
    await rig.start()
    try:
        async with rig.application():
            with rig.envoy("api-v1"):
                await until(rig.connects)
                rig.candidate.mkdir()
                rig._replace(rig.candidate / "api.yaml", allow_port(1))
                await until(lambda: _is_not(rig.connects))
                await until(lambda: _becomes_aborted(rig))
                await until(rig.connects)
    finally:
        await rig.stop()
    (said,) = [text for text in rig.said if "aborted" in text]
    assert re.search(r"api-v1.*refused", said)


async def _is_not(condition: Callable[[], Awaitable[bool]]) -> bool:
    return not await condition()


async def _becomes_aborted(rig: TcpApi) -> bool:
    assert rig.plane is not None
    for _ in range(3):
        await rig.connects()
    shown = rig.plane.page("/canary")
    assert isinstance(shown, dict)
    return bool(shown["state"] == "aborted")


async def _only_the_chosen_one_changes(rig: TwoApis) -> None:
    assert rig.plane is not None
    await until(lambda: _are_current(rig, "api-v1", "api-v2"))
    before, pushes = rig.status(), rig.plane.discovery.figures.pushes.copy()
    rig.write_candidate("/two")
    await rig.allowed("/one", "/two")
    await until(lambda: _are_current(rig, "api-v1", "api-v2"))
    assert rig.plane.discovery.figures.pushes - pushes == {"ecds": 1}
    assert rig.status()["api-v1"] == before["api-v1"]
    shown = rig.plane.page("/canary")
    assert isinstance(shown, dict)
    assert (shown["state"], shown["chosen"], shown["workloads"]) == ("in force", ("api-v2",), 3)


async def _reports_count_for_their_own_workload_alone(rig: TwoApis) -> None:
    async def is_reported() -> bool:
        assert rig.plane is not None
        await ask(rig.second, "/one")
        shown = rig.plane.page("/canary")
        assert isinstance(shown, dict)
        counted = shown["counts"].get("api-v2", {"requests": 0, "refused": 0})
        return bool(counted["requests"] >= counted["refused"] > 0)

    await until(is_reported)
    chain, key = rig.credentials(WEB)
    roots = (rig.folder / "ca" / BUNDLE_FILE).read_bytes()
    channel = grpc.aio.secure_channel(f"localhost:{rig.control}", grpc.ssl_channel_credentials(roots, key, chain))
    async with channel:
        export = channel.unary_unary(
            "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
            request_serializer=ExportMetricsServiceRequest.SerializeToString,
            response_deserializer=None,
        )
        for name, count, said in (("api-v2", 1000, "has no such proxy"), ("web-v1", -1, "less than 0")):
            with pytest.raises(grpc.aio.AioRpcError, match=said):
                await export(_report(name, count))


def _report(proxy: str, refused: int) -> ExportMetricsServiceRequest:
    metric = Metric(name=f"{proxy}.refused", sum=Sum(data_points=[NumberDataPoint(as_int=refused)]))
    scope = ScopeMetrics(metrics=[metric])
    return ExportMetricsServiceRequest(resource_metrics=[ResourceMetrics(scope_metrics=[scope])])


async def _what_is_aborted_is_taken_back(rig: TwoApis) -> None:
    rig.write_candidate("/three")
    await rig.allowed("/two", "/three")
    assert rig.plane is not None
    rig.plane.canary.abort("somebody says so")
    await rig.allowed("/two", "/two")


async def _are_current(rig: Rig, *proxies: str) -> bool:
    status = rig.status()
    return all(status[proxy]["is_current"] for proxy in proxies)

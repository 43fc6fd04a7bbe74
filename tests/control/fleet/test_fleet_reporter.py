"""Two control planes that report to a real server of NATS, proxies that are streams, and commands that ask."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from authz._proto import delta_discovery_pb2 as wire
from authz.canary.candidate_standing import CandidateStanding, CandidateState
from authz.cli import application
from authz.control.authority.authority_files import AuthorityFiles
from authz.control.authority.authority_server import AuthorityServer, Doors
from authz.control.discovery.discovered import SHORT_NAMES
from authz.control.fleet.control_plane import ControlPlane, MeshSources
from authz.control.fleet.discovery_server import DiscoveryServer
from authz.control.fleet.fleet_figures import ProxyState
from authz.control.fleet.fleet_reporter import HEAR_SECONDS, FleetReporter, OwnState, Replica, ReportStore
from authz.control.fleet.proxy_standings import ProxyStandings
from authz.envoy.options import RenderOptions
from authz.mesh.nouns import Enforce
from authz.telemetry.status import PolicySourceStatus
from authz.truth.fleet_report import CONTROL, SERVE, ProxyReport, ReplicaReport, Reported
from authz.truth.report_store import ReportReader, ReportWriter
from tests.control.fleet.fleet_rig import API, WEB, Rig, allow, free_ports, served, until
from tests.nats_server import NatsServers, truth_servers


@asynccontextmanager
async def control(
    rig: Rig, name: str, servers: NatsServers, port: int, *, ahead: float = 0.0
) -> AsyncIterator[ControlPlane]:
    """A replica over the rig's files that reports by this name; its clock is ``ahead`` by so many seconds."""
    truth = servers.client()
    truth.begin()
    own = Replica(name, ReportStore(ReportWriter(truth, name), ReportReader(truth, but=name)))
    authority = AuthorityServer(
        AuthorityFiles(rig.folder / "ca"), Doors(listen=f"127.0.0.1:{port}", dns=("localhost",))
    )
    sources = MeshSources(rig.policies, rig.mesh, keep=rig.folder / f"keep-{name}")
    options = RenderOptions(enforce=Enforce.NATIVE)
    plane = ControlPlane(
        sources, options, authority, clock=lambda: time.time() + ahead, say=rig.said.append, replica=own
    )  # fmt: skip
    try:
        async with served(plane):
            yield plane
    finally:
        await asyncio.to_thread(truth.stop)


class Proxy:
    """A stream that wants everything, and acknowledges it while it ``answers``."""

    def __init__(self, rig: Rig, name: str, spiffe_id: str) -> None:
        self.answers = asyncio.Event()
        self.answers.set()
        self._rig, self._name, self._spiffe_id = rig, name, spiffe_id

    async def run(self, port: int) -> None:
        self._rig.control = port
        async with self._rig.stream(self._spiffe_id) as call:
            for url in SHORT_NAMES:
                request = wire.DeltaDiscoveryRequest(type_url=url, resource_names_subscribe=["*"])
                request.node.id = self._name
                await call.write(request)
            while True:
                response = await call.read()
                await self.answers.wait()
                ack = wire.DeltaDiscoveryRequest(type_url=response.type_url, response_nonce=response.nonce)
                await call.write(ack)


@asynccontextmanager
async def running(proxy: Proxy, port: int) -> AsyncIterator[None]:
    task = asyncio.create_task(proxy.run(port))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def fleet(address: str, *arguments: str) -> Result:
    command = ["fleet", *arguments, "--truth", address]
    return await asyncio.to_thread(lambda: CliRunner().invoke(application, command))


async def states(address: str) -> dict[str, tuple[str, str]]:
    shown = json.loads((await fleet(address, "status", "-o", "json")).stdout)
    return {one["name"]: (one["state"], one.get("replica", "")) for one in shown["replicas"] + shown["proxies"]}


async def test_replicas_report_what_they_and_their_proxies_run_and_commands_say_so(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    ports = free_ports(2)
    web, api = Proxy(rig, "web-v1", WEB), Proxy(rig, "api-v1", API)
    with truth_servers(tmp_path / "nats") as servers:
        address = str(servers.address)
        nobody = await fleet(address, "status")
        assert (nobody.exit_code, nobody.stdout) == (3, "revision -: 0 replicas, 0 proxies\n")
        wrong = control(rig, "two", servers, ports[1], ahead=-600.0)
        async with control(rig, "one", servers, ports[0]) as one, wrong as two:
            async with running(web, ports[0]), running(api, ports[1]):
                await _all_are_current(address, one)
                await _one_does_not_answer(rig, address, two, api)

                async def is_heard() -> bool:
                    return one.reporter.elsewhere == {"api-v1"}

                await until(is_heard)
                page = one.page("/fleet/view")
                assert isinstance(page, dict)
                assert {row["name"]: row["replica"] for row in page["proxies"]} == {"web-v1": "one", "api-v1": "two"}
            await until(lambda: _is(address, {"web-v1": ("missing", "one"), "api-v1": ("missing", "two")}))
        gone = await fleet(address, "status")
        assert (gone.exit_code, gone.stdout) == (3, "revision -: 0 replicas, 0 proxies\n"), "they said farewell"
        forgotten = await fleet(address, "forget", "one")
        assert (forgotten.exit_code, forgotten.stdout) == (3, "no replica `one` has reported\n")


async def _is(address: str, expected: dict[str, tuple[str, str]]) -> bool:
    return expected.items() <= (await states(address)).items()


async def _all_are_current(address: str, one: ControlPlane) -> None:
    replicas = {"one": ("current", ""), "two": ("current", "")}
    await until(lambda: _is(address, replicas | {"web-v1": ("current", "one"), "api-v1": ("current", "two")}))
    revision = one.discovery.standings.revision
    shown = await fleet(address, "status")
    assert shown.exit_code == 0
    assert f"revision {revision}: 2 replicas, 2 proxies" in shown.stdout
    assert shown.stdout.endswith("two: its clock is 10m behind\n"), "and it makes nobody older"
    told = json.loads((await fleet(address, "status", "-o", "json")).stdout)
    assert max(told["now"] - row["since"] for row in told["proxies"]) < 120
    waited = await fleet(address, "wait", "--revision", revision)
    assert waited.exit_code == 0, waited.output
    assert waited.stdout == f"revision {revision}: 2 replicas and 2 proxies have acknowledged it\n"


async def _one_does_not_answer(rig: Rig, address: str, two: ControlPlane, api: Proxy) -> None:
    before = two.discovery.standings.revision
    api.answers.clear()
    rig.write_policy(allow("/two"))

    async def is_published() -> bool:
        return two.discovery.standings.revision != before

    await until(is_published)
    revision = two.discovery.standings.revision
    await until(lambda: _is(address, {"one": ("current", ""), "two": ("current", ""), "api-v1": ("behind", "two")}))
    waited = await fleet(address, "wait", "--revision", revision, "--timeout", "0s")
    assert waited.exit_code == 3
    assert f"revision {revision}: 1 of 4 have not acknowledged it" in waited.stderr
    assert f"proxy api-v1 at two: has revision {before}, behind for" in waited.stderr
    patient, strict = [await fleet(address, "status", "--older-than", bound) for bound in ("1h", "0s")]
    assert (patient.exit_code, strict.exit_code) == (0, 3)
    api.answers.set()
    answered = await fleet(address, "wait", "--revision", revision, "--timeout", "30s")
    assert answered.exit_code == 0, answered.output


class Told:
    """A truth in which another control reports ``proxies``; None: its report cannot be read."""

    has_double = False

    def __init__(self, *proxies: str) -> None:
        self.proxies: tuple[str, ...] | None = proxies

    def take(self, changed: object) -> None:
        """Nothing is kept."""

    def write(self, report: object) -> None:
        """Nothing is kept."""

    def withdraw(self) -> None:
        """Nothing was kept."""

    def hurry(self) -> None:
        """It took no time."""

    def read(self) -> tuple[list[Reported], float]:
        rows = tuple(ProxyReport(name, is_connected=True) for name in self.proxies or ())
        other = Reported(100.0, ReplicaReport("two", CONTROL, 100.0, "7", 1.0), rows, is_whole=self.proxies is not None)
        server = Reported(100.0, ReplicaReport("three", SERVE, 100.0, "", 0.0), is_whole=False)
        return [other, server], 100.0


async def test_a_control_whose_report_cannot_be_read_serves_whom_it_served() -> None:
    """As while controls of two versions run: its proxies must not be taken for gone."""
    now, told = 100.0, Told("web")
    store = ReportStore(told, told)
    reporter = FleetReporter(DiscoveryServer(), Replica("one", store), OwnState, clock=lambda: now)
    heard = []
    for proxies in (None, ("web",), None, ("web", "api")):
        told.proxies = proxies
        now += HEAR_SECONDS
        await reporter._turn(store)
        heard.append(reporter.elsewhere)
    assert heard == [None, {"web"}, {"web"}, {"web", "api"}]


class Connected:
    """In the place of a ``DiscoveryServer``: whose proxies are connected and current."""

    def __init__(self, *proxies: str) -> None:
        self.standings = ProxyStandings("7", 50.0)
        self.standings.change(proxies, proxies, 60.0)
        self.proxies = proxies

    def state(self, name: str) -> ProxyState | None:
        return ProxyState(name, f"spiffe://mesh.test/{name}", True, True) if name in self.proxies else None


def test_a_proxy_is_said_to_be_given_a_candidate_though_nothing_else_of_it_changes() -> None:
    discovery: Any = Connected("web", "api", "pay")
    own = OwnState()
    reporter = FleetReporter(discovery, Replica("one"), lambda: own, clock=lambda: 100.0)

    def given() -> tuple[object, dict[str, int]]:
        found = reporter.own()
        return found.report.candidate, {one.name: one.candidate for one in found.proxies if one.candidate}

    assert given() == (None, {})
    eight, nine = (CandidateStanding(number, "cd" * 32, CandidateState.IN_FORCE) for number in (8, 9))
    for candidate, chosen in ((eight, ("api", "web")), (nine, ("api", "web")), (nine, ("pay",)), (None, ())):
        own = OwnState(candidate=candidate, chosen=chosen)
        number = candidate.number if candidate is not None else 0
        assert given() == (candidate, dict.fromkeys(chosen, number))


async def test_a_published_revision_is_claimed_when_all_was_read_after_it_had_been_taken(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    taken = [PolicySourceStatus("https://bundles.example/shop.tar.gz", "7", 7, taken_at=time.time() - 60)]
    authority = AuthorityServer(AuthorityFiles(rig.folder / "ca"), Doors(listen="127.0.0.1:0"))
    sources = MeshSources(rig.policies, rig.mesh, keep=tmp_path / "keep")
    options = RenderOptions(enforce=Enforce.NATIVE)
    plane = ControlPlane(
        sources, options, authority, clock=time.time, say=rig.said.append, source=lambda: taken[0]
    )  # fmt: skip
    async with served(plane):
        assert plane.reporter.own().report.revision == "7"
        taken[0] = PolicySourceStatus(taken[0].source, "8", 8, taken_at=time.time())
        assert plane.reporter.own().report.revision == "7", "it was taken, and is not in force yet"
        rig.write_policy(allow("/two"))

        async def is_in_force() -> bool:
            return plane.reporter.own().report.revision == "8"

        await until(is_in_force)
        taken[0] = replace(taken[0], revision="9", number=9, taken_at=float("inf"), error="the bundle is refused")
        assert plane.reporter.own().report.revision == "8"
        assert "the bundle is refused" in plane.reporter.own().report.problem

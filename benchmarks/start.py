"""
Time the start of `authz --help`, `validate` and `check`, on a warm and on a cold cache.

    python benchmarks/start.py

Cold: every file of the Python that runs this, and of its packages, is dropped from the kernel's cache before each run
(posix_fadvise; what another process maps stays, and a disk of the host's may remember). The least of some runs is
printed, since everything else that runs only adds to it; the bare interpreter stands beside it for comparison.
"""

import os
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
RUNS = 7
MODULE = ("-m", "authz")
COMMANDS = {
    "python -c pass": ("-c", "pass"),
    "authz --help": (*MODULE, "--help"),
    "authz validate policies": (*MODULE, "validate", "policies"),
    "authz check": (*MODULE, "check", "--policies", "policies", "--namespace", "bookinfo", "--path", "/"),
}


def files() -> Iterator[Path]:
    for name in ("stdlib", "platstdlib", "purelib", "platlib"):
        for path in Path(sysconfig.get_path(name)).rglob("*"):
            if path.suffix in (".py", ".pyc", ".so"):
                yield path
    yield from (ROOT / "authz").rglob("*.py*")
    yield Path(sys.executable).resolve()


def forget(paths: list[Path]) -> None:
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def seconds(arguments: tuple[str, ...]) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, check=False)  # noqa: S603  # ourselves
    return time.perf_counter() - began


def main() -> None:
    paths = [path for path in set(files()) if path.is_file()]
    print(f"{'':<26}{'warm':>8}{'cold':>8}  seconds, the least of {RUNS} runs")
    for name, arguments in COMMANDS.items():
        seconds(arguments)  # compiled, and in the cache
        warm = min(seconds(arguments) for _ in range(RUNS))
        cold = []
        for _ in range(RUNS):
            forget(paths)
            cold.append(seconds(arguments))
        print(f"{name:<26}{warm:>8.3f}{min(cold):>8.3f}")


if __name__ == "__main__":
    main()

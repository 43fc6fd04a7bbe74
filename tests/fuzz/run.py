"""
Fuzz one harness, or all one after the other: ``python -m tests.fuzz.run [--seconds 300] [NAME...]``.

Needs the extra ``fuzz`` (atheris). What breaks a harness is written to ``tests/fuzz/seeds/NAME/``: mend it, and it is a
test from then on.
"""

import argparse
import logging
import subprocess
import sys
import tempfile
from pathlib import Path

NAMES = (
    "policy_head",
    "fleet_report",
    "check",
    "yaml",
    "token",
    "keys",
    "path",
    "certificate",
    "sds",
    "access_log",
    "limits",
    "doors",
    "bundle",
    "rules",
    "record",
    "delta_discovery",
)
"""As in ``harnesses``, which is imported only where it is instrumented; a test holds them together."""
SEEDS = Path(__file__).parent / "seeds"


def fuzz(name: str, seconds: int) -> None:
    """In this process, which ends with it: 0 when nothing broke."""
    import atheris  # type: ignore[import-untyped,unused-ignore]  # has no types, and is an extra

    with atheris.instrument_imports(include=["authz"]):
        from tests.fuzz.harnesses import HARNESSES, seeds

    logging.disable(logging.CRITICAL)
    run = HARNESSES[name].run
    broken = SEEDS / name
    broken.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as corpus:
        for number, data in enumerate(seeds(name)):
            Path(corpus, f"seed-{number}").write_bytes(data)
        options = [f"-max_total_time={seconds}", "-max_len=8192", "-timeout=20", "-rss_limit_mb=2048"]
        atheris.Setup([sys.argv[0], *options, f"-artifact_prefix={broken}/", corpus], run)
        atheris.Fuzz()


def main() -> int:
    """Each harness in a process of its own, for its share of the time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; all by default")
    parser.add_argument("--seconds", type=int, default=300, help="for all of them together")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if unknown := set(given.names) - set(NAMES):
        parser.error(f"there is no harness {', '.join(sorted(unknown))}")
    names = given.names or list(NAMES)
    if given.here:
        fuzz(names[0], given.seconds)
        return 0
    share = max(1, given.seconds // len(names))
    failed = []
    for name in names:
        print(f"--- {name}: {share} s", flush=True)
        command = [sys.executable, "-m", "tests.fuzz.run", "--here", "--seconds", str(share), name]
        if subprocess.run(command, check=False).returncode:
            failed.append(name)
    print(f"broken: {', '.join(failed)}: see tests/fuzz/seeds" if failed else "nothing broke")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())

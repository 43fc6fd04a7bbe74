"""
Cost of a check whose RS256 token nobody has seen before, side by side with another build of this project.

    git worktree add --detach ../before COMMIT
    python benchmarks/new_token.py ../before [--rounds N] [-o table|json]

Both builds run in processes of their own and take turns, one batch each, so that a busy machine slows both alike. Every
check is timed by itself: what else runs interrupts few of them. ``known`` is the same request with a token that was
verified before.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import quantiles

BATCH = 50
"""Checks a turn; every one of them has a token of its own."""
COLD = 5
"""First checks of a turn that are left out: making the tokens has filled the processor's caches."""

WORKER = """
import os, sys, tempfile, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from authz.tokens.signing import make_keys, make_token
import benchmarks.check as check
import authz
assert Path(authz.__file__).is_relative_to(sys.argv[1]), authz.__file__

made = {}
def remember(descriptions):
    made.update(make_keys(descriptions))
    return made
check.make_keys = remember
with tempfile.TemporaryDirectory() as directory:
    prepared = check.prepare(Path(directory), 1, audited=False)
    now = prepared.now
    filler = {"groups": [f"group-{number}" for number in range(18)], "roles": ["reader"]}
    issued = 0
    for line in sys.stdin:
        kind, count = line.split()
        messages = prepared.messages[: int(count)]
        if kind == "new":
            claims = {"iss": "https://idp.example", "sub": "alice", "exp": int(now) + 36_000, **filler}
            messages = []
            for _ in range(int(count)):
                issued += 1
                token = make_token({"key": "main", "claims": {**claims, "jti": f"{issued:08d}"}}, made, now)
                messages.append(check.message(token, issued))
        ask = prepared.function.check
        taken = []
        for message in messages:
            began = time.perf_counter()
            answer = ask(message, check.METADATA, now)
            taken.append((time.perf_counter() - began) * 1e6)
        assert check.pb.CheckResponse.FromString(answer).status.code == 0
        print(*taken, flush=True)
"""


class Build:
    """A process that checks with the code of one directory."""

    def __init__(self, root: Path) -> None:
        command = [sys.executable, "-c", WORKER, str(root.resolve())]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603  this very program
        self.seen: dict[str, list[float]] = {"known": [], "new": []}

    def turn(self, kind: str) -> None:
        """Check one batch and keep the microseconds that each check took."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(kind, BATCH, file=self._process.stdin, flush=True)
        self.seen[kind] += map(float, self._process.stdout.readline().split()[COLD:])

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def measure(here: Path, other: Path, rounds: int) -> dict[str, dict[str, float]]:
    """
    Lower quartiles by kind of check: microseconds of both builds, and this one's share of the other's.

    What else runs on the machine makes a check dearer, never cheaper.
    """
    builds = {"other": Build(other), "this": Build(here)}
    for number in range(rounds + 1):
        for kind in ("known", "new"):
            for build in builds.values():
                build.turn(kind)
        if not number:  # the first round warms up
            for build in builds.values():
                build.seen = {"known": [], "new": []}
    for build in builds.values():
        build.close()
    found = {}
    for kind in ("known", "new"):
        row = {name: quantiles(build.seen[kind], n=4)[0] for name, build in builds.items()}
        found[kind] = {**row, "ratio": row["this"] / row["other"]}
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="root of the other build")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    options = parser.parse_args()
    found = measure(Path(__file__).parent.parent, options.other, options.rounds)
    if options.output == "json":
        print(json.dumps(found))
        return 0
    for kind, row in found.items():
        print(f"{kind:6} token  other {row['other']:6.1f} µs  this {row['this']:6.1f} µs  ratio {row['ratio']:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""
CPU of a check with a candidate beside the live policies, as a ratio to the check alone.

    python -m benchmarks.candidate [--turns TURNS] [-o table|json]

The check is that of ``benchmarks.check``, with its record in a file. Both take turns in one process, some hundred
checks each, because the machine may be anybody's: the ratio counts. The candidate agrees, denies everything (so that
every record has the difference), or has token rules of its own, whose tokens it has to look at itself.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from authz.service.candidate import Candidate
from authz.service.loading.snapshot import load_snapshot
from authz.settings.sections import PolicySettings
from benchmarks.check import METADATA, Prepared, prepare

WANTED = 1.4
CHUNK = 512
CHANGES = {
    "agrees": ("", ""),
    "denies all": ('methods: ["GET"]', 'methods: ["PUT"]'),
    "has own token rules": (
        "  - issuer: https://idp.example\n",
        "  - issuer: https://idp.example\n    forwardOriginalToken: true\n",
    ),
}
"""What the candidate has instead of what."""


def chunk(prepared: Prepared) -> float:
    """Seconds of CPU for some checks and their records."""
    began = time.process_time()
    for message in prepared.messages[:CHUNK]:
        prepared.function.check(message, METADATA, prepared.now)
    prepared.trail.flush(60)
    return time.process_time() - began


def ratio(before: str, after: str, turns: int) -> float:
    """The median over pairs of turns."""
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        prepared = prepare(directory, 1 << 20, audited=True)
        prepared.trail.start()
        live = directory / "policies.yaml"
        path = directory / "next.yaml"
        path.write_text(live.read_text().replace(before, after) if before else live.read_text())
        settings = PolicySettings(str(live), None, False, None, path)
        candidate = Candidate(path, settings, prepared.function, time.time, 10_000)
        candidate.replace(load_snapshot(path, None, prepared.now))
        found = []
        for turn in range(turns + 1):
            used = {}
            for shadow in (None, candidate) if turn % 2 else (candidate, None):
                prepared.function.shadow = shadow
                used[shadow] = chunk(prepared)
            found.append(used[candidate] / used[None])
        prepared.trail.close()
        results = candidate.status.results
        assert results["undecided"] + results["failed"] == 0, results
        assert bool(results["newly_denied"]) == ("PUT" in after), results
        return median(found[1:])  # the first turn warms up


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=40)
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    options = parser.parse_args()
    ratios = {name: ratio(*texts, options.turns) for name, texts in CHANGES.items()}
    if options.output == "json":
        print(json.dumps({"wanted": WANTED, "ratios": ratios}))
    else:
        for name, found in ratios.items():
            print(f"a candidate that {name:20} {found:.2f} times the CPU of the check alone (wanted: at most {WANTED})")
    return 0 if max(ratios.values()) <= WANTED else 3


if __name__ == "__main__":
    sys.exit(main())

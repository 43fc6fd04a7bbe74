"""
Random policy sets through linear filters, looked-up filters and the engine: ``python -m benchmarks.equality N``.

Prints every disagreement with its seed and ends with 1 if there was one. N is the number of pairs, 20,000 without.
"""

import sys
import tempfile
import time
from pathlib import Path

from tests.envoy.native.equality import compare

SETS = 25
"""In one Envoy; each has two listeners."""
REQUESTS = 100


def main(arguments: list[str]) -> int:
    wanted = int(arguments[0]) if arguments else 20_000
    seed = int(arguments[1]) if len(arguments) > 1 else 0
    pairs = allowed = wrong = 0
    begun = time.monotonic()
    while pairs < wanted:
        with tempfile.TemporaryDirectory() as directory:
            compared = compare(Path(directory), seed, SETS, REQUESTS)
        seed += SETS
        pairs += compared.pairs
        allowed += compared.allowed
        wrong += len(compared.disagreements)
        for one in compared.disagreements:
            print(one)
        print(f"{pairs} pairs, {allowed} allowed, {wrong} disagreements, {time.monotonic() - begun:.0f} s", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

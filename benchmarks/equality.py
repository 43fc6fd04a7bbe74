"""
Random policy sets through linear filters, looked-up filters and the engine: ``python -m benchmarks.equality N``.

Prints every disagreement with its seed and ends with 1 if there was one. N is the number of pairs, 20,000 without.
"""

import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.envoy.native.equality import compare

SETS = 25
"""In one Envoy; each has two listeners."""
REQUESTS = 100


def main(arguments: list[str]) -> int:
    wanted = int(arguments[0]) if arguments else 20_000
    seed = int(arguments[1]) if len(arguments) > 1 else 0
    pairs = wrong = 0
    kinds: Counter[str] = Counter()
    begun = time.monotonic()
    while pairs < wanted:
        with tempfile.TemporaryDirectory() as directory:
            compared = compare(Path(directory), seed, SETS, REQUESTS)
        seed += SETS
        pairs += compared.pairs
        kinds += compared.kinds
        wrong += len(compared.disagreements)
        for one in compared.disagreements:
            print(one)
        told = ", ".join(f"{number} {kind}" for kind, number in sorted(kinds.items()))
        print(f"{pairs} pairs, {wrong} disagreements, {time.monotonic() - begun:.0f} s: {told}", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

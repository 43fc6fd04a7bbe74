"""
The answers of `authz diff` on random pairs of policy sets: ``python -m benchmarks.sets N [SEED] [REQUESTS]``.

Every witness must be confirmed by the engine, no pair that is "equal" may be refuted by random requests, and none of
them may change in a direction that was not told. Prints every failure with its seed and ends with 1 if there was one.
"""

import sys
import time
from collections import Counter
from random import Random

from authz.analysis.sets.difference import Direction, difference
from tests.analysis.sets.random_pairs import answer_of, random_asked, random_pair

REQUESTS = 1000


def compare(seed: int, requests: int) -> tuple[str, list[str]]:
    """One pair: how it ended, and what is wrong."""
    made = random_pair(seed)
    if made is None:
        return "refused by the reader", []
    pair = made.pair
    found = difference(pair)
    wrong = [f"seed {seed}: not confirmed: {one}" for one in found.unconfirmed]
    if found.undecided:
        return "not decided", wrong
    told = {change.direction for change in found.changes}
    rng = Random(-seed - 1)  # noqa: S311  # drawn again from the seed
    for _ in range(requests):
        asked = random_asked(rng, made)
        old, new = (answer_of(asked, policies, gateway=pair.is_gateway) for policies in (pair.old, pair.new))
        if (old.effect, old.status) == (new.effect, new.status):
            continue
        direction = Direction.STATUS
        if old.effect is not new.effect:
            direction = Direction.ALLOWED if new.is_allowed else Direction.DENIED
        if direction not in told:
            wrong.append(f"seed {seed}: {direction} not told: {old.reason} -> {new.reason}: {asked}")
            break
    return "equal" if found.is_equal else "differs", wrong


def main(arguments: list[str]) -> int:
    """Compare; answers the exit code."""
    wanted = int(arguments[0]) if arguments else 1000
    first = int(arguments[1]) if len(arguments) > 1 else 0
    requests = int(arguments[2]) if len(arguments) > 2 else REQUESTS
    ended: Counter[str] = Counter()
    failures = 0
    begun = time.monotonic()
    for seed in range(first, first + wanted):
        kind, wrong = compare(seed, requests)
        ended[kind] += 1
        failures += len(wrong)
        for line in wrong:
            print(line, flush=True)
        if (seed + 1 - first) % 1000 == 0 or seed + 1 == first + wanted:
            told = ", ".join(f"{number} {name}" for name, number in sorted(ended.items()))
            print(
                f"{seed + 1 - first} pairs, {failures} failures, {time.monotonic() - begun:.0f} s: {told}", flush=True
            )
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

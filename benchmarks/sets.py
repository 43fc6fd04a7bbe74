"""
The answers of ``authz diff`` on random pairs of policy sets: ``python -m benchmarks.sets N [SEED] [REQUESTS]``.

Every witness must be confirmed by the engine, and what a pair is told to do must be what exhaustive evaluation over the
values that it tells apart finds, and what random requests find that know nothing of those values. Where the values have
too many combinations, some are drawn. Prints every failure with its seed and ends with 1 if there was one.

``--other-mesh`` before N gives the new side other mesh settings. ``python -m benchmarks.sets --growth`` measures how
the time grows with the policies.
"""

import sys
import time
from collections import Counter
from collections.abc import Iterator
from random import Random

from authz.analysis.sets.asked_workloads import are_same, targets_of
from authz.analysis.sets.difference import Direction, difference
from authz.analysis.sets.model import Model, PolicyPair
from authz.analysis.sets.witness import judge
from authz.core.compiler import compile_as_needed
from authz.core.decision import Decision, Stage
from authz.core.engine import Engine
from authz.core.resources import MeshConfig
from authz.policy.reader import read_policies
from tests.analysis.sets.exhaustive import combinations
from tests.analysis.sets.random_pairs import RandomPair, answer_of, random_asked, random_pair

REQUESTS = 1000
COMBINATIONS = 6
"""Of the values of one situation."""


def direction_of(old: Decision, new: Decision) -> Direction | None:
    """How an answer changes; None when it does not."""
    if old.effect is not new.effect:
        return Direction.ALLOWED if new.is_allowed else Direction.DENIED
    if Stage.NORMALIZATION in (old.stage, new.stage):
        return None  # of a target that is no path it is not told whether it is refused with 400 or 403
    return Direction.STATUS if old.status != new.status else None


def compare(seed: int, requests: int, *, other_mesh: bool = False) -> tuple[str, list[str]]:
    """One pair, perhaps with other mesh settings on the new side: how it ended, and what is wrong."""
    made = random_pair(seed, other_mesh=other_mesh)
    if made is None:
        return "refused by the reader", []
    found = difference(made.pair)
    wrong = [f"seed {seed}: not confirmed: {one}" for one in found.unconfirmed]
    if found.undecided:
        return "not decided", wrong
    told = {change.direction for change in found.changes}
    for direction, text in _changes(made, seed, requests):
        if direction not in told:
            wrong.append(f"seed {seed}: {direction} not told: {text}")
            break
    return "equal" if found.is_equal else "differs", wrong


def _changes(made: RandomPair, seed: int, requests: int) -> Iterator[tuple[Direction, str]]:
    """Requests whose answer changes."""
    pair, rng = made.pair, Random(-seed - 1)  # noqa: S311  # drawn again from the seed
    for witness in combinations(Model(pair), rng, COMBINATIONS):
        direction = direction_of(judge(pair, witness, of_old=True), judge(pair, witness, of_old=False))
        if direction is not None:
            yield direction, f"by values: {witness}"
    for _ in range(requests):
        asked = random_asked(rng, made)
        old, new = (answer_of(asked, policies, gateway=pair.is_gateway) for policies in (pair.old, pair.new))
        direction = direction_of(old, new)
        if direction is not None:
            yield direction, f"by a random request: {old.reason} -> {new.reason}: {asked}"


# --- growth ----------------------------------------------------------------------------------------------------------

_POLICY = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: p{number}, namespace: {namespace}}}
spec:
{selector}  action: {action}
  rules:
  - from: [{{source: {{principals: [cluster.local/ns/{namespace}/sa/caller-{number}, "*/sa/monitor-{family}"]}}}}]
    to:
    - operation:
        methods: [GET, HEAD]
        paths: [/api/v{family}/things-{number}, "/api/v{family}/things-{number}/*"]
  - from: [{{source: {{namespaces: [team-{family}], notPrincipals: ["*/sa/batch"]}}}}]
    to: [{{operation: {{methods: [POST], paths: ["/api/v{family}/{{*}}/orders-{number}"]}}}}]
    when: [{{key: "request.headers[x-team]", values: [team-{family}, "t{number}*"]}}]
"""


def policies(number: int, *, selected: bool, change: str = "") -> str:
    """So many policies: one for each workload, or all for every workload; ``change`` makes one path another."""
    found = []
    for at in range(number):
        one = _POLICY.format(
            number=at,
            namespace=f"ns-{at % 20}" if selected else "ns-0",
            family=at % 7,
            action="DENY" if at % 10 == 9 else "ALLOW",
            selector=f"  selector: {{matchLabels: {{app: a{at}}}}}\n" if selected else "",
        )
        found.append(one.replace(f"things-{at}/*", f"things-{at}*") if change and at == number // 2 else one)
    return "---\n".join(found)


def _engine(text: str) -> Engine:
    mesh = MeshConfig()
    return compile_as_needed(read_policies([("p.yaml", text.encode())], mesh).resources, mesh)


def growth() -> int:
    """Measure; answers the exit code."""
    print("policies  for           workloads  read, s  compare, s  changes")
    for selected in (True, False):
        for number in (10, 50, 100, 1000, 10_000) if selected else (10, 50, 100, 300, 1000):
            begun = time.perf_counter()
            old, new = (
                _engine(policies(number, selected=selected)),
                _engine(policies(number, selected=selected, change="1")),
            )
            middle = time.perf_counter()
            workloads, _ = targets_of((old, new))
            changes = 0
            for asked in workloads:
                if not are_same(old, new, asked.workload):
                    pair = PolicyPair(old.for_workload(asked.workload), new.for_workload(asked.workload))
                    found = difference(pair)
                    changes += len(found.changes)
                    if found.undecided or found.unconfirmed:
                        print(found.undecided, found.unconfirmed[:1])
            ended = time.perf_counter()
            name = "one each" if selected else "one workload"
            times = f"{middle - begun:7.2f}  {ended - middle:10.2f}"
            print(f"{number:8}  {name:12}  {len(workloads):9}  {times}  {changes:7}", flush=True)
    return 0


def main(arguments: list[str]) -> int:
    """Compare or measure; answers the exit code."""
    if arguments[:1] == ["--growth"]:
        return growth()
    other_mesh = arguments[:1] == ["--other-mesh"]
    arguments = arguments[other_mesh:]
    wanted = int(arguments[0]) if arguments else 1000
    first = int(arguments[1]) if len(arguments) > 1 else 0
    requests = int(arguments[2]) if len(arguments) > 2 else REQUESTS
    ended: Counter[str] = Counter()
    failures = 0
    begun = time.monotonic()
    for done, seed in enumerate(range(first, first + wanted), 1):
        kind, wrong = compare(seed, requests, other_mesh=other_mesh)
        ended[kind] += 1
        failures += len(wrong)
        for line in wrong:
            print(line, flush=True)
        if done % 1000 == 0 or done == wanted:
            told = ", ".join(f"{number} {name}" for name, number in sorted(ended.items()))
            print(f"{done} pairs, {failures} failures, {time.monotonic() - begun:.0f} s: {told}", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

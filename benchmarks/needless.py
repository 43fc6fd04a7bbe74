"""
What ``authz analyze`` proves of rules, on random policies: ``python -m benchmarks.needless N [SEED] [REQUESTS]``.

With all of them removed, the comparison of ``authz diff``, exhaustive evaluation over the values that the policies tell
apart, and random requests that know nothing of those values must find no answer that changes; and without any of the
others, ``authz diff`` must find one. Prints every failure with its seed and ends with 1 if there was one.

``python -m benchmarks.needless --growth`` measures how the time grows with the policies.
"""

import copy
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from random import Random

from authz.analysis.needless.needless_rules import needless_rules
from authz.analysis.needless.staged_rules import ALLOW, DENY, StagedRule, narrowed, rules_by_stage, sets_of, with_only
from authz.analysis.needless.verdict import NeedlessRules
from authz.analysis.sets.asked_workloads import AskedWorkload, targets_of
from authz.analysis.sets.difference import difference
from authz.analysis.sets.model import Model, PolicyPair
from authz.analysis.sets.witness import judge
from authz.core.compiler import compile_as_needed
from authz.core.decision import Stage
from authz.core.engine import Engine, WorkloadPolicies
from authz.core.resources import ExtensionProvider, MeshConfig, PathNormalization
from authz.policy.reader import read_policies
from benchmarks.sets import COMBINATIONS, policies
from tests.analysis.sets.exhaustive import combinations
from tests.analysis.sets.random_pairs import (
    WORKLOAD,
    Asked,
    Document,
    RandomPair,
    answer_of,
    random_asked,
    random_documents,
    seen_of,
)

REQUESTS = 1000


def random_set(rng: Random) -> list[Document]:
    """Policies of which some rules are copies of others, narrower or wider, of the same action or another."""
    found = random_documents(rng)
    written = [one for one in found if one["kind"] == "AuthorizationPolicy"]
    for _ in range(rng.randint(0, 3)):
        policy, other = rng.choice(written), rng.choice(written)
        if "CUSTOM" in (policy["spec"]["action"], other["spec"]["action"]) and policy is not other:
            continue  # which takes other fields
        rule = copy.deepcopy(rng.choice(policy["spec"]["rules"]))
        for part in rng.sample(("from", "to", "when"), rng.randint(0, 2)):
            if len(rule) > 1:
                rule.pop(part, None)  # wider
        if rng.random() < 0.4:
            rule.setdefault("to", []).append({"operation": {"ports": ["8080"]}})
        if rng.random() < 0.3 and policy["spec"]["action"] != "CUSTOM":
            rule["to"] = [{"operation": {"methods": ["GET"]}}, {"operation": {"notMethods": ["GET"]}}]
        other["spec"]["rules"].append(rule)
    return found


def compare(seed: int, requests: int) -> tuple[Counter[str], list[str]]:
    """One set: what is said of its rules, and what is wrong."""
    rng = Random(seed)  # noqa: S311  # drawn again from the seed
    mesh = MeshConfig(
        trust_domain_aliases=rng.choice(((), ("td1", "td-old"))),
        path_normalization=rng.choice(tuple(PathNormalization)),
        extension_providers=(ExtensionProvider("ext", service="ext.test", port=9000, fail_open=rng.random() < 0.5),),
    )
    documents = random_set(rng)
    text = "\n---\n".join(map(json.dumps, documents))
    read = read_policies([("policies.yaml", text.encode())], mesh)
    if any(problem.is_error for problem in read.problems):
        return Counter({"sets refused by the reader": 1}), []
    engine = compile_as_needed(read.resources, mesh)
    asked = AskedWorkload(
        "", WORKLOAD, rng.random() < 0.2, rng.choice(((), (), (8080,), (8080, 9999))), ("spiffe://a",)
    )
    found = needless_rules(engine, [asked], lambda: lambda: False)
    whole = engine.for_workload(WORKLOAD)
    pair = PolicyPair(whole, whole, asked.is_gateway, asked.ports, asked.callers)
    made = RandomPair(documents, documents, pair)
    said = Counter(str(verdict.kind) for verdict in found.verdicts.values())
    said["not decided"] = len(found.undecided)
    said["needed"] = len(found.judged) - len(found.verdicts)
    said["open to all"] = len(found.open)
    wrong = [f"seed {seed}: {line}" for line in _wrong(found, made, rng, requests)]
    wrong += [f"seed {seed}: {name}: {why}" for name, why in found.undecided.items() if why.startswith("internal")]
    return said, wrong[:3]


def _wrong(found: NeedlessRules, made: RandomPair, rng: Random, requests: int) -> Iterator[str]:
    whole = made.pair.new
    rules = rules_by_stage(whole)
    left = [rule for rule in rules if rule.id not in found.verdicts]
    stripped = narrowed(whole, left)
    pair = PolicyPair(whole, stripped, made.pair.is_gateway, made.pair.ports, made.pair.callers)
    if found.verdicts:
        changed = difference(pair)
        yield from (f"{one.direction} without the needless rules: {one.witness}" for one in changed.changes[:1])
        about = tuple(form for rule in rules for form in rule.compiled)
        for witness in combinations(Model(made.pair, about=about), rng, COMBINATIONS):
            if judge(pair, witness, of_old=True).effect is not judge(pair, witness, of_old=False).effect:
                yield f"another answer by values: {witness}"
    for _ in range(requests):
        asked = random_asked(rng, made)
        yield from _wrong_for(asked, found, rules, pair)
    for rule in left:
        if rule.id in found.judged and rule.decides_alone:
            # It decides something without those that were called needless before it; which these are is not told.
            names = list(found.verdicts)
            removed = (set(names[:number]) for number in range(len(names), -1, -1))
            sets = (narrowed(whole, [other for other in rules if other.id not in out]) for out in removed)
            if all(_is_equal_without(rule, policies, pair) for policies in sets):
                yield f"{rule.id} is not called needless, and is"


def _is_equal_without(rule: StagedRule, policies: WorkloadPolicies, pair: PolicyPair) -> bool:
    fewer = narrowed(policies, [other for other in rules_by_stage(policies) if other.id != rule.id])
    return difference(replace(pair, old=policies, new=fewer)).is_equal


def _wrong_for(asked: Asked, found: NeedlessRules, rules: list[StagedRule], pair: PolicyPair) -> Iterator[str]:
    """What one request shows."""
    old, new = (answer_of(asked, policies, gateway=pair.is_gateway) for policies in (pair.old, pair.new))
    if old.effect is not new.effect:
        yield f"another answer to a random request: {old.reason} -> {new.reason}: {asked}"
    if old.stage is Stage.PEER_AUTHENTICATION:
        return
    seen = seen_of(asked, pair.old, gateway=pair.is_gateway)
    for stage, own in sets_of(pair.old.http if seen.http is not None else pair.old.tcp):
        firing = [rule.reference for rule in own.firing(seen)]
        names = [(one.namespace, one.policy, one.index) for one in firing]
        beside = stage not in (ALLOW, DENY) and all(name in found.verdicts for name in names)
        for name in names:
            kind = found.verdicts[name].kind if name in found.verdicts else None
            if kind == "impossible" or (kind == "covered" and beside):
                yield f"{name} of {stage} is {kind}, and alone matches {asked}"
    for opened in found.open:
        allow = [rule for rule in rules if rule.stage == ALLOW and rule.reference in opened]
        decision = answer_of(asked, with_only(pair.old, allow), gateway=pair.is_gateway)
        if decision.stage is Stage.ALLOW and not decision.is_allowed and seen.http is not None and seen.http.path:
            yield f"{[one.short for one in opened]} are not open to {asked}"


# --- growth ----------------------------------------------------------------------------------------------------------


def _engine(text: str) -> Engine:
    mesh = MeshConfig()
    return compile_as_needed(read_policies([("p.yaml", text.encode())], mesh).resources, mesh)


def growth() -> int:
    """Measure; answers the exit code."""
    print("policies  for           workloads  rules  compile, s  prove, s  needless  not decided")
    for selected in (True, False):
        for number in (10, 100, 1000, 10_000) if selected else (10, 100, 300, 1000):
            begun = time.process_time()
            engine = _engine(policies(number, selected=selected))
            middle = time.process_time()
            workloads, _ = targets_of([engine])
            found = needless_rules(engine, workloads, lambda: lambda: False)
            ended = time.process_time()
            name = "one each" if selected else "one workload"
            times = f"{middle - begun:10.2f}  {ended - middle:8.2f}"
            print(f"{number:8}  {name:12}  {len(workloads):9}  {2 * number:5}  {times}  {len(found.verdicts):8}  "
                  f"{len(found.undecided):11}", flush=True)  # fmt: skip
    return 0


def main(arguments: list[str]) -> int:
    """Compare or measure; answers the exit code."""
    if arguments[:1] == ["--growth"]:
        return growth()
    wanted = int(arguments[0]) if arguments else 1000
    first = int(arguments[1]) if len(arguments) > 1 else 0
    requests = int(arguments[2]) if len(arguments) > 2 else REQUESTS
    said: Counter[str] = Counter()
    failures = 0
    begun = time.monotonic()
    for done, seed in enumerate(range(first, first + wanted), 1):
        of_one, wrong = compare(seed, requests)
        said += of_one
        failures += len(wrong)
        for line in wrong:
            print(line, flush=True)
        if done % 1000 == 0 or done == wanted:
            told = ", ".join(f"{number} {name}" for name, number in sorted(said.items()))
            print(f"{done} sets, {failures} failures, {time.monotonic() - begun:.0f} s: {told}", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

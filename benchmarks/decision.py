"""
Cost of one decision for 1, 100, 1,000 and 10,000 policies, and how long they take to load.

    python benchmarks/decision.py [--quick] [-o table|json]

Each column is a policy set whose policies differ in one thing only; the request matches exactly one of them. Times are
the best of several repetitions of one thread, in microseconds; the ratio compares 10,000 policies with one.
"""

import argparse
import json
import platform
import sys
import time
import timeit
from collections.abc import Callable
from pathlib import Path

from authz.core import resources as r
from authz.core.attributes import (
    NOT_AUTHENTICATED,
    AttributeContext,
    Authentication,
    AuthenticationOutcome,
    Destination,
    HttpRequest,
    Source,
    Token,
    Workload,
)
from authz.core.compiler import compile_engine
from authz.core.pipeline import decide
from authz.core.providers import ProviderAnswer, ProviderQuestion

SIZES = (1, 100, 1_000, 10_000)
CALLER = "cluster.local/ns/a/sa/caller"


def _rule(source: r.Source | None = None, operation: r.Operation | None = None, *when: r.Condition) -> r.Rule:
    return r.Rule(
        (source or r.Source(principals=(CALLER,)),), (operation or r.Operation(paths=("/svc/*",)),), tuple(when)
    )


KINDS: dict[str, Callable[[int], tuple[r.Target, r.Rule]]] = {
    "workload": lambda n: (r.Target({"app": f"app-{n}"}), _rule()),
    "principal": lambda n: (r.Target(), _rule(r.Source(principals=(f"cluster.local/ns/a/sa/caller-{n}",)))),
    "namespace": lambda n: (r.Target(), _rule(r.Source(namespaces=(f"ns-{n}",)))),
    "host": lambda n: (r.Target(), _rule(None, r.Operation(hosts=(f"host-{n}.example.com",)))),
    "path": lambda n: (r.Target(), _rule(None, r.Operation(paths=(f"/svc/{n}",)))),
    "path prefix": lambda n: (r.Target(), _rule(None, r.Operation(paths=(f"/svc-{n}/*",)))),
    "path suffix": lambda n: (r.Target(), _rule(None, r.Operation(paths=(f"*/leaf-{n}",)))),
    "path template": lambda n: (r.Target(), _rule(None, r.Operation(paths=(f"/svc-{n}/{{*}}/x",)))),
    "method": lambda n: (r.Target(), _rule(None, r.Operation(methods=(f"M{n}",)))),
    "IP block": lambda n: (r.Target(), _rule(r.Source(ip_blocks=(f"10.{n >> 8 & 255}.{n & 255}.0/24",)))),
    "claim": lambda n: (r.Target(), _rule(None, None, r.Condition("request.auth.claims[group]", (f"g{n}",)))),
    "header": lambda n: (r.Target(), _rule(None, None, r.Condition("request.headers[x-tenant]", (f"t{n}",)))),
}


def request(kind: str) -> AttributeContext:
    """The request that matches policy 0 of its kind."""
    path = {"path": "/svc/0", "path prefix": "/svc-0/x", "path suffix": "/a/leaf-0", "path template": "/svc-0/a/x"}
    identity = {"principal": f"spiffe://{CALLER}-0", "namespace": "spiffe://cluster.local/ns/ns-0/sa/caller"}
    token = Authentication(AuthenticationOutcome.ACCEPTED, Token({"group": ["x", "g0"]}))
    return AttributeContext(
        Source((identity.get(kind, f"spiffe://{CALLER}"),), "10.0.0.7", "10.0.0.7"),
        Destination(Workload("shop", frozenset({("app", "app-0"), ("version", "v1")})), "10.1.0.5", 8080),
        HttpRequest(
            "M0" if kind == "method" else "GET",
            "host-0.example.com",
            path.get(kind, "/svc/any?q=1"),
            {"x-tenant": ("t0",), "user-agent": ("bench",)},
        ),
        authentication=token if kind == "claim" else NOT_AUTHENTICATED,
    )


def measure(kind: str, size: int, *, in_one_policy: bool, repeat: int) -> tuple[float, float]:
    """Answer (microseconds a decision, seconds to compile and prepare)."""
    made = [KINDS[kind](number) for number in range(size)]
    if in_one_policy:
        rules = tuple(rule for _, rule in made)
        policies = [r.AuthorizationPolicy(r.Metadata("p", "shop"), rules=rules)]
    else:
        policies = [
            r.AuthorizationPolicy(r.Metadata(f"p{number}", "shop"), target, rules=(rule,))
            for number, (target, rule) in enumerate(made)
        ]
    attributes = request(kind)
    began = time.perf_counter()
    engine = compile_engine(r.Resources(tuple(policies)), r.MeshConfig())
    found = engine.for_workload(attributes.destination.workload)
    loaded = time.perf_counter() - began

    def authenticate(context: AttributeContext, rules: tuple[r.JwtRule, ...]) -> Authentication:
        return context.authentication

    def ask(question: ProviderQuestion) -> ProviderAnswer:
        raise AssertionError("no CUSTOM policy here")

    def run() -> bool:
        return decide(found, attributes, authenticate, ask)[1].is_allowed

    assert run(), f"{kind}: the request matches policy 0"
    number = 2_000
    return min(timeit.repeat(run, number=number, repeat=repeat)) / number * 1e6, loaded


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions and kinds")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    options = parser.parse_args()
    kinds = ("workload", "principal", "host", "path") if options.quick else tuple(KINDS)
    rows = []
    for in_one_policy in (False, True):
        for kind in kinds:
            if in_one_policy and kind == "workload":
                continue
            costs = [
                measure(kind, size, in_one_policy=in_one_policy, repeat=3 if options.quick else 9) for size in SIZES
            ]
            rows.append(
                {
                    "shape": "rules of one policy" if in_one_policy else "policies",
                    "differ in": kind,
                    **{f"{size:,}": round(cost, 1) for size, (cost, _) in zip(SIZES, costs, strict=True)},
                    "ratio": round(costs[-1][0] / costs[0][0], 2),
                    "load of 10,000 (s)": round(costs[-1][1], 2),
                }
            )
    if options.output == "json":
        print(json.dumps({"python": sys.version, "machine": platform.processor() or platform.machine(), "rows": rows}))
        return 0
    columns = list(rows[0])
    widths = [max(len(name), *(len(str(row[name])) for row in rows)) for name in columns]
    print(f"Python {platform.python_version()}, µs per decision ({Path(__file__).name})")
    print("  ".join(name.ljust(width) for name, width in zip(columns, widths, strict=True)))
    for row in rows:
        print("  ".join(str(row[name]).ljust(width) for name, width in zip(columns, widths, strict=True)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Two sets of policies for two parts of a mesh, and whom a change of either touches."""

from itertools import product

import pytest

from authz.canary.canary_engine import CanaryEngine, touched_names
from authz.core.attributes import Workload
from authz.core.compiler import compile_engine
from authz.core.engine import Engine
from authz.core.policies_by_workload import PoliciesByWorkload
from authz.core.resources import MeshConfig
from authz.core.touched import FiledWorkloads
from authz.policy.reader import read_policies

WORKLOADS = tuple(
    Workload("shop", frozenset({("app", app)}), "", f"{app}-{number}") for app in ("web", "api") for number in (1, 2)
)
FILED = FiledWorkloads(WORKLOADS)


def engine(web: str, api: str) -> Engine:
    """Policies that allow one path to each application."""
    documents = [
        f"apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {app}, namespace: shop}}\n"
        f"spec: {{selector: {{matchLabels: {{app: {app}}}}}, rules: [{{to: [{{operation: {{paths: [{path}]}}}}]}}]}}\n"
        for app, path in (("web", web), ("api", api))
    ]
    read = read_policies([("policies.yaml", "---\n".join(documents).encode())], MeshConfig())
    return compile_engine(read.resources, MeshConfig())


ENGINES = [engine(web, api) for web, api in product(("/a", "/b"), repeat=2)]
NAMES = [frozenset[str](), frozenset({"web-1"}), frozenset({"web-1", "api-2"})]
SETS: list[PoliciesByWorkload] = [
    *ENGINES,
    *(CanaryEngine(base, new, names) for base, new, names in product(ENGINES[:3], ENGINES[1:], NAMES)),
]


def test_each_workload_has_the_policies_of_its_part() -> None:
    base, candidate = engine("/a", "/a"), engine("/b", "/a")
    both = CanaryEngine(base, candidate, frozenset({"web-1"}))
    chosen, other = WORKLOADS[:2]
    assert both.version == base.version
    assert both.for_workload(chosen) is candidate.for_workload(chosen)
    assert both.for_workload(other) is base.for_workload(other)
    assert both.written_for(chosen) == candidate.written_for(chosen) != base.written_for(chosen)
    assert both.digests_for(other) == base.digests_for(other) != both.digests_for(chosen)


@pytest.mark.parametrize("before", range(len(SETS)))
def test_whoever_has_other_policies_is_touched_and_nobody_who_stays_with_an_unchanged_set(before: int) -> None:
    for after in SETS:
        touched = touched_names(SETS[before], after, FILED)
        assert touched is not None
        differing = {one.name for one in WORKLOADS if SETS[before].digests_for(one) != after.digests_for(one)}
        assert differing <= touched
        moved = {one.name for one in WORKLOADS if _is_chosen(SETS[before], one) != _is_chosen(after, one)}
        assert touched <= differing | moved


def _is_chosen(policies: PoliciesByWorkload, workload: Workload) -> bool:
    return isinstance(policies, CanaryEngine) and workload.name in policies.names


def test_two_are_alike_where_every_workload_has_the_very_same_policies() -> None:
    base, new, names = ENGINES[0], ENGINES[1], NAMES[1]
    one = CanaryEngine(base, new, names)
    assert one.is_like(CanaryEngine(base, new, frozenset(names)))
    others = (CanaryEngine(new, new, names), CanaryEngine(base, base, names), CanaryEngine(base, new, NAMES[2]), base)
    assert not any(one.is_like(other) for other in others)

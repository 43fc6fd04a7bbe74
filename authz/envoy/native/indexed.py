"""
A stage of many rules in the looked-up form: one or several look-ups, each with an ordinary RBAC filter per bucket.

Several share a stage only where too many rules would belong to every bucket of one. Then each only says what it found,
and ``first`` decides by the first of them all.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from authz.core.index import Needs
from authz.envoy.native.first import first_of_all, rank_names, shadow_prefix
from authz.envoy.native.linear import HTTP_RBAC, HTTP_RBAC_TYPE, Filter, rbac_rules
from authz.envoy.native.lookup import Bucket, Lookup, plan
from authz.envoy.native.matcher_tree import composite_filters
from authz.envoy.native.rbac import Policies
from authz.envoy.native.stages import FilterStage
from authz.envoy.native.value_matchers import Message

MAX_COPIES = 100_000
"""Rules in all buckets of a stage together, some 50 MiB of configuration; beyond that, Envoy walks every rule."""
_Make = Callable[[Policies], Message]


class Form(StrEnum):
    """``AUTO`` looks up in stages of many rules only."""

    LINEAR = "linear"
    INDEXED = "indexed"
    AUTO = "auto"


@dataclass(frozen=True, slots=True)
class StageSize:
    """How a stage is written."""

    stage: str
    rules: int
    form: Form
    lookups: int = 0
    """Filters that share the stage; more than one: see the head of the file."""
    largest: int = 0
    """Rules of the largest bucket."""
    copies: int = 0
    """Rules in all buckets together."""


def indexed_stage(
    stage: FilterStage,
    name: str,
    policies: Policies,
    needs: Mapping[str, Needs],
    *,
    walk: int,
    shadow: str = "",
) -> tuple[list[Filter], StageSize]:
    """
    Write the policies of a stage, looked up; ``needs`` by name of the rule.

    With ``shadow``, the prefix of their results, they are shadow rules. Shadow rules and AUDIT are never split: the
    second filter would overwrite what the first has found.
    """
    names = [one for one in policies if one in needs]  # a policy without rules matches nothing
    may_split = stage in (FilterStage.DENY, FilterStage.ALLOW) and not shadow
    parts = plan([needs[one] for one in names], may_split=may_split, walk=walk)
    buckets = _buckets(parts)
    if sum(map(len, buckets)) > MAX_COPIES:
        parts = [tuple(range(len(names)))]
        buckets = _buckets(parts)
    size = StageSize(
        name,
        len(policies),
        Form.INDEXED if any(isinstance(part, Lookup) for part in parts) else Form.LINEAR,
        len(parts),
        max(map(len, buckets), default=0),
        sum(map(len, buckets)),
    )
    if len(parts) > 1:
        return _split(stage, parts, names, policies), size
    return [one for part in parts for one in _part(part, names, policies, _make(stage, shadow))], size


def _buckets(parts: Sequence[Lookup | Bucket]) -> set[Bucket]:
    return {bucket for part in parts for bucket in ([part] if isinstance(part, tuple) else part.buckets())}


def _make(stage: FilterStage, shadow: str) -> _Make:
    def make(policies: Policies) -> Message:
        rules = rbac_rules(stage, policies)
        if shadow:
            return {"@type": HTTP_RBAC_TYPE, "shadow_rules": rules, "shadow_rules_stat_prefix": shadow}
        return {"@type": HTTP_RBAC_TYPE, "rules": rules}

    return make


def _part(part: Lookup | Bucket, names: Sequence[str], policies: Policies, make: _Make) -> list[Filter]:
    def filter_of(bucket: Bucket) -> Filter:
        return Filter(HTTP_RBAC, make({names[ordinal]: policies[names[ordinal]] for ordinal in bucket}))

    return composite_filters(part, filter_of) if isinstance(part, Lookup) else [filter_of(part)]


def _split(
    stage: FilterStage, parts: Sequence[Lookup | Bucket], names: Sequence[str], policies: Policies
) -> list[Filter]:
    ranks = rank_names(len(names))
    by_rank = {rank: policies[name] for rank, name in zip(ranks, names, strict=True)}
    filters: list[Filter] = []
    for number, part in enumerate(parts):
        filters += _part(part, ranks, by_rank, _make(stage, shadow_prefix(stage, number)))
    return [*filters, *first_of_all(stage, len(parts), names, policies)]

"""Grants that say nearly the same, joined: who may do one thing stands in one place."""

from collections.abc import Iterable
from dataclasses import replace

from authz.analysis.access.grant import Phrase, RuleGrant, Way


def joined(grants: Iterable[RuleGrant]) -> tuple[RuleGrant, ...]:
    """Grants of one rule that differ in their ways only are one; then those that differ in their sources only."""
    by_way: dict[object, RuleGrant] = {}
    for grant in grants:
        key = (_rule(grant), grant.sources, grant.operations, grant.conditions, grant.exceptions)
        before = by_way.get(key)
        by_way[key] = grant if before is None else _both(before, grant, ways=(*before.ways, *grant.ways))
    by_source: dict[object, RuleGrant] = {}
    for grant in by_way.values():
        if any(_is_said_by(grant, other) for other in by_way.values()):
            continue
        others = (_rule(grant), grant.operations, grant.conditions, grant.exceptions, frozenset(grant.ways))
        before = by_source.get(others)
        by_source[others] = grant if before is None else _both(before, grant, sources=(*before.sources, *grant.sources))
    return tuple(by_source.values())


def _rule(grant: RuleGrant) -> str:
    return grant.rule.short if grant.rule is not None else ""


def _both(
    first: RuleGrant, second: RuleGrant, *, ways: tuple[Way, ...] = (), sources: tuple[Phrase, ...] = ()
) -> RuleGrant:
    """Both as one, with the smaller request; what goes without a path too needs no word about it."""
    kept = min(first, second, key=lambda grant: (grant.witness.request.is_tcp, grant.witness.size))
    ways = tuple(dict.fromkeys(ways or first.ways))
    return replace(
        kept,
        ways=tuple(way for way in ways if way.has_path or way._replace(has_path=True) not in ways),
        sources=tuple(dict.fromkeys(sources or first.sources)),
    )


def _is_said_by(grant: RuleGrant, other: RuleGrant) -> bool:
    """Whether a grant without a path says nothing that another of the same rule does not say."""
    more = set(other.exceptions) - set(grant.exceptions)
    return (
        all(not way.has_path and way._replace(has_path=True) in other.ways for way in grant.ways)
        and (_rule(grant), grant.sources, grant.conditions) == (_rule(other), other.sources, other.conditions)
        and set(grant.operations) <= set(other.operations)
        and set(grant.exceptions) <= set(other.exceptions)
        and all(any(one.key == "paths" and one.values for one in excepted.phrase) for excepted in more)
    )

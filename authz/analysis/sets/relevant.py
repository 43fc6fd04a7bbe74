"""
The rules that matter to a question: the changed ones, and those that some request meets together with one of them.

Outside the requests for which a changed rule fires, both sides are the same; within, a rule that shares no request with
any changed rule never fires. So all others are left out before anything is compared, and the work grows with what
changed. That two rules share no request is seen from what each cannot do without (``CompiledRule.needs``).
"""

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import replace

from authz.analysis.sets.patterns import matcher_key
from authz.analysis.sets.token_cases import are_alike
from authz.core.engine import WorkloadPolicies
from authz.core.index import Needs
from authz.core.matchers import Terms
from authz.core.rule_sets import ActionSets, CustomSet
from authz.core.rules import CompiledRule, Predicates, RuleSet

Staged = tuple[str, CompiledRule]
"""A rule with its stage: ``allow``, ``deny``, or ``custom`` with the provider."""
_SINGLE = frozenset(
    {
        *("source.principal", "source.namespace", "source.serviceAccount", "source.trustDomain"),
        *("destination.port", "connection.sni", "request.auth.principal", "hosts", "methods", "paths"),
    }
)
"""Attributes of which a request has one value; two rules may each find theirs in a list."""


def _entry_key(entry: Predicates) -> frozenset[Hashable]:
    return frozenset((p.attribute.key, matcher_key(p.any_of), matcher_key(p.none_of)) for p in entry)


def rule_key(stage: str, rule: CompiledRule) -> Hashable:
    """What a rule does, without its name and its place."""
    return (
        stage,
        frozenset(map(_entry_key, rule.sources)),
        frozenset(map(_entry_key, rule.operations)),
        _entry_key(rule.conditions),
    )


def staged(sets: ActionSets) -> Iterator[Staged]:
    """The rules that may change an answer: neither AUDIT nor dry run."""
    for custom in sets.custom:
        name = _custom_key(custom)
        yield from ((name, rule) for rule in custom.rules.rules)
    for stage, rules in (("deny", sets.deny), ("allow", sets.allow)):
        yield from ((stage, rule) for rule in (rules.rules if rules is not None else ()))


def _custom_key(custom: CustomSet) -> str:
    return f"custom {custom.provider!r}"


def pruned_pair(old: WorkloadPolicies, new: WorkloadPolicies) -> tuple[WorkloadPolicies, WorkloadPolicies]:
    """
    Both sides with the rules that matter to where they differ.

    All of them do where the sides see requests differently: other modes of mutual TLS, tokens, mesh settings.
    """
    modes = [(policies.base_mode, policies.port_modes, policies.mesh) for policies in (old, new)]
    if modes[0] != modes[1] or not are_alike(old.jwt_rules, new.jwt_rules):
        return old, new
    http = _changed(old.http, new.http)
    tcp = _changed(old.tcp, new.tcp)
    return _with(old, http, tcp), _with(new, http, tcp)


def pruned_to(policies: WorkloadPolicies, about: Sequence[CompiledRule]) -> WorkloadPolicies:
    """The policies with the rules that share a request with one of ``about``."""
    return _with(policies, about, about)


def _changed(old: ActionSets, new: ActionSets) -> list[CompiledRule] | None:
    """The rules of either side that the other has not; None where one has a stage that the other lacks."""
    if (old.allow is None) is not (new.allow is None):
        return None
    sides = [{rule_key(stage, rule): rule for stage, rule in staged(sets)} for sets in (old, new)]
    return [rule for key, rule in (*sides[0].items(), *sides[1].items()) if (key in sides[0]) is not (key in sides[1])]


def _with(
    policies: WorkloadPolicies, http: Sequence[CompiledRule] | None, tcp: Sequence[CompiledRule] | None
) -> WorkloadPolicies:
    return replace(policies, http=_pruned(policies.http, http), _tcp=_pruned(policies.tcp, tcp))


def _pruned(sets: ActionSets, about: Sequence[CompiledRule] | None) -> ActionSets:
    if about is None:
        return sets
    wanted = [rule.needs() for rule in about]

    def kept(rules: RuleSet) -> RuleSet:
        left = [rule for rule in rules.rules if may_share(rule.needs(), wanted)]
        return RuleSet(left, unknown_fires=False, indexed=False)

    return replace(
        sets,
        custom=tuple(replace(custom, rules=kept(custom.rules)) for custom in sets.custom),
        audit=None,
        deny=kept(sets.deny) if sets.deny is not None else None,
        allow=kept(sets.allow) if sets.allow is not None else None,
        dry_run_deny=None,
        dry_run_allow=None,
    )


def may_share(needs: Needs, wanted: Iterable[Needs]) -> bool:
    """Whether some request may be matched by a rule and by one of others, by what each needs; no is certain."""
    return any(
        all(may_meet(terms, other[key][1]) for key, (_, terms) in needs.items() if key in other and key in _SINGLE)
        for other in wanted
    )


def may_meet(first: Terms, second: Terms) -> bool:
    """Whether one value may fulfil both; no is certain, yes is not. Of networks it is always yes."""
    if first.networks or second.networks:
        return True
    if not first.exact.isdisjoint(second.exact):
        return True
    for one, other in ((first, second), (second, first)):
        if any(text.startswith(other.prefixes) or text.endswith(other.suffixes) for text in one.exact):
            return True
        if one.suffixes and (other.suffixes or other.prefixes):
            return True
    return any(one.startswith(other) or other.startswith(one) for one in first.prefixes for other in second.prefixes)

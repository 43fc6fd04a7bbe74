"""
What a decision of then tells of rules that stand as they stood: one that fired fires again, whatever it asked for.

A rule that was reached and is not the one reported did not fire: of several the first by name is reported (AP-93), and
DENY comes before ALLOW (EV-4).
"""

from typing import NamedTuple

from authz.analysis.replay.recorded_request import RecordedRequest
from authz.core.engine import WorkloadPolicies
from authz.core.rules import CompiledRule, Predicates, RuleSet


class Carried(NamedTuple):
    """Names of rules, in Istio's form."""

    fired: frozenset[str] = frozenset()
    silent: frozenset[str] = frozenset()
    """Rules that did not fire."""


NOTHING_CARRIED = Carried()


def carried_over(then: WorkloadPolicies, now: WorkloadPolicies, request: RecordedRequest) -> Carried:
    """
    Compare the rules of then with those of now, where both see the same request.

    They do if neither asks a provider, which may change headers, and the mesh settings and token rules are the same.
    """
    answer, is_tcp = request.answer, request.attributes.http is None
    old, new = (one.tcp if is_tcp else one.http for one in (then, now))
    if old.custom or new.custom or then.mesh != now.mesh or answer.stage not in ("deny", "allow", "default"):
        return NOTHING_CARRIED
    fired: set[str] = set()
    silent: set[str] = set()
    for stage, before, after in (("deny", old.deny, new.deny), ("allow", old.allow, new.allow)):
        if answer.stage == "deny" and stage == "allow":
            break  # not reached
        standing = _forms(after)
        for rule in before.rules if before is not None else ():
            is_same = standing.get(rule.reference.name) == _form(rule)
            if answer.stage == stage and answer.rule == rule.reference.short:
                fired.update([rule.reference.name] if is_same else [])
                break  # what comes after it was not tried
            silent.update([rule.reference.name] if is_same else [])
        else:
            if answer.stage == stage and answer.rule:
                return NOTHING_CARRIED  # by a rule that is not there: the record and the archive do not agree
    return Carried(frozenset(fired), frozenset(silent))


def _forms(rules: RuleSet | None) -> dict[str, object]:
    return {rule.reference.name: _form(rule) for rule in rules.rules} if rules is not None else {}


def _form(rule: CompiledRule) -> object:
    """What a rule asks for, to be compared."""
    parts = (rule.sources, rule.operations, (rule.conditions,))
    return tuple(tuple(_entry(entry) for entry in part) for part in parts)


def _entry(entry: Predicates) -> tuple[object, ...]:
    return tuple(
        (one.attribute.key, one.any_of and one.any_of.written, one.none_of and one.none_of.written) for one in entry
    )

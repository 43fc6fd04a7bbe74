"""What is known of a rule: whether some request is decided by it, and if none is, what makes it so."""

from dataclasses import dataclass, field
from enum import StrEnum

from authz.core.decision import RuleReference

RuleId = tuple[str, str, int]
"""Namespace and name of the policy, and the index of the rule."""


class VerdictKind(StrEnum):
    """Why a rule decides something, or nothing."""

    DECIDES = "decides"
    COVERED = "covered"
    """Other rules of the same action match all of its requests."""
    TAKEN = "taken"
    """Rules that come before it, besides those of its action, take all of its requests."""
    UNNEEDED = "unneeded"
    """A DENY rule all of whose requests are refused without it, since no ALLOW rule lets them through."""
    CLOSED = "closed"
    """Mutual TLS or the check of tokens refuses all of its requests before any rule is asked."""
    IMPOSSIBLE = "impossible"
    """No request matches it."""
    UNKNOWN = "not decided"


@dataclass(frozen=True, slots=True)
class RuleVerdict:
    """The verdict on one rule, for one workload or for all to which it applies."""

    kind: VerdictKind
    by: tuple[RuleReference, ...] = ()
    """The rules that make it so, the fewest that suffice: none of them can be left out."""
    fields: tuple[str, ...] = ()
    """Of one that is impossible: the fields that exclude each other, as paths within the rule."""
    has_no_caller: bool = False
    """Of one that is impossible: it asks for an identity where mutual TLS is DISABLE."""
    reason: str = ""
    """Why it is not decided."""

    @property
    def is_needless(self) -> bool:
        """Whether it is proved that the rule decides nothing."""
        return self.kind not in (VerdictKind.DECIDES, VerdictKind.UNKNOWN)


def id_of(reference: RuleReference) -> RuleId:
    """The rule that a reference names; those of CUSTOM have another name for each provider."""
    return reference.namespace, reference.policy, reference.index


def summed_up(verdicts: list[RuleVerdict]) -> RuleVerdict:
    """One verdict for all workloads to which a rule applies, of which none is DECIDES; the weakest claim of them."""
    order = (
        VerdictKind.UNKNOWN,
        VerdictKind.UNNEEDED,
        VerdictKind.TAKEN,
        VerdictKind.COVERED,
        VerdictKind.CLOSED,
        VerdictKind.IMPOSSIBLE,
    )
    weakest = min(verdicts, key=lambda verdict: order.index(verdict.kind))
    by = {id_of(one): one for verdict in verdicts for one in verdict.by}
    fields = dict.fromkeys(field for verdict in verdicts for field in verdict.fields)
    no_caller = all(verdict.has_no_caller for verdict in verdicts)
    return RuleVerdict(weakest.kind, tuple(by.values()), tuple(fields), no_caller, weakest.reason)


@dataclass(slots=True)
class NeedlessRules:
    """What is proved about the rules of a set of policies."""

    verdicts: dict[RuleId, RuleVerdict] = field(default_factory=dict)
    """Of every needless rule; all of them can be removed together."""
    undecided: dict[RuleId, str] = field(default_factory=dict)
    """Rules of which it is not known whether they decide anything, and why."""
    judged: set[RuleId] = field(default_factory=set)
    """Rules of which it is known: needless, or not."""
    open: list[list[RuleReference]] = field(default_factory=list)
    """ALLOW rules that together let every HTTP request through at some workload, each list once."""

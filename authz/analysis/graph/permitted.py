"""
Who may call whom, as far as the caller's identity decides: the edges that policy permits before anybody uses them.

Where it was proved who may call whom (``authz who-can --matrix``), that is told. Elsewhere only predicates on the
certificate are judged, by the engine's own predicates; method, path, token and address are left open, so "permitted"
means: some request of this caller may be allowed.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from authz.core.attributes import AttributeContext, Destination, HttpRequest, Source, Workload
from authz.core.catalog import Voucher
from authz.core.decision import RuleReference
from authz.core.engine import Engine, WorkloadPolicies
from authz.core.resources import MtlsMode
from authz.core.rules import CompiledRule, Predicate, Predicates

ANYBODY = ""
"""The caller without an identity."""


@dataclass(frozen=True, slots=True)
class Permit:
    """One caller that policy names and lets in."""

    principal: str
    """In Istio's form without ``spiffe://``; ``ANYBODY`` for callers without an identity."""
    workload: Workload
    rules: tuple[RuleReference, ...]
    """The ALLOW rules that may let it in."""
    answer: str = ""
    """``yes`` or ``with conditions`` where that is proved; empty where identities alone were judged."""


class ProvedAnswer(Protocol):
    """The proof for one caller and one workload."""

    @property
    def answer(self) -> str:
        """``yes``, ``with conditions``, ``no`` or ``not decided``."""

    @property
    def rules(self) -> tuple[str, ...]:
        """The rules that let it in, ``namespace/policy/index``."""

    @property
    def names_caller(self) -> bool:
        """Whether one of them asks for this caller or its like, and not for everybody."""


def permits(
    engine: Engine,
    workloads: Iterable[Workload],
    principals: Iterable[str],
    proved: Mapping[tuple[str, str], ProvedAnswer] | None = None,
) -> Iterator[Permit]:
    """
    Find every permitted pair that an ALLOW rule names.

    Args:
        proved: what is proved, by principal and ``namespace/name`` of the workload.

    A workload without ALLOW policies is open to everybody and gives no permit: that is a property of the workload.
    A rule that asks nothing of the identity permits ``ANYBODY``, where plaintext is accepted.
    """
    callers = [(principal, _probe(principal)) for principal in dict.fromkeys((*principals, ANYBODY))]
    for workload in workloads:
        policies = engine.for_workload(workload)
        if policies.http.allow is None:
            continue
        for principal, probe in callers:
            known = (proved or {}).get((principal, f"{workload.namespace}/{workload.name}"))
            if known is None or known.answer == "not decided":
                rules, answer = permitting_rules(policies, principal, probe), ""
            else:
                rules, answer = _proved_rules(policies, principal, known), known.answer
            if rules:
                yield Permit(principal, workload, rules, answer)


def _proved_rules(policies: WorkloadPolicies, principal: str, known: ProvedAnswer) -> tuple[RuleReference, ...]:
    """The rules of a proof; whoever is let in as everybody is, is drawn as everybody."""
    if principal != ANYBODY and not known.names_caller:
        return ()
    sets = [found for found in (policies.http.allow, policies.tcp.allow) if found is not None]
    references = {rule.reference.short: rule.reference for found in sets for rule in found.rules}
    return tuple(references[name] for name in dict.fromkeys(known.rules) if name in references)


def permitting_rules(
    policies: WorkloadPolicies, principal: str, probe: AttributeContext | None = None
) -> tuple[RuleReference, ...]:
    """The enforced ALLOW rules that may let the caller in; empty when a DENY rule refuses it for certain."""
    probe = probe or _probe(principal)
    if principal == ANYBODY and policies.base_mode is MtlsMode.STRICT and not _is_gateway(policies.workload):
        return ()
    sets = policies.http
    if sets.deny is not None and any(_surely_fires(rule, probe) for rule in sets.deny.rules):
        return ()
    if sets.allow is None:
        return ()
    return tuple(
        rule.reference
        for rule in sets.allow.rules
        if (not _names_callers(rule) if principal == ANYBODY else _names_callers(rule)) and _may_fire(rule, probe)
    )


def is_open(policies: WorkloadPolicies) -> bool:
    """No ALLOW policy applies: whatever no DENY rule matches is allowed (AP-2)."""
    return policies.http.allow is None


def _is_gateway(workload: Workload) -> bool:
    """Gateways have TLS settings of their own (PA-14); Istio's charts label them ``istio: …gateway``."""
    return any(name == "istio" and value.endswith("gateway") for name, value in workload.labels)


def _probe(principal: str) -> AttributeContext:
    identities = (f"spiffe://{principal}",) if principal else ()
    return AttributeContext(Source(identities), Destination(Workload("")), HttpRequest("GET", "", "/"))


def _is_about_identity(predicate: Predicate) -> bool:
    return predicate.attribute.voucher is Voucher.MTLS


def _names_callers(rule: CompiledRule) -> bool:
    """Whether every way through the rule asks for certain identities; ``*`` asks for any."""

    def names(entry: Predicates) -> bool:
        return any(
            _is_about_identity(predicate) and predicate.any_of is not None and predicate.any_of.terms is not None
            for predicate in entry
        )

    return names(rule.conditions) or (bool(rule.sources) and all(names(entry) for entry in rule.sources))


def _may_fire(rule: CompiledRule, probe: AttributeContext) -> bool:
    def possible(entry: Predicates) -> bool:
        return all(predicate.holds(probe) for predicate in entry if _is_about_identity(predicate))

    return possible(rule.conditions) and (not rule.sources or any(possible(entry) for entry in rule.sources))


def _surely_fires(rule: CompiledRule, probe: AttributeContext) -> bool:
    def certain(entry: Predicates) -> bool:
        return all(_is_about_identity(predicate) and predicate.holds(probe) for predicate in entry)

    return (
        not rule.operations
        and certain(rule.conditions)
        and (not rule.sources or any(certain(entry) for entry in rule.sources))
    )

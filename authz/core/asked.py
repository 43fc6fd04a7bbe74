"""
Which facts of a request the policies of a workload ask for: what a log of decisions must hold to be verified.

Only facts whose names a policy chooses are listed; paths, addresses and identities are asked for in any case.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from authz.core.catalog import claim_path
from authz.core.engine import WorkloadPolicies
from authz.core.rule_sets import ActionSets
from authz.core.rules import CompiledRule

_HEADERS, _CLAIMS, _METADATA = "request.headers[", "request.auth.claims[", "experimental."
_FIXED_CLAIMS = {"request.auth.audiences": ("aud",), "request.auth.presenter": ("azp",)}

CREDENTIALS = frozenset({"authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key"})
"""Headers that are credentials: no log holds them, so rules that ask for them cannot be verified from one."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Names, each sorted, without repetition."""

    headers: tuple[str, ...] = ()
    """Lower-case header names, pseudo headers and credentials included."""
    claims: tuple[tuple[str, ...], ...] = ()
    """Paths into the payload of the token; ``iss`` and ``sub`` are always asked for and not listed."""
    metadata: tuple[str, ...] = ()
    """Namespaces of dynamic metadata."""
    tokens: bool = True
    """Whether tokens are verified at all; without that there are no claims."""
    audits: bool = True
    """Whether an AUDIT policy applies."""
    dry_run_allow: bool = True
    dry_run_deny: bool = True
    custom: bool = True
    """Whether such policies apply; a result that none of them can have need not be told."""


def asked_of(policies: WorkloadPolicies) -> Asked:
    """Collect what the rules of a workload ask for: rules of all actions, enforced or not, for HTTP and TCP."""
    headers: set[str] = set()
    claims: set[tuple[str, ...]] = set()
    metadata: set[str] = set()
    for rule in (*rules_of(policies.http), *rules_of(policies.tcp)):
        for key in keys_of(rule):
            if key.startswith(_HEADERS):
                headers.add(key[len(_HEADERS) : -1])
            elif key.startswith(_METADATA):
                metadata.add(key.removeprefix(_METADATA).partition("[")[0])
            elif key in _FIXED_CLAIMS:
                claims.add(_FIXED_CLAIMS[key])
            elif key.startswith(_CLAIMS):
                claims.add(claim_path(key))
    both = (policies.http, policies.tcp)
    return Asked(
        tuple(sorted(headers)),
        tuple(sorted(claims)),
        tuple(sorted(metadata)),
        tokens=bool(policies.jwt_rules),
        audits=any(sets.audit is not None for sets in both),
        dry_run_allow=any(sets.dry_run_allow is not None for sets in both),
        dry_run_deny=any(sets.dry_run_deny is not None for sets in both),
        custom=any(bool(sets.custom) for sets in both),
    )


def rules_of(sets: ActionSets) -> Iterator[CompiledRule]:
    """Every rule of a workload for one protocol."""
    for custom in sets.custom:
        yield from custom.rules.rules
    for rules in (sets.audit, sets.deny, sets.allow, sets.dry_run_deny, sets.dry_run_allow):
        if rules is not None:
            yield from rules.rules


def keys_of(rule: CompiledRule) -> frozenset[str]:
    """Keys of the attributes that one rule asks for: ``source.principal``, ``request.headers[x-team]``."""
    return frozenset(
        predicate.attribute.key for entry in (*rule.sources, *rule.operations, rule.conditions) for predicate in entry
    )


def header_of(key: str) -> str:
    """Lower-case header name of an attribute's key; empty when it is not a header."""
    return key[len(_HEADERS) : -1] if key.startswith(_HEADERS) else ""


def blind_rules(policies: WorkloadPolicies, logged_headers: Iterable[str] | None = None) -> frozenset[str]:
    """
    Name the rules, in Istio's form, that ask for a fact which a log entry does not hold.

    ``logged_headers`` None: every header that is neither a credential nor a pseudo header is logged.
    """
    logged = None if logged_headers is None else frozenset(logged_headers)

    def is_dark(key: str) -> bool:
        name = header_of(key)
        if not name:
            return False
        return name in CREDENTIALS or name == ":path" or (logged is not None and name not in logged)

    return frozenset(
        rule.reference.name
        for rule in (*rules_of(policies.http), *rules_of(policies.tcp))
        if any(is_dark(key) for key in keys_of(rule))
    )

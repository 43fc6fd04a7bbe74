"""
Workloads whose rules ask for tokens while nothing verifies any: no request there has claims (RA-3, AN-6).

Then a change of such rules changes no answer, which is true and seldom what was asked: the RequestAuthentication often
lies in a file beside those that were given.
"""

from collections.abc import Iterable

from authz.analysis.sets.model import PolicyPair
from authz.analysis.sets.relevant import staged
from authz.core.catalog import Voucher
from authz.core.engine import WorkloadPolicies


def tokens_nobody_verifies(pairs: Iterable[tuple[str, PolicyPair]]) -> list[str]:
    """One sentence about all the named pairs of which this is so, or nothing."""
    names = [
        name
        for name, pair in pairs
        if not (pair.old.jwt_rules or pair.new.jwt_rules) and (_asks(pair.old) or _asks(pair.new))
    ]
    if not names:
        return []
    more = f" and {len(names) - 1} more" if names[1:] else ""
    return [
        f"rules ask for tokens at {names[0]}{more}, and no RequestAuthentication applies there, so no request has "
        "claims: if one is in another file, name that file too"
    ]


def _asks(policies: WorkloadPolicies) -> bool:
    return any(
        predicate.attribute.voucher is Voucher.TOKEN
        for _, rule in staged(policies.http)
        for entry in (*rule.sources, *rule.operations, rule.conditions)
        for predicate in entry
    )

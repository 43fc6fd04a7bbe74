"""
The policies of a workload that Envoy decides by itself, and those that stay with the check, rule by rule, with reasons.

One rule that stays keeps the whole workload with the check: its stages see each other's work (EV-6), and filters
without that rule would decide something else. Nothing is left out silently.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from authz.core.attributes import Json, Workload
from authz.core.errors import Location
from authz.core.policies_by_workload import PoliciesByWorkload
from authz.core.resources import AuthorizationPolicy, JwtRule, Presence, Rule
from authz.envoy.native.binary import MAX_PROGRAM, RUNTIME
from authz.envoy.native.filters import NativeFilters

_REFUSED = re.compile(r"[\x00\n\r]")
"""Envoy refuses these in the name of a header, and its whole configuration with them."""
MAX_NAME_BYTES = 8192
"""
The longest name that a regular expression can match: ``binary.RUNTIME`` bounds its program, at about a step for each
byte.
"""


@dataclass(frozen=True, slots=True)
class RuleReport:
    """One rule; ``reason`` is empty where Envoy decides by itself."""

    resource: str
    rule: int
    stage: str
    location: Location
    reason: str = ""

    @property
    def is_native(self) -> bool:
        """Whether Envoy decides this rule by itself."""
        return not self.reason


@dataclass(frozen=True, slots=True)
class Report:
    """The rules of one workload that Envoy decides by itself, and those that it does not."""

    rules: tuple[RuleReport, ...]
    workload: tuple[str, ...]
    """Reasons that are not one rule's."""

    @property
    def is_native(self) -> bool:
        """Whether nothing stays with the check."""
        return not self.workload and all(rule.is_native for rule in self.rules)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Every reason once; that of a rule with its place."""
        of_rules = (f"{rule.resource} rules[{rule.rule}]: {rule.reason}" for rule in self.rules if rule.reason)
        return (*self.workload, *of_rules)


def report(engine: PoliciesByWorkload, workload: Workload, *, has_evidence: bool = False) -> Report:
    """
    Say what is native, for every rule that applies to the workload.

    ``has_evidence``: callers' certificates are sent, to be judged and recorded.
    """
    rules = [one for policy in engine.written_for(workload) for one in _policy(policy)]
    rules += [_jwt(rule) for rule in engine.for_workload(workload).jwt_rules]
    evidence = ("evidence of the caller's certificate is kept by the server only",) if has_evidence else ()
    return Report(tuple(rules), evidence)


def remarks(native: NativeFilters) -> Iterator[str]:
    """Remarks on how the stages are written, and on the Envoy that is to take them."""
    longest = max(_expressions([one.config for one in native.filters]), default=0)
    if longest > LONG_EXPRESSION:
        yield (
            f"a regular expression has {longest} bytes: an Envoy of your own takes it where its runtime says "
            f"`{MAX_PROGRAM}: {RUNTIME[MAX_PROGRAM]}`, as Istio's does"
        )
    for size in native.sizes:
        if size.lookups and size.largest > LARGE_BUCKET:
            yield (
                f"{size.stage}: {size.largest} of {size.rules} rules need no path, host, principal or port by which "
                "they could be looked up apart: Envoy walks them for every request"
            )


LONG_EXPRESSION = 60
"""So many bytes are surely within Envoy's own bound, a program of 100 steps."""
LARGE_BUCKET = 500
"""From so many rules in one bucket on a remark is due: about a tenth of a millisecond per request."""


def _expressions(content: Json) -> Iterator[int]:
    """Lengths in bytes of all regular expressions."""
    if isinstance(content, list):
        for item in content:
            yield from _expressions(item)
    elif isinstance(content, dict):
        for key, value in content.items():
            if key == "regex" and isinstance(value, str):
                yield len(value.encode())
            elif isinstance(value, dict | list):
                yield from _expressions(value)


def _policy(policy: AuthorizationPolicy) -> Iterator[RuleReport]:
    metadata = policy.metadata
    resource = f"AuthorizationPolicy {metadata.namespace}/{metadata.name}"
    stage = f"{policy.action.lower()}{' (dry run)' if policy.dry_run else ''}"
    for index, rule in enumerate(policy.rules):
        reason = ""
        for condition in rule.conditions:
            if _REFUSED.search(condition.key):
                reason = f"Envoy refuses the header name in `{condition.key!r}`"
        if any(len(value.encode()) > MAX_NAME_BYTES for value in _identities(rule)):
            reason = f"Envoy refuses an expression for a name of more than {MAX_NAME_BYTES} bytes"
        yield RuleReport(resource, index, stage, rule.location, reason)
    if not policy.rules:
        yield RuleReport(resource, 0, stage, metadata.location)


def _identities(rule: Rule) -> Iterator[str]:
    """Values that become regular expressions."""
    for source in rule.sources:
        yield from (*source.principals, *source.not_principals, *source.namespaces, *source.not_namespaces)
        yield from (*source.service_accounts, *source.not_service_accounts)
        yield from (*source.trust_domains, *source.not_trust_domains)
    for condition in rule.conditions:
        if condition.key.startswith("source."):
            yield from (*condition.values, *condition.not_values)


def _jwt(rule: JwtRule) -> RuleReport:
    namespace_and_name, _, index = rule.name.rpartition("/")
    reason = ""
    names = [text for one in rule.from_headers for text in (one.name, one.prefix)]
    names += [one.header for one in rule.output_claim_to_headers]
    if rule.introspection is not None:
        reason = f"Envoy's filters cannot ask {rule.issuer} about opaque tokens (`tokenIntrospection`)"
    elif rule.presence is Presence.REQUIRED:
        reason = "Istio's filters do not know `presence: REQUIRED`"
    elif any(_REFUSED.search(name) for name in (*names, rule.output_payload_to_header)):
        reason = "Envoy refuses the name of a header, or a prefix"
    return RuleReport(f"RequestAuthentication {namespace_and_name}", int(index), "jwt", rule.location, reason)

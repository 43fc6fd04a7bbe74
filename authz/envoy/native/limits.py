"""
What of a workload's policies Envoy decides by itself, and what stays with the check, rule by rule, with the reason.

One rule that stays keeps the whole workload with the check: its stages see each other's work (EV-6), and filters
without that rule would decide something else. Nothing is left out silently.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from authz.core.attributes import Workload
from authz.core.engine import Engine
from authz.core.errors import Location
from authz.core.resources import Action, AuthorizationPolicy, ExtensionProvider, JwtRule, Presence
from authz.envoy.native.indexed import StageSize

_REFUSED = re.compile(r"[\x00\n\r]")
"""In the name of a header Envoy refuses these, and with them its whole configuration."""


class Feature(StrEnum):
    """What the server does besides Istio's policies, for every request."""

    REVOCATION = "revocation"
    PEER_CERTIFICATE = "peer-certificate"


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
    """What Envoy decides by itself for one workload, rule by rule."""

    rules: tuple[RuleReport, ...]
    workload: tuple[str, ...]
    """Reasons that are not one rule's."""

    @property
    def is_native(self) -> bool:
        """Whether nothing stays with the check."""
        return not self.workload and all(rule.is_native for rule in self.rules)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Every reason once, a rule's with its place."""
        of_rules = (f"{rule.resource} rules[{rule.rule}]: {rule.reason}" for rule in self.rules if rule.reason)
        return (*self.workload, *of_rules)


def report(
    engine: Engine,
    workload: Workload,
    *,
    features: frozenset[Feature] = frozenset(),
    answered_here: frozenset[str] = frozenset(),
) -> Report:
    """
    Say what is native, for every rule that applies to the workload.

    ``answered_here``: names of the providers whose answer is this server itself.
    """
    providers = {provider.name: provider for provider in engine.mesh.extension_providers}
    rules = [one for policy in engine.written_for(workload) for one in _policy(policy, providers, answered_here)]
    rules += [_jwt(rule) for rule in engine.for_workload(workload).jwt_rules]
    return Report(tuple(rules), tuple(_FEATURES[feature] for feature in sorted(features)))


_FEATURES = {
    Feature.REVOCATION: "revoked identities are known to the server only",
    Feature.PEER_CERTIFICATE: "evidence of the caller's certificate is kept by the server only",
}


def remarks(sizes: tuple[StageSize, ...]) -> Iterator[str]:
    """What is worth knowing of how the stages are written."""
    for size in sizes:
        if size.lookups and size.largest > LARGE_BUCKET:
            yield (
                f"{size.stage}: {size.largest} of {size.rules} rules need no path, host, principal or port by which "
                "they could be looked up apart: Envoy walks them for every request"
            )


LARGE_BUCKET = 500
"""Rules in one bucket from which on a remark is due: some tenth of a millisecond a request."""


def _policy(
    policy: AuthorizationPolicy, providers: dict[str, ExtensionProvider], answered_here: frozenset[str]
) -> Iterator[RuleReport]:
    metadata = policy.metadata
    resource = f"AuthorizationPolicy {metadata.namespace}/{metadata.name}"
    shared = ""
    if policy.action is Action.CUSTOM and policy.provider in answered_here:
        shared = f"provider `{policy.provider}` is answered by this server"
    stage = f"{policy.action.lower()}{' (dry run)' if policy.dry_run else ''}"
    for index, rule in enumerate(policy.rules):
        reason = shared
        for condition in rule.conditions:
            if _REFUSED.search(condition.key):
                reason = f"Envoy refuses the header name in `{condition.key!r}`"
        yield RuleReport(resource, index, stage, rule.location, reason)
    if not policy.rules:
        yield RuleReport(resource, 0, stage, metadata.location, shared)


def _jwt(rule: JwtRule) -> RuleReport:
    namespace_and_name, _, index = rule.name.rpartition("/")
    reason = ""
    names = (*(one.name for one in rule.from_headers), *(one.header for one in rule.output_claim_to_headers))
    if rule.presence is Presence.REQUIRED:
        reason = "Istio's filters do not know `presence: REQUIRED`"
    elif any(_REFUSED.search(name) for name in (*names, rule.output_payload_to_header)):
        reason = "Envoy refuses the name of a header"
    return RuleReport(f"RequestAuthentication {namespace_and_name}", int(index), "jwt", rule.location, reason)

"""The decision and what it consists of: effect, stage, rule, reason, obligations."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from authz.core.errors import NOWHERE, Location


class Effect(StrEnum):
    """The answer: the request may go on, or it may not."""

    ALLOW = "allow"
    DENY = "deny"


class Stage(StrEnum):
    """The stage that decided, in the order of evaluation (EV-1). Values are those of the conformance format."""

    PEER_AUTHENTICATION = "peer-authentication"
    NORMALIZATION = "normalization"
    CUSTOM = "custom"
    JWT = "jwt"
    DENY = "deny"
    ALLOW = "allow"
    """With effect DENY: ALLOW policies apply but none fired (EV-4)."""
    DEFAULT = "default"
    """Allowed because no enforced ALLOW policy applies to the workload (AP-2)."""
    RATE_LIMIT = "rate-limit"
    """Ours: the policies allowed the request, and a rate limit was used up, or could not be counted."""
    IDENTITY = "identity"
    """Ours: the peer's or the asking workload's identity is not what it claims to be."""
    INTERNAL = "internal"
    """Ours: we failed, and a failure is a denial (CS-13)."""


@dataclass(frozen=True, slots=True)
class RuleReference:
    """A rule of a policy as written; dropped rules keep their index (AP-92)."""

    namespace: str
    policy: str
    index: int
    name: str
    """Exactly as Istio reports it: ``ns[default]-policy[p]-rule[0]``, prefix and suffix of CUSTOM included."""
    location: Location = NOWHERE

    @property
    def short(self) -> str:
        """``namespace/policy/index``, the form of the conformance corpus."""
        return f"{self.namespace}/{self.policy}/{self.index}"


@dataclass(frozen=True, slots=True)
class DryRunResult:
    """The answer that a dry-run set would have given (AP-88). ``effect`` is the set's result, ALLOW = ``allowed``."""

    effect: Effect
    rule: RuleReference | None = None


class Obligations(NamedTuple):
    """
    The changes that Envoy must make to an accepted request. Names are lower-case. It is a tuple, because decisions and
    answers are remembered by it, and hashing a dataclass would run Python code each time.
    """

    headers_to_set: tuple[tuple[str, str], ...] = ()
    headers_to_remove: tuple[str, ...] = ()
    query_parameters_to_remove: tuple[str, ...] = ()
    rewritten_path: str | None = None
    response_headers_to_add: tuple[tuple[str, str], ...] = ()

    @property
    def is_personal(self) -> bool:
        """Whether they differ from request to request, so that remembering them is useless."""
        return bool(self.headers_to_set) or self.rewritten_path is not None or bool(self.response_headers_to_add)


NO_OBLIGATIONS = Obligations()
_ALLOW = Effect.ALLOW


@dataclass(frozen=True, slots=True)
class Decision:
    """
    The answer to one request, and why.

    ``status``, ``body`` and ``headers`` are what the client is told on a denial; for TCP they are ignored by Envoy.
    """

    effect: Effect
    stage: Stage
    reason: str
    """One line for people and the audit record; never contains a token or header value of the request."""
    rule: RuleReference | None = None
    status: int = 0
    body: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    """Response headers of a denial, for example ``www-authenticate``."""
    obligations: Obligations = NO_OBLIGATIONS
    audit: bool | None = None
    """Value of ``access_log_hint``; None when no AUDIT policy applies or the stage was not reached (AP-90)."""
    audit_rule: RuleReference | None = None
    dry_run_allow: DryRunResult | None = None
    dry_run_deny: DryRunResult | None = None
    policy_version: str = field(default="")

    @property
    def is_allowed(self) -> bool:
        """Whether the request may go on."""
        return self.effect is _ALLOW


FORBIDDEN_BODY = "RBAC: access denied"
"""Exactly 19 bytes, no newline (AP-94)."""


def would_be(decision: Decision) -> tuple[bool | None, str | None]:
    """
    Say what would have happened with the dry-run policies in force, as one answer.

    Returns:
        (denied, rule that makes it so as ``namespace/policy/index``); (None, None) when no dry-run policy applies.
        Dry-run DENY rules come first as they would in force (EV-4); a dry-run ALLOW rule rescues only requests
        that no ALLOW rule matched, and refuses only requests that no ALLOW policy restricted.
    """
    deny, allow = decision.dry_run_deny, decision.dry_run_allow
    if deny is None and allow is None:
        return None, None
    if deny is not None and deny.effect is Effect.DENY:
        return True, deny.rule.short if deny.rule else None
    if decision.effect is Effect.DENY:
        if decision.stage is Stage.ALLOW and allow is not None and allow.effect is Effect.ALLOW:
            return False, allow.rule.short if allow.rule else None
        return True, decision.rule.short if decision.rule else None
    if decision.stage is Stage.DEFAULT and allow is not None and allow.effect is Effect.DENY:
        return True, None
    return False, None

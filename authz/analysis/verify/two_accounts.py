"""The same facts of one request as Envoy tells them and as the engine does, to be compared."""

import re
from collections.abc import Mapping
from typing import Any

from authz.analysis.verify.proxy import Told
from authz.core.decision import Decision, DryRunResult

OK = 200
_MATCHED = re.compile(r"rbac_access_denied_matched_policy\[(.*)\]")
_BY_FILTERS = ("rbac_", "jwt_authn_", "ext_authz_", "direct_response")
"""How Envoy's details begin where a filter or the application answered; else its codec did, which asks no policy."""


def told_by_envoy(told: Told | None, line: Mapping[str, Any], *, restricted: bool) -> dict[str, object] | None:
    """Read what Envoy's answer and its log line say; None where its codec refused the request."""
    if told is None or not str(line.get("details", "")).startswith(_BY_FILTERS):
        return None
    return facts_of_envoy(told, line, restricted=restricted)


def facts_of_envoy(told: Told, line: Mapping[str, Any], *, restricted: bool) -> dict[str, object]:
    """
    Read what an answer of Envoy and its log line say. ``restricted``: the workload has ALLOW policies.
    """
    metadata: Mapping[str, str] = line["rbac"] or {}
    rule = metadata.get("enforced_effective_policy_id", "")
    if (denied := _MATCHED.fullmatch(line["details"])) is not None:
        rule = "" if denied[1] == "none" else denied[1]
    elif line["details"].startswith("ext_authz_"):
        rule = metadata.get("istio_ext_authz_shadow_effective_policy_id", "")
    elif told.status != OK or not restricted:
        rule = ""  # what is there is of AUDIT, whose rules are written to the same place
    return {
        "status": told.status,
        "body": told.body,
        "rule": rule,
        "audit": line["audit"],
        "www-authenticate": told.headers.get("www-authenticate"),
        "dry run deny": _shadow(metadata, "istio_dry_run_deny_"),
        "dry run allow": _shadow(metadata, "istio_dry_run_allow_"),
    }


def _shadow(metadata: Mapping[str, str], prefix: str) -> tuple[str, str] | None:
    result = metadata.get(f"{prefix}shadow_engine_result")
    return (result, metadata.get(f"{prefix}shadow_effective_policy_id", "")) if result else None


def facts_of_engine(decision: Decision) -> dict[str, object]:
    """The same facts of a decision of ours."""
    return {
        "status": decision.status if not decision.is_allowed else OK,
        "body": decision.body if not decision.is_allowed else "ok",
        "rule": decision.rule.name if decision.rule is not None else "",
        "audit": decision.audit,
        "www-authenticate": dict(decision.headers).get("www-authenticate"),
        "dry run deny": _dry_run(decision.dry_run_deny),
        "dry run allow": _dry_run(decision.dry_run_allow),
    }


def _dry_run(result: DryRunResult | None) -> tuple[str, str] | None:
    if result is None:
        return None
    effect = {"allow": "allowed", "deny": "denied"}[result.effect.value.lower()]
    return effect, result.rule.name if result.rule is not None else ""

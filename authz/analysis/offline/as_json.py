"""
Decisions and explanations as JSON, with the field names of the audit record.

Never a header value, a query string or a token: what was asked is given by method, host and path.
"""

from authz.core.attributes import AttributeContext, Json, Unknown
from authz.core.decision import Decision, DryRunResult, Effect, RuleReference
from authz.core.errors import NOWHERE
from authz.core.explain import Explanation, PredicateNote, RuleNote


def rule_json(rule: RuleReference | None) -> Json:
    """A rule as the audit record has it."""
    if rule is None:
        return None
    is_known = rule.location is not NOWHERE
    return {
        "name": rule.name,
        "namespace": rule.namespace,
        "policy": rule.policy,
        "index": rule.index,
        "file": rule.location.file if is_known else None,
        "line": rule.location.line if is_known else None,
    }


def decision_json(decision: Decision) -> dict[str, Json]:
    """A decision with everything that Envoy is told, without header values."""
    duties = decision.obligations
    return {
        "effect": decision.effect.value,
        "stage": decision.stage.value,
        "reason": decision.reason,
        "rule": rule_json(decision.rule),
        "status": decision.status or None,
        "body": decision.body or None,
        "headers": [*sorted({name for name, _ in decision.headers})],
        "forward": {
            "set_headers": [name for name, _ in duties.headers_to_set],
            "remove_headers": list(duties.headers_to_remove),
            "remove_query_parameters": list(duties.query_parameters_to_remove),
        },
        "audit": decision.audit,
        "audit_rule": rule_json(decision.audit_rule),
        "dry_run_allow": _dry_run_json(decision.dry_run_allow),
        "dry_run_deny": _dry_run_json(decision.dry_run_deny),
        "policy_version": decision.policy_version,
    }


def _dry_run_json(result: DryRunResult | None) -> Json:
    if result is None:
        return None
    return {"result": "allowed" if result.effect is Effect.ALLOW else "denied", "rule": rule_json(result.rule)}


def attributes_json(attributes: AttributeContext) -> dict[str, Json]:
    """Who asked for what, as far as it may be shown."""
    source, destination, http = attributes.source, attributes.destination, attributes.http
    workload = destination.workload
    token = attributes.authentication.token
    return {
        "source": {
            "principal": source.principal or None,
            "ip": _known(source.ip),
            "remote_ip": _known(source.remote_ip),
        },
        "destination": {
            "namespace": workload.namespace,
            "labels": dict(sorted(workload.labels)),
            "service_account": workload.service_account or None,
            "ip": _known(destination.ip),
            "port": None if isinstance(destination.port, Unknown) else destination.port,
        },
        "request": {"method": http.method, "host": http.host, "path": http.url_path} if http is not None else None,
        "sni": _known(attributes.sni) or None,
        "token": {"issuer": token.issuer, "subject": token.subject, "rule": token.rule} if token is not None else None,
    }


def _known(value: str | Unknown) -> str | None:
    return None if isinstance(value, Unknown) else value


def explanation_json(explanation: Explanation) -> dict[str, Json]:
    """A decision with all stages and every rule that was considered."""
    return {
        **decision_json(explanation.decision),
        **attributes_json(explanation.attributes),
        "stages": [
            {
                "stage": stage.name,
                "reached": stage.reached,
                "outcome": stage.outcome,
                "rules": [rule_note_json(note) for note in stage.rules],
            }
            for stage in explanation.stages
        ],
        "nearest": rule_note_json(explanation.nearest) if explanation.nearest is not None else None,
    }


def rule_note_json(note: RuleNote) -> dict[str, Json]:
    """One rule with its predicates: of alternatives the one that held or came closest."""
    return {
        "rule": rule_json(note.reference),
        "action": note.action.value,
        "dry_run": note.dry_run,
        "fired": note.fired,
        "predicates": [_predicate_json(predicate) for part in note.parts for predicate in part],
    }


def _predicate_json(note: PredicateNote) -> Json:
    return {
        "path": note.path,
        "key": note.key,
        "holds": note.holds,
        "expected": list(note.expected),
        "excluded": list(note.excluded),
        "actual": list(note.actual) if note.actual is not None else None,
        "note": note.note or None,
        "vouched_by": note.voucher,
    }

"""Policies and their problems as the page shows them: JSON of what is in force."""

from collections.abc import Mapping
from dataclasses import fields

from authz.core.attributes import Json
from authz.core.errors import NOWHERE, Location, Problem
from authz.core.resources import AuthorizationPolicy, Operation, Resources, Rule, Source
from authz.telemetry.status import ReloadStatus

MAX_DOCUMENTS = 2_000


def problem_json(problem: Problem) -> dict[str, Json]:
    """A problem with its place, as the command line tells it."""
    return {
        "severity": problem.severity.value,
        "code": problem.code,
        "message": problem.message,
        "resource": problem.resource,
        "path": problem.path,
        "help": problem.help,
        **_place(problem.location),
    }


def policies_json(resources: Resources, hits: Mapping[tuple[str, str, int], int]) -> dict[str, Json]:
    """The documents in force, rules as written with their hits since the start."""
    return {
        "authorization": [_policy_json(policy, hits) for policy in resources.authorization_policies[:MAX_DOCUMENTS]],
        "authentication": [
            {
                "namespace": item.metadata.namespace,
                "name": item.metadata.name,
                "selector": dict(item.target.match_labels),
                "rules": [
                    {"issuer": rule.issuer, "audiences": list(rule.audiences), "keys": rule.keys_from.partition(":")[0]}
                    for rule in item.jwt_rules
                ],
                **_place(item.metadata.location),
            }
            for item in resources.request_authentications[:MAX_DOCUMENTS]
        ],
        "peers": [
            {
                "namespace": item.metadata.namespace,
                "name": item.metadata.name,
                "selector": dict(item.match_labels),
                "mode": item.mode.value,
                "ports": {str(port): mode.value for port, mode in (item.port_level_mtls or {}).items()},
                **_place(item.metadata.location),
            }
            for item in resources.peer_authentications[:MAX_DOCUMENTS]
        ],
        "truncated": len(resources.authorization_policies) > MAX_DOCUMENTS,
    }


def _policy_json(policy: AuthorizationPolicy, hits: Mapping[tuple[str, str, int], int]) -> dict[str, Json]:
    metadata = policy.metadata
    return {
        "namespace": metadata.namespace,
        "name": metadata.name,
        "action": policy.action.value,
        "provider": policy.provider or None,
        "dry_run": policy.dry_run,
        "selector": dict(policy.target.match_labels),
        "target_refs": [f"{ref.kind}/{ref.name}" for ref in policy.target.target_refs],
        "rules": [
            {
                "index": index,
                "hits": hits.get((metadata.namespace, metadata.name, index), 0),
                **_rule_as_written(rule),
                **_place(rule.location),
            }
            for index, rule in enumerate(policy.rules)
        ],
        **_place(metadata.location),
    }


def _rule_as_written(rule: Rule) -> dict[str, Json]:
    return {
        "from": [_fields_json(source) for source in rule.sources],
        "to": [_fields_json(operation) for operation in rule.operations],
        "when": [{"key": c.key, "values": list(c.values), "notValues": list(c.not_values)} for c in rule.conditions],
    }


def _fields_json(written: Source | Operation) -> dict[str, Json]:
    """Fields that are given, under Istio's names."""
    found: dict[str, Json] = {}
    for one in fields(written):
        values = getattr(written, one.name)
        if values:
            head, *rest = one.name.split("_")
            found[head + "".join(word.capitalize() for word in rest)] = list(values)
    return found


def reload_json(reload: ReloadStatus) -> dict[str, Json]:
    """The last load, and what was wrong with the last change."""
    return {
        "policy_version": reload.policy_version or None,
        "loaded_at": reload.loaded_at or None,
        "reload_ok": reload.is_ok,
        "reloads": {"successes": reload.successes, "failures": reload.failures},
        "problems": [problem_json(problem) for problem in reload.problems],
        "documents": dict(reload.documents),
    }


def _place(location: Location) -> dict[str, Json]:
    is_known = location is not NOWHERE
    return {
        "file": location.file if is_known else None,
        "line": location.line or None,
        "column": location.column or None,
    }

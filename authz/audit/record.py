"""
One decision as one record: the shape that sinks write, ``authz audit`` reads and people search.

A record is a JSON object; ``docs/observability/audit.md`` names every field. It is built off the check path.
INVARIANT: it never holds a token, a cookie, an authorization header, or a query value that was not asked for by name.
This file knows neither sinks nor threads.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from authz.core.attributes import AttributeContext, Authentication, HttpRequest, Json, Unknown
from authz.core.decision import Decision, Effect, RuleReference, Stage
from authz.core.errors import NOWHERE
from authz.core.explain import HIDDEN, PredicateNote, RuleNote

Record = dict[str, Json]
"""One audit record; keys in the order of the documentation."""

MAX_TEXT = 1024
"""Longest text of a field in characters; what a client sends has no other bound."""
_QUERY_NAME = re.compile(r"[A-Za-z0-9_.\[\]-]{1,48}")
_ESCAPED = "…"
_MAX_FAILED = 4
_MAX_VALUES = 8

NEVER_KEPT = frozenset({"access_token", "id_token", "refresh_token", "token", "jwt", "code", "password", "secret"})
"""Query parameters whose values are not recorded even when asked for: they are credentials."""


class Timing(NamedTuple):
    """Something that took time within a decision: token verification, a provider call, a stage."""

    name: str
    """``token.verify``, ``provider.ask``, ``stage.deny``."""
    started_at: float
    """Seconds since the epoch."""
    duration_seconds: float
    detail: str = ""
    """One word for people: the provider's name, the stage's result."""


class Offer(NamedTuple):
    """What the check path hands over: references only, nothing is copied or formatted there."""

    attributes: AttributeContext
    decision: Decision
    decision_id: str
    started_at: float
    """Seconds since the epoch."""
    duration_seconds: float
    cache_hit: bool | None = None
    """Whether the token cache knew the token; None without a token."""
    timings: tuple[Timing, ...] = ()


class TraceIds(NamedTuple):
    """Lower-case hexadecimal ids; empty when there is no trace."""

    trace_id: str = ""
    span_id: str = ""
    """Of our own span when it is sampled, else of Envoy's Check span."""
    parent_id: str = ""
    is_sampled: bool = False


NO_TRACE = TraceIds()


@dataclass(frozen=True, slots=True)
class RecordOptions:
    """What of the request is recorded beyond the defaults."""

    query_values: frozenset[str] = frozenset()
    """Query parameters whose values are recorded; by default only names are. Never those of NEVER_KEPT."""
    user_agent: bool = True


DEFAULT_OPTIONS = RecordOptions()


def build_record(
    offer: Offer,
    trace: TraceIds = NO_TRACE,
    options: RecordOptions = DEFAULT_OPTIONS,
    nearest: RuleNote | None = None,
) -> Record:
    """
    Build the record of one decision.

    Args:
        offer: what the check path handed over.
        trace: our own span, or the parent's when none was sampled.
        options: what of the request is recorded.
        nearest: for a denial because no ALLOW rule matched, the rule that came closest.
    """
    attributes, decision = offer.attributes, offer.decision
    destination = attributes.destination
    workload = destination.workload
    source = attributes.source
    would_deny, would_by = would_be(decision)
    return {
        "decision_id": offer.decision_id,
        "time": rfc3339(offer.started_at),
        "effect": decision.effect.value,
        "stage": decision.stage.value,
        "reason": clean(decision.reason),
        "status": decision.status or None,
        "rule": _rule(decision.rule),
        "nearest": _nearest(nearest) if nearest is not None else None,
        "source": {
            "principal": clean(source.principal),
            "ip": _known(source.ip),
            "remote_ip": _known(source.remote_ip),
            "port": source.port or None,
            "mtls": bool(source.identities),
        },
        "destination": {
            "workload": clean(workload.name),
            "namespace": clean(workload.namespace),
            "service_account": clean(workload.service_account),
            "principal": clean(destination.principal.removeprefix("spiffe://")),
            "ip": _known(destination.ip),
            "port": None if isinstance(destination.port, Unknown) else destination.port,
        },
        "request": _request(attributes.http, attributes.authentication, options) if attributes.http else None,
        "sni": clean(attributes.sni) if isinstance(attributes.sni, str) else None,
        "token": _token(attributes.authentication, offer.cache_hit),
        "audit": decision.audit,
        "audit_rule": _rule(decision.audit_rule),
        "would_deny": would_deny,
        "by": would_by,
        "policy_version": decision.policy_version,
        "trace_id": trace.trace_id,
        "span_id": trace.span_id,
        "x_request_id": _x_request_id(attributes),
        "duration_us": round(offer.duration_seconds * 1e6, 1),
    }


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


def rfc3339(seconds: float) -> str:
    """Render seconds since the epoch as ``2026-01-31T12:00:00.123456Z``."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")[:-6] + "Z"


def clean(text: str) -> str:
    """Shorten to MAX_TEXT and show bytes that are not UTF-8 as ``\\xff``, so that every reader of JSON copes."""
    if len(text) > MAX_TEXT:
        text = text[:MAX_TEXT] + _ESCAPED
    if text.isascii():
        return text
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half a surrogate pair, as JSON escapes in a claim can spell it
        return text.encode("utf-8", "backslashreplace").decode()


def _known(address: str | Unknown) -> str | None:
    return address if isinstance(address, str) else None


def _rule(rule: RuleReference | None) -> Json:
    if rule is None:
        return None
    known = rule.location is not NOWHERE
    return {
        "name": rule.name,
        "namespace": rule.namespace,
        "policy": rule.policy,
        "index": rule.index,
        "file": rule.location.file if known else None,
        "line": rule.location.line if known else None,
    }


def _nearest(note: RuleNote) -> Json:
    """The rule that came closest and what failed in it: the answer to "why not?"."""
    return {
        "rule": note.reference.short,
        "file": note.reference.location.file if note.reference.location is not NOWHERE else None,
        "line": note.reference.location.line or None,
        "failed": [_failed(failed) for failed in note.failed[:_MAX_FAILED]],
    }


def _failed(note: PredicateNote) -> Json:
    """A header value is never recorded: any header may carry a credential of somebody's own making."""
    actual: Json = None
    if note.actual is not None:
        is_hidden = note.key.startswith("request.headers[")
        actual = [HIDDEN if is_hidden else clean(value) for value in note.actual[:_MAX_VALUES]]
    return {
        "field": note.path,
        "key": note.key,
        "expected": [clean(value) for value in note.expected[:_MAX_VALUES]],
        "excluded": [clean(value) for value in note.excluded[:_MAX_VALUES]],
        "actual": actual,
    }


def _request(http: HttpRequest, authentication: Authentication, options: RecordOptions) -> Json:
    path, mark, query = http.path.partition("?")
    if mark:
        path = f"{path.partition('#')[0]}?{_query(query, authentication, options.query_values)}"
    agent = http.headers.get("user-agent", ()) if options.user_agent else ()
    return {
        "method": clean(http.method),
        "host": clean(http.host),
        "path": clean(path.partition("#")[0]),
        "scheme": clean(http.scheme),
        "protocol": clean(http.protocol),
        "id": clean(http.id),
        "size": http.size,
        "user_agent": clean(agent[0][:256]) if agent else None,
    }


def _query(query: str, authentication: Authentication, kept: frozenset[str]) -> str:
    """Names without values, ``page=…``; a piece that is no plain name could itself be a secret and becomes ``…``."""
    pieces = []
    taken = authentication.query_parameters_to_remove
    for piece in query.partition("#")[0].split("&", 32)[:32]:
        name, equals, value = piece.partition("=")
        if not equals or not _QUERY_NAME.fullmatch(name):
            pieces.append(_ESCAPED)
        elif name in kept and name.lower() not in NEVER_KEPT and name not in taken:
            pieces.append(f"{name}={value[:128]}")
        else:
            pieces.append(f"{name}={_ESCAPED}")
    return "&".join(pieces)


def _token(authentication: Authentication, cache_hit: bool | None) -> Json:
    token = authentication.token
    if token is None:
        return None
    return {
        "issuer": clean(token.issuer),
        "subject": clean(token.subject),
        "key_id": clean(token.key_id),
        "digest": token.digest,
        "expires_at": _expiry(token.expires_at),
        "rule": token.rule,
        "cached": cache_hit,
    }


def _expiry(expires_at: float | None) -> str | None:
    """An ``exp`` beyond the calendar is legal in a token; it is recorded as a number."""
    if expires_at is None:
        return None
    try:
        return rfc3339(expires_at)
    except (ValueError, OverflowError, OSError):
        return f"{expires_at:g}"


def _x_request_id(attributes: AttributeContext) -> str | None:
    values = attributes.header("x-request-id")
    return clean(values[0][:128]) if values else None


def read_field(record: Mapping[str, Json], *path: str) -> Json:
    """Read ``record[path[0]][path[1]]…``; None when any part is absent."""
    value: Json = dict(record) if not isinstance(record, dict) else record
    for name in path:
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value

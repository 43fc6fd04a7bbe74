"""
The record of a decision, built plainly: one expression for each member, in the documented order.

The writer of the product puts texts together for speed; this says what they must come to.
"""

import re
from datetime import UTC, datetime, timedelta

from authz.audit.request_fields import NEVER_KEPT, RecordOptions
from authz.core.attributes import AttributeContext, HttpRequest, Json, Token, Unknown
from authz.core.decided import Offer, Record, TraceIds
from authz.core.decision import RuleReference, would_be
from authz.core.errors import NOWHERE
from authz.core.explain import RuleNote


def plain_record(offer: Offer, trace: TraceIds, options: RecordOptions, nearest: RuleNote | None) -> Record:
    decision, attributes = offer.decision, offer.attributes
    http, token = attributes.http, attributes.authentication.token
    would_deny, by = would_be(decision)
    request_id = http.headers.get("x-request-id") if http is not None else None
    candidate: Record = {}
    if offer.candidate is not None:
        result = offer.candidate.result.value
        candidate = {"candidate_result": result}
        if result.startswith("newly"):
            candidate["candidate_effect"] = offer.candidate.effect.value
        if result == "other_status":
            candidate["candidate_status"] = offer.candidate.status
        candidate["candidate_rule"] = rule(offer.candidate.rule)
    return {
        "decision_id": shortened(offer.decision_id),
        "time": moment(offer.started_at),
        "effect": decision.effect.value,
        "stage": decision.stage.value,
        "reason": shortened(decision.reason),
        "status": decision.status or None,
        "rule": rule(decision.rule),
        "nearest": closest(nearest),
        "source": source(attributes),
        "destination": destination(attributes),
        "request": request(http, attributes, options),
        "sni": None if isinstance(attributes.sni, Unknown) else shortened(attributes.sni),
        "token": verified(token, offer.cache_hit),
        "audit": decision.audit,
        "audit_rule": rule(decision.audit_rule),
        "would_deny": would_deny,
        "by": None if by is None else shortened(by),
        "policy_version": shortened(decision.policy_version),
        "trace_id": trace.trace_id,
        "span_id": trace.span_id,
        "x_request_id": shortened(request_id[0][:128]) if request_id else None,
        "duration_us": float(f"{offer.duration_seconds * 1e6:.1f}"),
        **candidate,
    }


def shortened(text: str) -> str:
    """At most 1,024 characters, then an ellipsis; what is not UTF-8 is shown as its bytes."""
    text = text if len(text) <= 1024 else text[:1024] + "…"
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()


def moment(seconds: float) -> str:
    return f"{datetime.fromtimestamp(0, UTC) + timedelta(microseconds=round(seconds * 1e6)):%Y-%m-%dT%H:%M:%S.%fZ}"


def known(address: str | Unknown) -> Json:
    return None if isinstance(address, Unknown) else shortened(address)


def rule(reference: RuleReference | None) -> Json:
    if reference is None:
        return None
    place = None if reference.location is NOWHERE else reference.location
    return {
        "name": shortened(reference.name),
        "namespace": shortened(reference.namespace),
        "policy": shortened(reference.policy),
        "index": reference.index,
        "file": shortened(place.file) if place else None,
        "line": place.line if place else None,
    }


def closest(note: RuleNote | None) -> Json:
    if note is None:
        return None
    place = note.reference.location
    return {
        "rule": note.reference.short,
        "file": None if place is NOWHERE else place.file,
        "line": place.line or None,
        "failed": [
            {
                "field": failed.path,
                "key": failed.key,
                "expected": [shortened(value) for value in failed.expected[:8]],
                "excluded": [shortened(value) for value in failed.excluded[:8]],
                "actual": None
                if failed.actual is None
                else [
                    "(hidden)" if failed.key.startswith("request.headers[") else shortened(value)
                    for value in failed.actual[:8]
                ],
                "note": shortened(failed.note) or None,
            }
            for failed in note.failed[:4]
        ],
    }


def source(attributes: AttributeContext) -> Json:
    peer = attributes.source
    return {
        "principal": shortened(peer.principal),
        "ip": known(peer.ip),
        "remote_ip": known(peer.remote_ip),
        "port": peer.port or None,
        "mtls": None if peer.is_unproven else bool(peer.identities),
    }


def destination(attributes: AttributeContext) -> Json:
    asked, workload = attributes.destination, attributes.destination.workload
    return {
        "workload": shortened(workload.name),
        "namespace": shortened(workload.namespace),
        "labels": {shortened(name): shortened(value) for name, value in sorted(workload.labels)[:64]},
        "service_account": shortened(workload.service_account),
        "principal": shortened(asked.principal.removeprefix("spiffe://")),
        "ip": known(asked.ip),
        "port": None if isinstance(asked.port, Unknown) else asked.port,
        "gateway": asked.is_gateway,
    }


def request(http: HttpRequest | None, attributes: AttributeContext, options: RecordOptions) -> Json:
    if http is None:
        return None
    agent = http.headers.get("user-agent") if options.user_agent else None
    return {
        "method": shortened(http.method),
        "host": shortened(http.host),
        "path": shortened(path(http.path, attributes.authentication.query_parameters_to_remove, options.query_values)),
        "scheme": shortened(http.scheme),
        "protocol": shortened(http.protocol),
        "id": shortened(http.id),
        "size": http.size,
        "user_agent": shortened(agent[0][:256]) if agent else None,
    }


def path(whole: str, taken: tuple[str, ...], kept: frozenset[str]) -> str:
    """The path without its fragment, and of the query the names; values only where asked for by name."""
    before, mark, query = whole.partition("?")
    pieces = []
    for piece in query.split("#")[0].split("&")[:32]:
        name, equals, value = piece.partition("=")
        is_name = bool(equals) and re.fullmatch(r"[A-Za-z0-9_.\[\]-]{1,48}", name) is not None
        is_kept = name in kept and name.lower() not in NEVER_KEPT and name not in taken
        pieces.append((f"{name}={value[:128]}" if is_kept else f"{name}=…") if is_name else "…")
    return before.split("#")[0] + (f"?{'&'.join(pieces)}" if mark else "")


def verified(token: Token | None, cache_hit: bool | None) -> Json:
    if token is None:
        return None
    return {
        "issuer": shortened(token.issuer),
        "subject": shortened(token.subject),
        "key_id": shortened(token.key_id),
        "digest": shortened(token.digest),
        "expires_at": None if token.expires_at is None else expiry(token.expires_at),
        "rule": shortened(token.rule),
        **({"introspected": True} if token.is_introspected else {}),
        "cached": cache_hit,
    }


def expiry(seconds: float) -> str:
    """A number in text where the calendar ends."""
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
    except (ValueError, OverflowError, OSError):
        return f"{seconds:g}"

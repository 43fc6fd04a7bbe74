"""
A decision to Envoy's CheckResponse: the way back of ``check``.

What an answer says is always explicit, because an empty answer allows (XA-75).
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import quote

from google.protobuf.struct_pb2 import Struct

from authz._proto import ext_authz_pb2 as pb
from authz.core.attributes import Json
from authz.core.decision import NO_OBLIGATIONS, Decision, DryRunResult, Effect, Obligations, Stage

CLAIMS_TOLD = "claims"
"""Member of the metadata with the claims that rate limits ask for."""
DECISION_ID_HEADER = "x-authz-decision-id"
DECISION_ID_LENGTH = 24
"""Ids of this length are put into remembered answers; for others the answer is built anew."""
_HEADER_NAME = re.compile(r":?[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_UNSAFE = re.compile(r"[^\t\x20-\x7e]")
_UNSENDABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")
"""Characters that no header value may hold; other text that is not ASCII is sent as UTF-8 (XA-90, RA-48)."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_PATH_SAFE = "".join(chr(code) for code in range(0x21, 0x7F))
_PLACEHOLDER = "\x01" * DECISION_ID_LENGTH
"""Stands for the decision id in remembered answers; control characters occur in no other text of an answer."""
MAX_ANSWERS = 2048
_ANSWERS: dict[int, tuple[Decision, tuple[bytes, ...]]] = {}
"""Answers by the identity of their decision: most requests of a workload get one of a few decisions."""
_OK, _PERMISSION_DENIED, _INTERNAL, _UNAUTHENTICATED = 0, 7, 13, 16


def write_response(decision: Decision, decision_id: str) -> bytes:
    """
    Write the CheckResponse of a decision.

    Status, metadata and id are on every answer, denials included (XA-76, XA-177). Answers differ in little but
    their id, so they are remembered and only the id is put in (XA-199).
    """
    known = _ANSWERS.get(id(decision))
    if known is not None and known[0] is decision and len(decision_id) == DECISION_ID_LENGTH:
        return decision_id.encode().join(known[1])
    rule = decision.rule
    obligations = decision.obligations
    facts = (
        decision.effect,
        decision.stage,
        decision.reason,
        rule.name if rule is not None else "",
        decision.status,
        decision.body,
        decision.headers,
        decision.policy_version,
        decision.audit,
        decision.dry_run_allow,
        decision.dry_run_deny,
    )
    if len(decision_id) != DECISION_ID_LENGTH or obligations.headers_to_set or obligations.rewritten_path is not None:
        return _build(decision_id, obligations, *facts).SerializeToString()
    pieces = _remembered(obligations, *facts)
    if len(_ANSWERS) >= MAX_ANSWERS:
        _ANSWERS.clear()
    _ANSWERS[id(decision)] = (decision, pieces)  # holding the decision keeps its id from being given to another
    return decision_id.encode().join(pieces)


def write_claims(claims: Mapping[str, Json]) -> bytes:
    """
    Claims as dynamic metadata, to be put behind a written response: what stands there twice is one message to Envoy.

    Text that no message can hold is told with question marks, so that it is still one value.
    """
    response = pb.CheckResponse()
    _fill(response.dynamic_metadata.fields[CLAIMS_TOLD].struct_value, claims)
    return response.SerializeToString()


def _fill(struct: Struct, told: Mapping[str, Json]) -> None:
    for name, value in told.items():
        if isinstance(value, dict):
            _fill(struct.fields[name].struct_value, value)
        elif isinstance(value, str):
            struct.fields[name].string_value = value.encode("utf-8", "replace").decode()


def forget_answers() -> None:
    """Let go of the decisions of policies that are no longer in force."""
    _ANSWERS.clear()


@lru_cache(maxsize=MAX_ANSWERS)
def _remembered(obligations: Obligations, *facts: object) -> tuple[bytes, ...]:
    """The pieces of an answer, with the id to go between them."""
    answer = _build(_PLACEHOLDER, obligations, *facts).SerializeToString()  # type: ignore[arg-type]  # facts of above
    return tuple(answer.split(_PLACEHOLDER.encode()))


def _build(
    decision_id: str,
    obligations: Obligations,
    effect: Effect,
    stage: Stage,
    reason: str,
    rule: str,
    status: int,
    body: str,
    headers: tuple[tuple[str, str], ...],
    policy_version: str,
    audit: bool | None,
    dry_run_allow: DryRunResult | None,
    dry_run_deny: DryRunResult | None,
) -> pb.CheckResponse:
    response = pb.CheckResponse()
    if effect is Effect.ALLOW:
        response.status.code = _OK
        _oblige(response.ok_response, obligations)
    else:
        response.status.code = _code(stage, status)
        denied = response.denied_response
        denied.status.code = status if 200 <= status <= 599 and status != 204 else 403  # XA-78
        denied.body = body.encode("utf-8", "replace").decode()
        for name, value in (*headers, (DECISION_ID_HEADER, decision_id)):
            if _HEADER_NAME.fullmatch(name):
                denied.headers.add().header.MergeFrom(_header(name, value, decision_id))
    told: dict[str, str | bool] = {
        "decision": effect.name,
        "decision_id": decision_id,
        "stage": stage.value,
        "rule": rule,
        "reason": _CONTROL.sub(" ", reason).encode("utf-8", "replace").decode(),
        "policy_version": policy_version,
    }
    if audit is not None:
        told["audit"] = audit
    for name, result in (("dry_run_allow", dry_run_allow), ("dry_run_deny", dry_run_deny)):
        if result is not None:
            told[name] = "allowed" if result.effect is Effect.ALLOW else "denied"
            if result.rule is not None:
                told[f"{name}_rule"] = result.rule.name
    for name, fact in told.items():
        if isinstance(fact, bool):
            response.dynamic_metadata.fields[name].bool_value = fact
        else:
            response.dynamic_metadata.fields[name].string_value = fact
    return response


def _code(stage: Stage, status: int) -> int:
    """Any code but 0 denies (XA-77); these let a log be read."""
    if stage is Stage.INTERNAL:
        return _INTERNAL
    return _UNAUTHENTICATED if status == 401 else _PERMISSION_DENIED


def _header(name: str, value: str, decision_id: str) -> pb.HeaderValue:
    """A header towards the client; what cannot stand in one is shown as a question mark (XA-88, XA-90)."""
    return pb.HeaderValue(key=name, value=value if value is decision_id else _UNSAFE.sub("?", value))


def _oblige(answer: pb.OkHttpResponse, obligations: Obligations) -> None:
    """
    Write what Envoy must do with an accepted request: plain "set", remove, rewrite (XA-82, XA-84).

    A value that cannot stand in a header removes the header: a client's own must not survive in its place.
    """
    answer.SetInParent()
    if obligations is NO_OBLIGATIONS:
        return
    removed = [name for name in obligations.headers_to_remove if _HEADER_NAME.fullmatch(name)]
    for name, value in obligations.headers_to_set:
        if not _HEADER_NAME.fullmatch(name):
            continue
        if not _UNSENDABLE.search(value):
            answer.headers.add().header.MergeFrom(pb.HeaderValue(key=name, value=value))
        elif name.startswith(":"):
            raise ValueError(f"the value of `{name}` cannot be written and the header cannot be removed")
        else:
            removed.append(name)
    if obligations.rewritten_path is not None:
        path = quote(obligations.rewritten_path.encode("utf-8", "surrogateescape"), safe=_PATH_SAFE)
        answer.headers.add().header.MergeFrom(pb.HeaderValue(key=":path", value=path))
    else:
        answer.query_parameters_to_remove.extend(obligations.query_parameters_to_remove)
    answer.headers_to_remove.extend(removed)
    for name, value in obligations.response_headers_to_add:
        if _HEADER_NAME.fullmatch(name) and not _UNSAFE.search(value):
            answer.response_headers_to_add.add().header.MergeFrom(pb.HeaderValue(key=name, value=value))

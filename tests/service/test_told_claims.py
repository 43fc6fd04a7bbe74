"""Claims that go back with an answer for the limits that count by them: only those, and only texts."""

from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict

from authz._proto import ext_authz_pb2 as pb
from authz.core.attributes import (
    AttributeContext,
    Authentication,
    AuthenticationOutcome,
    Destination,
    Source,
    Token,
    Workload,
)
from authz.core.decision import Decision, Effect, RuleReference, Stage
from authz.mesh.rate_limits import AppliedLimit, AttributeSelector, LimitScope, LimitUnit, RateLimitRule, ValueMatch
from authz.service.told_claims import ToldClaims
from authz.wire.answer import write_response

WORKLOAD = Workload("app", frozenset({("app", "server")}), "server", "server-v1")
OTHER = Workload("app", frozenset({("app", "other")}), "other", "other-v1")
CLAIMS: dict[str, Any] = {"sub": "jason", "n": 7, "groups": ["a"], "realm": {"name": "books"}, "secret": "no"}


def limits(*names: str) -> tuple[AppliedLimit, ...]:
    selectors = tuple(AttributeSelector(f"request.auth.claims{name}", ValueMatch.DISTINCT) for name in names)
    rule = RateLimitRule(RuleReference("app", "q", 0, "q"), LimitScope.GLOBAL, 1, LimitUnit.DAY, selectors)
    return (AppliedLimit(rule),)


def asking(workload: Workload, claims: dict[str, Any] | None) -> AttributeContext:
    found = Authentication(AuthenticationOutcome.ACCEPTED, Token(claims)) if claims is not None else Authentication()
    return AttributeContext(Source(), Destination(workload), authentication=found)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("[sub]",), {"sub": "jason"}),
        (("[realm][name]", "[sub]"), {"sub": "jason", "realm": {"name": "books"}}),
        (("[n]",), None),
        (("[groups]",), None),
        (("[realm]",), None),
        (("[absent]",), None),
        (("[sub][x]",), None),
        ((), None),
    ],
)
def test_a_proxy_is_told_the_texts_that_its_limits_ask_for(names: tuple[str, ...], told: dict[str, Any] | None) -> None:
    claims = ToldClaims({WORKLOAD: limits(*names)})
    decision = Decision(Effect.ALLOW, Stage.DEFAULT, "why not")
    answer = write_response(decision, "x" * 24) + claims.for_request(asking(WORKLOAD, CLAIMS))
    metadata = MessageToDict(pb.CheckResponse.FromString(answer).dynamic_metadata)
    assert metadata.get("claims") == told
    assert metadata["decision"] == "ALLOW"


def test_a_claim_takes_the_place_of_nothing_that_the_answer_says() -> None:
    names = ("decision", "stage", "rule", "decision_id", "claims")
    claims = ToldClaims({WORKLOAD: limits(*(f"[{name}]" for name in names))})
    decision = Decision(Effect.DENY, Stage.DEFAULT, "why", RuleReference("app", "p", 0, "p"), 403)
    forged = dict.fromkeys(names, "ALLOW")
    answer = write_response(decision, "x" * 24) + claims.for_request(asking(WORKLOAD, forged))
    response = pb.CheckResponse.FromString(answer)
    metadata = MessageToDict(response.dynamic_metadata)
    assert (response.status.code, response.WhichOneof("http_response")) == (7, "denied_response")
    assert [metadata[name] for name in names[:4]] == ["DENY", "default", "p", "x" * 24]
    assert metadata["claims"] == forged


def test_a_token_and_what_was_not_asked_for_are_never_told() -> None:
    told = ToldClaims({WORKLOAD: limits("[sub]")}).for_request(asking(WORKLOAD, CLAIMS | {"raw": "eyJhbGciOi"}))
    assert b"jason" in told
    assert not any(text in told for text in (b"eyJ", b"secret", b"raw", b"books"))


def test_a_workload_without_such_limits_is_told_nothing_and_an_unknown_one_all() -> None:
    claims = ToldClaims({WORKLOAD: limits("[sub]"), OTHER: limits()})
    assert claims.for_request(asking(OTHER, CLAIMS)) == b""
    assert b"jason" in claims.for_request(asking(Workload("app"), CLAIMS))


def test_without_a_verified_token_there_is_nothing_to_tell() -> None:
    assert ToldClaims({WORKLOAD: limits("[sub]")}).for_request(asking(WORKLOAD, None)) == b""


def test_text_that_no_message_can_hold_is_still_one_value() -> None:
    told = ToldClaims({WORKLOAD: limits("[sub]")}).for_request(asking(WORKLOAD, {"sub": "a\ud800"}))
    assert b"a?" in told


def test_without_limits_nothing_is_looked_for() -> None:
    assert not ToldClaims({})
    assert not ToldClaims({WORKLOAD: limits()})

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from authz.audit.omissions import RecordRules, RedactionRule
from authz.audit.writer import build_record
from authz.core.attributes import Json, read_field
from authz.core.decided import Offer
from authz.core.decision import Decision, DryRunResult, Effect

MakeOffer = Callable[..., Offer]


@pytest.mark.parametrize(
    ("rule", "path", "expected"),
    [
        ("$.source.ip", "source.ip", "***"),
        ("$.source.ip:mask", "source.ip", "***"),
        ("$.source.*", "source.principal", "***"),
        ("$..remote_ip", "source.remote_ip", "***"),
        ("$..principal", "destination.principal", "***"),
        ("$.token", "token.subject", "***"),
        ("$.token.*", "token.subject", "***"),
        ("$.token.subject:hash", "token.subject", "hmac:6ad8bf5e037a31d6"),
        ("$.token:remove", "token", None),
        ("$.request.user_agent:remove", "request.user_agent", None),
        ("$.*.ip", "destination.ip", "***"),
        ("$.sni:mask", "sni", "***"),
        ("$.audit", "audit", None),
        ("$.nothing.here", "source.ip", "10.0.0.7"),
        ("$.destination.ip", "source.ip", "10.0.0.7"),
        ("$..*", "decision_id", "d-1"),
        ("$..*", "effect", "deny"),
        ("$..*", "rule.policy", "***"),
    ],
)
def test_a_redaction_changes_what_its_path_names(make_offer: MakeOffer, rule: str, path: str, expected: Json) -> None:
    rules = RecordRules.parse((rule,), hash_key=b"key")
    assert read_field(rules.redact(build_record(make_offer())), *path.split(".")) == expected


def test_a_digest_hides_the_value_and_keeps_equality(make_offer: MakeOffer) -> None:
    one, other = (RecordRules.parse(("$.token.subject:hash",)) for _ in range(2))
    first, second = (read_field(one.redact(build_record(make_offer())), "token", "subject") for _ in range(2))
    assert first == second
    assert first != read_field(other.redact(build_record(make_offer())), "token", "subject")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("source.ip", "`source.ip` is not a redaction: expected a path such as `$.token.subject`, then `:mask`"),
        ("$", "`$` is not a redaction: expected a path such as `$.token.subject`, then `:mask`"),
        ("$.a:burn", "`burn` is not a way to redact: expected mask, remove or hash"),
        ("$.decision_id", "`$.decision_id` would redact a field without which a record cannot be found"),
        ("$.*", "`$.*` would redact a field without which a record cannot be found"),
    ],
)
def test_a_wrong_redaction_says_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        RedactionRule.parse(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("rule", "is_dropped"),
    [
        ("effect=allow", True),
        ("effect=allow,request.path=/healthz", True),
        ("request.path=/health*", True),
        ("request.path=*thz", True),
        ("request.path=*alt*", True),
        ("request.path=/other", False),
        ("source.mtls=true,request.path=/healthz", True),
        ("rule=null", True),
        ("effect=allow,request.method=POST", False),
    ],
)
def test_a_drop_rule_needs_all_of_its_conditions(
    make_offer: MakeOffer, allowed: Decision, rule: str, is_dropped: bool
) -> None:
    record = build_record(make_offer(decision=allowed, http={"path": "/healthz"}))
    assert RecordRules.parse(drop=(rule,)).drops(record) is is_dropped


@pytest.mark.parametrize(
    "changes", [{"effect": Effect.DENY}, {"audit": True}, {"dry_run_deny": DryRunResult(Effect.DENY)}]
)
def test_denials_audited_and_nearly_denied_requests_are_always_kept(
    make_offer: MakeOffer, allowed: Decision, changes: dict[str, Any]
) -> None:
    record = build_record(make_offer(decision=replace(allowed, **changes)))
    assert not RecordRules.parse(drop=("request.method=GET", "effect=deny")).drops(record)


@pytest.mark.parametrize("text", ["effect", "=allow", "a b=c", ""])
def test_a_wrong_drop_rule_says_what_is_wrong(text: str) -> None:
    with pytest.raises(ValueError, match="is not a condition: expected `field=value`, as `effect=allow`"):
        RecordRules.parse(drop=(text,))

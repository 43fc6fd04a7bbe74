import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.audit.entry import encode_record
from authz.audit.record_line import render_line, short_principal, text
from authz.audit.request_fields import RecordOptions
from authz.audit.writer import RecordWriter, build_record
from authz.core.attributes import (
    NOT_AUTHENTICATED,
    UNKNOWN,
    AttributeContext,
    Authentication,
    AuthenticationOutcome,
    Destination,
    HttpRequest,
    Source,
    Token,
    Workload,
    read_field,
)
from authz.core.decided import CandidateAnswer, CandidateResult, Offer, TraceIds
from authz.core.decision import Decision, DryRunResult, Effect, RuleReference, Stage, would_be
from authz.core.errors import NOWHERE, Location
from authz.core.explain import PredicateNote, RuleNote
from authz.core.resources import Action
from tests.audit.plain_record import plain_record

MakeOffer = Callable[..., Offer]
TRIAL = RuleReference("bookinfo", "trial", 1, "ns[bookinfo]-policy[trial]-rule[1]")
DENY, ALLOW = Effect.DENY, Effect.ALLOW


def test_a_record_says_who_asked_what_and_why(make_offer: MakeOffer) -> None:
    record = build_record(make_offer(), TraceIds("a" * 32, "c" * 16))
    assert record == {
        "decision_id": "d-1",
        "time": "2023-11-14T22:13:20.250000Z",
        "effect": "deny",
        "stage": "deny",
        "reason": "DENY rule bookinfo/deny-ratings/0 matched",
        "status": 403,
        "rule": {
            "name": "ns[bookinfo]-policy[deny-ratings]-rule[0]",
            "namespace": "bookinfo",
            "policy": "deny-ratings",
            "index": 0,
            "file": "policies/deny.yaml",
            "line": 7,
        },
        "nearest": None,
        "source": {
            "principal": "cluster.local/ns/bookinfo/sa/productpage",
            "ip": "10.0.0.7",
            "remote_ip": "203.0.113.9",
            "port": 41000,
            "mtls": True,
        },
        "destination": {
            "workload": "reviews-v2",
            "namespace": "bookinfo",
            "labels": {"app": "reviews", "version": "v2"},
            "service_account": "reviews",
            "principal": "cluster.local/ns/bookinfo/sa/reviews",
            "ip": "127.0.0.1",
            "port": 9080,
            "gateway": False,
        },
        "request": {
            "method": "GET",
            "host": "reviews:9080",
            "path": "/reviews/1?page=…&access_token=…",
            "scheme": "http",
            "protocol": "HTTP/1.1",
            "id": "77",
            "size": 0,
            "user_agent": "curl/8",
        },
        "sni": "",
        "token": {
            "issuer": "https://issuer",
            "subject": "jason",
            "key_id": "key-1",
            "digest": "deadbeef",
            "expires_at": "2030-03-17T17:46:40.000000Z",
            "rule": "bookinfo/jwt/0",
            "cached": True,
        },
        "audit": None,
        "audit_rule": None,
        "would_deny": None,
        "by": None,
        "policy_version": "v1",
        "trace_id": "a" * 32,
        "span_id": "c" * 16,
        "x_request_id": "abd51d17-12f1-9d0a-9ce4-000000000000",
        "duration_us": 50.0,
    }


def test_a_record_never_holds_a_token(make_offer: MakeOffer, secret: str) -> None:
    """Neither its whole nor its signature, wherever it stood."""
    options = RecordOptions(query_values=frozenset({"access_token", "page"}))
    line = encode_record(build_record(make_offer(), options=options)).decode()
    assert secret.rpartition(".")[2] not in line
    assert "page=2" in line


@pytest.mark.parametrize(
    ("path", "kept", "recorded"),
    [
        ("/a", (), "/a"),
        ("/a?", (), "/a?…"),
        ("/a?x=1", (), "/a?x=…"),
        ("/a?x=1&y=2", ("y",), "/a?x=…&y=2"),
        ("/a?eyJhbGciOi.J9", (), "/a?…"),
        ("/a?" + "e" * 60 + "=1", (), "/a?…"),
        ("/a?token=1", ("token",), "/a?token=…"),
        ("/a?Access_Token=1", ("Access_Token",), "/a?Access_Token=…"),
        ("/a?access_token=1", ("access_token",), "/a?access_token=…"),
        ("/a#secret", (), "/a"),
        ("/a#secret?x=1", (), "/a?x=…"),
        ("/a?x=1#secret", ("x",), "/a?x=1"),
        ("/" + "a" * 5000, (), "/" + "a" * 1023 + "…"),
        ("", (), ""),
    ],
)
def test_a_path_is_recorded_without_query_values(
    make_offer: MakeOffer, path: str, kept: tuple[str, ...], recorded: str
) -> None:
    record = build_record(make_offer(http={"path": path}), options=RecordOptions(query_values=frozenset(kept)))
    assert read_field(record, "request", "path") == recorded


def test_what_is_unknown_is_null_and_a_connection_has_no_request(make_offer: MakeOffer, denial: Decision) -> None:
    bare = AttributeContext(Source(), Destination(Workload("default")), sni="db.example")
    record = build_record(make_offer(attributes=bare, decision=replace(denial, rule=None), cache_hit=None))
    nulls = [record[n] for n in ("request", "token", "rule", "x_request_id")]
    assert nulls == [None] * 4
    assert read_field(record, "source", "ip") is None
    assert read_field(record, "destination", "port") is None
    assert read_field(record, "source", "mtls") is False
    assert record["sni"] == "db.example"


@pytest.mark.parametrize(
    ("effect", "stage", "dry_deny", "dry_allow", "expected"),
    [
        (ALLOW, Stage.ALLOW, None, None, (None, None)),
        (ALLOW, Stage.ALLOW, DryRunResult(DENY, TRIAL), None, (True, "bookinfo/trial/1")),
        (ALLOW, Stage.ALLOW, DryRunResult(ALLOW), None, (False, None)),
        (ALLOW, Stage.ALLOW, None, DryRunResult(DENY), (False, None)),
        (ALLOW, Stage.DEFAULT, None, DryRunResult(DENY), (True, None)),
        (ALLOW, Stage.DEFAULT, None, DryRunResult(ALLOW, TRIAL), (False, None)),
        (DENY, Stage.ALLOW, None, DryRunResult(ALLOW, TRIAL), (False, "bookinfo/trial/1")),
        (DENY, Stage.ALLOW, DryRunResult(DENY, TRIAL), DryRunResult(ALLOW, TRIAL), (True, "bookinfo/trial/1")),
        (DENY, Stage.ALLOW, None, DryRunResult(DENY), (True, None)),
        (DENY, Stage.DENY, DryRunResult(ALLOW), None, (True, None)),
    ],
)
def test_dry_run_results_become_one_answer(
    effect: Effect,
    stage: Stage,
    dry_deny: DryRunResult | None,
    dry_allow: DryRunResult | None,
    expected: tuple[bool | None, str | None],
) -> None:
    decision = Decision(effect, stage, "", dry_run_deny=dry_deny, dry_run_allow=dry_allow)
    assert would_be(decision) == expected


@given(st.text(alphabet=st.characters(codec=None), max_size=200), st.integers(-(2**70), 2**70), st.text(max_size=40))
def test_any_request_gives_one_line_of_strict_json(path: str, size: int, subject: str) -> None:
    request = HttpRequest("GET", subject, path, {"user-agent": (path,)}, size=size)
    attributes = AttributeContext(Source((subject,), subject), Destination(Workload("n", name=path)), request)
    line = encode_record(build_record(Offer(attributes, Decision(ALLOW, Stage.ALLOW, path), subject, 0.0, 0.0)))
    assert b"\n" not in line
    assert json.loads(line)["decision_id"] == subject


def with_text(http: HttpRequest, field: str, text: str) -> HttpRequest:
    values: dict[str, Any] = {field: text}
    return replace(http, **values)


def test_what_a_writer_remembers_is_never_told_of_another_request(make_offer: MakeOffer, allowed: Decision) -> None:
    """One writer for everything, as in the service, says what a new one says, the second time as the first."""
    offer = make_offer()
    attributes, http = offer.attributes, offer.attributes.http
    assert http is not None
    long = "x" * 5_000
    taken = replace(attributes.authentication, query_parameters_to_remove=("page",))
    changes: list[dict[str, Any]] = [
        {},
        {"sni": "reviews"},
        {"sni": UNKNOWN},
        {"sni": long},
        {"sni": '"}'},
        {"authentication": NOT_AUTHENTICATED},
        {"authentication": taken},
        {"source": Source(("spiffe://a/ns/b/sa/c",), "10.0.0.1")},
        {"destination": Destination(Workload("other", name="w"))},
        {"http": None},
        *({"http": with_text(http, field, text)} for field in ("method", "host", "path", "scheme", "protocol", "id")
          for text in ("", long, '"quoted"', "/p?page=1&token=2", "\udcff")),
        *({"http": replace(http, headers={"user-agent": agents})} for agents in ((), ("",), (long,), ("a", "b"))),
    ]  # fmt: skip
    options = RecordOptions(query_values=frozenset({"page"}))
    offers = [
        offer._replace(attributes=replace(attributes, **change), decision=decision, cache_hit=hit)
        for change in changes
        for decision in (offer.decision, allowed)
        for hit in (None, True, False)
    ]
    writer = RecordWriter(options)
    for _ in range(2):
        for one in offers:
            assert writer.write(one) == RecordWriter(options).write(one)


TEXTS = st.text(alphabet=st.characters(codec=None), max_size=40) | st.sampled_from(["x" * 1025, "ä" * 1024, '"}', ""])
QUERIES = st.lists(st.sampled_from(["page=1", "token=2", "e", "=", "a b=c", "page", "x=1#y", "?", "page=" + "9" * 130]))


@given(
    st.lists(TEXTS, min_size=9, max_size=9),
    QUERIES,
    st.sampled_from([UNKNOWN, "", "10.0.0.1"]),
    st.floats(0, 4e9).map(lambda seconds: round(seconds, 6)),
    st.sampled_from([None, True, False]),
)
def test_a_record_is_what_the_plain_builder_says(
    texts: list[str], query: list[str], ip: Any, at: float, hit: bool | None
) -> None:
    """Members, their order and their values, against a second way to make them that shares no code."""
    a, b, c, d, e, f, g, h, i = texts
    token = Token({}, a, b, c, d, at, e) if hit is not None else None
    rule = RuleReference(a, b, 3, c, Location(d, 7, 1) if hit else NOWHERE)
    headers = {"user-agent": (f,), "x-request-id": (g,)} if h else {}
    attributes = AttributeContext(
        Source((f"spiffe://{a}",) if b else (), ip, h, len(c)),
        Destination(Workload(a, name=b, service_account=c), ip, UNKNOWN if d else 9080, f"spiffe://{e}"),
        HttpRequest(a, b, f"{c}?{'&'.join(query)}" if query else c, headers, d, e, f, len(i)) if i else None,
        sni=g if d else UNKNOWN,
        authentication=replace(NOT_AUTHENTICATED, token=token, query_parameters_to_remove=("x",)),
    )
    decision = Decision(DENY, Stage.ALLOW, h, rule, len(a), audit=hit, audit_rule=rule if hit else None,
                        dry_run_deny=DryRunResult(DENY, TRIAL) if hit else None, policy_version=i)  # fmt: skip
    key = "request.headers[x]" if b else "source.ip"
    note = PredicateNote(a, key, False, (c,) * 9, (d,), (e, f) if g else None, "")
    nearest = RuleNote(rule, Action.ALLOW, False, False, ((note,) * 5,))
    options = RecordOptions(query_values=frozenset({"page", "token", "x"}), user_agent=bool(c))
    result = list(CandidateResult)[len(a) % 4]
    answer = CandidateAnswer(result, ALLOW if c else DENY, rule if d else None, len(b))
    candidate = answer if hit is not None else None
    offer = Offer(attributes, decision, a, at, 0.00012345, hit, (), candidate)
    trace = TraceIds("a" * 32, "b" * 16)
    written = json.loads(RecordWriter(options).write(offer, trace, nearest))
    expected = plain_record(offer, trace, options, nearest)
    assert json.dumps(written) == json.dumps(expected)


def test_a_writer_remembers_a_bounded_number_of_bounded_texts(make_offer: MakeOffer) -> None:
    offer = make_offer()
    offer = offer._replace(attributes=replace(offer.attributes, authentication=NOT_AUTHENTICATED))
    writer = RecordWriter()
    for number in range(5_000):
        http = HttpRequest("GET", f"host-{number}", f"/{number}", {"user-agent": (f"agent-{number}",)})
        writer.write(offer._replace(attributes=replace(offer.attributes, http=http, sni=f"name-{number}")))
    long = "x" * 100_000
    http = HttpRequest("GET", long, long, {"user-agent": (long,)}, long)
    writer.write(offer._replace(attributes=replace(offer.attributes, http=http, sni=long)))
    before = len(writer._kinds)
    accepted = Authentication(AuthenticationOutcome.ACCEPTED, Token({"sub": long}))
    writer.write(offer._replace(attributes=replace(offer.attributes, authentication=accepted)))
    writer.write(offer._replace(attributes=replace(offer.attributes, source=Source((long,)))))
    assert len(writer._kinds) == before
    remembered: list[Mapping[Any, object]] = [writer._kinds, writer._forms, writer._paths]  # private: nothing shows it
    assert [0 < len(known) <= 4_096 for known in remembered] == [True] * 3
    assert not any(long in str(key) for known in remembered for key in known)


def test_bytes_that_are_not_utf8_are_shown_and_stay_different(make_offer: MakeOffer) -> None:
    paths = [f"/{b.decode('utf-8', 'surrogateescape')}" for b in (b"\xff", b"\xfe", "ä".encode())]
    paths.append("/\ud800")
    records = [build_record(make_offer(http={"path": path})) for path in paths]
    assert [read_field(r, "request", "path") for r in records] == ["/\\xff", "/\\xfe", "/ä", "/\\ud800"]


@pytest.mark.parametrize("expiry", [1e300, -1e300, float("inf")])
def test_an_expiry_beyond_the_calendar_is_recorded(make_offer: MakeOffer, expiry: float) -> None:
    offer = make_offer()
    token = offer.attributes.authentication.token
    assert token is not None
    authentication = replace(offer.attributes.authentication, token=replace(token, expires_at=expiry))
    record = build_record(offer._replace(attributes=replace(offer.attributes, authentication=authentication)))
    assert read_field(record, "token", "expires_at") == f"{expiry:g}"


def test_a_line_for_people_says_it_all(make_offer: MakeOffer) -> None:
    assert render_line(build_record(make_offer(http={"path": "/reviews/1"}))) == (
        "22:13:20.250  DENY   productpage.bookinfo → reviews-v2.bookinfo:9080  GET /reviews/1  "
        "403 DENY rule bookinfo/deny-ratings/0 matched (policies/deny.yaml:7)  d-1"
    )


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"audit": True}, "[audited]"),
        ({"dry_run_deny": DryRunResult(DENY, TRIAL)}, "[dry run: would deny by bookinfo/trial/1]"),
        ({"effect": DENY, "stage": Stage.ALLOW, "dry_run_allow": DryRunResult(ALLOW, TRIAL)}, "[dry run: would allow"),
        ({"reason": "\x1b[31mred\r\n"}, "\\x1b[31mred\\r\\n"),
    ],
)
def test_a_line_for_people_shows(make_offer: MakeOffer, allowed: Decision, changes: dict[str, Any], part: str) -> None:
    line = render_line(build_record(make_offer(decision=replace(allowed, **changes))))
    assert part in line
    assert line.isprintable()


def test_a_line_for_people_names_the_person_of_a_token_and_the_rule_that_came_closest(make_offer: MakeOffer) -> None:
    record = build_record(make_offer())
    record |= {"source": {"ip": "10.0.0.7"}, "nearest": {"rule": "shop/reads/0", "failed": []}}
    line = render_line(record)
    assert "  jason(10.0.0.7) → " in line
    assert "[nearest: shop/reads/0]" in line


def test_a_line_for_people_copes_with_any_record() -> None:
    assert render_line({}) == "       anonymous → ?  TCP"
    assert text("a\x00\u202e") == "a\\x00\\u202e"
    assert short_principal("example.org/other") == "example.org/other"

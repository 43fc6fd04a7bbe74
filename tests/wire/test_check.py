"""Bytes of Envoy to nouns and back, by tables."""

from typing import Any

import pytest
from google.protobuf.message import DecodeError

from authz._proto import ext_authz_pb2 as pb
from authz.core.attributes import UNKNOWN, AttributeContext, Workload
from authz.core.decision import (
    FORBIDDEN_BODY,
    Decision,
    DryRunResult,
    Effect,
    Obligations,
    RuleReference,
    Stage,
)
from authz.wire.answer import MAX_ANSWERS, write_response
from authz.wire.check import read_attributes
from tests.service.messages import CALLER, LABELS, OWN, check_request, peer, response, told

ID = "0123456789abcdef01234567"
RULE = RuleReference("shop", "p", 0, "ns[shop]-policy[p]-rule[0]")


def read(
    metadata: tuple[tuple[str, str | bytes], ...] = (), trusted_proxies: int = 0, **changes: Any
) -> AttributeContext:
    return read_attributes(check_request(**changes), metadata, trusted_proxies=trusted_proxies)


def test_a_whole_request_is_read() -> None:
    attributes = read(
        (
            ("x-authz-remote-ip", "203.0.113.7"),
            ("x-authz-direct-ip", "10.8.8.8"),
            ("traceparent", "00-aa-bb-01"),
            ("x-forwarded-for", "192.0.2.1"),
        ),
        method="POST",
        path="/a?b=c",
        headers=[("x-a", "1"), ("x-b", "2")],
        sni="API.example.com",
        extensions={"any": "thing"},
    )
    assert attributes.source.identities == (CALLER,)
    assert (attributes.source.ip, attributes.source.remote_ip, attributes.source.port) == (
        "10.8.8.8",
        "203.0.113.7",
        40000,
    )
    assert attributes.destination.workload == Workload("shop", frozenset({("app", "api")}), "api", "api-v1")
    assert (attributes.destination.ip, attributes.destination.port) == ("10.1.0.5", 8080)
    assert attributes.destination.principal == OWN
    http = attributes.http
    assert http is not None
    assert (http.method, http.host, http.path, http.url_path) == ("POST", "api.example.com", "/a?b=c", "/a")
    assert (http.scheme, http.protocol, http.id) == ("http", "HTTP/1.1", "11280866086404753152")
    assert http.headers == {
        ":authority": ("api.example.com",),
        ":path": ("/a?b=c",),
        ":method": ("POST",),
        ":scheme": ("http",),
        "x-a": ("1",),
        "x-b": ("2",),
    }
    assert attributes.sni == "api.example.com"
    assert attributes.metadata == {}
    assert attributes.context_extensions == {"any": "thing"}
    assert attributes.trace_parent == "00-aa-bb-01"


@pytest.mark.parametrize(
    ("headers", "name", "expected"),
    [
        ([("x-a", "1"), ("x-b", "2"), ("x-a", "3")], "x-a", ("1", "3")),
        ([("x-a", "")], "x-a", ("",)),
        ([("x-a", "é")], "x-a", ("é",)),
        ([("x-a", b"\xff\xfe")], "x-a", ("\udcff\udcfe",)),
        ([("x-a", b"\xff"), ("x-a", "1")], "x-a", ("\udcff", "1")),
        ([("x-a", "1,2")], "x-a", ("1,2",)),
        ([("x-a", "1")], "x-b", ()),
    ],
)
def test_each_occurrence_of_a_header_is_kept(
    headers: list[tuple[str, str | bytes]], name: str, expected: tuple[str, ...]
) -> None:
    assert read(headers=headers).header(name) == expected


def test_merged_headers_are_read_where_raw_ones_are_missing() -> None:
    attributes = read(merged={"x-a": "1,2"}, path="/p", method="PUT")
    assert attributes.http is not None
    assert attributes.http.headers == {
        "x-a": ("1,2",),
        ":method": ("PUT",),
        ":authority": ("api.example.com",),
        ":path": ("/p",),
    }


@pytest.mark.parametrize(
    ("metadata", "changes", "ip", "remote_ip"),
    [
        ((), {}, "10.9.9.9", "10.9.9.9"),
        ((), {"headers": [("x-forwarded-for", "1.1.1.1,2.2.2.2")]}, "10.9.9.9", "2.2.2.2"),
        ((), {"headers": [("x-forwarded-for", "nonsense")]}, "10.9.9.9", "10.9.9.9"),
        ((("x-authz-remote-ip", "3.3.3.3"),), {"headers": [("x-forwarded-for", "2.2.2.2")]}, "10.9.9.9", "3.3.3.3"),
        ((("x-authz-remote-ip", "@/run/x.sock"),), {}, "10.9.9.9", UNKNOWN),
        ((("x-authz-remote-ip", b"3.3.3.3"),), {}, "10.9.9.9", UNKNOWN),
        ((("x-authz-direct-ip", "4.4.4.4"),), {"tcp": True}, "4.4.4.4", "4.4.4.4"),
        ((("x-authz-direct-ip", "/run/x.sock"),), {"tcp": True}, UNKNOWN, UNKNOWN),
        ((), {"source": peer(CALLER, None)}, UNKNOWN, UNKNOWN),
        ((), {"source": peer(CALLER, None), "tcp": True}, UNKNOWN, UNKNOWN),
        ((), {"source": peer(CALLER, None), "headers": [("x-forwarded-for", "2.2.2.2")]}, UNKNOWN, "2.2.2.2"),
        ((), {"source": peer(CALLER, "fd00::1")}, "fd00::1", "fd00::1"),
    ],
)
def test_addresses(
    metadata: tuple[tuple[str, str | bytes], ...], changes: dict[str, Any], ip: object, remote_ip: object
) -> None:
    source = read(metadata, **changes).source
    assert (source.ip, source.remote_ip) == (ip, remote_ip)


@pytest.mark.parametrize(("trusted_proxies", "expected"), [(0, "10.9.9.9"), (1, "1.1.1.1"), (2, "10.9.9.9")])
def test_a_gateway_trusts_as_many_proxies_as_it_was_told(trusted_proxies: int, expected: str) -> None:
    gateway = peer(OWN, "10.1.0.5", 443, {**LABELS, "authz/proxy": "gateway"})
    attributes = read((), trusted_proxies, destination=gateway, headers=[("x-forwarded-for", "1.1.1.1,10.9.9.9")])
    assert attributes.source.remote_ip == expected


@pytest.mark.parametrize(("sni", "expected"), [(None, UNKNOWN), ("", ""), ("A.Example", "a.example")])
def test_server_name_is_unknown_only_when_envoy_was_not_told_to_send_it(sni: str | None, expected: object) -> None:
    assert read(sni=sni).sni == expected


@pytest.mark.parametrize(
    ("destination", "extensions", "expected"),
    [
        (peer(OWN, labels=LABELS), {}, Workload("shop", frozenset({("app", "api")}), "api", "api-v1")),
        (
            peer(OWN, labels=LABELS),
            {"namespace": "n", "service_account": "s", "workload": "w"},
            Workload("n", frozenset({("app", "api")}), "s", "w"),
        ),
        (peer(OWN), {}, Workload("shop", frozenset(), "api")),
        (peer(""), {"namespace": "n"}, Workload("n")),
        (peer(""), {}, Workload("")),
        (peer("bookinfo.example"), {}, Workload("")),
        (peer("", labels={"authz/namespace": "n", "authz/other": "x"}), {}, Workload("n")),
    ],
)
def test_who_asks(destination: bytes, extensions: dict[str, str], expected: Workload) -> None:
    assert read(destination=destination, extensions=extensions).destination.workload == expected


def test_behind_a_unix_socket_address_and_port_are_unknown() -> None:
    destination = read(destination=peer(OWN, None, labels=LABELS)).destination
    assert (destination.ip, destination.port) == (UNKNOWN, UNKNOWN)


def test_a_message_without_request_is_tcp() -> None:
    attributes = read(tcp=True)
    assert attributes.http is None
    assert attributes.source.identities == (CALLER,)


def test_metadata_of_filters_is_read_as_plain_values() -> None:
    metadata = {"envoy.filters.http.jwt_authn": {"p": {"sub": "a", "n": 1.0, "l": ["x", None, True]}}}
    assert read(dynamic=metadata).metadata == metadata


def test_only_namespaces_that_are_delivered_are_known() -> None:
    """CS-8, CS-12: what Envoy was not told to send is not in the mapping, and so unknown."""
    message = check_request(dynamic={"sent": {"a": "b"}})

    assert read_attributes(message, delivered={"told": {}}).metadata == {"told": {}, "sent": {"a": "b"}}
    assert read_attributes(check_request(), delivered={"told": {}}).metadata == {"told": {}}


def test_the_certificate_is_decoded() -> None:
    source = peer(CALLER, certificate="-----BEGIN%20CERTIFICATE-----%0AMII%2B%3D%0A")
    assert read(source=source).certificate == "-----BEGIN CERTIFICATE-----\nMII+=\n"


@pytest.mark.parametrize(
    ("metadata", "headers", "expected"),
    [
        ((("traceparent", "m"),), [("traceparent", "h")], "m"),
        ((), [("traceparent", "h")], "h"),
        ((), [], ""),
    ],
)
def test_the_trace_is_that_of_the_call_before_that_of_the_request(
    metadata: tuple[tuple[str, str | bytes], ...], headers: list[tuple[str, str | bytes]], expected: str
) -> None:
    assert read(metadata, headers=headers).trace_parent == expected


def test_the_state_of_the_trace_is_that_of_the_call_alone() -> None:
    assert (
        read((("traceparent", "p"), ("tracestate", "rojo=1")), headers=[("tracestate", "h=2")]).trace_state == "rojo=1"
    )
    assert read((), headers=[("traceparent", "h"), ("tracestate", "h=2")]).trace_state == ""


def test_bytes_that_are_no_utf8_are_kept_apart_in_every_text() -> None:
    message = check_request(path="/AAAA", source=peer("spiffe://td/ns/n/sa/BBBB"))
    message = message.replace(b"/AAAA", b"/\xff\xfe\xfd\xfc").replace(b"BBBB", b"\xff\xfe\xfd\xfc")
    attributes = read_attributes(message)
    assert attributes.http is not None
    assert attributes.http.path == "/\udcff\udcfe\udcfd\udcfc"
    assert attributes.source.identities == ("spiffe://td/ns/n/sa/\udcff\udcfe\udcfd\udcfc",)


@pytest.mark.parametrize("message", [b"\xff", check_request()[:-3], check_request() + b"\x07"])
def test_what_is_no_message_raises(message: bytes) -> None:
    with pytest.raises(DecodeError):
        read_attributes(message)


def test_an_empty_message_has_no_facts() -> None:
    attributes = read_attributes(b"")
    assert attributes.source.identities == ()
    assert attributes.source.ip is UNKNOWN
    assert attributes.destination.workload == Workload("")
    assert attributes.sni is UNKNOWN


# --- answers -----------------------------------------------------------------------------------------------------


def allow(**changes: Any) -> Decision:
    return Decision(**{"effect": Effect.ALLOW, "stage": Stage.ALLOW, "reason": "r", "rule": RULE, **changes})


def deny(**changes: Any) -> Decision:
    facts = {"effect": Effect.DENY, "stage": Stage.DENY, "reason": "r", "status": 403, "body": FORBIDDEN_BODY}
    return Decision(**{**facts, **changes})


def write(decision: Decision, decision_id: str = ID) -> pb.CheckResponse:
    return response(write_response(decision, decision_id))


def headers(options: Any) -> list[tuple[str, str]]:
    for option in options:
        assert not option.HasField("append"), "plain set only (XA-82)"
    return [(option.header.key, option.header.value) for option in options]


def test_an_acceptance_says_so_and_why() -> None:
    answer = write(allow(policy_version="v1"))
    assert answer.HasField("status")
    assert answer.status.code == 0
    assert answer.WhichOneof("http_response") == "ok_response"
    assert told(answer) == {
        "decision": "ALLOW",
        "decision_id": ID,
        "stage": "allow",
        "rule": RULE.name,
        "reason": "r",
        "policy_version": "v1",
    }


@pytest.mark.parametrize(
    ("decision", "code", "status", "body"),
    [
        (deny(), 7, 403, FORBIDDEN_BODY),
        (deny(stage=Stage.JWT, status=401, body="Jwt is expired"), 16, 401, "Jwt is expired"),
        (deny(stage=Stage.INTERNAL, status=503, body=""), 13, 503, ""),
        (deny(stage=Stage.NORMALIZATION, status=400, body=""), 7, 400, ""),
        (deny(status=0), 7, 403, FORBIDDEN_BODY),
        (deny(status=100), 7, 403, FORBIDDEN_BODY),
        (deny(status=204), 7, 403, FORBIDDEN_BODY),
        (deny(status=302, body=""), 7, 302, ""),
        (deny(body="\udcff"), 7, 403, "?"),
    ],
)
def test_a_denial_is_denied_by_code_and_status(decision: Decision, code: int, status: int, body: str) -> None:
    answer = write(decision)
    assert answer.status.code == code
    assert answer.WhichOneof("http_response") == "denied_response"
    assert (answer.denied_response.status.code, answer.denied_response.body) == (status, body)
    assert headers(answer.denied_response.headers)[-1] == ("x-authz-decision-id", ID)
    assert told(answer)["decision"] == "DENY"


@pytest.mark.parametrize(
    ("name", "value", "written"),
    [
        ("www-authenticate", 'Bearer realm="x"', [("www-authenticate", 'Bearer realm="x"')]),
        ("x-a", "a\r\nx-injected: 1", [("x-a", "a??x-injected: 1")]),
        ("x-a", "\x00é", [("x-a", "??")]),
        ("x a", "1", []),
        ("x-a\r\n", "1", []),
        ("", "1", []),
    ],
)
def test_headers_of_a_denial_cannot_split_the_answer(name: str, value: str, written: list[tuple[str, str]]) -> None:
    assert headers(write(deny(headers=((name, value),))).denied_response.headers)[:-1] == written


@pytest.mark.parametrize(
    ("obligations", "set_", "removed", "parameters"),
    [
        (Obligations(), [], [], []),
        (
            Obligations((("x-a", "1"),), ("authorization",), ("access_token",)),
            [("x-a", "1")],
            ["authorization"],
            ["access_token"],
        ),
        (Obligations((("x-a", "1\r\nx-b: 2"),)), [], ["x-a"], []),
        (Obligations((("x-a", "é"),)), [("x-a", "é")], [], []),
        (Obligations((("x-a", "\x7f"),)), [], ["x-a"], []),
        (Obligations((("x-a", "\udcff"),)), [], ["x-a"], []),
        (Obligations((("bad name", "1"),)), [], [], []),
        (Obligations((), ("bad name", "x-a")), [], ["x-a"], []),
        (
            Obligations(query_parameters_to_remove=("t",), rewritten_path="/p?a=b c\n"),
            [(":path", "/p?a=b%20c%0A")],
            [],
            [],
        ),
        (Obligations(query_parameters_to_remove=("t",), rewritten_path="/p"), [(":path", "/p")], [], []),
    ],
)
def test_obligations_are_plain_sets_and_removals(
    obligations: Obligations, set_: list[tuple[str, str]], removed: list[str], parameters: list[str]
) -> None:
    ok = write(allow(obligations=obligations)).ok_response
    assert headers(ok.headers) == set_
    assert list(ok.headers_to_remove) == removed
    assert list(ok.query_parameters_to_remove) == parameters


def test_headers_towards_the_client_are_added() -> None:
    obligations = Obligations(response_headers_to_add=(("x-a", "1"), ("x-b", "\n")))
    assert headers(write(allow(obligations=obligations)).ok_response.response_headers_to_add) == [("x-a", "1")]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"audit": True}, {"audit": True}),
        ({"audit": False}, {"audit": False}),
        (
            {"dry_run_allow": DryRunResult(Effect.ALLOW, RULE)},
            {"dry_run_allow": "allowed", "dry_run_allow_rule": RULE.name},
        ),
        ({"dry_run_deny": DryRunResult(Effect.ALLOW)}, {"dry_run_deny": "allowed"}),
        (
            {"dry_run_deny": DryRunResult(Effect.DENY, RULE)},
            {"dry_run_deny": "denied", "dry_run_deny_rule": RULE.name},
        ),
    ],
)
def test_audit_and_dry_run_are_told(changes: dict[str, Any], expected: dict[str, object]) -> None:
    for decision in (allow(**changes), deny(**changes)):
        facts = told(write(decision))
        assert {name: facts[name] for name in facts if name.startswith(("audit", "dry_run"))} == expected


def test_control_characters_never_reach_the_log() -> None:
    assert told(write(deny(reason="a\nb\udcff")))["reason"] == "a b?"


@pytest.mark.parametrize("decision", [allow(), deny(), allow(obligations=Obligations((("x-a", "1"),)))])
def test_remembered_answers_are_those_that_would_be_built(decision: Decision) -> None:
    first, again, other = (write(decision, name) for name in (ID, ID, "short"))
    assert first == again
    assert told(first)["decision_id"] == ID
    assert told(other)["decision_id"] == "short"


def test_each_of_very_many_decisions_has_its_own_answer() -> None:
    """An answer is found by the identity of its decision, and a decision that is gone leaves its identity to others."""
    for number in range(2 * MAX_ANSWERS):
        assert told(write(deny(reason=f"reason {number}")))["reason"] == f"reason {number}"


def test_a_pseudo_header_that_cannot_be_written_is_our_failure() -> None:
    with pytest.raises(ValueError, match=":path"):
        write(allow(obligations=Obligations(((":path", "/\r\n"),))))

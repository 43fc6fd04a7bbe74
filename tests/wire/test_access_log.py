"""Access log entries as nouns: what is read, what is unknown, and what is refused."""

import json
from typing import Any

import pytest

from authz.core.attributes import UNKNOWN, AuthenticationOutcome
from authz.envoy.native.record_log import http_file_log
from tests.wire.lines import SUBJECT, read


def test_who_where_and_when() -> None:
    entry = read()
    assert entry.attributes.destination.workload == SUBJECT.workload
    assert (entry.attributes.destination.ip, entry.attributes.destination.port) == ("127.0.0.1", 9080)
    assert (entry.attributes.source.ip, entry.attributes.source.port) == ("10.0.0.7", 41000)
    assert entry.attributes.source.remote_ip == "203.0.113.9"
    assert (entry.proxy, entry.listener, entry.decision_id) == ("reviews-v1", "inbound_9080", "38a37674")
    assert (entry.started_at, entry.ended_at) == (1_700_000_000.25, 1_700_000_000.253)


@pytest.mark.parametrize(
    ("facts", "identities"),
    [
        ({}, ()),
        ({"peer": "spiffe://td/ns/a/sa/b"}, ("spiffe://td/ns/a/sa/b",)),
        ({"peer": "spiffe://td/a,spiffe://td/b", "dns": "c"}, ("spiffe://td/a", "spiffe://td/b")),
        ({"dns": "a.test,b.test", "peer_subject": "CN=a"}, ("a.test", "b.test")),
        ({"peer_subject": "CN=a,O=b"}, ("CN=a,O=b",)),
    ],
)
def test_identities_are_uri_names_else_dns_names_else_the_subject(
    facts: dict[str, str], identities: tuple[str, ...]
) -> None:
    assert read(**facts).attributes.source.identities == identities


@pytest.mark.parametrize(
    ("text", "ip", "port"),
    [("[2001:db8::1]:443", "2001:db8::1", 443), ("/run/envoy.sock", UNKNOWN, UNKNOWN), (None, UNKNOWN, UNKNOWN)],
)
def test_an_address_that_is_none_is_unknown(text: str | None, ip: object, port: object) -> None:
    destination = read(local=text).attributes.destination
    assert (destination.ip, destination.port) == (ip, port)


def test_headers_that_were_absent_are_absent() -> None:
    assert read().attributes.header("x-team") == ()
    assert read(headers={"x-team": "red"}).attributes.header("x-team") == ("red",)


def test_a_token_is_its_claims() -> None:
    claims = {"exp": 1_900_000_000, "groups": ["admin"], "iss": "https://issuer", "sub": "jason"}
    found = read(claims=claims, kid="k1").attributes.authentication
    assert found.outcome is AuthenticationOutcome.ACCEPTED
    assert found.token is not None
    assert (found.token.issuer, found.token.subject, found.token.key_id) == ("https://issuer", "jason", "k1")
    assert found.token.claims["groups"] == ["admin"]
    assert found is read(claims=claims, kid="k1").attributes.authentication  # remembered


def test_a_refused_token_is_told_as_the_client_was() -> None:
    entry = read(code=401, details="jwt_authn_access_denied{Jwt_is_expired}")
    found = entry.attributes.authentication
    assert (found.outcome, found.status, found.body) == (AuthenticationOutcome.REJECTED, 401, "Jwt is expired")
    assert entry.enforced.denied_by == "jwt"


@pytest.mark.parametrize(
    ("details", "denied_by", "matched"),
    [
        ("via_upstream", "", ""),
        ("rbac_access_denied_matched_policy[none]", "rbac", ""),
        ("rbac_access_denied_matched_policy[ns[a]-policy[b]-rule[0]]", "rbac", "ns[a]-policy[b]-rule[0]"),
        ("ext_authz_denied", "custom", ""),
        ("ext_authz_error", "custom", ""),
    ],
)
def test_what_denied_is_read_from_the_details(details: str, denied_by: str, matched: str) -> None:
    enforced = read(details=details).enforced
    assert (enforced.denied_by, enforced.matched, enforced.is_denied) == (denied_by, matched, bool(denied_by))


@pytest.mark.parametrize(
    ("facts", "is_decided"),
    [
        ({}, True),
        ({"rbac": None}, True),
        ({"rbac": None, "method": None, "details": "http1.codec_error", "code": 400}, False),
        ({"rbac": None, "details": "missing_host_header", "code": 400}, False),
        ({"rbac": None, "details": "rbac_access_denied_matched_policy[none]", "code": 403}, True),
        ({"rbac": None, "details": "oauth.missing_credentials", "code": 302}, False),
        ({"rbac": None, "details": "oauth.logged_in", "code": 302}, False),
        ({"rbac": None, "details": "CSRF_token_validation_failed", "code": 401, "version": None}, False),
        ({"rbac": None, "details": "jwt_authn_access_denied{Jwt_is_expired}", "code": 401, "version": None}, True),
        ({"rbac": None, "details": "via_upstream", "code": 401, "version": None}, True),
        ({"rbac": None, "details": "direct_response", "code": 401, "version": "0123456789ab"}, True),
    ],
)
def test_what_the_codec_or_a_login_answered_was_never_decided(facts: dict[str, Any], is_decided: bool) -> None:
    assert read(**facts).is_decided is is_decided


def test_the_format_asks_for_what_policies_ask_for_and_for_no_credential() -> None:
    log = json.dumps(http_file_log("a.json", SUBJECT))
    assert "request.headers['x-team']" in log
    assert "envoy.filters.http.jwt_authn:payload:groups" in log
    assert "DYNAMIC_METADATA(envoy.filters.http.lua)" in log
    assert "cookie" not in log
    assert "REQ(:PATH)" not in log

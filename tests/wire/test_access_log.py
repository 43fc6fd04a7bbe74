"""Access log entries as nouns: what is read, what is unknown, and what is refused."""

import json
from typing import Any

import pytest

from authz.core.asked import Asked
from authz.core.attributes import UNKNOWN, AuthenticationOutcome, Workload
from authz.envoy.native.access_log import Subject, http_file_log
from authz.wire.access_line import LineReader, read_line
from authz.wire.access_log import LogEntry, NotAnEntry

SUBJECT = Subject(
    Workload("bookinfo", frozenset({("app", "reviews")}), "reviews", "reviews-v1"),
    "reviews-v1",
    "inbound_9080",
    asked=Asked(("x-team", "cookie", ":path"), (("groups",),), ("envoy.filters.http.lua",)),
)


OWN = ("bytes_in", "direct", "duration", "id", "path", "remote", "start", "trace")


def line(**changes: Any) -> bytes:
    """A line as Envoy writes it, from facts by their names in a stream."""
    told: dict[str, Any] = {
        "authz": SUBJECT.who(),
        "bytes_in": 12,
        "claims": {"exp": None, "groups": None, "iss": None, "sub": None},
        "code": 200,
        "details": "via_upstream",
        "direct": "10.0.0.7:41000",
        "duration": 3,
        "headers": {"x-team": None},
        "host": "reviews:9080",
        "id": "38a37674",
        "local": "127.0.0.1:9080",
        "method": "GET",
        "path": "/reviews",
        "protocol": "HTTP/1.1",
        "rbac": {"enforced_engine_result": "allowed"},
        "remote": "203.0.113.9:0",
        "scheme": "http",
        "start": "1700000000.250000",
        **changes,
    }
    written = {name: value for name, value in told.items() if name not in OWN}
    for name in ("claims", "rbac", "metadata"):
        if isinstance(written.get(name), dict):
            written[name] = {key: as_text(value) for key, value in written[name].items()}
    for name in ("hint", "kid"):
        written[name] = as_text(written.get(name))
    own = {
        "~at": f"{told['start']} {told['duration']} {told['bytes_in']}",
        **{f"~{name}": told.get(name) for name in ("direct", "id", "path", "remote", "trace")},
    }
    return json.dumps({**written, **own}, separators=(",", ":")).encode()


def as_text(value: Any) -> str:
    """As Envoy writes metadata beside other text."""
    if value is None:
        return "=-"
    return f"={value if isinstance(value, str) else json.dumps(value, separators=(',', ':'))}"


def read(**changes: Any) -> LogEntry:
    return read_line(line(**changes))


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
    ],
)
def test_what_the_codec_refused_was_never_decided(facts: dict[str, Any], is_decided: bool) -> None:
    assert read(**facts).is_decided is is_decided


@pytest.mark.parametrize(
    "broken",
    [b"", b"null", b"[]", b"{", b'{"time":"2026"}', b'{"authz":"{}","~at":"1"}', b'{"authz":1,"~at":"x 1 1"}',
     line(start=None), line(claims=[1]), line(authz="no json"), line(hint="x"), line().replace(b'"=-"', b'"x"')],
)  # fmt: skip
def test_what_is_no_entry_is_refused_without_a_word_of_the_client(broken: bytes) -> None:
    with pytest.raises(NotAnEntry) as refused:
        read_line(broken)
    assert "reviews" not in str(refused.value)


def test_a_line_behind_a_torn_one_is_read() -> None:
    torn = line(path="/lost")[:70] + line(path="/kept")
    reader = LineReader()
    entry = reader.read(torn)
    assert reader.torn == 1
    assert entry.attributes.http is not None
    assert entry.attributes.http.path == "/kept"


def test_a_client_cannot_begin_a_line() -> None:
    reader = LineReader()
    for said in ('{"authz":"x"}', ',"~at":"1 2 3","~path":"/other"}'):
        http = reader.read(line(path=said, host=said)).attributes.http
        assert http is not None
        assert (http.path, http.host) == (said, said)
    assert reader.torn == 0


def test_the_format_asks_for_what_policies_ask_for_and_for_no_credential() -> None:
    log = json.dumps(http_file_log("a.json", SUBJECT))
    assert "request.headers['x-team']" in log
    assert "envoy.filters.http.jwt_authn:payload:groups" in log
    assert "DYNAMIC_METADATA(envoy.filters.http.lua)" in log
    assert "cookie" not in log
    assert "REQ(:PATH)" not in log


def test_a_claim_that_no_format_command_can_name_is_read_from_the_whole_payload() -> None:
    asked = Asked((), (("https://example.test/groups",),))
    log: Any = http_file_log("a.json", Subject(SUBJECT.workload, "p", "l", asked=asked))
    claims = log["typed_config"]["log_format"]["json_format"]["claims"]
    assert claims == "=%DYNAMIC_METADATA(envoy.filters.http.jwt_authn:payload)%"
    groups = {"https://example.test/groups": ["a"], "iss": "i"}
    token = read(claims=as_text(groups)).attributes.authentication.token
    assert token is not None
    assert token.claims == groups


def test_lines_that_differ_in_their_own_part_only_are_alike() -> None:
    reader = LineReader()
    changed = line(path="/x", id="y", direct="10.0.0.8:1", start="1700000001.5")
    first, other, foreign = (reader.read(written) for written in (line(), changed, line(code=201)))
    assert first.alike is other.alike
    assert foreign.alike is not first.alike
    assert first.attributes.destination is other.attributes.destination
    assert other.attributes.http is not None
    assert (other.attributes.http.path, other.decision_id, other.started_at) == ("/x", "y", 1_700_000_001.5)
    assert other.attributes.source.ip == "10.0.0.8"
    for entry, written in (
        (first, line()),
        (other, line(path="/x", id="y", direct="10.0.0.8:1", start="1700000001.5")),
    ):
        assert entry._replace(alike=None) == read_line(written)._replace(alike=None)


@pytest.mark.parametrize(
    ("claim", "read_as", "otherwise"),
    [
        (["a"], ["a"], '["a"]'),
        ({"roles": ["a"]}, {"roles": ["a"]}, '{"roles":["a"]}'),
        ("a", "a", "a"),
        ("12", "12", 12),
        (True, True, "true"),
        (None, None, "-"),
        ("[no list", "[no list", "[no list"),
    ],
)
def test_a_claim_comes_as_text_and_becomes_what_it_most_likely_was(claim: Any, read_as: Any, otherwise: Any) -> None:
    entry = read(claims={"iss": "https://issuer", "sub": "12", "exp": 1_900_000_000, "groups": claim})
    token = entry.attributes.authentication.token
    assert token is not None
    assert (token.claims.get("groups"), token.subject, token.expires_at) == (read_as, "12", 1_900_000_000)
    assert entry.alike is not None
    other = entry.alike.otherwise
    if otherwise == read_as:
        assert other is None
    else:
        assert other is not None
        assert other.token is not None
        assert other.token.claims["groups"] == otherwise

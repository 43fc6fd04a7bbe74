"""Lines of files as entries: what they share is read once, and nothing that a client writes breaks them."""

import json
from typing import Any

import pytest

from authz.core.asked import Asked
from authz.envoy.native.record_log import Subject, http_file_log
from authz.wire.access_line import LineReader
from authz.wire.access_log import NotAnEntry
from tests.wire.lines import SUBJECT, as_text, line, read, read_line


@pytest.mark.parametrize(
    "broken",
    [
        b"", b"null", b"[]", b"{", b'{"time":"2026"}', b'{"authz":"{}","~at":"1"}', b'{"authz":1,"~at":"x 1 1"}',
        line(start=None), line(claims=[1]), line(authz="no json"), line(hint="x"), line().replace(b'"=-"', b'"x"'),
        b"[" * 5000, line(authz="[" * 5000), line(start="inf"), line(code=float("inf")),
        line(hint="[" * 20_000), line(metadata={"a": "[" * 20_000}),
    ],
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
        (f"{'[' * 99}{']' * 99}", json.loads(f"{'[' * 99}{']' * 99}"), f"{'[' * 99}{']' * 99}"),
        # Texts that somebody chose, for Envoy reads no list that is so deep:
        *((text, text, text) for text in ("[" * 20_000, f"{'[' * 101}{']' * 101}", '{"a":' * 20_000)),
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


def test_facts_that_filters_told_are_read_as_those_of_the_format() -> None:
    asked = {
        "claims": {"exp": "=1700000000", "groups": '=["a"]', "iss": "=i", "sub": "=-"},
        "headers": {"x-team": 'a"b', "x-none": None},
        "kid": "=k1",
        "metadata": {"envoy.filters.http.lua": '={"k":"v"}'},
        "code": 500,
    }
    entry = read(asked=json.dumps(asked), claims=None, headers=None)
    http, token = entry.attributes.http, entry.attributes.authentication.token
    assert http is not None
    assert token is not None
    assert (http.headers["x-team"], "x-none" in http.headers) == (('a"b',), False)
    assert (token.issuer, token.subject, token.key_id, token.claims["groups"]) == ("i", "", "k1", ["a"])
    assert entry.attributes.metadata == {"envoy.filters.http.lua": {"k": "v"}}
    assert entry.enforced.status == 200, "only what policies ask for is told so"


@pytest.mark.parametrize("broken", ["x", "[1]", "1", '{"headers":', "[" * 20_000])
def test_facts_that_no_filter_of_ours_told_are_refused(broken: str) -> None:
    with pytest.raises(NotAnEntry):
        read(asked=broken)

"""Output headers and the challenge."""

import base64

import pytest

from authz.core.attributes import HttpRequest, Json
from authz.core.resources import ClaimToHeader, JwtRule
from authz.tokens.challenge import challenge_for
from authz.tokens.output import claim_at, claim_text, output_headers, output_names


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, ""),
        ("text", "text"),
        ("", ""),
        (True, "true"),
        (False, "false"),
        (0, "0"),
        (42, "42"),
        (42.0, "42"),
        (2**53, "9007199254740992"),
        (-5, "-5.000000"),
        (1.5, "1.500000"),
        (-0.25, "-0.250000"),
        (1e20, "100000000000000000000.000000"),
        ([], base64.b64encode(b"[]").decode()),
        (["a", 1, 2.0, None], base64.b64encode(b'["a",1,2,null]').decode()),
        ({"a": {"b": "é"}}, base64.b64encode('{"a":{"b":"é"}}'.encode()).decode()),
    ],
)
def test_claim_as_header_text(value: Json, expected: str) -> None:
    """RA-48."""
    assert claim_text(value) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("sub", "s"),
        ("a.b.c", "deep"),
        ("a.b", {"c": "deep"}),
        ("a.x", None),
        ("sub.x", None),
        ("a.b.c.d", None),
        ("", None),
    ],
)
def test_claim_path_walks_objects(path: str, expected: Json) -> None:
    assert claim_at({"sub": "s", "a": {"b": {"c": "deep"}}, "a.x": "literal"}, path) == expected


def test_outputs_are_lower_case_and_unset_when_empty_or_unsendable() -> None:
    rule = JwtRule(
        output_payload_to_header="X-Payload",
        output_claim_to_headers=(
            ClaimToHeader("X-Sub", "sub"),
            ClaimToHeader("x-empty", "empty"),
            ClaimToHeader("x-missing", "missing"),
            ClaimToHeader("x-split", "split"),
            ClaimToHeader("x-nul", "nul"),
        ),
    )
    claims: dict[str, Json] = {"sub": "s", "empty": "", "split": "a\r\nx: y", "nul": "a\0"}
    assert output_headers(rule, claims, "cGF5") == (("x-payload", "cGF5"), ("x-sub", "s"))
    assert output_names(rule) == {"x-payload", "x-sub", "x-empty", "x-missing", "x-split", "x-nul"}


@pytest.mark.parametrize(
    ("http", "expected"),
    [
        (HttpRequest("GET", "h:80", "/p?id=7"), "http://h:80/p?id=7"),
        (HttpRequest("GET", "h", "/p", scheme="https"), "https://h/p"),
        (HttpRequest("GET", "h", "/" + "a" * 300), "http://h/" + "a" * 255),
        (HttpRequest("GET", "h", "/?a=1&t=SECRET&b=2"), "http://h/?a=1&t=redacted&b=2"),
        (HttpRequest("GET", "h", "/?%74=SECRET&t=SECRET&t"), "http://h/?%74=redacted&t=redacted&t"),
        (HttpRequest("GET", "h", "/?t=" + "S" * 300), "http://h/?t=redacted"),
        (HttpRequest("GET", "h", "/a\r\nb\0c\x7f"), "http://h/a%0D%0Ab%00c%7F"),
        (HttpRequest("GET", 'h"\\', "/é\udcff"), "http://h%22%5C/%C3%A9%FF"),
        (HttpRequest("GET", "h", "/\ud800"), "http://h/?"),
    ],
)
def test_challenge_is_printable_and_holds_no_token(http: HttpRequest, expected: str) -> None:
    """RA-41, XA-183."""
    assert challenge_for(http, frozenset({"t"})) == f'Bearer realm="{expected}", error="invalid_token"'

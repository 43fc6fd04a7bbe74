"""Locations: where a token is found and how the query looks without it."""

import pytest

from authz.core.resources import JwtHeader, JwtRule
from authz.tokens.locations import (
    Locations,
    cookie_values,
    locations_of,
    parameters_of,
    path_without,
    percent_decode,
    token_in_header,
)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (JwtRule(), Locations((("authorization", "Bearer "),), ("access_token",), ())),
        (JwtRule(from_params=("t",)), Locations((), ("t",), ())),
        (JwtRule(from_cookies=("c",)), Locations((), (), ("c",))),
        (JwtRule(from_headers=(JwtHeader("X-A"),)), Locations((("x-a", ""),), (), ())),
        (
            JwtRule(
                from_headers=(JwtHeader("x-b"), JwtHeader("X-A", "z "), JwtHeader("x-a", "B "), JwtHeader("x-b")),
                from_params=("b", "a", "b"),
                from_cookies=("d", "c"),
            ),
            Locations((("x-a", "B "), ("x-a", "z "), ("x-b", "")), ("a", "b"), ("c", "d")),
        ),
    ],
)
def test_locations_are_sorted_and_defaults_only_without_any(rule: JwtRule, expected: Locations) -> None:
    """RA-10, RA-13."""
    assert locations_of(rule) == expected


@pytest.mark.parametrize(
    ("value", "prefix", "expected"),
    [
        ("abc", "", "abc"),
        ("Bearer abc", "", "Bearer abc"),
        ("", "", ""),
        ("Bearer abc", "Bearer ", "abc"),
        ("Bearer    abc", "Bearer ", "abc"),
        ("bearer abc", "Bearer ", None),
        ("Basic abc", "Bearer ", None),
        ("Basic abc, Bearer t.u.v", "Bearer ", "t.u.v"),
        ("Bearer t.u.v, x", "Bearer ", "t.u.v, x"),
        ("Bearer a,Bearer b", "Bearer ", "a,Bearer b"),
        ("Bearer !!!", "Bearer ", "Bearer !!!"),
        ("Bearer ", "Bearer ", "Bearer "),
        ("Bearer é.a", "Bearer ", ".a"),
        ("", "Bearer ", None),
    ],
)
def test_token_in_a_header(value: str, prefix: str, expected: str | None) -> None:
    """RA-14 to RA-16."""
    assert token_in_header(value, prefix) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/x", []),
        ("/x?", []),
        ("/x?a=1&b=2", [("a", "1"), ("b", "2")]),
        ("/x?b&a=", [("b", ""), ("a", "")]),
        ("/x?a=1&&b=2&", [("a", "1"), ("", ""), ("b", "2")]),
        ("/x?a=b=c", [("a", "b=c")]),
        ("/x?%61=%62+%2B", [("a", "b++")]),
        ("/x?a=%zz%4", [("a", "%zz%4")]),
        ("/x?a=1?b=2", [("a", "1?b=2")]),
        ("/x?a=%ff", [("a", "\udcff")]),
        ("/x?a=1&a=2", [("a", "1"), ("a", "2")]),
    ],
)
def test_query_parameters(path: str, expected: list[tuple[str, str]]) -> None:
    """RA-18."""
    assert parameters_of(path) == expected


def test_percent_decoding_joins_bytes_to_characters() -> None:
    assert percent_decode("%C3%A9") == "é"
    assert percent_decode("é%FF") == "é\udcff"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (["session=t"], {"session": "t"}),
        (["a=b; session=t; c=d"], {"session": "t"}),
        (["a=b", "session=t"], {"session": "t"}),
        (["session=t; session=u"], {"session": "t"}),
        (["session=t", "session=u"], {"session": "t"}),
        (['session="t"'], {"session": "t"}),
        (['session="'], {"session": '"'}),
        (["session="], {"session": ""}),
        (["session"], {}),
        (["Session=t"], {}),
        (["xsession=t"], {}),
        (["session=a=b"], {"session": "a=b"}),
    ],
)
def test_cookies(headers: list[str], expected: dict[str, str]) -> None:
    """RA-19."""
    assert cookie_values(headers, ("session",)) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/?a=%2B&access_token=T", "/?a=+"),
        ("/x?access_token=T", "/x"),
        ("/x?access_token=T&access_token=U", "/x"),
        ("/x?b=2&access_token=T&a", "/x?a=&b=2"),
        ("/x?%61ccess_token=T&z=1&z=0", "/x?z=1&z=0"),
        ("/x?access_token=T&a=%00", None),
        ("/x?access_token=T&a=%0d%0ax:y", None),
        ("/x?access_token=T&%0a=1", None),
        ("/x?access_token=%0d&a=1", "/x?a=1"),
    ],
)
def test_query_is_rewritten_without_the_token(path: str, expected: str | None) -> None:
    """RA-45."""
    assert path_without(path, ("access_token",)) == expected

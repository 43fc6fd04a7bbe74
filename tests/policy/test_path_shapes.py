"""Shapes of paths that match nothing: what is said helps, because the help matches."""

import re

import pytest

from authz.core.matchers import path_strings
from authz.policy.path_shapes import path_shape
from authz.policy.value_checks import path

SHAPES = [
    ("/service/*health", "ordinary character", "/service/*", "/service/a/health"),
    ("/api/**", "ordinary character", "/api/*", "/api/v1/users"),
    ("/**", "ordinary character", "/*", "/x/y"),
    ("**", "ordinary character", "*", "/x"),
    ("**/health", "ordinary character", "*/health", "/a/b/health"),
    ("*abc*", "ordinary character", "*", "/abc"),
    ("/a/*/b", "ordinary character", "/a/{*}/b", "/a/x/b"),
    ("/a/*/b/*", "ordinary character", "/a/{*}/b/{**}", "/a/x/b/c/d"),
    ("/a/**/b", "ordinary character", "/a/{**}/b", "/a/x/y/b"),
    ("*/api/*", "ordinary character", "/{*}/api/{**}", "/v1/api/users"),
    ("/users/*/orders/*.json", "ordinary character", "/users/*", "/users/7/orders/1.json"),
    ("^/api/.*$", "no regular expressions", "/api/*", "/api/x/y"),
    ("/api/.*", "no regular expressions", "/api/*", "/api/x"),
    (".*", "no regular expressions", "*", "/x"),
    (r".*\.js", "no regular expressions", "*.js", "/a/b.js"),
    ("^/api", "no regular expressions", "/api", "/api"),
    ("/api$", "no regular expressions", "/api", "/api"),
    (r"/users/\d+", "no regular expressions", "/users/{*}", "/users/7"),
    ("^/users/[^/]+/orders/[0-9]+$", "no regular expressions", "/users/{*}/orders/{*}", "/users/a/orders/7"),
    ("/v[0-9]+/users", "no regular expressions", "/v*", "/v1/users"),
    ("/users/[0-9]+/.*", "no regular expressions", "/users/{*}/{**}", "/users/7/a/b"),
    ("/a/.*/b", "no regular expressions", "/a/{*}/b", "/a/x/b"),
    ("/users/[0-9]+/orders", "no regular expressions", "/users/{*}/orders", "/users/7/orders"),
    ("/(login|logout)", "no regular expressions", "/logout", "/logout"),
    ("^/(?:a|b)/c$", "no regular expressions", "/b/c", "/b/c"),
    ("/api/(v1|v2)/.*", "no regular expressions", "/api/v2/*", "/api/v2/x"),
    ("/api/(?!admin).*", "no regular expressions", "/api/*", "/api/x"),
    ("https://a.test/x", "neither scheme nor host", "/x", "/x"),
    ("http://a.test:8080", "neither scheme nor host", "/", "/"),
    ("https://a.test/x?y=1", "neither scheme nor host", "/x", "/x"),
    ("a.example.com/x/*", "neither scheme nor host", "/x/*", "/x/y"),
    ("localhost:8080/x", "neither scheme nor host", "/x", "/x"),
    ("GET /x", "does not begin with the method", "/x", "/x"),
    ("/a, /b", "not 2 paths", "/b", "/b"),
    ("/a|/b", "with a bar in it", "/b", "/b"),
    ("~ ^/x/.*$", "no regular expressions", "/x/*", "/x/y"),
    ("~* ^/x/.*$", "no regular expressions", "/x/*", "/x/y"),
    ("/users/:id/orders", "no named parameters", "/users/{*}/orders", "/users/7/orders"),
    ("/users/<id>", "no named parameters", "/users/{*}", "/users/7"),
    (" /x", "no blank", "/x", "/x"),
    ("/a b", "percent-encoded", "/a%20b", "/a%20b"),
    ("/é", "percent-encoded", "/%C3%A9", "/%C3%A9"),
    ("/a|b", "percent-encoded", "/a%7Cb", "/a%7Cb"),
    ("/a\\b", "backslash", "/a/b", "/a/b"),
    ("/%61dmin", "decodes `%61`", "/admin", "/admin"),
    ("/a/../b", "resolves", "", ""),
]


@pytest.mark.parametrize(("value", "said", "advised", "matched"), SHAPES, ids=[row[0] for row in SHAPES])
def test_a_shape_that_matches_nothing_is_told_with_help_that_matches(
    value: str, said: str, advised: str, matched: str
) -> None:
    fault = path_shape(value)
    assert fault is not None
    assert said in fault.message
    assert not path_strings([value]).matches((matched,))
    if advised:
        assert re.search(rf"[`\"]{re.escape(advised)}[`\"]", fault.help), fault.help
        assert path(advised) is None
        assert path_strings([advised]).matches((matched,))


@pytest.mark.parametrize(
    "value",
    [
        *("/", "*", "/*", "/api/*", "*.js", "/a.b/c", "/favicon.*", "/odata/Products(1)*", "/v1/users:batchGet"),
        *("/pkg.Service/Method", "/a%2Fb", "/a%20b", "/~user/", "/a;b=1", "/a/...", "/.well-known/*", "/a+b", "/a,b"),
        *("*/health", "/%C3%A9", "/index.html", "/a/.hidden", "/x/@me", "/a/..*", "/$metadata", "/a=b", "/a&b"),
    ],
)
def test_a_path_that_can_match_is_left_alone(value: str) -> None:
    assert path_shape(value) is None


def test_a_call_of_grpc_without_its_slash_is_no_address() -> None:
    fault = path("helloworld.Greeter/SayHello")
    assert fault is not None
    assert fault.help == "write `/helloworld.Greeter/SayHello`"

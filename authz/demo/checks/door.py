"""Scenarios at the ingress gateway: tokens, roles, paths, and forged headers."""

from collections.abc import Iterator

from authz.core.attributes import read_field
from authz.demo.checks.keycloak_scenarios import keycloak_tokens
from authz.demo.checks.scenario import Scenario, visit
from authz.demo.checks.world import World


def door_scenarios(*, has_keycloak: bool = False) -> Iterator[Scenario]:
    """Yield the scenarios, in the order of the table; Keycloak's tokens have others than those of our own issuer."""
    yield from keycloak_tokens() if has_keycloak else _tokens()
    yield from _roles()
    yield from _paths()
    yield from _forgeries()


def _tokens() -> Iterator[Scenario]:
    group = "Tokens at the ingress gateway"
    page = "/productpage"
    yield visit(group, "the welcome page needs no token", "200", "/")
    yield visit(group, "the product page without a token", "403 no ALLOW", page)
    yield visit(group, "with Alice's token", "200", page, "alice")
    yield Scenario(group, "the page holds details and reviews", "book, reviews, price from outside", _whole_page)
    yield Scenario(group, "the token may come in a cookie", "200", _cookie)
    yield visit(group, "expired", "401 token", page, "expired")
    yield visit(group, "for another audience", "403 token", page, "wrong audience")
    yield visit(group, "signed with another key under the same kid", "401 token", page, "forged")
    yield visit(group, "Bob's claims under Alice's signature", "401 token", page, "promoted")
    yield visit(group, "alg: none", "401 token", page, "alg none")
    yield visit(group, "HMAC with the public key", "401 token", page, "alg confusion")
    yield visit(group, "its own key in its header", "401 token", page, "own key inside")
    yield visit(group, "of another issuer", "401 token", page, "other issuer")
    yield visit(group, "garbage", "401 token", page, "garbage")
    yield visit(group, "a bad token is refused where none is needed", "401 token", "/", "expired")
    yield Scenario(group, "two tokens in one request", "401 token", _two_tokens)
    basic = [("authorization", "Basic YWxpY2U6YWxpY2U=")]
    yield visit(group, "Basic credentials are no token", "403 no ALLOW", page, headers=basic)
    yield Scenario(group, "the refusal says why", 'Jwt is expired, Bearer realm, error="invalid_token"', _challenge)


async def _whole_page(world: World) -> str:
    body = (await world.visit("/productpage", "alice")).body
    parts = {"The Comedy of Errors": "book", "slapstick humour": "reviews", "9.99 EUR": "price from outside"}
    return ", ".join(name for text, name in parts.items() if text in body)


async def _cookie(world: World) -> str:
    cookie = [("cookie", f"theme=dark; bookinfo_session={world.token('alice')}")]
    return await world.outcome(await world.visit("/productpage", headers=cookie))


async def _two_tokens(world: World) -> str:
    second = [("authorization", f"Bearer {world.token('bob')}")]
    return await world.outcome(await world.visit("/productpage", "alice", headers=second))


async def _challenge(world: World) -> str:
    reply = await world.visit("/productpage", "expired")
    challenge = reply.headers.get("www-authenticate", "")
    parts = [reply.body]
    parts += ["Bearer realm"] if challenge.startswith('Bearer realm="https://localhost') else []
    parts += ['error="invalid_token"'] if challenge.endswith('error="invalid_token"') else []
    return ", ".join(parts)


def _roles() -> Iterator[Scenario]:
    group = "Roles"
    review = "/api/v1/products/0/reviews/Reviewer2"
    yield visit(group, "Alice reads the API", "200", "/api/v1/products/0/reviews", "alice")
    yield visit(group, "Alice may not write there", "403 no ALLOW", "/api/v1/products/0", "alice", method="PUT")
    yield visit(group, "Alice may not moderate", "403 no ALLOW", "/admin", "alice")
    yield visit(group, "Bob may", "200", "/admin", "bob")
    yield visit(group, "Alice may not hide a review", "403 no ALLOW", review, "alice", method="DELETE")
    yield visit(group, "Bob may", "204", review, "bob", method="DELETE")
    yield visit(group, "and show it again", "303", "/admin/reviews/Reviewer2", "bob", method="POST", body=b"hidden=no")
    orders = "/api/v1/products/0/orders?quantity="
    yield visit(group, "CUSTOM: two copies are fine", "200", f"{orders}2", "alice", method="POST")
    yield visit(group, "CUSTOM: four are too many", "403 CUSTOM custom-orders", f"{orders}4", "alice", method="POST")
    yield visit(group, "CUSTOM allows, but there is no token", "403 no ALLOW", f"{orders}2", method="POST")


def _paths() -> Iterator[Scenario]:
    """Bob may do almost anything, so that only the DENY stands between him and /internal (SE-1 to SE-4)."""
    group = "Path tricks against a DENY"
    denied = "403 DENY deny-internal"
    for name, path in (
        ("plain", "/internal/headers"),
        ("with a query", "/internal/headers?x=/static/"),
        ("dot segments", "/static/../internal/headers"),
        ("encoded dots", "/static/%2e%2e/internal/headers"),
        ("encoded letters", "/%69nternal/headers"),
        ("double slash", "//internal//headers"),
        ("encoded slash", "/internal%2Fheaders"),
        ("encoded slash after dots", "/static/..%2finternal/headers"),
        ("backslash", "/static/..\\internal\\headers"),
        ("encoded backslash", "/internal%5cheaders"),
    ):
        yield visit(group, f"{name}: {path}", denied, path, "bob")
    nowhere = "403 no ALLOW"
    yield visit(group, "another case is another path: /INTERNAL/headers", nowhere, "/INTERNAL/headers", "bob")
    yield visit(group, "encoded twice: /%2569nternal/headers", nowhere, "/%2569nternal/headers", "bob")
    yield visit(group, "a parameter: /internal;x/headers", nowhere, "/internal;x/headers", "bob")
    yield visit(group, "path parameter trick: /productpage/..;/admin", nowhere, "/productpage/..;/admin", "alice")
    yield visit(group, "out of an allowed path: /static/../admin", nowhere, "/static/../admin", "alice")
    yield visit(
        group, "absolute form: http://localhost/internal/headers", denied, "http://localhost/internal/headers", "bob"
    )
    yield visit(group, "a zero byte: /static/%00", "400", "/static/%00", "bob")


def _forgeries() -> Iterator[Scenario]:
    group = "Forged headers"
    yield Scenario(group, "x-jwt-role: moderator from a reader", "Alice Reader is reader", _forged_role)
    yield Scenario(group, "x-jwt-user without a token", "nobody is signed in", _forged_user)
    yield Scenario(group, "x-forwarded-for does not change who is recorded", "the real address", _forged_address)
    yield visit(
        group, "x-envoy-original-path is not believed", "403 no ALLOW", "/admin", "alice",
        headers=[("x-envoy-original-path", "/static/style.css")],
    )  # fmt: skip
    yield visit(
        group, "x-http-method-override is not believed", "403 no ALLOW", "/admin", "alice",
        headers=[("x-http-method-override", "GET"), ("x-original-url", "/static/style.css")],
    )  # fmt: skip
    yield visit(group, "x_jwt_role with underscores", "400", "/whoami", "alice", headers=[("x_jwt_role", "moderator")])
    yield visit(
        group, "Connection: authorization hides the token from everybody", "403 no ALLOW", "/productpage", "alice",
        headers=[("connection", "authorization")],
    )  # fmt: skip


async def _forged_role(world: World) -> str:
    forged = [("x-jwt-role", "moderator"), ("X-JWT-User", "Bob Moderator")]
    reply = await world.visit("/whoami", "alice", headers=forged)
    return reply.body.replace('{"user":"', "").replace('","role":"', " is ").removesuffix('"}')


async def _forged_user(world: World) -> str:
    reply = await world.visit("/", headers=[("x-jwt-user", "Mallory"), ("x-jwt-role", "moderator")])
    return "nobody is signed in" if reply.status == 200 and "Signed in as" not in reply.body else reply.body[:80]


async def _forged_address(world: World) -> str:
    headers = [("x-forwarded-for", "10.9.8.7"), ("x-authz-remote-ip", "10.9.8.7"), ("user-agent", "check/address")]
    await world.visit("/", headers=headers)
    record = await world.find(lambda found: read_field(found, "request", "user_agent") == "check/address")
    address = read_field(record or {}, "source", "remote_ip")
    return "the real address" if address and address != "10.9.8.7" else f"{address}"

"""
The scenarios of ``authz demo --check``: a name, what is expected, and how to try it.

Tables where one request is all there is to it; functions where something must happen in between (``incidents``).
Expectations are in the words of ``World.outcome``.
"""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

from authz.demo.world import Headers, World

Run = Callable[[World], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Scenario:
    """``run`` answers what happened; the scenario holds when that is ``expected``."""

    group: str
    name: str
    expected: str
    run: Run


def all_scenarios() -> Iterator[Scenario]:
    """In the order of the table: nothing depends on an earlier one, but the rough ones come last."""
    # Here, because incidents are scenarios too and need the class above.
    from authz.demo.incidents import incidents

    yield from _front_door()
    yield from _roles()
    yield from _paths()
    yield from _forgeries()
    yield from _edges()
    yield from _identities()
    yield from _database()
    yield from _egress()
    yield from incidents()


def visit(
    group: str,
    name: str,
    expected: str,
    path: str,
    token: str = "",
    *,
    method: str = "GET",
    headers: Headers = (),
    body: bytes = b"",
) -> Scenario:
    """One request to the ingress gateway."""

    async def run(world: World) -> str:
        reply = await world.visit(path, token, method=method, headers=headers, body=body)
        return await world.outcome(reply)

    return Scenario(group, name, expected, run)


def edge(group: str, name: str, expected: str, caller: str, workload: str, path: str, method: str = "GET") -> Scenario:
    """One request to a sidecar with somebody's certificate."""

    async def run(world: World) -> str:
        body = b'{"Reviewer1": 1}' if method == "POST" else b""
        return await world.outcome(await world.call(caller, workload, path, method=method, body=body))

    return Scenario(group, name, expected, run)


# --- the ingress gateway -----------------------------------------------------------------------------------------


def _front_door() -> Iterator[Scenario]:
    group = "Tokens at the ingress gateway"
    page = "/productpage"
    yield visit(group, "the welcome page needs no token", "200", "/")
    yield visit(group, "the product page without a token", "403 no ALLOW", page)
    yield visit(group, "with Alice's token", "200", page, "alice")
    yield Scenario(group, "the page holds details and reviews", "book, reviews, price from outside", _whole_page)
    yield Scenario(group, "the token may come in the browser's cookie", "200", _cookie)
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
    record = await world.find(lambda found: _field(found, "request", "user_agent") == "check/address")
    address = _field(record or {}, "source", "remote_ip")
    return "the real address" if address and address != "10.9.8.7" else f"{address}"


def _field(record: object, *path: str) -> object:
    for name in path:
        record = record.get(name) if isinstance(record, dict) else None
    return record


# --- inside the mesh ---------------------------------------------------------------------------------------------


def _edges() -> Iterator[Scenario]:
    group = "Edges of the graph"
    ok, no = "200", "403 no ALLOW"
    yield edge(group, "ingress → productpage", ok, "ingressgateway", "productpage-v1", "/health")
    yield edge(group, "details → productpage", no, "details-v1", "productpage-v1", "/health")
    yield edge(group, "productpage → details", ok, "productpage-v1", "details-v1", "/details/0")
    yield edge(group, "reviews → details", no, "reviews-v1", "details-v1", "/details/0")
    yield edge(group, "ingress → details, past productpage", no, "ingressgateway", "details-v1", "/details/0")
    for version in ("v1", "v2", "v3"):
        yield edge(group, f"productpage → reviews {version}", ok, "productpage-v1", f"reviews-{version}", "/reviews/0")
    yield edge(group, "ratings → reviews v2", no, "ratings-v1", "reviews-v2", "/reviews/0")
    yield edge(group, "reviews → ratings v1", ok, "reviews-v2", "ratings-v1", "/ratings/0")
    yield edge(group, "reviews → ratings v2, from Redis", ok, "reviews-v3", "ratings-v2", "/ratings/0")
    yield edge(group, "productpage → ratings", no, "productpage-v1", "ratings-v1", "/ratings/0")
    yield edge(group, "reviews → ratings, but POST", no, "reviews-v2", "ratings-v1", "/ratings/0", "POST")
    yield edge(group, "reviews → ratings, another path", no, "reviews-v2", "ratings-v1", "/health")
    yield edge(group, "productpage → productpage", no, "productpage-v1", "productpage-v1", "/health")


def _identities() -> Iterator[Scenario]:
    group = "Identities"
    refused = "refused in the handshake"
    target, path = "details-v1", "/details/0"
    yield edge(group, "plaintext to a STRICT port", "closed", "plaintext", target, path)
    yield edge(group, "TLS without a certificate", refused, "", target, path)
    yield edge(group, "an expired certificate", refused, "expired", target, path)
    yield edge(group, "a certificate not yet valid", refused, "not yet valid", target, path)
    yield edge(group, "the right name from an authority of one's own", refused, "self-made", target, path)
    yield edge(group, "a foreign trust domain", refused, "foreign", target, path)
    yield edge(group, "the right account in another namespace", "403 no ALLOW", "namesake", target, path)
    yield Scenario(group, "x-forwarded-client-cert is no identity", "403 no ALLOW", _forged_certificate)


async def _forged_certificate(world: World) -> str:
    claimed = "URI=spiffe://cluster.local/ns/bookinfo/sa/bookinfo-productpage"
    headers = [("x-forwarded-client-cert", claimed)]
    return await world.outcome(await world.call("reviews-v1", "details-v1", "/details/0", headers=headers))


def _database() -> Iterator[Scenario]:
    group = "The database, over TCP"

    def bytes_from(caller: str) -> Run:
        async def run(world: World) -> str:
            reply = await world.connect(caller, "ratingsdb-v1", b"PING\r\n")
            return reply.body.strip() or reply.failure

        return run

    yield Scenario(group, "ratings v2 → database", "+PONG", bytes_from("ratings-v2"))
    yield Scenario(group, "ratings v1 → database", "access denied", bytes_from("ratings-v1"))
    yield Scenario(group, "reviews → database", "access denied", bytes_from("reviews-v2"))
    yield Scenario(group, "plaintext → database", "closed", bytes_from("plaintext"))


def _egress() -> Iterator[Scenario]:
    group = "The egress gateway"
    books, news = "books.example.com", "news.example.com"

    def leaves(
        name: str, expected: str, workload: str, service: str, path: str, *, method: str = "GET", host: str = books
    ) -> Scenario:
        async def run(world: World) -> str:
            return await world.outcome(await world.from_app(workload, service, path, method=method, host=host))

        return Scenario(group, name, expected, run)

    volumes = "/books/v1/volumes"
    yield leaves("details → books.example.com", "200", "details-v1", books, volumes)
    yield leaves(
        "details → books.example.com by the forward proxy", "200", "details-v1", "", f"http://{books}{volumes}"
    )
    yield leaves("details → a host that is not listed", "403 no ALLOW", "details-v1", "", f"http://{news}/", host=news)
    yield leaves("details → a path that is not listed", "403 no ALLOW", "details-v1", books, "/admin")
    yield leaves("details → books, but POST", "403 no ALLOW", "details-v1", books, volumes, method="POST")
    yield leaves("reviews → books.example.com", "403 no ALLOW", "reviews-v1", "", f"http://{books}{volumes}")
    yield Scenario(group, "the Host header does not decide", "403 no ALLOW", _wrong_host)
    yield Scenario(group, "nothing secret goes outside", "no token, no identity", _nothing_secret)


async def _wrong_host(world: World) -> str:
    """Absolute form wins over the header (XA-69)."""
    reply = await world.from_app("details-v1", "", "http://news.example.com/books/x", host="books.example.com")
    return await world.outcome(reply)


async def _nothing_secret(world: World) -> str:
    headers = [("x-forwarded-client-cert", "URI=spiffe://cluster.local/ns/x/sa/y")]
    reply = await world.from_app("details-v1", "books.example.com", "/books/v1/volumes", headers=headers)
    told = [name for name in ("authorization", "x-forwarded-client-cert", "cookie") if f'"{name}"' in reply.body]
    return "no token, no identity" if reply.status == 200 and not told else f"{reply.status} {told}"

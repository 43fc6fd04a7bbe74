"""Scenarios inside the mesh and at its way out: who may call whom, and who somebody is."""

from collections.abc import Iterator

from authz.demo.checks.scenario import RunScenario, Scenario, edge
from authz.demo.checks.unopened_tls import passthrough_scenarios
from authz.demo.checks.world import World
from authz.mesh.nouns import Enforce


def mesh_scenarios(*, enforce: Enforce = Enforce.CHECK) -> Iterator[Scenario]:
    """Yield the scenarios, in the order of the table. Only the check tells a TLS client why its connection ends."""
    yield from _edges()
    yield from _identities()
    yield from _database("access denied" if enforce is Enforce.CHECK else "closed")
    yield from _egress()
    yield from passthrough_scenarios()


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


def _database(refused: str) -> Iterator[Scenario]:
    group = "The database, over TCP"

    def bytes_from(caller: str) -> RunScenario:
        async def run(world: World) -> str:
            reply = await world.connect(caller, "ratingsdb-v1", b"PING\r\n")
            return reply.body.strip() or reply.failure

        return run

    yield Scenario(group, "ratings v2 → database", "+PONG", bytes_from("ratings-v2"))
    yield Scenario(group, "ratings v1 → database", refused, bytes_from("ratings-v1"))
    yield Scenario(group, "reviews → database", refused, bytes_from("reviews-v2"))
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

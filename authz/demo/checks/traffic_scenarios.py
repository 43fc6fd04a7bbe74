"""Scenarios of Istio's tasks on traffic: a user's version, delay and abort, mirror, rewrite, quota."""

import time
from collections.abc import Iterator

from authz.core.attributes import read_field
from authz.core.decided import Record
from authz.demo.checks.clients import exchange
from authz.demo.checks.scenario import Scenario
from authz.demo.checks.traffic_rules_in_force import (
    ASKS_RATINGS,
    DETAILS,
    PRODUCTPAGE,
    RATINGS,
    answers,
    in_force,
    settled,
    told,
)
from authz.demo.checks.world import World

PAGE = "/productpage"
ORDER = "/api/v1/products/0/orders?quantity=1"
LONG_SECONDS = 20.0
NO_REVIEWS, NO_STARS = "Error fetching product reviews!", "Ratings service is currently unavailable"
MIRRORED = 20
QUOTA = 5


def traffic_scenarios(*, has_quotas: bool) -> Iterator[Scenario]:
    """Yield the scenarios; each leaves the rules as it found them."""
    group = "Traffic"
    yield Scenario(group, "jason is given reviews v2, always", "jason 40 v2, 5 pages of 5 by v2", _jason)
    yield Scenario(group, "and nobody else who claims to be jason", "never v2", _claims)
    yield Scenario(group, "ratings 7 s late for jason: the known bug", "no reviews after 6 s; alice 200 at once", _late)
    yield Scenario(group, "2 s late are no bug", "reviews after 2 s", _later)
    yield Scenario(group, "ratings fail for jason", "reviews without stars; alice with or without any", _abort)
    yield Scenario(
        group, "ratings v2 has a copy of each request", "20 v1 answered, 20 of 20 copied and decided", _mirror
    )
    yield Scenario(group, "policies see the rewritten path", "200 as /details/0, 403 no ALLOW as /health", _rewritten)
    if has_quotas:
        yield Scenario(
            group,
            "a quota of one user",
            "jason 5 × 200, then 429 remaining 0, recorded; alice 200",
            _quota,
        )


async def _page(world: World, person: str) -> tuple[str, float]:
    """The product page of somebody, and how many seconds it took."""
    began = time.monotonic()
    reply = await world.visit(PAGE, person, seconds=LONG_SECONDS)
    return reply.body if reply.status == 200 else str(reply.status or reply.failure), time.monotonic() - began


async def _jason(world: World) -> str:
    await world.new_token("jason", "jason")
    await settled(world, "reviews", ("v2",), user="jason")
    found = await answers(world, 40, "reviews", "jason")
    pages = [(await _page(world, "jason"))[0] for _ in range(5)]
    return f"jason {told(found)}, {sum('reviews-v2' in page for page in pages)} pages of 5 by v2"


async def _claims(world: World) -> str:
    """The header that rules look at is written by productpage, from the verified token."""
    for _ in range(8):
        reply = await world.visit(PAGE, "alice", headers=[("end-user", "jason")])
        if reply.status != 200 or "reviews-v2" in reply.body:
            return f"{reply.status}, v2" if "reviews-v2" in reply.body else str(reply.status)
    return "never v2"


async def _late(world: World) -> str:
    async with in_force(world, "ratings-delay.yaml"):

        async def look() -> tuple[str, float] | None:
            found = await _page(world, "jason")
            return found if found[1] > 1 else None

        body, seconds = await world.until(look) or ("at once", 0.0)
        reply, others = await _page(world, "alice")
    world.remark(f"{seconds:.2f} s; alice {others:.2f} s")
    bug = "no reviews" if NO_REVIEWS in body else "reviews"
    return f"{bug} after {int(seconds)} s; alice {'200 at once' if others < 2 and NO_REVIEWS not in reply else reply}"


async def _later(world: World) -> str:
    async with in_force(world, "ratings-delay.yaml", old="fixedDelay: 7s", new="fixedDelay: 2s"):

        async def look() -> tuple[str, float] | None:
            found = await _page(world, "jason")
            return found if 1 < found[1] < 5 else None

        body, seconds = await world.until(look) or ("", 0.0)
    await world.becomes("at once", lambda: _how_soon(world))
    world.remark(f"{seconds:.2f} s")
    return f"{'reviews' if 'reviews-v2' in body and NO_STARS not in body else 'none'} after {int(seconds)} s"


async def _how_soon(world: World) -> str:
    return "at once" if (await _page(world, "jason"))[1] < 1.5 else "late"


async def _abort(world: World) -> str:
    async with in_force(world, "ratings-abort.yaml"):

        async def look() -> str | None:
            body, _ = await _page(world, "jason")
            return body if NO_STARS in body else None

        body = await world.until(look) or ""
        alice, _ = await _page(world, "alice")
    has_reviews = "slapstick humour" in body and "Status 500" in body
    jason = "reviews without stars" if has_reviews else "something else"
    return f"{jason}; alice {'without stars' if NO_STARS in alice else 'with or without any'}"


async def _mirror(world: World) -> str:
    path = f"/ratings/{int(time.time())}"
    async with in_force(world, "ratings-mirror.yaml"):
        await settled(world, "ratings", ("v1",))
        replies = [await world.from_app(ASKS_RATINGS, RATINGS, path) for _ in range(MIRRORED)]
        copies: set[str] = set()

        def is_last(record: Record) -> bool:
            is_copy = read_field(record, "destination", "workload") == "ratings-v2"
            if is_copy and read_field(record, "request", "path") == path and record.get("effect") == "allow":
                copies.add(str(record.get("decision_id")))
            return len(copies) == MIRRORED

        await world.find(is_last)
    by_v1 = sum(reply.status == 200 and '"ratings-v1"' in reply.body for reply in replies)
    return f"{by_v1} v1 answered, {len(copies)} of {MIRRORED} copied and decided"


async def _rewritten(world: World) -> str:
    number = int(time.time())

    async def ask() -> str:
        return str((await world.from_app(PRODUCTPAGE, DETAILS, "/book/0")).status)

    async with in_force(world, "details-rewrite.yaml"):
        await world.becomes("200", ask)
        allowed = await world.from_app(PRODUCTPAGE, DETAILS, f"/book/{number}")
        denied = await world.from_app(PRODUCTPAGE, DETAILS, "/book-health")
        refused = await world.outcome(denied)
    record = await world.find(lambda record: str(read_field(record, "request", "path")).endswith(f"/{number}"))
    second = await world.find(lambda record: record.get("decision_id") == denied.decision_id)
    seen, other = (read_field(one or {}, "request", "path") for one in (record, second))
    return f"{allowed.status} as {str(seen).replace(str(number), '0')}, {refused} as {other}"


async def _quota(world: World) -> str:
    """The first request that is counted shows that the rule is in force; it counts."""
    await world.new_token("jason", "jason")
    async with in_force(world, "orders-quota.yaml"):

        async def is_counted() -> bool | None:
            reply = await world.visit(ORDER, "bob", method="POST")
            return "x-ratelimit-limit" in reply.headers or None

        await world.until(is_counted)
        replies = [await world.visit(ORDER, "jason", method="POST") for _ in range(QUOTA + 1)]
        last = replies[-1]
        other = await world.visit(ORDER, "alice", method="POST")
        record = await world.find(lambda record: record.get("stage") == "rate-limit")
    keys = exchange(world.limits_store(), b"DBSIZE\r\n").body.strip().removeprefix(":")
    world.remark(f"{keys} keys in Redis")
    passed = sum(reply.status == 200 for reply in replies)
    left = f"{last.status} remaining {last.headers.get('x-ratelimit-remaining')}"
    return f"jason {passed} × 200, then {left}, {'recorded' if record else 'not recorded'}; alice {other.status}"

"""Put files into traffic/ for a while, as somebody who tries the demo does, and count which version answers."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from authz.demo.checks.clients import Reply
from authz.demo.checks.edits import changed
from authz.demo.checks.world import World
from authz.demo.layout import DemoError
from authz.demo.traffic_rules import EXAMPLES, OFF

REVIEWS = "reviews.bookinfo.svc.cluster.local"
RATINGS = "ratings.bookinfo.svc.cluster.local"
DETAILS = "details.bookinfo.svc.cluster.local"
PRODUCTPAGE, ASKS_RATINGS = "productpage-v1", "reviews-v2"
"""Workloads from whose side requests are sent."""
AT_A_TIME = 6


def traffic(world: World) -> Path:
    """The directory of rules that the check may edit. Raises DemoError: there is none."""
    if world.layout.traffic is None:
        raise DemoError("this demo has no traffic rules")
    return world.layout.traffic


@asynccontextmanager
async def in_force(world: World, *names: str, old: str = "", new: str = "") -> AsyncIterator[None]:
    """Keep examples beside the rules for a while, with ``new`` in place of ``old``."""
    directory = traffic(world)
    async with AsyncExitStack() as stack:
        for name in names:
            text = (directory / EXAMPLES / f"{name}{OFF}").read_text(encoding="utf-8")
            if old not in text:
                raise DemoError(f"`{name}` no longer contains `{old}`, which this scenario edits")
            edited = text.replace(old, new)
            await stack.enter_async_context(changed(directory / name, lambda _, edited=edited: edited))  # type: ignore[misc]  # mypy does not infer lambdas with defaults
        yield


async def ratings(world: World) -> Reply:
    """Ask ratings as reviews v2 does."""
    return await world.from_app(ASKS_RATINGS, RATINGS, "/ratings/0")


async def reviews(world: World, user: str = "") -> Reply:
    """Ask reviews as productpage does for somebody who is signed in."""
    headers = [("end-user", user)] if user else []
    return await world.from_app(PRODUCTPAGE, REVIEWS, "/reviews/0", headers=headers)


def version(reply: Reply) -> str:
    """Which version answered: ``v1``; a status if it is none of theirs."""
    if reply.status != 200:
        return str(reply.status or reply.failure)
    return str(json.loads(reply.body).get("podname", "")).rpartition("-")[2]


async def answers(world: World, count: int, service: str, user: str = "") -> Counter[str]:
    """Ask ``reviews`` or ``ratings`` that often, some at a time, and count who answered."""
    found: Counter[str] = Counter()

    async def ask() -> None:
        while sum(found.values()) + waiting[0] < count:
            waiting[0] += 1
            reply = await (reviews(world, user) if service == "reviews" else ratings(world))
            waiting[0] -= 1
            found[version(reply)] += 1

    waiting = [0]
    await asyncio.gather(*(ask() for _ in range(AT_A_TIME)))
    return found


def told(found: Counter[str]) -> str:
    """``38 v1, 2 v3``."""
    return ", ".join(f"{count} {name}" for name, count in sorted(found.items()))


async def settled(world: World, service: str, versions: Sequence[str], *, user: str = "", count: int = 18) -> bool:
    """Wait until none but these versions answer."""

    async def look() -> bool | None:
        return set(await answers(world, count, service, user)) <= set(versions) or None

    return bool(await world.until(look))

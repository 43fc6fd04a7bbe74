"""Scenarios of traffic rules judged by figures: shares, retries, failover, circuit breaking, edits under load."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from math import comb

from authz.demo.checks.clients import ask_admin
from authz.demo.checks.edits import changed, replaced
from authz.demo.checks.scenario import Scenario
from authz.demo.checks.traffic_rules_in_force import (
    DETAILS,
    PRODUCTPAGE,
    answers,
    in_force,
    reviews,
    settled,
    told,
    traffic,
    version,
)
from authz.demo.checks.world import World

ASKED, V3_SHARE, ERROR = 400, 0.1, 1e-6
"""Requests, the share of v3 among them, and how often a right share may be taken for a wrong one."""
FEW = 40
BURST, AT_ONCE = 120, 24
OVERFLOWS = tuple(f"cluster.outbound|9080||{DETAILS}.upstream_rq_{what}_overflow" for what in ("active", "pending"))
"""What Envoy counts when a breaker refuses: a request too many on connections, and one too many that waits."""
BLUE = """apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews-blue, namespace: bookinfo}
spec: {host: reviews, subsets: [{name: blue, labels: {version: v2}}]}
"""


def figure_scenarios() -> Iterator[Scenario]:
    """Yield the scenarios; each leaves the rules as it found them."""
    group = "Traffic, in figures"
    yield Scenario(group, "reviews v1 90, v3 10", "v3 within its bounds, v2 never, nothing failed", _shares)
    yield Scenario(group, "rules edited while requests run", "4 edits followed, nothing failed", _edits)
    yield Scenario(group, "a failing replica of ratings, and retries", "some fail; with retries 40 of 40", _retries)
    yield Scenario(group, "failover to another region and back", "40 v1; 40 v2 once v1 fails; 40 v1", _failover)
    yield Scenario(
        group,
        "a circuit breaker under load",
        "200 and 503, all overloaded and counted; 120 of 120 without",
        _breaks,
    )


def bounds(count: int, share: float, error: float) -> tuple[int, int]:
    """
    Between which numbers (inclusive) a binomial variable lies, but for ``error``, half of it at either side.

    Args:
        count: of trials. share: of hits, in [0, 1].
    """
    chances = [comb(count, hits) * share**hits * (1 - share) ** (count - hits) for hits in range(count + 1)]

    def cut(run: Iterator[float]) -> int:
        total = 0.0
        for hits, chance in enumerate(run):
            total += chance
            if total > error / 2:
                return hits
        return count

    return cut(iter(chances)), count - cut(reversed(chances))


async def _shares(world: World) -> str:
    least, most = bounds(ASKED, V3_SHARE, ERROR)
    if not await settled(world, "reviews", ("v1", "v3")):
        return "v2 or an error, even after 20 s"
    found = await answers(world, ASKED, "reviews")
    world.remark(f"{told(found)}; v3 must be {least} to {most}, with an error of {ERROR:g}")
    share = "within its bounds" if least <= found["v3"] <= most else f"{found['v3']} times, not {least} to {most}"
    others = "v2 never, nothing failed" if found["v1"] + found["v3"] == ASKED else told(found)
    return f"v3 {share}, {others}"


async def _edits(world: World) -> str:
    """The last two make a subset and a route to it at once, and remove both at once."""
    path, times, seen = traffic(world) / "reviews.yaml", list[float](), Counter[str]()
    stopping = asyncio.Event()

    async def keep_asking() -> None:
        while not stopping.is_set():
            seen[version(await reviews(world))] += 1

    def only(text: str, where: str) -> str:
        text = replaced(path.name, text, "subset: v1}, weight: 90", f"subset: {where}}}, weight: 100")
        return replaced(path.name, text, "    - {destination: {host: reviews, subset: v3}, weight: 10}\n", "")

    async def follows(versions: tuple[str, ...]) -> None:
        began = time.monotonic()
        if await settled(world, "reviews", versions):
            times.append(time.monotonic() - began)

    asking = [asyncio.create_task(keep_asking()) for _ in range(2)]
    try:
        with_v2 = changed(path, lambda text: only(text, "v2"))
        async with with_v2:
            await follows(("v2",))
        await follows(("v1", "v3"))
        async with changed(path, lambda text: f"{only(text, 'blue')}---\n{BLUE}"):
            await follows(("v2",))
        await follows(("v1", "v3"))
    finally:
        stopping.set()
        await asyncio.gather(*asking)
    world.remark(f"{told(seen)} meanwhile; followed after {', '.join(f'{seconds:.1f}' for seconds in times)} s")
    failed = sum(count for name, count in seen.items() if not name.startswith("v"))
    return f"{len(times)} edits followed, {failed or 'nothing'} failed"


async def _retries(world: World) -> str:
    await world.processes.kill("ratings-v2-app")
    try:
        without = await answers(world, FEW, "ratings")
        async with in_force(world, "ratings-retry.yaml"):
            await settled(world, "ratings", ("v1",))
            retried = await answers(world, FEW, "ratings")
    finally:
        await world.processes.revive("ratings-v2-app")
    world.remark(f"without: {told(without)}; with retries: {told(retried)}")
    some = "some fail" if 0 < without["v1"] < FEW else told(without)
    return f"{some}; with retries {retried['v1']} of {FEW}"


async def _failover(world: World) -> str:
    async with in_force(world, "ratings-failover.yaml"):
        await settled(world, "ratings", ("v1",))
        before = await answers(world, FEW, "ratings")
        await world.processes.kill("ratings-v1-app")
        try:
            began = time.monotonic()
            await settled(world, "ratings", ("v2",))
            world.remark(f"in the other region after {time.monotonic() - began:.1f} s")
            meanwhile = await answers(world, FEW, "ratings")
        finally:
            await world.processes.revive("ratings-v1-app")
        began = time.monotonic()
        await settled(world, "ratings", ("v1",))
        world.remark(f"back {time.monotonic() - began:.1f} s after v1 was")
        after = await answers(world, FEW, "ratings")
    await settled(world, "ratings", ("v1", "v2"))
    return f"{told(before)}; {told(meanwhile)} once v1 fails; {told(after)}"


async def _breaks(world: World) -> str:
    async with in_force(world, "details-circuit-breaker.yaml"):

        async def trips() -> bool | None:
            return (await _burst(world))["overloaded"] > 0 or None

        await world.until(trips)
        counted = await _overflows(world)
        found = await _burst(world)
        counted = await _overflows(world) - counted
    world.remark(f"{told(found)}; Envoy counted {counted}")
    is_right = set(found) == {"200", "overloaded"} and counted == found["overloaded"]

    async def closed() -> bool | None:
        return (await _burst(world))["200"] == BURST or None

    await world.until(closed)
    after = (await _burst(world))["200"]
    under = "200 and 503, all overloaded and counted" if is_right else f"{told(found)}, counted {counted}"
    return f"{under}; {after} of {BURST} without"


async def _burst(world: World) -> Counter[str]:
    """Ask details as productpage does, many at once: statuses, ``overloaded`` for those that the breaker refused."""
    found: Counter[str] = Counter()

    async def ask() -> None:
        for _ in range(BURST // AT_ONCE):
            reply = await world.from_app(PRODUCTPAGE, DETAILS, "/details/0")
            is_refused = reply.status == 503 and reply.headers.get("x-envoy-overloaded") == "true"
            found["overloaded" if is_refused else str(reply.status or reply.failure)] += 1

    await asyncio.gather(*(ask() for _ in range(AT_ONCE)))
    return found


async def _overflows(world: World) -> int:
    lines = (await asyncio.to_thread(ask_admin, world.admin(PRODUCTPAGE), "/stats?filter=_overflow")).splitlines()
    values = dict(line.rpartition(": ")[::2] for line in lines)
    return sum(int(values.get(name, "0")) for name in OVERFLOWS)

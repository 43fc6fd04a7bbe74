"""
Why a proxy may leave clusters without an answer, as far as it can be known here.

Envoy answers everything else at once. Clusters it answers, or refuses, only when none of them waits any more for its
endpoints, its certificate or the DNS: until then a refusal is hidden. But it asks for the endpoints of a new cluster at
once, and never for those of one that it refuses.
"""

from collections.abc import Iterator, Mapping

from authz.control.discovery.discovered import CLUSTER_TYPE, ENDPOINTS_TYPE, Discovered, ProxyWorld
from authz.control.discovery.subscription import Subscription

MOST_WAITS = 5
"""Clusters that are named."""


def waits_of(asked: Mapping[str, Subscription], world: ProxyWorld) -> tuple[str, ...]:
    """
    Say of every cluster without an answer what it may wait for; those that look refused first.

    Args:
        asked: what the proxy asked for, by type URL.
        world: all that there is for it.
    """
    clusters = asked.get(CLUSTER_TYPE)
    if clusters is None or not clusters.is_waiting:
        return ()
    endpoints = asked.get(ENDPOINTS_TYPE) or Subscription(ENDPOINTS_TYPE)
    sent = [one for name in sorted(clusters.untaken) if (one := clusters.sent.get(name)) is not None]
    found = [words for _, words in sorted(_waits(sent, endpoints, world))]
    more = [f"and {len(found) - MOST_WAITS} more"] if len(found) > MOST_WAITS else []
    return (*found[:MOST_WAITS], *more)


def _waits(sent: list[Discovered], endpoints: Subscription, world: ProxyWorld) -> Iterator[tuple[int, str]]:
    there = world.get(ENDPOINTS_TYPE, {})
    for one in sent:
        if any(name not in endpoints.names for name in one.awaited):
            yield 0, f"`{one.name}` may be refused: its endpoints were not asked for"
        elif any(name not in there for name in one.awaited):
            yield 1, f"`{one.name}` waits for endpoints that are not here"
        elif not one.awaited:
            yield 2, f"`{one.name}` may wait for its certificate or the DNS, or be refused"
        elif endpoints.is_waiting:
            yield 3, f"`{one.name}` has not taken its endpoints"
        else:
            yield 2, f"`{one.name}` has its endpoints, and may wait for its certificate, or be refused"

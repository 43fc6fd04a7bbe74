"""
Scenarios of proxies that answer their own checks (``--authz embedded``).

They take the place of those in which the authorization server is killed: it has no process that could die by itself.
"""

import re
from collections.abc import Iterator

from authz.demo.checks.scenario import Scenario
from authz.demo.checks.world import World
from authz.demo.commands import EMBEDDED_ADMIN_SOCKET
from authz.local.children import LocalError
from authz.local.ready import get_unix

TARGET = "details-v1"
BROKEN_FILE = "99-unreadable.yaml"
BROKEN = """apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: unreadable, namespace: bookinfo}
spec: {action: PERMIT}
"""


def embedded_incidents(group: str) -> Iterator[Scenario]:
    """Yield the scenarios; those about one proxy belong together."""
    yield Scenario(
        group, "every proxy reports for itself: health, metrics, one version", "all ready, by one version", _reports
    )
    yield Scenario(
        group, "a proxy that decides itself is killed: the others go on", "nobody listens, elsewhere +PONG", _killed
    )
    yield Scenario(group, "with unusable policies it does not start", "stays down and says why", _unusable)
    yield Scenario(group, "and is back", "200", _back)


async def _reports(world: World) -> str:
    """Read what a Prometheus beside each proxy would see."""
    ready, versions = 0, set[str]()
    for workload in world.layout.mesh.workloads:
        path = world.layout.state / EMBEDDED_ADMIN_SOCKET.format(name=workload.name)
        told = await get_unix(path, "/metrics")
        ready += bool(re.search(r"^authz_ready 1", told, re.M)) and "authz_policy_last_reload_successful 1" in told
        versions.update(re.findall(r'^authz_policy_info\{version="([^"]+)"', told, re.M))
    are_ready = "all" if ready == len(world.layout.mesh.workloads) else str(ready)
    return f"{are_ready} ready, by {'one version' if len(versions) == 1 else f'{len(versions)} versions'}"


async def _asked(world: World) -> str:
    return await world.outcome(await world.call("productpage-v1", TARGET, "/details/0"))


async def _killed(world: World) -> str:
    """Its server dies with it, so there is nothing to fail open: nobody listens."""
    await world.processes.kill(TARGET)
    told = await _asked(world)
    reply = await world.connect("ratings-v2", "ratingsdb-v1", b"PING\r\n")
    return f"{told}, elsewhere {reply.body.strip() or reply.failure}"


async def _unusable(world: World) -> str:
    async with world.written(BROKEN_FILE, BROKEN):
        try:
            await world.processes.revive(TARGET)
        except LocalError as error:
            why = "says why" if f"{BROKEN_FILE}:4" in (await _own_log(world)) else f"says {error}"
        else:
            return "started"
    told = await _asked(world)
    return f"{'stays down' if told == 'nobody listens' else told} and {why}"


async def _own_log(world: World) -> str:
    names = [workload.name for workload in world.layout.mesh.workloads]
    return (await world.operator_logs())[names.index(TARGET)]


async def _back(world: World) -> str:
    await world.processes.revive(TARGET)
    return (await world.becomes("200", lambda: _asked(world))).partition(" ")[0]

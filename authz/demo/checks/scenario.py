"""
A scenario: a name, what is expected, and how to try it; and two makers for scenarios of a single request.

Expectations are in the words of ``World.outcome``.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from authz.demo.checks.world import HeaderList, World

RunScenario = Callable[[World], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Scenario:
    """``run`` answers what happened; the scenario holds when that is ``expected``."""

    group: str
    name: str
    expected: str
    run: RunScenario


def visit(
    group: str,
    name: str,
    expected: str,
    path: str,
    token: str = "",
    *,
    method: str = "GET",
    headers: HeaderList = (),
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

"""
Scenarios of TLS that leaves the mesh unopened: the name that is asked for decides, and nothing else is known.

The certificate is verified to be the outside world's own, by its authority, which signs nothing else.
"""

import asyncio
from collections.abc import Iterator

from authz.core.attributes import read_field
from authz.core.decided import Record
from authz.demo.checks.clients import ClientPlace, Reply, Tls, ask_admin, exchange, send
from authz.demo.checks.scenario import Scenario
from authz.demo.checks.world import World
from authz.demo.layout import DemoError
from authz.mesh.nouns import GatewayServer, MeshWorkload

EGRESS = "30-egress.yaml"
LISTED, OTHER = "books.example.com", "news.example.com"
VALUES = f"values: [{LISTED}]"
REFUSED = "refused in the handshake"
VOLUMES = "/books/v1/volumes"


def passthrough_scenarios() -> Iterator[Scenario]:
    """Yield the scenarios; each leaves the mesh as it found it."""
    group = "TLS out of the mesh, unopened"
    yield Scenario(group, "a listed name: the outside world's own certificate", "200", _listed)
    yield Scenario(group, "a name that is not listed", f"{REFUSED}, nobody dialled", _not_listed)
    yield Scenario(group, "no name at all", f"{REFUSED}, nobody dialled", _nameless)
    yield Scenario(group, "plaintext", "closed", _plaintext)
    yield Scenario(group, "both are recorded with their names", _RECORDED, _recorded)
    yield Scenario(group, "a listed name as SNI opens no other port", "403 no ALLOW", _other_port)
    yield Scenario(group, "the other name is added to the policy", "200 within 1 s", _added)
    yield Scenario(group, "and taken away, by the same Envoy", f"{REFUSED} within 1 s, not restarted", _taken_away)


def _gateway(world: World) -> tuple[MeshWorkload, GatewayServer]:
    for gateway in world.layout.mesh.gateways:
        for server in gateway.servers:
            if server.is_passthrough:
                return gateway, server
    raise DemoError("the mesh has no Gateway whose server has `tls.mode: PASSTHROUGH`")


def _place(world: World) -> ClientPlace:
    return world.egress(_gateway(world)[1].port)


def _tls(world: World, name: str) -> Tls:
    return Tls(world.layout.state / "certs/outside/ca.crt", name, is_mesh=not name)


async def _ask(world: World, name: str) -> Reply:
    """Ask as an application that speaks TLS itself; ``""``: without a server name."""
    tls = _tls(world, name)
    return await asyncio.to_thread(send, _place(world), "GET", VOLUMES, host=name or LISTED, tls=tls)


async def _told(world: World, name: str) -> str:
    reply = await _ask(world, name)
    return str(reply.status or reply.failure)


async def _dialled(world: World) -> int:
    """How many connections to the outside the gateway has begun so far."""
    gateway, _ = _gateway(world)
    target = "/stats?filter=^cluster.(tunnel|outside).*upstream_cx_total$"
    lines = (await asyncio.to_thread(ask_admin, world.admin(gateway.name), target)).splitlines()
    return sum(int(line.rpartition(": ")[2]) for line in lines if line)


async def _listed(world: World) -> str:
    before = await _dialled(world)
    told = await _told(world, LISTED)
    return told if await _dialled(world) == before + 1 else f"{told}, but nobody dialled"


async def _not_listed(world: World) -> str:
    return await _undialled(world, OTHER)


async def _nameless(world: World) -> str:
    return await _undialled(world, "")


async def _undialled(world: World, name: str) -> str:
    before = await _dialled(world)
    told = await _told(world, name)
    return f"{told}, {'nobody dialled' if await _dialled(world) == before else 'but the outside was dialled'}"


async def _plaintext(world: World) -> str:
    reply = await asyncio.to_thread(exchange, _place(world), b"GET / HTTP/1.1\r\nhost: books.example.com\r\n\r\n")
    return reply.body or reply.failure


_RECORDED = f"{LISTED}: allow by names-outside, {OTHER}: deny"


async def _recorded(world: World) -> str:
    told = []
    for name in (LISTED, OTHER):
        await _ask(world, name)
        record = await world.find(lambda record, name=name: record.get("sni") == name and _is_gateway(record))  # type: ignore[misc]  # mypy does not infer lambdas with defaults
        effect = str(record.get("effect")) if record else "no record"
        by = f" by {read_field(record, 'rule', 'policy')}" if record and effect == "allow" else ""
        told.append(f"{name}: {effect}{by}")
    return ", ".join(told)


def _is_gateway(record: Record) -> bool:
    return read_field(record, "destination", "workload") == "egressgateway"


async def _other_port(world: World) -> str:
    """
    Ask with the certificate of a workload that may not leave, a listed SNI, and a host that is none of its business.
    """
    gateway, _ = _gateway(world)
    place = world.egress(next(server.port for server in gateway.servers if server.is_egress))
    mesh = world.mesh_tls("reviews-v1")
    tls = Tls(mesh.roots, LISTED, mesh.client, is_mesh=True)
    reply = await asyncio.to_thread(send, place, "GET", VOLUMES, host=LISTED, tls=tls)
    return await world.outcome(reply)


async def _added(world: World) -> str:
    async with world.edited(EGRESS, VALUES, f"values: [{LISTED}, {OTHER}]"):
        return await world.becomes("200", lambda: _told(world, OTHER))


async def _taken_away(world: World) -> str:
    """A proxy that was started again would count from nothing."""
    before = await _dialled(world)
    async with world.edited(EGRESS, VALUES, f"values: [{LISTED}, {OTHER}]"):
        await world.becomes("200", lambda: _told(world, OTHER))
    told = await world.becomes(REFUSED, lambda: _told(world, OTHER))
    return f"{told}, {'not restarted' if await _dialled(world) > before else 'restarted'}"

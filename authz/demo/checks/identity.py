"""
Scenarios of certificates: what is served, renewal and root rotation while requests run, the authority's death.

They need the authority as a process of its own (``--secrets sds``).
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from authz.demo.checks.asking import REFUSED, who_gets_one
from authz.demo.checks.clients import Reply, ask_admin
from authz.demo.checks.scenario import Scenario
from authz.demo.checks.world import World
from authz.demo.commands import CA
from authz.demo.prepare import CONNECTION_SECONDS
from authz.identity.drift import read_served

SETTLE_SECONDS = CONNECTION_SECONDS + 1
OUTAGE_SECONDS = 3.0
"""How long the authority is dead, unless the check was told otherwise."""
LONG_SECONDS = 60.0
"""An outage of at least this length is planned so that every certificate falls due for renewal in its middle."""
LIFE_FACTOR = 1.5
"""Life of a certificate as a multiple of a long outage: its half falls within the outage, its end does not."""
PAUSE_SECONDS = 0.02
LONG_PAUSE_SECONDS = 0.2
"""The pause between two requests of one caller, where they go on for minutes."""
HANDSHAKES = "/stats?filter=%5Elistener%5C..*%5C.ssl%5C.handshake$"
EDGES = (
    ("productpage-v1", "details.bookinfo.svc.cluster.local", "/details/0"),
    ("productpage-v1", "reviews.bookinfo.svc.cluster.local", "/reviews/0"),
    ("reviews-v2", "ratings.bookinfo.svc.cluster.local", "/ratings/0"),
)
"""The edges on which requests run all the while."""
IMPOSTOR = """
admin: {{address: {{pipe: {{path: check/impostor.admin.sock}}}}}}
static_resources:
  listeners:
  - name: impostor
    address: {{pipe: {{path: check/impostor.sock}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.direct_response
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.direct_response.v3.Config
      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            tls_certificates:
            - certificate_chain: {{filename: {certificate}}}
              private_key: {{filename: {key}}}
"""


def identity_scenarios(
    outage_seconds: float = OUTAGE_SECONDS, *, has_users: bool = False, shows_roots: bool = True
) -> Iterator[Scenario]:
    """
    Yield the scenarios; each leaves the mesh as it found it, except that the drill leaves another root.

    Args:
        has_users: as in ``World``.
        shows_roots: the Envoys name every root that they trust; without that no root can be changed safely.
    """
    group = "Certificates by SDS"
    yield from who_gets_one(group, has_users=has_users)
    yield Scenario(group, "authz rotation check", "exit code 0", _check)
    yield Scenario(
        group, "and with an Envoy that serves something else", "exit code 3: superseded, nothing else", _impostor
    )

    group = "Rotation while requests run"
    yield Scenario(group, "every certificate is renewed", "all new, no request lost", _leaves)
    yield Scenario(
        group,
        f"the authority is dead for {outage_seconds:.0f} s, and back",
        "all new, renewed again, no request lost",
        lambda world: _outage(world, outage_seconds),
    )
    if not shows_roots:
        return
    yield Scenario(
        group, "authz rotation drill: another root", "exit code 0, no request lost, the old root is refused", _drill
    )
    yield Scenario(group, "authz rotation check after it", "exit code 0", _check)


@dataclass
class Load:
    """The results of the requests."""

    answers: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        total, failed = self.answers.total(), self.answers.total() - self.answers["200"]
        if not total:
            return "no request made"
        return f"{failed} of {total} requests lost: {dict(self.answers)}" if failed else "no request lost"


@asynccontextmanager
async def requests_running(
    world: World, *, pause_seconds: float = PAUSE_SECONDS, newcomer: str = ""
) -> AsyncIterator[Load]:
    """
    One caller on each edge asks as fast as it is answered, by the connections that its sidecar keeps.

    ``newcomer``: the name of a certificate; its holder asks details beside them, each time by a new TLS connection.
    """
    load, is_over = Load(), asyncio.Event()

    async def ask(once: Callable[[], Awaitable[Reply]]) -> None:
        while not is_over.is_set():
            reply = await once()
            load.answers[str(reply.status) if reply.status else reply.failure] += 1
            await asyncio.sleep(pause_seconds)

    callers = [partial(world.from_app, *edge) for edge in EDGES]
    if newcomer:
        callers.append(partial(world.call, newcomer, "details-v1", "/details/0"))
    tasks = [asyncio.create_task(ask(caller)) for caller in callers]
    try:
        yield load
    finally:
        is_over.set()
        await asyncio.gather(*tasks)


# --- what is served ----------------------------------------------------------------------------------------------


def _admins(world: World) -> list[str]:
    """Relative to the state directory, as a socket's path must be short (XA-116)."""
    places = [world.admin(workload.name).relative_to(world.layout.state) for workload in world.layout.mesh.workloads]
    return [part for place in places for part in ("--admin", str(place))]


async def _check(world: World) -> str:
    code, told = await world.authz("rotation", "check", "--ca", "ca", *_admins(world))
    drifts = "; ".join(line for line in told.splitlines() if ": " in line)
    return f"exit code {code}" + (f": {drifts}" if code else "")


async def _impostor(world: World) -> str:
    """A proxy with a certificate for details that the authority did not issue."""
    pair = world.pair("details-v1")
    admin = world.layout.state / "check" / "impostor.admin.sock"
    async with world.impostor(IMPOSTOR.format(certificate=pair.certificate, key=pair.key)):

        async def serves() -> bool | None:
            try:
                found = await asyncio.to_thread(_certs, admin)
                return "cert_chain" in found or None
            except OSError:
                return None

        await world.until(serves)
        sockets = [*_admins(world), "--admin", str(admin.relative_to(world.layout.state))]
        code, told = await world.authz("rotation", "check", "--ca", "ca", *sockets)
    found = [line for line in told.splitlines() if "impostor: " in line]
    others = "nothing else" if told.count(": superseded: ") == 1 else told
    return f"exit code {code}: {'superseded' if any('superseded' in line for line in found) else told}, {others}"


async def _serials(world: World) -> dict[str, frozenset[int]]:
    """Serial numbers of the SVIDs that each proxy serves."""
    found = {}
    for workload in world.layout.mesh.workloads:
        text = await asyncio.to_thread(_certs, world.admin(workload.name))
        served = [certificate for context in read_served(text) for certificate in context.certificates]
        found[workload.name] = frozenset(certificate.serial for certificate in served if certificate.is_svid)
    return found


def _certs(path: Path) -> str:
    return ask_admin(path, "/certs")


async def _all_new(world: World, before: dict[str, frozenset[int]]) -> str:
    """Wait until no proxy serves any of these any longer."""
    late: list[str] = []

    async def look() -> str | None:
        now = await _serials(world)
        late[:] = [name for name in before if not now[name] or now[name] & before[name]]
        return "all new" if not late else None

    return await world.until(look) or f"old at {', '.join(late)}"


# --- rotation ----------------------------------------------------------------------------------------------------


async def _leaves(world: World) -> str:
    before = await _serials(world)
    async with requests_running(world) as load:
        world.renew_certificates()
        told = await _all_new(world, before)
    return f"{told}, {load}"


async def _outage(world: World, seconds: float) -> str:
    is_long = seconds >= LONG_SECONDS
    before = await _serials(world)
    if is_long:
        world.renew_certificates(life_seconds=int(seconds * LIFE_FACTOR))
        if (told := await _all_new(world, before)) != "all new":
            return f"before the outage: {told}"
        before = await _serials(world)
    pause = LONG_PAUSE_SECONDS if is_long else PAUSE_SECONDS
    async with requests_running(world, pause_seconds=pause, newcomer="productpage-v1") as load:
        handshakes = await _handshakes(world)
        await world.processes.kill(CA)
        await asyncio.sleep(seconds)
        handshakes = await _handshakes(world) - handshakes
        asked, are_kept = load.answers.total(), await _serials(world) == before
        await world.processes.revive(CA)
        world.remark(f"{asked} requests and {handshakes} TLS handshakes while the authority was dead")
        if not are_kept:
            return "certificates changed while nobody could sign any"
        told = await _all_new(world, before)
        before = await _serials(world)
        world.renew_certificates()
        again = "renewed again" if await _all_new(world, before) == "all new" else "not renewed again"
    return f"{told}, {again}, {load}"


async def _handshakes(world: World) -> int:
    """How many TLS connections the listeners of all proxies have accepted so far."""
    found = 0
    for workload in world.layout.mesh.workloads:
        told = await asyncio.to_thread(ask_admin, world.admin(workload.name), HANDSHAKES)
        found += sum(int(line.rpartition(": ")[2]) for line in told.splitlines() if line)
    return found


async def _drill(world: World) -> str:
    settle = ("--settle", str(SETTLE_SECONDS))
    async with requests_running(world) as load:
        code, told = await world.authz("rotation", "drill", "--ca", "ca", *settle, *_admins(world))
    if code:
        return f"exit code {code}: {told}"
    old = await world.outcome(await world.call("productpage-v1", "details-v1", "/details/0"))
    await world.renew_callers()
    return f"exit code {code}, {load}, {'the old root is refused' if old == REFUSED else f'the old root: {old}'}"

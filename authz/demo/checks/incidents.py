"""Scenarios in which something happens: policies are edited or broken, keys rotate, processes die."""

import asyncio
import re
from collections.abc import Iterator

from authz.demo.checks.own_answers import embedded_incidents
from authz.demo.checks.records import records
from authz.demo.checks.scenario import Scenario
from authz.demo.checks.world import World
from authz.demo.commands import AUTHZ
from authz.envoy.options import Authz
from authz.identity.secret_files import write_file
from authz.mesh.nouns import Enforce

INGRESS, DRY_RUN, MESH = "10-ingress.yaml", "40-dry-run.yaml", "00-mesh.yaml"
BROKEN = """apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: broken, namespace: istio-system}
spec:
  action: DENY
  rules:
  - from:
    - source: {ipBlocks: [10.0.0.0/33]}
"""
CLOSED = """apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: closed-for-today, namespace: istio-system}
spec:
  selector: {matchLabels: {istio: ingressgateway}}
  action: DENY
  rules:
  - to: [{operation: {paths: [/productpage]}}]
"""


def incidents(*, authz: Authz = Authz.SERVER, enforce: Enforce = Enforce.CHECK) -> Iterator[Scenario]:
    """Yield the scenarios; each leaves the mesh as it found it. How things fail depends on who decides."""
    is_native = enforce is Enforce.NATIVE
    yield from records()

    group = "Policies edited while it runs"
    yield Scenario(group, "readers lose the product page", "403 no ALLOW within 1 s", _readers_lose)
    yield Scenario(group, "and have it back", "200 within 1 s", _product_page_is_back)
    yield Scenario(group, "a new file with a DENY", "403 DENY closed-for-today within 1 s", _new_file)
    yield Scenario(group, "its removal", "200 within 1 s", _product_page_is_back)
    yield Scenario(group, "the dry run becomes real", "403 DENY deny-scripts within 1 s", _enforced)
    yield Scenario(group, "a broken file keeps the last good policies", "200, reported with its line", _broken)
    yield Scenario(group, "STRICT becomes PERMISSIVE: plaintext is answered", "403 no ALLOW", _permissive)
    yield Scenario(group, "and STRICT again", "closed", _strict_again)

    group = "Things that fail"
    yield Scenario(group, "keys rotate: old and new tokens are good", "200, 200", _rotation)
    yield Scenario(group, "certificates are renewed, nothing is restarted", "a new certificate, 200", _renewal)
    if not is_native:  # Envoy knows nothing of revoked certificates
        yield Scenario(
            group,
            "productpage is revoked: its open connections are refused",
            "403 identity within 1 s, 200 later",
            _revoked,
        )
    yield Scenario(group, "details led astray: secure naming refuses", "503", _astray)
    yield Scenario(group, "details dies: it is started again", "died, 200", _application_dies)
    yield Scenario(group, "the external authorizer is gone: CUSTOM denies", "403 CUSTOM custom-orders", _no_provider)
    if authz is Authz.EMBEDDED:
        yield from embedded_incidents(group)
        return
    if is_native:
        yield Scenario(group, "the authorization server is killed", "200, and the database answers", _server_killed)
    else:
        yield Scenario(group, "the authorization server is killed", "503, and the database closed", _authz_killed)
    yield Scenario(group, "and is back", "200, and the database answers", _authz_back)


KEY_REFRESH_SECONDS, NATIVE_KEY_REFRESH_SECONDS = 15.0, 75.0
"""
An unknown kid has the keys fetched again, but not more often than every ten seconds: forged ones are tried before.
Envoys that decide by themselves ask nobody: they know a new key once the issuer's ``max-age`` of a minute is over.
"""


# --- policies ----------------------------------------------------------------------------------------------------


async def _product_page(world: World) -> str:
    return await world.outcome(await world.visit("/productpage", "alice"))


async def _product_page_is_back(world: World) -> str:
    return await world.becomes("200", lambda: _product_page(world))


async def _readers_lose(world: World) -> str:
    async with world.edited(INGRESS, "values: [reader, moderator]", "values: [moderator]"):
        return await world.becomes("403 no ALLOW", lambda: _product_page(world))


async def _new_file(world: World) -> str:
    async with world.written("99-closed.yaml", CLOSED):
        return await world.becomes("403 DENY closed-for-today", lambda: _product_page(world))


async def _enforced(world: World) -> str:
    async def ask() -> str:
        agent = [("user-agent", "curl/8.0 (check)")]
        return await world.outcome(await world.call("productpage-v1", "details-v1", "/details/0", headers=agent))

    async with world.edited(DRY_RUN, 'istio.io/dry-run: "true"', 'istio.io/dry-run: "false"'):
        denied = await world.becomes("403 DENY deny-scripts", ask)
    await world.becomes("200", ask)
    return denied


async def _broken(world: World) -> str:
    """Whoever decides tells the place of what is wrong, and the page is served as before."""
    began = [len(log) for log in await world.operator_logs()]

    async def reported() -> str | None:
        new = [log[start:] for start, log in zip(began, await world.operator_logs(), strict=True)]
        is_told = all(re.search(r"99-broken\.yaml:8:\d+.*10\.0\.0\.0/33", text, re.S) for text in new)
        return "reported with its line" if is_told else None

    async with world.written("99-broken.yaml", BROKEN):
        told = await world.until(reported) or "not reported"
        return f"{await _product_page(world)}, {told}"


async def _plaintext(world: World) -> str:
    return await world.outcome(await world.call("plaintext", "details-v1", "/details/0"))


async def _permissive(world: World) -> str:
    async with world.edited(MESH, "mode: STRICT", "mode: PERMISSIVE"):
        told = await world.becomes("403 no ALLOW", lambda: _plaintext(world))
    return told.partition(" within")[0].partition(" after")[0]


async def _strict_again(world: World) -> str:
    told = await world.becomes("closed", lambda: _plaintext(world))
    return told.partition(" within")[0].partition(" after")[0]


# --- failures ----------------------------------------------------------------------------------------------------


async def _rotation(world: World) -> str:
    await asyncio.to_thread(world.issuing.rotate)
    await world.new_token("alice, new key", "alice")

    async def fresh() -> str | None:
        told = await world.outcome(await world.visit("/productpage", "alice, new key"))
        return told if told == "200" else None

    is_native = world.layout.enforce is Enforce.NATIVE
    patience = NATIVE_KEY_REFRESH_SECONDS if is_native else KEY_REFRESH_SECONDS
    new = await world.until(fresh, patience) or "the new one is refused"
    return f"{await _product_page(world)}, {new}"


async def _renewal(world: World) -> str:
    before = await world.certificate("details-v1")
    world.renew_certificates()

    async def renewed() -> str | None:
        found = await world.certificate("details-v1")
        return "a new certificate" if found and found != before else None

    told = await world.until(renewed) or "the old certificate"
    return f"{told}, {await world.outcome(await world.call('productpage-v1', 'details-v1', '/details/0'))}"


async def _revoked(world: World) -> str:
    """Its sidecar keeps its connection to details: the handshake was long ago (XA-159)."""
    path, host = world.layout.revocations, "details.bookinfo.svc.cluster.local"
    before = path.read_bytes()

    async def ask() -> str:
        return await world.outcome(await world.from_app("productpage-v1", host, "/details/0"))

    await world.becomes("200", ask)
    write_file(path, f"{world.layout.mesh.workload('productpage-v1').spiffe_id}\n".encode())
    try:
        told = await world.becomes("403 identity", ask)
    finally:
        write_file(path, before)
    return f"{told}, {(await world.becomes('200', ask)).partition(' ')[0]} later"


async def _astray(world: World) -> str:
    """Somebody gives productpage's proxy the address of reviews in place of details: the wrong certificate is shown."""
    path = world.layout.state / "eds" / "details.bookinfo.svc.cluster.local_9080.yaml"
    before = path.read_bytes()
    right, wrong = world.inbound("details-v1"), world.inbound("reviews-v1")
    astray = before.replace(f" {right.address}\n".encode(), f" {wrong.address}\n".encode())
    astray = astray.replace(f" {right.port}\n".encode(), f" {wrong.port}\n".encode())
    host = "details.bookinfo.svc.cluster.local"

    async def ask() -> str:
        return await world.outcome(await world.from_app("productpage-v1", host, "/details/0"))

    write_file(path, astray)
    try:
        told = await world.becomes("503", ask)
    finally:
        write_file(path, before)
    await world.becomes("200", ask)
    return told.partition(" within")[0].partition(" after")[0]


async def _application_dies(world: World) -> str:
    died = "died" if await world.processes.crash("details-v1-app") else "lives"

    async def again() -> str | None:
        told = await world.outcome(await world.call("productpage-v1", "details-v1", "/details/0"))
        return told if told == "200" else None

    return f"{died}, {await world.until(again) or 'and stays so'}"


async def _no_provider(world: World) -> str:
    await world.processes.kill("custom")
    try:
        reply = await world.visit("/api/v1/products/0/orders?quantity=1", "alice", method="POST")
        return await world.outcome(reply)
    finally:
        await world.processes.revive("custom")


async def _both(world: World, page: str, database: str) -> str:
    """Wait until page and database are as they should be; return how they are."""
    last = ""

    async def look() -> str | None:
        nonlocal last
        status = str((await world.visit("/productpage", "alice")).status)
        answers = (await world.connect("ratings-v2", "ratingsdb-v1", b"PING\r\n")).body.strip() == "+PONG"
        last = f"{status}, and the database {'answers' if answers else 'closed'}"
        return last if last == f"{page}, and the database {database}" else None

    return await world.until(look) or last


async def _authz_killed(world: World) -> str:
    await world.processes.kill(AUTHZ)
    return await _both(world, "503", "closed")


async def _server_killed(world: World) -> str:
    """Envoys decide by themselves; the records of the time are read when the server is back."""
    await world.processes.kill(AUTHZ)
    return await _both(world, "200", "answers")


async def _authz_back(world: World) -> str:
    await world.processes.revive(AUTHZ)
    return await _both(world, "200", "answers")

"""Scenarios with a real Keycloak as the issuer: its tokens at the gateway, its keys, lifetimes and logout."""

import asyncio
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

from authz.demo.checks.keycloak_client import KeycloakClient, claims_of
from authz.demo.checks.scenario import Scenario, visit
from authz.demo.checks.signing_in import Browser
from authz.demo.checks.world import World
from authz.tokens.parsed import CLOCK_SKEW_SECONDS

LIFE_SECONDS = 3600
"""``accessTokenLifespan`` of the realm."""
REFRESH_SECONDS = 30.0
"""An unknown key has the keys fetched anew, but not more often than every ten seconds; Envoys' filters follow."""


ACCESS_ONLY = """apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: access-tokens-only, namespace: istio-system}
spec:
  selector: {matchLabels: {istio: ingressgateway}}
  action: DENY
  rules:
  - from: [{source: {requestPrincipals: ["*"]}}]
    when: [{key: "request.auth.claims[typ]", notValues: [Bearer]}]
"""


def keycloak_tokens() -> Iterator[Scenario]:
    """Yield what stands in place of the scenarios with our own issuer's tokens."""
    group = "Keycloak's tokens at the ingress gateway"
    page = "/productpage"
    yield visit(group, "the welcome page needs no token", "200", "/")
    yield visit(group, "the product page without a token", "403 no ALLOW", page)
    yield visit(group, "Alice's access token, by password", "200", page, "alice")
    yield Scenario(group, "Alice's, by Keycloak's login page: code and PKCE", "200", _login_page)
    yield Scenario(group, "a browser is led to that page and back", "302, 302, 200 Bob Moderator", _browser)
    yield Scenario(group, "the person is a UUID, the name a claim", "sub is no name, Alice Reader is reader", _person)
    yield visit(group, "Bob's roles are in realm_access: he may moderate", "200", "/admin", "bob")
    yield visit(group, "Alice's are, too: she may not", "403 no ALLOW", "/admin", "alice")
    yield visit(group, "of another client of the realm, without our audience", "403 token", page, "alice, other client")
    yield visit(group, "the refresh token in its place: for Keycloak alone", "403 token", page, "alice, refresh")
    yield visit(group, "the ID token in its place: the same audience, so it is taken", "200", page, "alice, identity")
    yield Scenario(group, "unless a policy asks for the type", "403 DENY access-tokens-only within 1 s", _typed)
    yield visit(group, "Bob's claims under Alice's signature", "401 token", page, "promoted")
    yield Scenario(group, "a key for encryption beside the signing key is no harm", "2 keys or more, 200", _key_set)
    yield Scenario(group, "the life of a token is the realm's", f"{LIFE_SECONDS} s", _life)


def keycloak_events() -> Iterator[Scenario]:
    """Yield what changes Keycloak, last of all: tokens of before are refused afterwards."""
    group = "Keycloak while it runs"
    yield Scenario(group, "logging out ends the session, not the token", "204, refresh 400, token 200", _logout)
    yield Scenario(group, "a token of one second, when that and a minute's leeway are over", "401 token", _expired)
    yield Scenario(group, "the old key is removed: its tokens are refused", "new 200, old 401 token", _removed)


def _client(world: World) -> KeycloakClient:
    assert isinstance(world.issuing, KeycloakClient), "these scenarios are for Keycloak alone"
    return world.issuing


async def _login_page(world: World) -> str:
    world.add_token("alice, login", await asyncio.to_thread(_client(world).signed_in, "alice"))
    return await world.outcome(await world.visit("/productpage", "alice, login"))


async def _browser(world: World) -> str:
    """The gateway's own login, with Keycloak's page in the middle."""
    browser = Browser(world)
    led = await browser.open("/productpage")
    back = urlsplit(await asyncio.to_thread(_client(world).led_back, led.headers.get("location", ""), "bob"))
    returned = await browser.open(f"{back.path}?{back.query}")
    page = await browser.open("/productpage")
    who = "Bob Moderator" if "Bob Moderator" in page.body else "nobody"
    return f"{led.status}, {returned.status}, {page.status} {who}"


async def _person(world: World) -> str:
    subject = str(claims_of(world.token("alice"))["sub"])
    told = (await world.visit("/whoami", "alice")).body
    who = told.replace('{"user":"', "").replace('","role":"', " is ").removesuffix('"}')
    return f"sub is {'a' if subject == 'alice' else 'no'} name, {who}"


async def _typed(world: World) -> str:
    async def ask() -> str:
        return await world.outcome(await world.visit("/productpage", "alice, identity"))

    async with world.written("99-typed.yaml", ACCESS_ONLY):
        told = await world.becomes("403 DENY access-tokens-only", ask)
        access = await world.outcome(await world.visit("/productpage", "alice"))
    await world.becomes("200", ask)
    return told if access == "200" else f"the access token, too: {access}"


async def _key_set(world: World) -> str:
    count = len(await asyncio.to_thread(_client(world).published))
    status = await world.outcome(await world.visit("/productpage", "alice"))
    return f"{'2 keys or more' if count >= 2 else count}, {status}"


async def _life(world: World) -> str:
    claims = claims_of(world.token("alice"))
    return f"{int(str(claims['exp'])) - int(str(claims['iat']))} s"


async def _logout(world: World) -> str:
    client = _client(world)
    granted = await asyncio.to_thread(client.granted, "alice")
    world.add_token("alice, logged out", str(granted["access_token"]))
    refresh_token = str(granted["refresh_token"])
    ended = await asyncio.to_thread(client.log_out, refresh_token)
    refreshed = await asyncio.to_thread(client.refresh, refresh_token)
    token = await world.outcome(await world.visit("/productpage", "alice, logged out"))
    return f"{ended}, refresh {refreshed}, token {token}"


async def _expired(world: World) -> str:
    ends = float(str(claims_of(world.token("brief"))["exp"])) + CLOCK_SKEW_SECONDS
    await asyncio.sleep(max(0.0, ends + 1 - time.time()))
    return await world.outcome(await world.visit("/productpage", "brief"))


async def _removed(world: World) -> str:
    """What the check knows goes stale only when it looks: a token with a key that it does not know makes it look."""
    client = _client(world)
    await asyncio.to_thread(client.rotate)
    await asyncio.to_thread(client.drop_old_keys)
    await world.new_token("alice, newest key", "alice")

    async def fresh() -> str | None:
        told = await world.outcome(await world.visit("/productpage", "alice, newest key"))
        return told if told == "200" else None

    new = await world.until(fresh, REFRESH_SECONDS) or "refused"
    return f"new {new}, old {await world.outcome(await world.visit('/productpage', 'alice'))}"

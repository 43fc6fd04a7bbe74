"""Scenarios with people at a browser: the gateway leads them to the issuer, and the policies see who they are."""

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from urllib.parse import parse_qsl, urlencode, urlsplit

from authz.core.attributes import read_field
from authz.demo.checks.clients import Reply
from authz.demo.checks.scenario import Scenario, visit
from authz.demo.checks.world import HeaderList, World

NAVIGATE = ("sec-fetch-mode", "navigate")
SCRIPT = ("sec-fetch-mode", "cors")
PAGE, LOGOUT = "/productpage", "/logout"
SHORT_SECONDS, LONG_SECONDS = 2, 3600
"""Lives of the issuer's tokens: one that can be waited for, and the usual one."""
OK = 200
BEARER = "__Host-BearerToken"


def login_scenarios() -> Iterator[Scenario]:
    """Yield the scenarios, in the order of the table."""
    group = "Signing in with a browser"
    yield Scenario(group, "a page without a session", "302 to the issuer, with PKCE", _led)
    yield Scenario(group, "Alice signs in there", "303, 302 to /productpage, 200 Alice Reader", _signed_in)
    yield Scenario(group, "the decision's record names her", "alice, allow by allow-readers", _recorded)
    yield Scenario(group, "Alice may not moderate: no login loop", "403 no ALLOW", _reader_moderates)
    yield Scenario(group, "Bob may", "200", _moderator_moderates)
    yield Scenario(group, "the welcome page is open, and knows who is signed in", "200 nobody, 200 Bob", _welcome)
    yield Scenario(group, "a script of a page without a session", "401", _script)
    yield visit(group, "a program without a session: the policies decide", "403 no ALLOW", PAGE)
    yield visit(group, "a token of one's own passes by", "200", PAGE, "alice", headers=[NAVIGATE])
    yield visit(group, "an expired one is refused, not led away", "401 token", PAGE, "expired", headers=[NAVIGATE])
    yield Scenario(group, "a state of somebody else's making", "401", _wrong_state)
    yield Scenario(group, "the code of another browser", "401", _foreign_code)
    yield Scenario(group, "a code for the second time", "401", _code_twice)
    yield Scenario(group, "a session of one's own making", "302 to the issuer", _forged_session)
    yield Scenario(group, "the session outlives its token", "200, then refreshed and 200", _refreshed)
    yield Scenario(group, "signing out", "302 to the issuer, 303 to /, then 302 to the issuer", _signed_out)
    yield Scenario(group, "cookies copied before that, once the token expired", "302 to the issuer", _copied)


class Browser:
    """As much of a browser as a login needs: cookies, and a choice of the two buttons on the issuer's page."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.cookies: dict[str, str] = {}

    async def open(self, path: str, *, method: str = "GET", headers: HeaderList = ()) -> Reply:
        """Open a page; redirects are not followed."""
        jar = [("cookie", "; ".join(f"{name}={value}" for name, value in self.cookies.items()))]
        sent = [*(jar if self.cookies else ()), *headers, NAVIGATE]
        host = f"localhost:{self.world.layout.ingress_port}"  # with its port: an issuer compares where it leads back
        reply = await self.world.visit(path, method=method, headers=sent, host=host)
        for cookie in reply.cookies:
            name, _, rest = cookie.partition("=")
            value = rest.partition(";")[0]
            if value == "deleted":
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = value
        return reply

    async def chosen(self, person: str) -> tuple[Reply, str]:
        """Open the page, and choose a person at the issuer: its answer, and the path to which it leads back."""
        query = urlsplit((await self.open(PAGE)).headers.get("location", "")).query
        form = urlencode([*parse_qsl(query), ("person", person)])
        reply = await self.world.issuer("POST", "/authorize", form.encode())
        back = urlsplit(reply.headers.get("location", ""))
        return reply, f"{back.path}?{back.query}"

    async def sign_in(self, person: str) -> "Browser":
        """Sign in and come back."""
        await self.open((await self.chosen(person))[1])
        return self


def _place(reply: Reply, world: World) -> str:
    """A status, and where it leads."""
    location = reply.headers.get("location", "")
    target = "the issuer" if location.startswith(world.layout.issuer_url) else urlsplit(location).path
    return f"{reply.status} to {target}" if location else str(reply.status)


def _who(page: str) -> str:
    found = re.search(r"Signed in as <strong>([^<]*)</strong>", page)
    return found[1] if found else "nobody"


async def _led(world: World) -> str:
    reply = await Browser(world).open(PAGE)
    asked = dict(parse_qsl(urlsplit(reply.headers.get("location", "")).query))
    has_proof = asked.get("code_challenge_method") == "S256" and asked.get("code_challenge")
    return f"{_place(reply, world)}, {'with' if has_proof else 'without'} PKCE"


async def _signed_in(world: World) -> str:
    browser = Browser(world)
    issued, path = await browser.chosen("alice")
    back = await browser.open(path)
    page = await browser.open(PAGE)
    return f"{issued.status}, {_place(back, world)}, {page.status} {_who(page.body)}"


async def _recorded(world: World) -> str:
    browser = await Browser(world).sign_in("alice")
    await browser.open("/whoami", headers=[("user-agent", "check/login")])
    record = await world.find(
        lambda found: read_field(found, "request", "user_agent") == "check/login" and bool(found.get("token"))
    )
    told = record or {}
    return f"{read_field(told, 'token', 'subject')}, {told.get('effect')} by {read_field(told, 'rule', 'policy')}"


async def _reader_moderates(world: World) -> str:
    return await world.outcome(await (await Browser(world).sign_in("alice")).open("/admin"))


async def _moderator_moderates(world: World) -> str:
    return await world.outcome(await (await Browser(world).sign_in("bob")).open("/admin"))


async def _welcome(world: World) -> str:
    before = await Browser(world).open("/")
    after = await (await Browser(world).sign_in("bob")).open("/")
    return f"{before.status} {_who(before.body)}, {after.status} {_who(after.body).partition(' ')[0]}"


async def _script(world: World) -> str:
    return _place(await world.visit(PAGE, headers=[SCRIPT]), world)


async def _wrong_state(world: World) -> str:
    browser = Browser(world)
    _, path = await browser.chosen("alice")
    return _place(await browser.open(re.sub(r"state=[^&]*", "state=e30", path)), world)


async def _foreign_code(world: World) -> str:
    _, path = await Browser(world).chosen("alice")
    other = Browser(world)
    await other.open(PAGE)
    return _place(await other.open(path), world)


async def _code_twice(world: World) -> str:
    browser = Browser(world)
    _, path = await browser.chosen("alice")
    kept = dict(browser.cookies)
    await browser.open(path)
    browser.cookies = kept
    return _place(await browser.open(path), world)


async def _forged_session(world: World) -> str:
    """A token that anybody may have, in a session's cookie: only what the gateway encrypted counts."""
    browser = await Browser(world).sign_in("alice")
    browser.cookies = {name: value for name, value in browser.cookies.items() if "Refresh" not in name}
    browser.cookies[BEARER] = world.token("bob")
    return _place(await browser.open(PAGE), world)


@asynccontextmanager
async def _short_lives(world: World) -> AsyncIterator[None]:
    """For a while, let the issuer's tokens expire soon."""
    await world.issuer("POST", f"/life/{SHORT_SECONDS}")
    try:
        yield
    finally:
        await world.issuer("POST", f"/life/{LONG_SECONDS}")


async def _refreshed(world: World) -> str:
    async with _short_lives(world):
        browser = await Browser(world).sign_in("alice")
        first = await browser.open("/whoami")

        async def look() -> Reply | None:
            reply = await browser.open("/whoami")
            return reply if reply.cookies or reply.status != OK else None

        later = await world.until(look)
    if later is None:
        return "never refreshed"
    is_fresh = any(cookie.startswith(BEARER) for cookie in later.cookies)
    return f"{first.status}, then {'refreshed and ' if is_fresh else ''}{_place(later, world)}"


async def _signed_out(world: World) -> str:
    browser = await Browser(world).sign_in("alice")
    left = await browser.open(LOGOUT, method="POST")
    target = urlsplit(left.headers.get("location", ""))
    back = await world.issuer("GET", f"{target.path}?{target.query}")
    return f"{_place(left, world)}, {_place(back, world)}, then {_place(await browser.open(PAGE), world)}"


async def _copied(world: World) -> str:
    """The issuer forgot the refresh token; the cookies themselves are good until the token in them expires."""
    async with _short_lives(world):
        browser = await Browser(world).sign_in("alice")
        thief = Browser(world)
        thief.cookies = dict(browser.cookies)
        target = urlsplit((await browser.open(LOGOUT, method="POST")).headers.get("location", ""))
        await world.issuer("GET", f"{target.path}?{target.query}")

        async def look() -> Reply | None:
            reply = await thief.open("/whoami")
            return reply if reply.status != OK else None

        later = await world.until(look)
    return _place(later, world) if later is not None else "good for ever"

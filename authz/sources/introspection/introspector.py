"""
Issuers that are asked about their tokens, and what they said, remembered (RFC 7662).

An active token is believed as long as its issuer's entry says and never beyond its ``exp``; one that is not active is
refused for a while without asking. Requests with one token share one question. An endpoint that fails again and again
is left alone for a while, and its tokens are refused meanwhile. Tokens are kept as digests.
"""

import asyncio
import hashlib
import logging
import ssl
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import httpx

from authz.core.errors import FetchError
from authz.core.introspection import Introspection, TokenAnswer, TokenQuestion
from authz.sources.introspection.exchange import ReadObject, introspect
from authz.sources.keys.fetch import GuardedTransport
from authz.sources.keys.http_proxy import NO_PROXIES, Proxies

_log = logging.getLogger("authz.introspection")
MAX_REMEMBERED = 10_000
"""The most active tokens, and as many others, so that a flood of invented ones drives out no good one."""
MAX_UNDER_WAY = 64
"""Questions to one endpoint at once; others wait within their time."""
FAILURES_TO_OPEN = 5
"""Failures in a row after which an endpoint is left alone."""
FIRST_PAUSE_SECONDS, LAST_PAUSE_SECONDS = 1.0, 30.0
"""How long it is left alone; twice as long after each failure that follows."""

_Key = tuple[Introspection, bytes]


@dataclass(frozen=True, slots=True)
class IntrospectionState:
    """How one issuer is doing. All numbers only ever grow."""

    issuer: str
    hits: int = 0
    """Answers from memory."""
    misses: int = 0
    """Questions to the endpoint."""
    refusals: int = 0
    """Answers that a token is not active."""
    failures: int = 0
    """Questions without an answer, those that were not sent included."""
    error: str = ""
    """Why the last question had no answer; empty when it had."""


@dataclass(slots=True, eq=False)
class _Endpoint:
    introspection: Introspection
    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_UNDER_WAY))
    client: httpx.AsyncClient | None = None
    hits: int = 0
    misses: int = 0
    refusals: int = 0
    failures: int = 0
    error: str = ""
    in_a_row: int = 0
    closed_until: float = 0.0
    is_tried: bool = False
    """A question is under way that will show whether it answers again."""


class _Memory:
    """A bounded memory of answers, each with an end."""

    def __init__(self) -> None:
        self._entries: OrderedDict[_Key, tuple[TokenAnswer, float]] = OrderedDict()

    def get(self, key: _Key, now: float) -> TokenAnswer | None:
        found = self._entries.get(key)
        if found is None:
            return None
        if now >= found[1]:
            del self._entries[key]
            return None
        self._entries.move_to_end(key)
        return found[0]

    def put(self, key: _Key, answer: TokenAnswer, until: float) -> None:
        self._entries[key] = (answer, until)
        self._entries.move_to_end(key)
        if len(self._entries) > MAX_REMEMBERED:
            self._entries.popitem(last=False)


class Introspector:
    """Asks and remembers; for one event loop. ``close`` once."""

    def __init__(
        self,
        read: ReadObject,
        *,
        clock: Callable[[], float],
        ca_bundles: Mapping[str, str] | None = None,
        proxies: Proxies = NO_PROXIES,
    ) -> None:
        """
        Args:
            read: reads a JSON object; ValueError refuses it.
            clock: seconds since the epoch.
            ca_bundles: PEM file by issuer; such an endpoint is verified by this bundle only.
            proxies: those through which endpoints beyond this machine are reached.
        """
        self._read = read
        self._clock = clock
        self._ca_bundles = ca_bundles or {}
        self._proxies = proxies
        self._endpoints: dict[Introspection, _Endpoint] = {}
        self._active, self._refused = _Memory(), _Memory()
        self._under_way: dict[_Key, asyncio.Task[TokenAnswer]] = {}
        self._retired: list[httpx.AsyncClient] = []

    def update(self, introspections: Iterable[Introspection]) -> None:
        """Take the entries in force; what was known of others is forgotten."""
        before = self._endpoints
        self._endpoints = {one: before.get(one) or _Endpoint(one) for one in introspections}
        gone = [endpoint for one, endpoint in before.items() if one not in self._endpoints]
        self._retired += [endpoint.client for endpoint in gone if endpoint.client is not None]

    def remembered(self, question: TokenQuestion, now: float) -> TokenAnswer | None:
        """What the issuer said of the token, if that may still be believed."""
        key = _key(question)
        found = self._active.get(key, now) or self._refused.get(key, now)
        if found is not None:
            self._endpoint(question.introspection).hits += 1
        return found

    async def ask(self, question: TokenQuestion) -> TokenAnswer:
        """Ask, or wait for the answer to the same question. Raises nothing but cancellation."""
        key = _key(question)
        task = self._under_way.get(key)
        if task is None:
            task = self._under_way[key] = asyncio.create_task(self._ask(question, key), name="introspect")
            task.add_done_callback(lambda done: self._under_way.pop(key, None))
        return await asyncio.shield(task)  # whoever gives up does not end it for the others

    async def _ask(self, question: TokenQuestion, key: _Key) -> TokenAnswer:
        introspection, endpoint = question.introspection, self._endpoint(question.introspection)
        if pause := self._pause(endpoint):
            endpoint.failures += 1
            return TokenAnswer(error=f"{introspection.issuer} is not asked for {pause:.0f} s: {endpoint.error}")
        try:
            async with asyncio.timeout(introspection.timeout_seconds):
                await endpoint.slots.acquire()
        except TimeoutError:  # somebody sends more tokens than it can be asked about: that is not the endpoint's fault
            endpoint.failures += 1
            endpoint.is_tried = False
            return TokenAnswer(error=f"{introspection.issuer} is being asked about too many tokens")
        endpoint.misses += 1
        try:
            async with asyncio.timeout(introspection.timeout_seconds):
                answer = await introspect(self._client(endpoint), introspection, question.token, self._read)
        except TimeoutError:
            return self._failed(endpoint, f"no answer within {introspection.timeout_seconds:g} s")
        except FetchError as error:
            return self._failed(endpoint, str(error))
        except Exception as error:  # a strange answer must not become an acceptance
            return self._failed(endpoint, type(error).__name__)
        finally:
            endpoint.is_tried = False
            endpoint.slots.release()
        endpoint.in_a_row, endpoint.closed_until, endpoint.error = 0, 0.0, ""
        now = self._clock()
        if answer.claims is None:
            endpoint.refusals += 1
            self._refused.put(key, answer, now + introspection.refused_max_age_seconds)
        else:
            self._active.put(key, answer, _believed_until(answer.claims, now, introspection))
        return answer

    def _pause(self, endpoint: _Endpoint) -> float:
        """How long the endpoint is still left alone, at least a second while one question tries it; else 0."""
        if endpoint.in_a_row < FAILURES_TO_OPEN:
            return 0.0
        left = endpoint.closed_until - self._clock()
        if left > 0 or endpoint.is_tried:
            return max(left, 1.0)
        endpoint.is_tried = True
        return 0.0

    def _failed(self, endpoint: _Endpoint, why: str) -> TokenAnswer:
        endpoint.failures += 1
        endpoint.in_a_row += 1
        issuer, repeated = endpoint.introspection.issuer, endpoint.error == why
        endpoint.error = why
        over = endpoint.in_a_row - FAILURES_TO_OPEN
        if over >= 0:
            pause = min(FIRST_PAUSE_SECONDS * 2 ** min(over, 10), LAST_PAUSE_SECONDS)
            endpoint.closed_until = self._clock() + pause
        if not repeated:
            _log.error("%s does not say whether tokens are active, they are refused: %s", issuer, why)
        return TokenAnswer(error=f"{issuer} does not say: {why}")

    def status(self) -> tuple[IntrospectionState, ...]:
        """Say how every issuer that was asked is doing."""
        return tuple(
            IntrospectionState(one.introspection.issuer, one.hits, one.misses, one.refusals, one.failures, one.error)
            for one in self._endpoints.values()
        )

    async def close(self) -> None:
        """End what is under way and close the connections."""
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        clients = [endpoint.client for endpoint in self._endpoints.values() if endpoint.client is not None]
        for client in (*clients, *self._retired):
            await client.aclose()

    def _endpoint(self, introspection: Introspection) -> _Endpoint:
        found = self._endpoints.get(introspection)
        if found is None:
            found = self._endpoints[introspection] = _Endpoint(introspection)
        return found

    def _client(self, endpoint: _Endpoint) -> httpx.AsyncClient:
        """Connections to one endpoint. Raises FetchError for a bundle that cannot be used."""
        if endpoint.client is None:
            bundle = self._ca_bundles.get(endpoint.introspection.issuer)
            try:
                context = ssl.create_default_context(cafile=bundle)
            except OSError as error:
                raise FetchError(f"the CA bundle `{bundle}` cannot be used: {error.strerror or error}") from error
            transport = GuardedTransport(context, self._proxies)
            endpoint.client = httpx.AsyncClient(transport=transport, follow_redirects=False, timeout=None)  # noqa: S113  # asyncio.timeout bounds the whole exchange, httpx only its parts
        return endpoint.client


def _key(question: TokenQuestion) -> _Key:
    return question.introspection, hashlib.sha256(question.token.encode("utf-8", "surrogatepass")).digest()


def _believed_until(claims: Mapping[str, object], now: float, introspection: Introspection) -> float:
    """At most the time of the entry, never beyond ``exp``; one that is over is soon judged again."""
    until, expires = now + introspection.max_age_seconds, claims.get("exp")
    if isinstance(expires, bool) or not isinstance(expires, int | float) or not expires:
        return until
    return min(until, max(expires, now + min(introspection.refused_max_age_seconds, introspection.max_age_seconds)))

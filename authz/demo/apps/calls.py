"""
Calls from one Bookinfo service to the next, by way of the caller's own sidecar.

Every call carries on the trace headers and the end user's token of the request that caused it, as Istio asks of
applications: a sidecar cannot know which incoming request an outgoing one belongs to.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
from starlette.applications import Starlette
from starlette.requests import Request

FORWARDED = (
    "x-request-id",
    "traceparent",
    "tracestate",
    "baggage",
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "user-agent",
    "end-user",
    "authorization",
)
"""The headers that Istio's Bookinfo carries on, ``cookie`` excepted: the token in it goes on as ``authorization``."""

SESSION_COOKIE = "bookinfo_session"
"""Cookie in which a browser keeps its token; the ingress policy reads it from there."""

TIMEOUT_SECONDS = 3.0
"""Each try of Istio's productpage; it asks reviews twice. A reviews service that waits longer is its known bug."""


@dataclass(frozen=True, slots=True)
class AppReply:
    """
    The answer of another service. ``status`` is 0 when there was no answer at all.

    ``decision_id`` is set when the other side's authorization server denied the request.
    """

    status: int
    content: dict[str, object]
    error: str = ""
    decision_id: str = ""

    @property
    def is_ok(self) -> bool:
        """Whether the status is 2xx."""
        return self.status // 100 == 2


def forwarded_headers(request: Request) -> dict[str, str]:
    """Return the headers of ``request`` that an outgoing call carries on."""
    headers = {name: value for name in FORWARDED if (value := request.headers.get(name)) is not None}
    session = request.cookies.get(SESSION_COOKIE)
    if "authorization" not in headers and session:
        headers["authorization"] = f"Bearer {session}"
    return headers


def client(timeout_seconds: float = TIMEOUT_SECONDS) -> httpx.AsyncClient:
    """Make a client that goes straight to the sidecar: no proxy of the environment, no redirects."""
    return httpx.AsyncClient(timeout=timeout_seconds, trust_env=False)


@asynccontextmanager
async def with_client(app: Starlette, timeout_seconds: float = TIMEOUT_SECONDS) -> AsyncIterator[None]:
    """The lifespan of an application that calls others; ``app.state.http`` is its client."""
    async with client(timeout_seconds) as http:
        app.state.http = http
        yield


async def ask(
    http: httpx.AsyncClient, url: str, headers: Mapping[str, str], *, host: str = "", tries: int = 1
) -> AppReply:
    """
    Ask another service for a JSON object; never raises.

    Args:
        host: the name the service is known by in the mesh; the URL only names the sidecar's loopback port.
        tries: how often, as long as there is no answer at all.
    """
    sent = {**headers, "host": host} if host else dict(headers)
    try:
        response = await http.get(url, headers=sent)
    except httpx.HTTPError as error:
        if tries > 1:
            return await ask(http, url, headers, host=host, tries=tries - 1)
        return AppReply(0, {}, f"no answer: {type(error).__name__}")
    decision_id = response.headers.get("x-authz-decision-id", "")
    if response.status_code // 100 != 2:
        return AppReply(response.status_code, {}, response.text[:200] or response.reason_phrase, decision_id)
    try:
        content = response.json()
    except ValueError:
        content = None
    if not isinstance(content, dict):
        return AppReply(502, {}, "the answer is not a JSON object")
    return AppReply(response.status_code, content)

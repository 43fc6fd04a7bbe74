"""
The page's routes: files of the package, JSON, and the live stream of decisions.

    GET /                           the page; /static/… its scripts and styles
    GET /api/overview               head of the page
    GET /api/namespaces/graph       the security graph in Kiali's shape
    GET /api/decisions              recent ones; /stream as server-sent events; /{id} one with its explanation
    GET /api/policies, /api/identity, /api/candidate
    GET /api/reach                  who may call whom, proved; /cell one pair with its grants

The source keeps whatever is expensive off the event loop, because that is the loop that answers Envoy.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Protocol

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from authz.admin.merge import JsonAnswer
from authz.analysis.graph.graph import Grouping
from authz.core.decision import Effect

STATIC = Path(__file__).parent / "static"
MAX_STREAMS = 32
"""Browsers that watch at once; each costs a few bytes and one look at a number, four times a second."""
POLL_SECONDS = 0.25
ROWS_EACH_POLL = 100
MAX_ROWS = 500
_HEARTBEAT_POLLS = 40
_NO_STORE = {"cache-control": "no-store"}
_UNITS = {"s": 1, "m": 60, "h": 3600}
_DURATION = re.compile(r"(\d{1,6})([smh]?)")
_CURSOR = re.compile(r"\d{1,15}(?:\.\d{1,15}){0,255}")


class PageSource(Protocol):
    """The source of what the page shows: this process, or several workers together."""

    def close(self) -> None:
        """Stop whatever is still being found out."""

    async def overview(self) -> JsonAnswer:
        """Gather what the start of the page shows."""

    async def graph(
        self, window_seconds: float, grouping: Grouping, namespaces: frozenset[str], *, permitted: bool = True
    ) -> JsonAnswer:
        """
        Nodes and edges of the last ``window_seconds``, within these namespaces; an empty set stands for all. Without
        ``permitted`` only what was seen.
        """

    async def reach(self) -> JsonAnswer:
        """Who may call whom, as far as it is known."""

    async def reach_cell(self, identity: str, workload: str) -> JsonAnswer | None:
        """One pair of it with its grants; None when it is not known."""

    async def decisions(self, after: str, limit: int, effect: Effect | None) -> JsonAnswer:
        """
        ``decisions`` after a cursor, newest first, and the ``cursor`` for the next question; an empty one asks from the
        beginning.
        """

    async def decision(self, decision_id: str) -> JsonAnswer | None:
        """One decision with its explanation; None when nobody remembers it."""

    async def policies(self) -> JsonAnswer:
        """The policies in force and what was found in them."""

    async def candidate(self) -> JsonAnswer:
        """What the candidate policies would change."""

    async def identity(self) -> JsonAnswer:
        """Certificates, key sets and peers."""


class Page:
    """The routes, and the streams that have to end before the server can."""

    def __init__(self, source: PageSource) -> None:
        self._source = source
        self._streams = 0
        self._is_closing = False

    def close(self) -> None:
        """End the streams, so that the server need not wait for browsers, and what is still being found out."""
        self._is_closing = True
        self._source.close()

    @property
    def routes(self) -> list[BaseRoute]:
        """The page, its files and its API, to be mounted at the root of an application."""
        source = self._source
        return [
            Route("/", self._index),
            Mount("/static", StaticFiles(directory=STATIC)),
            Route("/api/overview", _answering(lambda request: source.overview())),
            Route("/api/namespaces/graph", _answering(self._graph)),
            Route("/api/decisions", _answering(self._decisions)),
            Route("/api/decisions/stream", self._stream),
            Route("/api/decisions/{id}", _answering(lambda request: source.decision(request.path_params["id"]))),
            Route("/api/policies", _answering(lambda request: source.policies())),
            Route("/api/identity", _answering(lambda request: source.identity())),
            Route("/api/candidate", _answering(lambda request: source.candidate())),
            Route("/api/reach", _answering(lambda request: source.reach())),
            Route("/api/reach/cell", _answering(self._reach_cell)),
        ]

    async def _index(self, request: Request) -> Response:
        return FileResponse(STATIC / "index.html", headers={"cache-control": "no-cache"})

    async def _graph(self, request: Request) -> JsonAnswer:
        """
        Kiali's parameters: ``namespaces``, ``graphType``, ``duration``; others are accepted and ignored, but for ours:
        ``permitted=false`` leaves out what nobody used.
        """
        asked = request.query_params
        namespaces = frozenset(name for name in asked.get("namespaces", "").split(",") if name)
        grouping = Grouping(asked.get("graphType", Grouping.VERSION))
        seconds, permitted = _seconds(asked.get("duration", "10m")), asked.get("permitted") != "false"
        return await self._source.graph(seconds, grouping, namespaces, permitted=permitted)

    async def _reach_cell(self, request: Request) -> JsonAnswer | None:
        asked = request.query_params
        return await self._source.reach_cell(asked.get("caller", ""), asked.get("workload", ""))

    async def _decisions(self, request: Request) -> JsonAnswer:
        asked = request.query_params
        effect = Effect(asked["effect"]) if asked.get("effect") else None
        limit = min(max(1, int(asked.get("limit", "200"))), MAX_ROWS)
        return await self._source.decisions(_cursor(asked.get("after", "")), limit, effect)

    async def _stream(self, request: Request) -> Response:
        if self._streams >= MAX_STREAMS:
            return JSONResponse({"error": "too many streams"}, 503, headers={**_NO_STORE, "retry-after": "10"})
        try:
            after = _cursor(request.headers.get("last-event-id") or request.query_params.get("after", ""))
        except ValueError as error:
            return JSONResponse({"error": str(error)}, 400, headers=_NO_STORE)
        return StreamingResponse(
            self._events(request, after),
            media_type="text/event-stream",
            headers={**_NO_STORE, "x-accel-buffering": "no"},
        )

    async def _events(self, request: Request, after: str) -> AsyncIterator[str]:
        """One event per decision; the last id lets the browser go on where it was cut off."""
        self._streams += 1
        try:
            yield "retry: 1000\n\n"
            if not after:
                after = str((await self._source.decisions("", 1, None))["cursor"])
            quiet = 0
            while not self._is_closing and not await request.is_disconnected():
                found = await self._source.decisions(after, ROWS_EACH_POLL, None)
                after, rows = str(found["cursor"]), found["decisions"]
                for position, row in enumerate(reversed(rows), 1):
                    mark = f"id: {after}\n" if position == len(rows) else ""
                    yield f"{mark}data: {json.dumps(row)}\n\n"
                quiet = 0 if rows else quiet + 1
                if quiet >= _HEARTBEAT_POLLS:
                    quiet = 0
                    yield ": still here\n\n"
                await asyncio.sleep(POLL_SECONDS)
        finally:
            self._streams -= 1


def _answering(make: Callable[[Request], Awaitable[JsonAnswer | None]]) -> Callable[[Request], Awaitable[Response]]:
    """A route that answers JSON."""

    async def answer(request: Request) -> Response:
        try:
            found = await make(request)
        except ValueError as error:
            return JSONResponse({"error": str(error)}, 400, headers=_NO_STORE)
        if found is None:
            return JSONResponse({"error": "not kept any more"}, 404, headers=_NO_STORE)
        return JSONResponse(found, headers=_NO_STORE)

    return answer


def _seconds(text: str) -> float:
    """Read ``90``, ``90s`` or ``10m``. Raises ValueError."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError("`duration` is not of the form `90s` or `10m`")
    return float(int(match[1]) * _UNITS[match[2] or "s"])


def _cursor(text: str) -> str:
    """One number per worker, joined by full stops. Raises ValueError."""
    if text and not _CURSOR.fullmatch(text):
        raise ValueError("`after` is not a cursor of an earlier answer")
    return text

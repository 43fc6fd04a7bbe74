"""
The page's routes: files of the package, JSON, and the live stream of decisions.

    GET /                           the page; /static/… its scripts and styles
    GET /api/overview               head of the page
    GET /api/namespaces/graph       the security graph in Kiali's shape
    GET /api/decisions              recent ones; /stream as server-sent events; /{id} one with its explanation
    GET /api/policies, /api/identity

Everything that costs something runs in a thread: the event loop is the one that answers Envoy.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from authz.admin.api import PageFacts
from authz.analysis.graph import Grouping
from authz.core.attributes import Json
from authz.core.decision import Effect

STATIC = Path(__file__).parent / "static"
MAX_STREAMS = 32
"""Browsers that watch at once; each costs a few bytes and a look at a number four times a second."""
POLL_SECONDS = 0.25
ROWS_EACH_POLL = 100
_HEARTBEAT_POLLS = 40
_NO_STORE = {"cache-control": "no-store"}
_UNITS = {"s": 1, "m": 60, "h": 3600}
_DURATION = re.compile(r"(\d{1,6})([smh]?)")


class Page:
    """The routes, and the streams that have to end before the server can."""

    def __init__(self, facts: PageFacts) -> None:
        self._facts = facts
        self._streams = 0
        self._is_closing = False

    def close(self) -> None:
        """End the streams, so that the server need not wait for browsers."""
        self._is_closing = True

    @property
    def routes(self) -> list[BaseRoute]:
        facts = self._facts
        return [
            Route("/", self._index),
            Mount("/static", StaticFiles(directory=STATIC)),
            Route("/api/overview", _answering(lambda request: facts.overview())),
            Route("/api/namespaces/graph", _answering(self._graph)),
            Route("/api/decisions", _answering(self._decisions)),
            Route("/api/decisions/stream", self._stream),
            Route("/api/decisions/{id}", _answering(lambda request: facts.decision(request.path_params["id"]))),
            Route("/api/policies", _answering(lambda request: facts.policies())),
            Route("/api/identity", _answering(lambda request: facts.identity())),
        ]

    async def _index(self, request: Request) -> Response:
        return FileResponse(STATIC / "index.html", headers={"cache-control": "no-cache"})

    def _graph(self, request: Request) -> dict[str, Json]:
        """Kiali's parameters: ``namespaces``, ``graphType``, ``duration``; others are accepted and ignored."""
        asked = request.query_params
        namespaces = frozenset(name for name in asked.get("namespaces", "").split(",") if name)
        grouping = Grouping(asked.get("graphType", Grouping.VERSION))
        return self._facts.graph(_seconds(asked.get("duration", "10m")), grouping, namespaces)

    def _decisions(self, request: Request) -> dict[str, Json]:
        asked = request.query_params
        effect = Effect(asked["effect"]) if asked.get("effect") else None
        return self._facts.decisions(
            after=int(asked.get("after", "0")), limit=max(1, int(asked.get("limit", "200"))), effect=effect
        )

    async def _stream(self, request: Request) -> Response:
        if self._streams >= MAX_STREAMS:
            return JSONResponse({"error": "too many streams"}, 503, headers={**_NO_STORE, "retry-after": "10"})
        last = request.headers.get("last-event-id") or request.query_params.get("after", "")
        after = int(last) if last.isascii() and last.isdigit() else self._facts.watch.sequence
        return StreamingResponse(
            self._events(request, after),
            media_type="text/event-stream",
            headers={**_NO_STORE, "x-accel-buffering": "no"},
        )

    async def _events(self, request: Request, after: int) -> AsyncIterator[str]:
        """One event a decision; its id lets the browser go on where it was cut off."""
        self._streams += 1
        try:
            yield "retry: 1000\n\n"
            quiet = 0
            while not self._is_closing and not await request.is_disconnected():
                watch = self._facts.watch
                if watch.sequence == after:
                    quiet += 1
                    if quiet >= _HEARTBEAT_POLLS:
                        quiet = 0
                        yield ": still here\n\n"
                else:
                    if watch.sequence < after:  # the service was started again
                        after = 0
                    found = await run_in_threadpool(self._facts.decisions, after=after, limit=ROWS_EACH_POLL)
                    rows = found["decisions"]
                    assert isinstance(rows, list)
                    for row in reversed(rows):
                        assert isinstance(row, dict)
                        yield f"id: {row['sequence']}\ndata: {json.dumps(row)}\n\n"
                        after = max(after, int(str(row["sequence"])))
                await asyncio.sleep(POLL_SECONDS)
        finally:
            self._streams -= 1


def _answering(make: Callable[[Request], dict[str, Json] | None]) -> Callable[[Request], Response]:
    """A route that answers JSON. Being no coroutine, starlette runs it in a thread."""

    def answer(request: Request) -> Response:
        try:
            found = make(request)
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

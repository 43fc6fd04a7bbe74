"""
The operator's side of several workers: one ``/metrics``, one health, and the way to each worker's own pages.

Samples get a label ``worker`` instead of being added up: a sum would fall when a worker restarts, which a counter must
not. Every other path is answered by a worker: the one that ``?worker=`` names, or the first that is ready.
"""

import json
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from authz.admin.answers import NO_STORE, alive, healthiness, readiness
from authz.admin.health import HealthCause
from authz.telemetry.counters import Labels
from authz.telemetry.names import WORKER_RESTARTS, WORKER_SERVING
from authz.telemetry.text import CONTENT_TYPE, metric_lines

_SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(\{)?(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """The supervisor's knowledge of one worker."""

    index: int
    is_serving: bool
    restarts: int
    process: int | None = None


@dataclass(frozen=True, slots=True)
class WorkerAnswer:
    """An HTTP answer of a worker; status 0 when it gave none."""

    status: int = 0
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class WorkerRequest:
    """An HTTP request to a worker's own administration."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


Fetch = Callable[[int, WorkerRequest], Awaitable[WorkerAnswer]]


def create_workers_app(
    workers: Callable[[], Sequence[WorkerStatus]],
    fetch: Fetch,
    is_draining: Callable[[], bool],
    *,
    routes: Sequence[BaseRoute] = (),
) -> Starlette:
    """
    Build the application.

    Args:
        workers: all of them, fresh at each call.
        fetch: asks one; never raises.
        is_draining: true after SIGTERM.
        routes: more of them, for example the page.
    """

    async def asked(target: str) -> list[tuple[WorkerStatus, WorkerAnswer]]:
        request = WorkerRequest("GET", target, (("accept", "text/plain"),))
        return [(worker, await fetch(worker.index, request)) for worker in workers()]

    async def readyz(request: Request) -> Response:
        found = workers()
        is_ready = any(worker.is_serving for worker in found) and not is_draining()
        return readiness([] if is_ready else _not_serving(found), is_ready=is_ready)

    async def healthz(request: Request) -> Response:
        found = await asked("/healthz")
        causes = _not_serving([worker for worker, _ in found])
        for worker, answer in found:
            causes += [replace(one, message=f"worker {worker.index}: {one.message}") for one in _causes(answer)]
        is_ready = any(worker.is_serving for worker, _ in found) and not is_draining()
        return healthiness(causes, is_ready=is_ready)

    async def metrics(request: Request) -> Response:
        found = await asked("/metrics")
        pages = [(worker.index, answer.body.decode()) for worker, answer in found if answer.status == 200]
        body = merge_metrics(pages) + _own_metrics([worker for worker, _ in found])
        return Response(body, headers={"content-type": CONTENT_TYPE, **NO_STORE})

    async def other(request: Request) -> Response:
        wanted = request.query_params.get("worker", "")
        able = [w.index for w in workers() if (str(w.index) == wanted if wanted else w.is_serving)]
        if not able:
            return JSONResponse({"error": "no such worker is serving"}, 503, headers=NO_STORE)
        query = f"?{request.url.query}" if request.url.query else ""
        passed = tuple((k, v) for k, v in request.headers.items() if k in ("accept", "content-type", "origin"))
        answer = await fetch(
            able[0], WorkerRequest(request.method, request.url.path + query, passed, await request.body())
        )
        if not answer.status:
            return JSONResponse({"error": f"worker {able[0]} does not answer"}, 502, headers=NO_STORE)
        return Response(answer.body, answer.status, headers=dict(answer.headers))

    app = Starlette(
        routes=[
            Route("/livez", alive),
            Route("/readyz", readyz),
            Route("/healthz", healthz),
            Route("/metrics", metrics),
            *routes,
            Route("/{path:path}", other, methods=["GET", "POST"]),
        ]
    )
    app.router.redirect_slashes = False  # the worker lists its paths
    return app


def merge_metrics(pages: Iterable[tuple[int, str]]) -> str:
    """Join the text pages of several workers: each metric described once, each sample with its worker."""
    described: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for index, page in pages:
        metric = ""
        for line in page.splitlines():
            if line.startswith("# "):
                metric = line.split(" ", 3)[2]
                lines = described.setdefault(metric, [])
                if line not in lines:
                    lines.append(line)
            elif line:
                samples.setdefault(metric, []).append(_labelled(line, index))
    return "".join("\n".join([*lines, *samples.get(metric, ())]) + "\n" for metric, lines in described.items() if lines)


def _labelled(sample: str, index: int) -> str:
    match = _SAMPLE.fullmatch(sample)
    if match is None:
        return sample
    name, brace, rest = match.groups()
    own = f'worker="{index}"'
    if not brace:
        return f"{name}{{{own}}}{rest}"
    return f"{name}{{{own}{rest}" if rest.startswith("}") else f"{name}{{{own},{rest}"


def _own_metrics(found: Sequence[WorkerStatus]) -> str:
    serving: dict[Labels, float] = {(str(worker.index),): float(worker.is_serving) for worker in found}
    restarts: dict[Labels, float] = {(str(worker.index),): float(worker.restarts) for worker in found}
    lines = (*metric_lines(WORKER_SERVING, serving), *metric_lines(WORKER_RESTARTS, restarts))
    return "".join(f"{line}\n" for line in lines)


def _not_serving(found: Sequence[WorkerStatus]) -> list[HealthCause]:
    """Each worker that does not serve is a cause, which blocks only when none is left."""
    none_left = not any(worker.is_serving for worker in found)
    return [
        HealthCause("workers", f"worker {worker.index} does not serve", none_left)
        for worker in found
        if not worker.is_serving
    ]


def _causes(answer: WorkerAnswer) -> list[HealthCause]:
    """The causes that a worker reports about itself; none of them blocks the others."""
    try:
        causes = json.loads(answer.body)["causes"]
        return [HealthCause(str(c["part"]), str(c["message"]), False) for c in causes]
    except (ValueError, KeyError, TypeError):
        return [HealthCause("workers", "its health could not be read", False)]

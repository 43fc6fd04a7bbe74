"""
The operator's side of several workers: one ``/metrics``, one health, and the way to each worker's own pages.

Samples get a label ``worker`` instead of being added up: a sum would fall when a worker restarts, which a counter must
not. Whatever else is asked for is answered by a worker, the one of ``?worker=`` or the first that is ready.
"""

import json
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from authz.telemetry.names import WORKER_RESTARTS, WORKER_SERVING

_SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(\{)?(.*)", re.DOTALL)
_NO_STORE = {"cache-control": "no-store"}


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """What the supervisor knows of one worker."""

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

    async def livez(request: Request) -> Response:
        return JSONResponse({"status": "alive"}, headers=_NO_STORE)

    async def readyz(request: Request) -> Response:
        found = workers()
        is_ready = any(worker.is_serving for worker in found) and not is_draining()
        causes = [] if is_ready else _not_serving(found)
        word = "ready" if is_ready else "not ready"
        return JSONResponse({"status": word, "causes": causes}, 200 if is_ready else 503, headers=_NO_STORE)

    async def healthz(request: Request) -> Response:
        found = await asked("/healthz")
        causes = _not_serving([worker for worker, _ in found])
        for worker, answer in found:
            causes += [
                {**cause, "message": f"worker {worker.index}: {cause['message']}", "blocks": False}
                for cause in _causes(answer)
            ]
        is_ready = any(worker.is_serving for worker, _ in found) and not is_draining()
        word = "not ready" if not is_ready else "attention" if causes else "healthy"
        return JSONResponse({"status": word, "causes": causes}, 200 if is_ready else 503, headers=_NO_STORE)

    async def metrics(request: Request) -> Response:
        found = await asked("/metrics")
        pages = [(worker.index, answer.body.decode()) for worker, answer in found if answer.status == 200]
        body = merge_metrics(pages) + _own_metrics([worker for worker, _ in found])
        return Response(body, headers={"content-type": "text/plain; version=0.0.4; charset=utf-8", **_NO_STORE})

    async def other(request: Request) -> Response:
        wanted = request.query_params.get("worker", "")
        able = [w.index for w in workers() if (str(w.index) == wanted if wanted else w.is_serving)]
        if not able:
            return JSONResponse({"error": "no such worker is serving"}, 503, headers=_NO_STORE)
        query = f"?{request.url.query}" if request.url.query else ""
        passed = tuple((k, v) for k, v in request.headers.items() if k in ("accept", "content-type", "origin"))
        answer = await fetch(
            able[0], WorkerRequest(request.method, request.url.path + query, passed, await request.body())
        )
        if not answer.status:
            return JSONResponse({"error": f"worker {able[0]} does not answer"}, 502, headers=_NO_STORE)
        return Response(answer.body, answer.status, headers=dict(answer.headers))

    return Starlette(
        routes=[
            Route("/livez", livez),
            Route("/readyz", readyz),
            Route("/healthz", healthz),
            Route("/metrics", metrics),
            *routes,
            Route("/{path:path}", other, methods=["GET", "POST"]),
        ]
    )


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
    told: list[str] = []
    for metric, values in (
        (WORKER_SERVING, [int(worker.is_serving) for worker in found]),
        (WORKER_RESTARTS, [worker.restarts for worker in found]),
    ):
        told += [f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} {metric.kind}"]
        told += [f'{metric.name}{{worker="{w.index}"}} {value}' for w, value in zip(found, values, strict=True)]
    return "\n".join([*told, ""])


def _not_serving(found: Sequence[WorkerStatus]) -> list[dict[str, object]]:
    """Each is a cause; it blocks only when none is left."""
    none_left = not any(worker.is_serving for worker in found)
    return [
        {"part": "workers", "message": f"worker {worker.index} does not serve", "blocks": none_left}
        for worker in found
        if not worker.is_serving
    ]


def _causes(answer: WorkerAnswer) -> list[dict[str, object]]:
    try:
        causes = json.loads(answer.body)["causes"]
        return [{"part": str(c["part"]), "message": str(c["message"])} for c in causes]
    except (ValueError, KeyError, TypeError):
        return [{"part": "workers", "message": "its health could not be read"}]

"""
The operator's HTTP side: ``/livez``, ``/readyz``, ``/healthz``, ``/metrics``, and whatever routes are added.

    GET /readyz   200 or 503   {"status":"ready","causes":[]}
    GET /healthz  200 or 503   {"status":"attention","causes":[{"part":"keys","message":"…","blocks":false}]}

It only reads statuses; whatever fails here answers 500 here and touches no decision.
"""

import logging
from collections.abc import Callable, Sequence

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from authz.admin.health import Health, judge_health
from authz.telemetry.counters import Telemetry
from authz.telemetry.metrics import TelemetryCollector, metrics_registry, render_metrics
from authz.telemetry.status import ServiceStatus, TrailStatus

_log = logging.getLogger("authz.admin")
_NO_STORE = {"cache-control": "no-store"}


def create_app(
    status: Callable[[], ServiceStatus],
    trail: Callable[[], TrailStatus],
    telemetry: Telemetry,
    clock: Callable[[], float],
    *,
    routes: Sequence[BaseRoute] = (),
) -> Starlette:
    """
    Build the application.

    Args:
        status: the service's facts, fresh at each call.
        trail: ``AuditTrail.status``.
        telemetry: the counters that the trail feeds.
        clock: seconds since the epoch.
        routes: more of them, for example the page; they come after ours, so none can hide a health check.
    """

    def health() -> Health:
        return judge_health(status(), trail(), clock())

    registry = metrics_registry(TelemetryCollector(telemetry, status, trail, lambda: health().is_ready))

    async def livez(request: Request) -> Response:
        return JSONResponse({"status": "alive"}, headers=_NO_STORE)

    async def readyz(request: Request) -> Response:
        found = health()
        causes = [cause for cause in found.causes if cause.blocks]
        return _answer("ready" if found.is_ready else "not ready", Health(tuple(causes)), is_well=found.is_ready)

    async def healthz(request: Request) -> Response:
        found = health()
        word = "healthy" if found.is_healthy else "attention" if found.is_ready else "not ready"
        return _answer(word, found, is_well=found.is_ready)

    async def metrics(request: Request) -> Response:
        body, content_type = render_metrics(registry, request.headers.get("accept", ""))
        return Response(body, media_type=None, headers={"content-type": content_type, **_NO_STORE})

    found: list[BaseRoute] = [
        Route("/livez", livez),
        Route("/readyz", readyz),
        Route("/healthz", healthz),
        Route("/metrics", metrics),
        *routes,
    ]
    paths = [route.path for route in found if isinstance(route, Route)]

    async def unknown(request: Request, error: Exception) -> Response:
        """Names differ from program to program: `/health`, `/ready`; here are ours."""
        return JSONResponse({"error": "there is no such path", "paths": paths}, 404, headers=_NO_STORE)

    return Starlette(routes=found, exception_handlers={404: unknown, Exception: _failed})


def _answer(word: str, health: Health, *, is_well: bool) -> Response:
    causes = [{"part": c.part, "message": c.message, "blocks": c.blocks} for c in health.causes]
    return JSONResponse({"status": word, "causes": causes}, 200 if is_well else 503, headers=_NO_STORE)


async def _failed(request: Request, error: Exception) -> Response:
    """A status that cannot be read is a reason not to be ready, and says so."""
    _log.error("%s could not be answered", request.url.path, exc_info=error)
    message = f"the status could not be read: {type(error).__name__}"
    cause = {"part": "admin", "message": message, "blocks": True}
    return JSONResponse({"status": "unknown", "causes": [cause]}, 500, headers=_NO_STORE)

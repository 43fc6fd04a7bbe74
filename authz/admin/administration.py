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

from authz.admin.answers import NO_STORE, alive, healthiness, readiness
from authz.admin.health import Health, judge_health
from authz.telemetry.counters import Telemetry
from authz.telemetry.metrics import TelemetryCollector, metrics_registry, render_metrics
from authz.telemetry.status import ServiceStatus, TrailStatus

_log = logging.getLogger("authz.admin")


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
        status: the facts of the service, fresh at each call.
        trail: ``AuditTrail.status``.
        telemetry: the counters that the trail feeds.
        clock: seconds since the epoch.
        routes: further routes, for example the page; they come after ours, so none can hide a health check.
    """

    def health() -> Health:
        return judge_health(status(), trail(), clock())

    registry = metrics_registry(TelemetryCollector(telemetry, status, trail, lambda: health().is_ready))

    async def readyz(request: Request) -> Response:
        found = health()
        return readiness((cause for cause in found.causes if cause.blocks), is_ready=found.is_ready)

    async def healthz(request: Request) -> Response:
        found = health()
        return healthiness(found.causes, is_ready=found.is_ready)

    async def metrics(request: Request) -> Response:
        body, content_type = render_metrics(registry, request.headers.get("accept", ""))
        return Response(body, media_type=None, headers={"content-type": content_type, **NO_STORE})

    found: list[BaseRoute] = [
        Route("/livez", alive),
        Route("/readyz", readyz),
        Route("/healthz", healthz),
        Route("/metrics", metrics),
        *routes,
    ]
    paths = [route.path for route in found if isinstance(route, Route)]

    async def unknown(request: Request, error: Exception) -> Response:
        """List the paths that exist here: other programs call them `/health` or `/ready`."""
        return JSONResponse({"error": "there is no such path", "paths": paths}, 404, headers=NO_STORE)

    app = Starlette(routes=found, exception_handlers={404: unknown, Exception: _failed})
    app.router.redirect_slashes = False  # a worker would name its own address, which nobody outside can reach
    return app


async def _failed(request: Request, error: Exception) -> Response:
    """A status that cannot be read is a reason not to be ready, and says so."""
    _log.error("%s could not be answered", request.url.path, exc_info=error)
    message = f"the status could not be read: {type(error).__name__}"
    cause = {"part": "admin", "message": message, "blocks": True}
    return JSONResponse({"status": "unknown", "causes": [cause]}, 500, headers=NO_STORE)

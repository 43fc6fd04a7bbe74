"""How health is answered over HTTP: the same words, codes and JSON for one process and for several workers."""

from collections.abc import Iterable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from authz.admin.health import HealthCause

NO_STORE = {"cache-control": "no-store"}


async def alive(request: Request) -> Response:
    """``/livez``: whoever answers is alive."""
    return JSONResponse({"status": "alive"}, headers=NO_STORE)


def readiness(causes: Iterable[HealthCause], *, is_ready: bool) -> Response:
    """``/readyz``: 200 or 503, with what blocks."""
    return _answer("ready" if is_ready else "not ready", causes, is_ready=is_ready)


def healthiness(causes: Iterable[HealthCause], *, is_ready: bool) -> Response:
    """``/healthz``: 200 or 503, with everything that needs attention."""
    causes = tuple(causes)
    return _answer("not ready" if not is_ready else "attention" if causes else "healthy", causes, is_ready=is_ready)


def _answer(word: str, causes: Iterable[HealthCause], *, is_ready: bool) -> Response:
    told = [{"part": c.part, "message": c.message, "blocks": c.blocks} for c in causes]
    return JSONResponse({"status": word, "causes": told}, 200 if is_ready else 503, headers=NO_STORE)

"""
custom: the external authorizer that the demo's CUSTOM policy asks, over Istio's ``envoyExtAuthzHttp`` protocol.

It has the sole say on one business rule that no policy language should know: how many copies may be ordered.
200 allows; anything else denies, and what it says goes to the client.
"""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

MOST_COPIES = 3
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


def custom() -> Starlette:
    """Make the application: the path asked about follows ``/check``, as the provider's ``pathPrefix`` says."""

    async def check(request: Request) -> Response:
        quantity = request.query_params.get("quantity", "1")
        if quantity.isascii() and quantity.isdigit() and 0 < int(quantity[:6]) <= MOST_COPIES:
            return PlainTextResponse("", headers={"x-order-checked": "yes"})
        return PlainTextResponse(f"at most {MOST_COPIES} copies for one customer\n", 403)

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "healthy"})

    return Starlette(routes=[Route("/health", health), Route("/check{path:path}", check, methods=METHODS)])

"""The health answer that all Bookinfo services share."""

from starlette.requests import Request
from starlette.responses import JSONResponse


async def health(request: Request) -> JSONResponse:
    """Answer 200: the process runs."""
    return JSONResponse({"status": "healthy"})

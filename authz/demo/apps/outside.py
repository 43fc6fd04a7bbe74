"""
outside: stands in for the world beyond the mesh.

This is not a mesh service and has no sidecar: an HTTPS server with a certificate from another authority, as
``books.example.com`` would be. It is ours only so that the demo needs no network.
"""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


def outside() -> Starlette:
    """Make the application; it answers for any host name that is asked for, and says which."""

    async def volumes(request: Request) -> JSONResponse:
        return JSONResponse(
            {
                "host": request.headers.get("host", ""),
                "in_print": True,
                "price": "9.99 EUR",
                "seller": "Example Books",
                # Everything that reached the outside world: the demo checks that it holds no token and no mesh
                # identity.
                "seen_headers": sorted(request.headers.keys()),
            }
        )

    async def anything(request: Request) -> JSONResponse:
        return JSONResponse({"host": request.headers.get("host", ""), "path": request.url.path})

    return Starlette(routes=[Route("/books/v1/volumes", volumes), Route("/{path:path}", anything)])

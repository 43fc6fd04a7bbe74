"""
details: facts about one book, and whether the outside world still sells it.

The second part goes out of the mesh: sidecar, egress gateway, TLS, ``books.example.com``.
"""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from authz.demo.apps.calls import ask, forwarded_headers, with_client
from authz.demo.apps.health_answer import health

BOOK: dict[str, object] = {
    "author": "William Shakespeare",
    "year": 1595,
    "type": "paperback",
    "pages": 200,
    "publisher": "PublisherA",
    "language": "English",
    "ISBN-10": "1234567890",
    "ISBN-13": "123-1234567890",
}
BOOKS_HOST = "books.example.com"


def details(books_url: str = "") -> Starlette:
    """
    Make the application.

    Args:
        books_url: the sidecar's loopback port that leads to ``books.example.com``; empty: nobody is asked.
    """

    async def show(request: Request) -> JSONResponse:
        number = int(request.path_params["product"])
        found: dict[str, object] = {"id": number, **BOOK}
        if books_url:
            # Who is signed in, and the token of it, are for Bookinfo; the outside world is not told.
            headers = {n: v for n, v in forwarded_headers(request).items() if n not in ("authorization", "end-user")}
            url = f"{books_url}/books/v1/volumes?q=isbn:{BOOK['ISBN-10']}"
            answer = await ask(request.app.state.http, url, headers, host=BOOKS_HOST)
            found["market"] = answer.content if answer.is_ok else {"error": answer.error, "status": answer.status}
        return JSONResponse(found)

    return Starlette(routes=[Route("/details/{product:int}", show), Route("/health", health)], lifespan=with_client)

"""
productpage: the HTML page of Bookinfo and its small JSON API, as in Istio's sample.

It signs nobody in and checks no token: the ingress gateway does both, and hands over ``x-jwt-user`` and
``x-jwt-role``, which a client cannot forge because the gateway removes them from every request (RA-49). Only the
gateway may call this service.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from urllib.parse import parse_qs

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from authz.demo.apps.calls import AppReply, ask, client, forwarded_headers
from authz.demo.apps.health_answer import health
from authz.demo.apps.pages import STYLE, Visitor, admin, landing, product
from authz.demo.apps.reviews import TEXTS

DETAILS_HOST = "details.bookinfo.svc.cluster.local"
REVIEWS_HOST = "reviews.bookinfo.svc.cluster.local"
PRODUCT = {
    "id": 0,
    "title": "The Comedy of Errors",
    "descriptionHtml": "One of William Shakespeare’s early plays, his shortest and one of his most farcical comedies.",
}
REVIEWERS = tuple(name for name, _ in TEXTS)
REVIEWS_TRIES = 2
"""As in Istio's productpage: it gives up after twice ``calls.TIMEOUT_SECONDS``."""
SEE_OTHER = 303
ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><rect width="16" height="16" rx="3" fill="#2b4a9b"/>'
    '<path d="M4 3h4a2 2 0 0 1 0 10H4z" fill="#fff"/></svg>'
)
SAFE_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'self'; img-src 'self'",
    "cache-control": "no-store",
}


class Productpage:
    """The application's state: who is called, and which reviews are hidden."""

    def __init__(self, details_url: str, reviews_url: str) -> None:
        self.details_url = details_url
        self.reviews_url = reviews_url
        self.hidden: frozenset[str] = frozenset()
        self.http: httpx.AsyncClient

    # --- pages ------------------------------------------------------------------------------------------------------

    async def landing(self, request: Request) -> Response:
        """``GET /``: the start page."""
        return _html(landing(_visitor(request)))

    async def product(self, request: Request) -> Response:
        """``GET /productpage``: the book with its details and reviews."""
        details = await self._details(request, 0)
        reviews = await self._reviews(request, 0)
        request_id = request.headers.get("x-request-id", "")
        body = product(_visitor(request), details, reviews, self.hidden, request_id)
        return _html(body)

    async def admin(self, request: Request) -> Response:
        """``GET /admin``: the page of those who may hide reviewers."""
        return _html(admin(_visitor(request), REVIEWERS, self.hidden))

    async def moderate(self, request: Request) -> Response:
        """``POST`` of the form there: hide or show a reviewer."""
        form = parse_qs((await request.body()).decode("utf-8", "replace"))
        self._hide(request.path_params["reviewer"], form.get("hidden") == ["yes"])
        return RedirectResponse("/admin", SEE_OTHER)

    # --- API --------------------------------------------------------------------------------------------------------

    async def products(self, request: Request) -> Response:
        """``GET /api/v1/products``: the one book there is."""
        return JSONResponse([PRODUCT])

    async def api_details(self, request: Request) -> Response:
        """Details of a book, as their service answers."""
        return _passed_on(await self._details(request, request.path_params["product"]))

    async def api_reviews(self, request: Request) -> Response:
        """Reviews of a book, as their service answers."""
        return _passed_on(await self._reviews(request, request.path_params["product"]))

    async def api_hide(self, request: Request) -> Response:
        """Hide a reviewer; 404 for an unknown one."""
        if not self._hide(request.path_params["reviewer"], True):
            return JSONResponse({"error": "no such reviewer"}, 404)
        return Response(status_code=204)

    async def order(self, request: Request) -> Response:
        """
        The route that the CUSTOM policy guards: the external provider, not this service, says how many copies may be
        ordered.
        """
        return JSONResponse({"ordered": request.query_params.get("quantity", "1"), "by": _visitor(request).name})

    async def whoami(self, request: Request) -> Response:
        """The person and the role that the proxy's headers name."""
        visitor = _visitor(request)
        return JSONResponse({"user": visitor.name, "role": visitor.role})

    async def internal(self, request: Request) -> Response:
        """Something nobody outside should see; a DENY policy guards it. Names only: values may be secrets."""
        return JSONResponse({"header_names": sorted(request.headers.keys())})

    # --- calls ------------------------------------------------------------------------------------------------------

    async def _details(self, request: Request, number: int) -> AppReply:
        url = f"{self.details_url}/details/{number}"
        return await ask(self.http, url, _carried(request), host=DETAILS_HOST)

    async def _reviews(self, request: Request, number: int) -> AppReply:
        url = f"{self.reviews_url}/reviews/{number}"
        return await ask(self.http, url, _carried(request), host=REVIEWS_HOST, tries=REVIEWS_TRIES)

    def _hide(self, reviewer: str, hide: bool) -> bool:
        if reviewer not in REVIEWERS:
            return False
        self.hidden = self.hidden | {reviewer} if hide else self.hidden - {reviewer}
        return True


def productpage(details_url: str, reviews_url: str) -> Starlette:
    """
    Make the application.

    Args:
        details_url, reviews_url: loopback ports of the sidecar that lead to these services.
    """
    it = Productpage(details_url, reviews_url)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with client() as it.http:
            yield

    api = "/api/v1/products"
    routes = [
        _route("/", it.landing),
        _route("/index.html", it.landing),
        _route("/productpage", it.product),
        _route("/admin", it.admin),
        _route("/admin/reviews/{reviewer}", it.moderate, "POST"),
        _route(api, it.products),
        _route(api + "/{product:int}", it.api_details),
        _route(api + "/{product:int}/reviews", it.api_reviews),
        _route(api + "/{product:int}/reviews/{reviewer}", it.api_hide, "DELETE"),
        _route(api + "/{product:int}/orders", it.order, "POST"),
        _route("/whoami", it.whoami),
        _route("/internal/headers", it.internal),
        _route("/static/style.css", _style),
        _route("/static/icon.svg", _icon),
        Route("/health", health),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


def _route(path: str, endpoint: Callable[[Request], Awaitable[Response]], method: str = "GET") -> Route:
    return Route(path, endpoint, methods=[method])


async def _style(request: Request) -> Response:
    return Response(STYLE, media_type="text/css")


async def _icon(request: Request) -> Response:
    return Response(ICON, media_type="image/svg+xml")


def _html(body: str) -> HTMLResponse:
    return HTMLResponse(body, headers=SAFE_HEADERS)


def _passed_on(answer: AppReply) -> JSONResponse:
    """Hand on what a service said; a refusal keeps its status, no answer becomes 502."""
    if answer.is_ok:
        return JSONResponse(answer.content, answer.status)
    return JSONResponse({"error": answer.error, "decision_id": answer.decision_id}, answer.status or 502)


def _carried(request: Request) -> dict[str, str]:
    """
    Carry on the headers of the request, and in ``end-user`` who is signed in, as Istio's productpage does.

    What a client wrote there is dropped: it is the verified token that names somebody.
    """
    headers = {name: value for name, value in forwarded_headers(request).items() if name != "end-user"}
    name = _visitor(request).name
    return {**headers, "end-user": name} if name else headers


def _visitor(request: Request) -> Visitor:
    return Visitor(request.headers.get("x-jwt-user", ""), request.headers.get("x-jwt-role", ""))

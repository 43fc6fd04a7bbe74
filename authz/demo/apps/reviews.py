"""reviews: two opinions about a book. v1 shows no stars and asks nobody; v2 shows black stars, v3 red, from ratings."""

from functools import partial

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from authz.demo.apps.calls import AppReply, ask, forwarded_headers, with_client
from authz.demo.apps.health_answer import health

RATINGS_SECONDS = 10.0
"""So long it waits for ratings, as Istio's does; productpage has given up by then."""
COLOURS = {"v2": "black", "v3": "red"}
RATINGS_HOST = "ratings.bookinfo.svc.cluster.local"
TEXTS = (
    (
        "Reviewer1",
        "An extremely entertaining play by Shakespeare. The slapstick humour is refreshing!",
    ),
    (
        "Reviewer2",
        "Absolutely fun and entertaining. The play lacks thematic depth when compared to other plays by Shakespeare.",
    ),
)


def reviews(version: str, ratings_url: str = "") -> Starlette:
    """
    Make the application.

    Args:
        version: ``v1``, ``v2`` or ``v3``.
        ratings_url: the sidecar's loopback port that leads to ratings; not used by v1.
    """

    async def show(request: Request) -> JSONResponse:
        number = int(request.path_params["product"])
        ratings = None
        if version in COLOURS:
            url = f"{ratings_url}/ratings/{number}"
            ratings = await ask(request.app.state.http, url, forwarded_headers(request), host=RATINGS_HOST)
        return JSONResponse(
            {
                "id": str(number),
                "podname": f"reviews-{version}",
                "clustername": "cluster.local",
                "reviews": [_review(reviewer, text, version, ratings) for reviewer, text in TEXTS],
            }
        )

    routes = [Route("/reviews/{product:int}", show), Route("/health", health)]
    return Starlette(routes=routes, lifespan=partial(with_client, timeout_seconds=RATINGS_SECONDS))


def _review(reviewer: str, text: str, version: str, ratings: AppReply | None) -> dict[str, object]:
    review: dict[str, object] = {"reviewer": reviewer, "text": text}
    if ratings is None:
        return review
    stars = ratings.content.get("ratings") if ratings.is_ok else None
    if isinstance(stars, dict):
        review["rating"] = {
            "stars": stars.get(reviewer, -1),
            "color": COLOURS[version],
            "source": ratings.content.get("source", ""),
        }
    else:
        review["rating"] = {
            "error": "Ratings service is currently unavailable",
            "status": ratings.status,
            "decision_id": ratings.decision_id,
        }
    return review

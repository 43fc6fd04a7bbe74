"""ratings: stars for one book. v1 keeps them in memory; v2 in Redis, which it reaches over TCP through its sidecar."""

import json
from typing import Protocol
from urllib.parse import urlsplit

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from authz.demo.apps.calls import TIMEOUT_SECONDS
from authz.demo.apps.health_answer import health

FIRST_RATINGS = {"Reviewer1": 5, "Reviewer2": 4}
MOST_STARS = 5


class Store(Protocol):
    """Where ratings are kept. Both may raise RedisError or OSError."""

    async def read(self, product: int) -> dict[str, int]:
        """Stars by reviewer; the initial ratings when nobody has rated."""

    async def write(self, product: int, ratings: dict[str, int]) -> None:
        """Replace the stars of a product."""


class InMemory:
    """The store of v1."""

    def __init__(self) -> None:
        self._ratings: dict[int, dict[str, int]] = {}

    async def read(self, product: int) -> dict[str, int]:
        """Stars by reviewer, as this process remembers them."""
        return self._ratings.get(product, FIRST_RATINGS)

    async def write(self, product: int, ratings: dict[str, int]) -> None:
        """Remember the stars until the process ends."""
        self._ratings[product] = ratings


class InRedis:
    """The store of v2: one hash for each book, a new connection for each request so that each one is authorised."""

    def __init__(self, url: str) -> None:
        place = urlsplit(url)
        self._host, self._port = place.hostname or "127.0.0.1", place.port or 6379

    def _connect(self) -> Redis:
        return Redis(
            host=self._host,
            port=self._port,
            socket_timeout=TIMEOUT_SECONDS,
            socket_connect_timeout=TIMEOUT_SECONDS,
            decode_responses=True,
            retry=Retry(NoBackoff(), 0),  # a refusal is shown, not waited for
            single_connection_client=True,
        )

    async def read(self, product: int) -> dict[str, int]:
        """Stars by reviewer, as the database has them."""
        async with self._connect() as redis:
            found = await redis.hgetall(f"ratings:{product}")
        return {str(reviewer): int(stars) for reviewer, stars in found.items()} or FIRST_RATINGS

    async def write(self, product: int, ratings: dict[str, int]) -> None:
        """Put the stars into the database."""
        async with self._connect() as redis:
            await redis.hset(f"ratings:{product}", items=[part for pair in ratings.items() for part in pair])


def ratings(version: str, database_url: str = "") -> Starlette:
    """
    Make the application.

    Args:
        version: ``v1`` or ``v2``.
        database_url: of v2, ``redis://127.0.0.1:port``: the sidecar's loopback port that leads to the database.
    """
    store: Store = InRedis(database_url) if version == "v2" else InMemory()
    source = "redis" if version == "v2" else "memory"

    async def show(request: Request) -> JSONResponse:
        number = int(request.path_params["product"])
        try:
            found = await store.read(number)
        except (RedisError, OSError) as error:
            return JSONResponse({"error": f"could not read the ratings database: {type(error).__name__}"}, 500)
        return JSONResponse({"id": number, "ratings": found, "source": source, "podname": f"ratings-{version}"})

    async def put(request: Request) -> JSONResponse:
        number = int(request.path_params["product"])
        given = read_ratings(await request.body())
        if given is None:
            return JSONResponse({"error": "please provide valid ratings JSON"}, 400)
        try:
            await store.write(number, given)
        except (RedisError, OSError) as error:
            return JSONResponse({"error": f"could not write the ratings database: {type(error).__name__}"}, 500)
        return JSONResponse({"id": number, "ratings": given, "source": source})

    routes = [
        Route("/ratings/{product:int}", show, methods=["GET"]),
        Route("/ratings/{product:int}", put, methods=["POST"]),
        Route("/health", health),
    ]
    return Starlette(routes=routes)


def read_ratings(body: bytes) -> dict[str, int] | None:
    """Read ``{"reviewer": stars}``; None when it is anything else or the stars are not 1 to 5."""
    try:
        given = json.loads(body)
    except ValueError:
        return None
    if not isinstance(given, dict) or not given:
        return None
    if not all(type(stars) is int and 1 <= stars <= MOST_STARS for stars in given.values()):
        return None
    return {str(reviewer): stars for reviewer, stars in given.items()}

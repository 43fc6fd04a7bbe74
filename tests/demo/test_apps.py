"""Bookinfo's services: their pages, and what they hand on to each other."""

import contextlib
from collections.abc import Iterator

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from authz.demo.apps.__main__ import build
from authz.demo.apps.calls import ask
from authz.demo.apps.custom import custom
from authz.demo.apps.details import details
from authz.demo.apps.outside import outside
from authz.demo.apps.productpage import productpage
from authz.demo.apps.ratings import ratings, read_ratings
from authz.demo.apps.reviews import reviews
from tests.demo.serving import serving

ALICE = {"x-jwt-user": "Alice Reader", "x-jwt-role": "reader"}
BOB = {"x-jwt-user": "Bob Moderator", "x-jwt-role": "moderator"}


def recorder(seen: list[dict[str, str]], answer: Response) -> Starlette:
    """A service that remembers the headers it was sent."""

    async def anything(request: Request) -> Response:
        seen.append(dict(request.headers))
        return answer

    return Starlette(routes=[Route("/{path:path}", anything, methods=["GET", "POST"])])


@pytest.fixture(scope="module")
def bookinfo() -> Iterator[httpx.Client]:
    """The whole graph without proxies in between."""
    with contextlib.ExitStack() as stack:
        books = stack.enter_context(serving(outside()))
        rated = stack.enter_context(serving(ratings("v1")))
        detailed = stack.enter_context(serving(details(books)))
        reviewed = stack.enter_context(serving(reviews("v3", rated)))
        page = stack.enter_context(serving(productpage(detailed, reviewed)))
        yield stack.enter_context(httpx.Client(base_url=page, trust_env=False))


def test_the_page_shows_details_reviews_stars_and_the_price_from_outside(bookinfo: httpx.Client) -> None:
    page = bookinfo.get("/productpage", headers=ALICE).text
    for part in ("The Comedy of Errors", "PublisherA", "9.99 EUR", "slapstick humour is refreshing", "5 of 5 stars"):
        assert part in page
    assert "stars red" in page
    assert "Served by <code>reviews-v3</code>" in page


@pytest.mark.parametrize(
    ("headers", "shown", "hidden"),
    [
        ({}, "Sign in</a>", "Signed in as"),
        (ALICE, "Signed in as <strong>Alice Reader</strong>", "Moderation"),
        (BOB, '<a href="/admin">Moderation</a>', "Sign in</a>"),
        ({"x-jwt-user": "<script>", "x-jwt-role": '"'}, "&lt;script&gt;", "<script>"),
    ],
    ids=["nobody", "reader", "moderator", "markup"],
)
def test_the_sign_in_state_comes_from_the_gateway_headers(
    bookinfo: httpx.Client, headers: dict[str, str], shown: str, hidden: str
) -> None:
    page = bookinfo.get("/", headers=headers).text
    assert shown in page
    assert hidden not in page


def test_a_moderator_hides_and_shows_a_review(bookinfo: httpx.Client) -> None:
    assert bookinfo.delete("/api/v1/products/0/reviews/Reviewer1").status_code == 204
    assert "The review of Reviewer1 is hidden." in bookinfo.get("/productpage").text
    assert bookinfo.post("/admin/reviews/Reviewer1", data={"hidden": "no"}).headers["location"] == "/admin"
    assert "is hidden" not in bookinfo.get("/productpage").text
    assert bookinfo.delete("/api/v1/products/0/reviews/Nobody").status_code == 404


def test_the_sign_in_link_leads_to_a_page_that_the_gateway_guards(bookinfo: httpx.Client) -> None:
    assert '<a class="button" href="/productpage">Sign in</a>' in bookinfo.get("/").text


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/api/v1/products/0", {"author": "William Shakespeare"}),
        ("/api/v1/products/0/reviews", {"podname": "reviews-v3"}),
        ("/whoami", {"user": "", "role": ""}),
        ("/health", {"status": "healthy"}),
    ],
)
def test_the_api_answers_json(bookinfo: httpx.Client, path: str, expected: dict[str, object]) -> None:
    found = bookinfo.get(path).json()
    assert {name: found[name] for name in expected} == expected


def test_the_api_lists_one_book(bookinfo: httpx.Client) -> None:
    assert [book["title"] for book in bookinfo.get("/api/v1/products").json()] == ["The Comedy of Errors"]


def test_pages_load_nothing_from_elsewhere(bookinfo: httpx.Client) -> None:
    answer = bookinfo.get("/productpage")
    assert answer.headers["content-security-policy"].startswith("default-src 'none'; style-src 'self'")
    assert bookinfo.get("/static/style.css").headers["content-type"].startswith("text/css")
    assert bookinfo.get("/static/icon.svg").status_code == 200


def test_a_refusal_behind_the_page_is_shown_with_its_decision() -> None:
    refusal = PlainTextResponse("RBAC: access denied", 403, headers={"x-authz-decision-id": "0123abcd"})
    with (
        serving(recorder([], refusal)) as denied,
        serving(productpage(denied, "http://127.0.0.1:9")) as url,
        httpx.Client(base_url=url, trust_env=False) as client,
    ):
        page = client.get("/productpage").text
        assert "Error fetching product details!" in page
        assert "Status 403: RBAC: access denied" in page
        assert "<code>0123abcd</code>" in page
        assert "Error fetching product reviews!" in page
        assert client.get("/api/v1/products/0").status_code == 403
        assert client.get("/api/v1/products/0/reviews").status_code == 502


@pytest.mark.parametrize("sent", [{"authorization": "Bearer t.o.k"}, {"cookie": "bookinfo_session=t.o.k"}])
def test_trace_headers_and_the_token_go_on_and_nothing_else(sent: dict[str, str]) -> None:
    seen: list[dict[str, str]] = []
    headers = {**sent, "x-request-id": "r1", "traceparent": "00-1-2-01", "x-jwt-role": "reader", "x-other": "1"}
    with (
        serving(recorder(seen, JSONResponse({}))) as service,
        serving(productpage(service, service)) as url,
        httpx.Client(base_url=url, trust_env=False) as client,
    ):
        client.get("/productpage", headers=headers)
    assert [found["host"].partition(".")[0] for found in seen] == ["details", "reviews"]
    for found in seen:
        assert found["authorization"] == "Bearer t.o.k"
        assert (found["x-request-id"], found["traceparent"]) == ("r1", "00-1-2-01")
        assert not {"cookie", "x-jwt-role", "x-other"} & found.keys()


def test_details_tells_the_outside_world_no_token() -> None:
    seen: list[dict[str, str]] = []
    with (
        serving(recorder(seen, JSONResponse({"price": "1"}))) as service,
        serving(details(service)) as url,
    ):
        found = httpx.get(f"{url}/details/7", headers={"authorization": "Bearer t.o.k"}, trust_env=False).json()
    assert (found["id"], found["market"]) == (7, {"price": "1"})
    assert seen[0]["host"] == "books.example.com"
    assert "authorization" not in seen[0]


@pytest.mark.parametrize(
    ("version", "answer", "expected"),
    [
        ("v1", JSONResponse({}), None),
        ("v2", JSONResponse({"ratings": {"Reviewer1": 3}}), {"stars": 3, "color": "black", "source": ""}),
        ("v3", JSONResponse({"ratings": {"Reviewer1": 3}}), {"stars": 3, "color": "red", "source": ""}),
        (
            "v2",
            PlainTextResponse("no", 403),
            {"error": "Ratings service is currently unavailable", "status": 403, "decision_id": ""},
        ),
        (
            "v3",
            PlainTextResponse("no JSON"),
            {"error": "Ratings service is currently unavailable", "status": 502, "decision_id": ""},
        ),
    ],
)
def test_reviews_shows_the_stars_of_its_version(version: str, answer: Response, expected: object) -> None:
    with serving(recorder([], answer)) as service, serving(reviews(version, service)) as url:
        found = httpx.get(f"{url}/reviews/0", trust_env=False).json()["reviews"][0]
    assert found.get("rating") == expected


def test_ratings_keeps_what_it_is_told() -> None:
    with serving(ratings("v1")) as url, httpx.Client(base_url=url, trust_env=False) as client:
        assert client.get("/ratings/0").json()["ratings"] == {"Reviewer1": 5, "Reviewer2": 4}
        assert client.post("/ratings/0", json={"Reviewer1": 1}).status_code == 200
        assert client.get("/ratings/0").json()["ratings"] == {"Reviewer1": 1}
        assert client.post("/ratings/0", json={"Reviewer1": 6}).status_code == 400


def test_ratings_without_its_database_says_so() -> None:
    with serving(ratings("v2", "redis://127.0.0.1:9")) as url:
        answer = httpx.get(f"{url}/ratings/0", trust_env=False)
    assert (answer.status_code, answer.json()) == (
        500,
        {"error": "could not read the ratings database: ConnectionError"},
    )


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"a": 1, "b": 5}', {"a": 1, "b": 5}),
        (b"{}", None),
        (b"[]", None),
        (b"{", None),
        (b'{"a": 0}', None),
        (b'{"a": true}', None),
        (b'{"a": "5"}', None),
    ],
)
def test_ratings_are_one_to_five_stars(body: bytes, expected: object) -> None:
    assert read_ratings(body) == expected


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 200),
        ("quantity=3", 200),
        ("quantity=4", 403),
        ("quantity=-1", 403),
        ("quantity=٣", 403),
        ("quantity=x", 403),
    ],
)
def test_the_external_authorizer_allows_up_to_three_copies(query: str, status: int) -> None:
    with serving(custom()) as url:
        assert httpx.post(f"{url}/check/api/v1/products/0/orders?{query}", trust_env=False).status_code == status


@pytest.mark.parametrize("name", ["productpage", "details", "reviews", "ratings", "outside", "custom"])
def test_every_name_builds_an_application(name: str) -> None:
    assert build(name, "v1", {}).routes


def test_end_user_is_who_signed_in_and_never_what_a_client_wrote() -> None:
    seen: list[dict[str, str]] = []
    with serving(recorder(seen, JSONResponse({}))) as other, serving(productpage(other, other)) as page:
        for headers in (ALICE, {}):
            httpx.get(f"{page}/productpage", headers={**headers, "end-user": "jason"}, trust_env=False)
    assert [headers.get("end-user") for headers in seen] == ["Alice Reader"] * 2 + [None] * 2


def test_who_is_signed_in_is_not_told_outside() -> None:
    seen: list[dict[str, str]] = []
    with serving(recorder(seen, JSONResponse({}))) as books, serving(details(books)) as page:
        sent = {"end-user": "jason", "authorization": "Bearer x", "user-agent": "me"}
        httpx.get(f"{page}/details/0", headers=sent, trust_env=False)
    (headers,) = seen
    assert "end-user" not in headers
    assert "authorization" not in headers
    assert headers["user-agent"] == "me"


@pytest.mark.parametrize(("failures", "status", "asked"), [(1, 200, 2), (2, 0, 2)])
async def test_another_try_is_made_where_there_was_no_answer(failures: int, status: int, asked: int) -> None:
    calls: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        calls.append(request)
        if len(calls) <= failures:
            raise httpx.ReadTimeout("late", request=request)
        return httpx.Response(200, json={})

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
        assert (await ask(http, "http://reviews/", {}, tries=2)).status == status
    assert len(calls) == asked


async def test_a_refusal_is_an_answer_and_not_tried_again() -> None:
    calls: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        calls.append(request)
        return httpx.Response(403, text="no")

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
        assert (await ask(http, "http://reviews/", {}, tries=2)).status == 403
    assert len(calls) == 1

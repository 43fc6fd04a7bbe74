"""A valid decision of the demo and its offer; tests change fields by name."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from authz.core.attributes import (
    AttributeContext,
    Authentication,
    AuthenticationOutcome,
    Destination,
    HttpRequest,
    Source,
    Token,
    Workload,
)
from authz.core.decided import Offer
from authz.core.decision import Decision, Effect, RuleReference, Stage
from authz.core.errors import Location

NOW = 1_700_000_000.25
RULE = RuleReference(
    "bookinfo", "deny-ratings", 0, "ns[bookinfo]-policy[deny-ratings]-rule[0]", Location("policies/deny.yaml", 7, 5)
)
SECRET = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJqYXNvbiJ9.c2lnbmF0dXJl"
ATTRIBUTES = AttributeContext(
    Source(("spiffe://cluster.local/ns/bookinfo/sa/productpage",), "10.0.0.7", "203.0.113.9", 41000),
    Destination(
        Workload("bookinfo", frozenset({("app", "reviews"), ("version", "v2")}), "reviews", "reviews-v2"),
        "127.0.0.1",
        9080,
        "spiffe://cluster.local/ns/bookinfo/sa/reviews",
    ),
    HttpRequest(
        "GET",
        "reviews:9080",
        f"/reviews/1?page=2&access_token={SECRET}",
        {
            "user-agent": ("curl/8",),
            "authorization": (f"Bearer {SECRET}",),
            "cookie": (f"session={SECRET}",),
            "x-request-id": ("abd51d17-12f1-9d0a-9ce4-000000000000",),
        },
        id="77",
        protocol="HTTP/1.1",
    ),
    authentication=Authentication(
        AuthenticationOutcome.ACCEPTED,
        Token({"sub": "jason"}, "https://issuer", "jason", "key-1", "deadbeef", 1_900_000_000.0, "bookinfo/jwt/0"),
        query_parameters_to_remove=("access_token",),
    ),
    trace_parent=f"00-{'a' * 32}-{'b' * 16}-01",
)
DENIAL = Decision(
    Effect.DENY,
    Stage.DENY,
    "DENY rule bookinfo/deny-ratings/0 matched",
    RULE,
    403,
    "RBAC: access denied",
    policy_version="v1",
)
ALLOWED = Decision(Effect.ALLOW, Stage.DEFAULT, "no ALLOW policy applies to the workload", policy_version="v1")


@pytest.fixture
def make_offer() -> Callable[..., Offer]:
    """Build an offer: fields of ``Offer`` by name, and changes of the request in ``http``."""

    def make(http: dict[str, Any] | None = None, **changes: Any) -> Offer:
        attributes = changes.pop("attributes", ATTRIBUTES)
        if http is not None:
            attributes = replace(attributes, http=replace(attributes.http, **http))
        valid = Offer(attributes, DENIAL, "d-1", NOW, 0.00005, True)
        return valid._replace(**changes)

    return make


@pytest.fixture
def denial() -> Decision:
    return DENIAL


@pytest.fixture
def allowed() -> Decision:
    return ALLOWED


@pytest.fixture
def attributes() -> AttributeContext:
    return ATTRIBUTES


@pytest.fixture
def secret() -> str:
    """A token that stands in the header, the cookie and the query of the valid request."""
    return SECRET

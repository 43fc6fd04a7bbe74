"""The demo's issuer: discovery, keys, tokens that our own verification accepts, rotation."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from authz.core.attributes import AttributeContext, AuthenticationOutcome, Destination, HttpRequest, Source, Workload
from authz.core.resources import JwtRule
from authz.demo.issuer import TokenIssuer, application
from authz.tokens.authenticate import authenticate
from authz.tokens.jwks import read_key_set
from authz.tokens.key_sets import KeySetState
from tests.demo.serving import serving

NOW = 1_800_000_000.0
URL = "http://issuer.test"
BACK = "https://localhost:15443/login"
RULE = JwtRule(issuer=URL, audiences=("bookinfo",))


def judged(issuer: TokenIssuer, token: str, now: float = NOW) -> tuple[AuthenticationOutcome, str]:
    """What the product's own verification says of a token."""
    headers = {"authorization": (f"Bearer {token}",)}
    request = AttributeContext(Source(), Destination(Workload("x")), HttpRequest("GET", "localhost", "/", headers))
    keys = {RULE.keys_from: KeySetState(read_key_set(issuer.key_set()), NOW)}
    found = authenticate(request, (RULE,), keys, now)
    return found.outcome, found.token.subject if found.token else found.body


def test_tokens_are_accepted_until_they_expire() -> None:
    issuer = TokenIssuer(URL)
    token = issuer.token("alice", NOW)
    assert judged(issuer, token) == (AuthenticationOutcome.ACCEPTED, "alice")
    assert judged(issuer, token, NOW + 3700) == (AuthenticationOutcome.REJECTED, "Jwt is expired")


def test_bad_tokens_can_be_had_for_trying() -> None:
    issuer = TokenIssuer(URL)
    expired, other = issuer.token("bob", NOW, ttl_seconds=-3600), issuer.token("bob", NOW, audience="other")
    assert judged(issuer, expired)[1] == "Jwt is expired"
    assert judged(issuer, other)[1] == "Audiences in Jwt are not allowed"


def test_rotation_keeps_old_tokens_good_until_the_old_key_is_dropped() -> None:
    issuer = TokenIssuer(URL)
    old = issuer.token("alice", NOW)
    issuer.rotate()
    assert judged(issuer, old)[0] is AuthenticationOutcome.ACCEPTED
    assert judged(issuer, issuer.token("alice", NOW))[0] is AuthenticationOutcome.ACCEPTED
    issuer.rotate(drop_old=True)
    assert judged(issuer, old)[0] is AuthenticationOutcome.REJECTED


def test_keys_outlive_a_restart_and_only_the_owner_reads_them(tmp_path: Path) -> None:
    token = TokenIssuer(URL, tmp_path).token("alice", NOW)
    again = TokenIssuer(URL, tmp_path)
    assert judged(again, token)[0] is AuthenticationOutcome.ACCEPTED
    assert {path.stat().st_mode & 0o777 for path in tmp_path.glob("*.key")} == {0o600}
    again.rotate(drop_old=True)
    assert len(list(tmp_path.glob("*.key"))) == 1
    assert judged(TokenIssuer(URL, tmp_path), token)[0] is AuthenticationOutcome.REJECTED


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with (
        serving(application(TokenIssuer(URL), lambda: NOW)) as url,
        httpx.Client(base_url=url, trust_env=False) as found,
    ):
        yield found


def test_discovery_leads_to_the_keys(client: httpx.Client) -> None:
    found = client.get("/.well-known/openid-configuration").json()
    assert found["issuer"] == URL
    keys = client.get(found["jwks_uri"].removeprefix(URL)).json()["keys"]
    assert [(key["kty"], key["alg"]) for key in keys] == [("EC", "ES256")]
    assert not any("d" in key for key in keys)


def test_the_token_endpoint_knows_two_people(client: httpx.Client) -> None:
    answer = client.post("/token", data={"grant_type": "password", "username": "bob"}).json()
    assert (answer["token_type"], answer["expires_in"]) == ("Bearer", 3600)
    assert client.post("/token", data={"username": "mallory"}).status_code == 400
    assert client.post("/token", data={"username": "bob", "expires_in": "soon"}).status_code == 400
    assert client.get("/token/alice").text.count(".") == 2
    assert client.get("/token/mallory").status_code == 404


def test_the_life_of_tokens_can_be_changed_for_watching_a_refresh(client: httpx.Client) -> None:
    assert client.post("/life/2").json() == {"ttl_seconds": 2}
    assert client.post("/token", data={"username": "bob"}).json()["expires_in"] == 2


def test_without_a_secret_of_its_client_nobody_signs_in(client: httpx.Client) -> None:
    assert client.get("/authorize", params={"client_id": "bookinfo", "redirect_uri": BACK}).status_code == 400
    answer = client.post("/token", data={"grant_type": "authorization_code", "client_id": "bookinfo"})
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


def test_rotation_by_http(client: httpx.Client) -> None:
    before = client.get("/jwks").json()["keys"]
    answer: httpx.Response = client.post("/rotate")
    assert len(answer.json()["published"]) == len(before) + 1
    assert client.post("/rotate", params={"drop": "1"}).json()["published"] == [
        client.get("/jwks").json()["keys"][0]["kid"]
    ]

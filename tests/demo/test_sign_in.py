"""The demo issuer's sign-in: what a provider must check it checks, by HTTP as a gateway and a browser ask it."""

from base64 import b64encode
from collections.abc import Iterator
from hashlib import sha256
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from authz.demo.issuer import TokenIssuer, application
from authz.demo.sign_in import Client, Provider, is_allowed_redirect
from authz.tokens.base64url import read_base64url, write_base64url
from tests.demo.serving import serving

NOW = 1_800_000_000.0
BACK = "https://localhost:15443/login"
VERIFIER = "a-verifier-of-forty-three-letters-or-more-00"
ASKED = {
    "client_id": "shop",
    "redirect_uri": BACK,
    "response_type": "code",
    "state": '"><script>',
    "nonce": "once",
    "code_challenge": write_base64url(sha256(VERIFIER.encode()).digest()),
    "code_challenge_method": "S256",
}
PROOF = {
    "grant_type": "authorization_code",
    "client_id": "shop",
    "client_secret": "s+e=c",
    "redirect_uri": BACK,
    "code_verifier": VERIFIER,
}


class Clock:
    now = NOW


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def client(clock: Clock) -> Iterator[httpx.Client]:
    made = application(TokenIssuer("http://issuer.test"), lambda: clock.now, Provider(Client("shop", "s+e=c")))
    with serving(made) as url, httpx.Client(base_url=url, trust_env=False) as found:
        yield found


def code(client: httpx.Client, person: str = "alice") -> str:
    answer = client.post("/authorize", data={**ASKED, "person": person})
    assert answer.status_code == 303
    back = urlsplit(answer.headers["location"])
    query = parse_qs(back.query)
    assert f"https://{back.netloc}{back.path}" == BACK
    assert query["state"] == ['"><script>']
    return query["code"][0]


def test_a_person_is_asked_for_and_nothing_of_the_request_becomes_markup(client: httpx.Client) -> None:
    page = client.get("/authorize", params=ASKED).text
    assert "Alice Reader" in page
    assert "<script>" not in page


@pytest.mark.parametrize(
    "wrong",
    [
        {"client_id": "other"},
        {"redirect_uri": "https://evil.example/login"},
        {"redirect_uri": ""},
        {"response_type": "token"},
        {"code_challenge": ""},
        {"code_challenge_method": "plain"},
    ],
    ids=str,
)
def test_a_request_that_is_wrong_leads_nowhere(client: httpx.Client, wrong: dict[str, str]) -> None:
    for answer in (
        client.get("/authorize", params=ASKED | wrong),
        client.post("/authorize", data={**ASKED, **wrong, "person": "bob"}),
    ):
        assert answer.status_code == 400
        assert "location" not in answer.headers


def test_a_code_gives_an_access_token_an_id_token_with_the_nonce_and_a_refresh_token(client: httpx.Client) -> None:
    answer = client.post("/token", data={**PROOF, "code": code(client)}).json()
    assert (answer["token_type"], answer["expires_in"]) == ("Bearer", 3600)
    assert b'"nonce":"once"' in read_base64url(answer["id_token"].split(".")[1])
    assert b"nonce" not in read_base64url(answer["access_token"].split(".")[1])
    assert answer["refresh_token"].count(".") == 0


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"client_secret": "other"}, "invalid_client"),
        ({"client_id": "other"}, "invalid_client"),
        ({"code": "other"}, "invalid_grant"),
        ({"redirect_uri": "https://localhost/login"}, "invalid_grant"),
        ({"code_verifier": VERIFIER + "x"}, "invalid_grant"),
        ({"code_verifier": ""}, "invalid_grant"),
        ({"grant_type": "refresh_token", "refresh_token": "other"}, "invalid_grant"),
    ],
    ids=str,
)
def test_a_code_is_of_no_use_to_anybody_else(client: httpx.Client, wrong: dict[str, str], error: str) -> None:
    answer = client.post("/token", data={**PROOF, "code": code(client), **wrong})
    assert answer.status_code == (401 if error == "invalid_client" else 400)
    assert answer.json()["error"] == error


def test_a_code_is_used_once_and_soon(client: httpx.Client, clock: Clock) -> None:
    used, late = code(client), code(client)
    assert client.post("/token", data={**PROOF, "code": used}).status_code == 200
    assert client.post("/token", data={**PROOF, "code": used}).status_code == 400
    clock.now += 61
    assert client.post("/token", data={**PROOF, "code": late}).status_code == 400


def test_a_refresh_token_is_used_once_and_ends_with_the_session(client: httpx.Client) -> None:
    given = client.post("/token", data={**PROOF, "code": code(client)}).json()
    form = {"grant_type": "refresh_token", "client_id": "shop", "client_secret": "s+e=c"}
    first = {**form, "refresh_token": given["refresh_token"]}
    again = client.post("/token", data=first).json()
    assert client.post("/token", data=first).status_code == 400
    back = client.get(
        "/logout", params={"id_token_hint": again["id_token"], "post_logout_redirect_uri": "https://localhost:15443/"}
    )
    assert (back.status_code, back.headers["location"]) == (303, "https://localhost:15443/")
    assert client.post("/token", data={**form, "refresh_token": again["refresh_token"]}).status_code == 400


def test_a_logout_leads_to_nobody_else(client: httpx.Client) -> None:
    assert client.get("/logout", params={"post_logout_redirect_uri": "https://evil.example/"}).status_code == 200


@pytest.mark.parametrize(("secret", "status"), [("s%2Be%3Dc", 200), ("s%2Be%3Dd", 401), ("", 401)])
def test_the_secret_may_come_as_basic_credentials(client: httpx.Client, secret: str, status: int) -> None:
    form = {name: value for name, value in PROOF.items() if not name.startswith("client_")} | {"code": code(client)}
    headers = {"authorization": f"Basic {b64encode(f'shop:{secret}'.encode()).decode()}"}
    assert client.post("/token", data=form, headers=headers).status_code == status


@pytest.mark.parametrize(
    ("target", "allowed"),
    [
        ("https://localhost:15443/login", True),
        ("https://127.0.0.1:25443/login", True),
        ("http://localhost:15443/login", False),
        ("https://localhost:15443/other", False),
        ("https://localhost:15443/login?more=1", False),
        ("https://evil.example/login", False),
        ("https://localhost@evil.example/login", False),
        ("https://evil@localhost/login", False),
        ("https://localhost.evil.example/login", False),
        ("javascript:alert(1)", False),
        ("https://[", False),
        ("", False),
    ],
)
def test_a_browser_is_sent_back_only_to_this_machine(target: str, allowed: bool) -> None:
    assert is_allowed_redirect(target) is allowed

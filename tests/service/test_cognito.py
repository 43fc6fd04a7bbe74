"""
Amazon Cognito's user pools, as moto plays them, with a real server: keys over HTTP, checks over gRPC.

Their access tokens have no ``aud``: the policy of docs/identity-providers.md asks for ``client_id`` instead.
"""

import importlib.util
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
import pytest

from tests.service.messages import check_request, response, told
from tests.service.running import check_call
from tests.service.test_both_servers import PATIENCE_SECONDS, Service, finish, start

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs" / "examples" / "providers" / "cognito.yaml"
EXAMPLE_POOL, EXAMPLE_CLIENT = "eu-central-1_Xh2kPq8Zt", "2ab4l6n8p0r2t4v6x8z0b2d4f6"
PASSWORD = "Correct-horse-1"
MOTO = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]

pytestmark = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("moto", "flask", "joserfc")), reason="moto is not installed"
)


@dataclass
class Pool:
    """A user pool in a running moto."""

    url: str
    id: str = ""

    def call(self, operation: str, **parameters: object) -> dict[str, dict[str, str]]:
        """One operation of Cognito's API; its region stands in the signature, which moto does not verify."""
        credential = "AKIA/20260101/eu-central-1/cognito-idp/aws4_request"
        headers = {
            "x-amz-target": f"AWSCognitoIdentityProviderService.{operation}",
            "content-type": "application/x-amz-json-1.1",
            "authorization": f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders=host, Signature=00",
        }
        pool = {"UserPoolId": self.id} if self.id else {}
        answer = httpx.post(self.url, json={**pool, **parameters}, headers=headers, timeout=PATIENCE_SECONDS)
        assert answer.status_code == 200, answer.text
        found: dict[str, dict[str, str]] = answer.json() if answer.content else {}
        return found

    def client(self, name: str) -> str:
        return self.call("CreateUserPoolClient", ClientName=name)["UserPoolClient"]["ClientId"]

    def person(self, name: str, *groups: str) -> None:
        self.call("AdminCreateUser", Username=name, TemporaryPassword=PASSWORD)
        self.call("AdminSetUserPassword", Username=name, Password=PASSWORD, Permanent=True)
        for group in groups:
            self.call("CreateGroup", GroupName=group)
            self.call("AdminAddUserToGroup", Username=name, GroupName=group)

    def tokens(self, client: str, name: str) -> dict[str, str]:
        """``AccessToken`` and ``IdToken`` of somebody who signs in at a client."""
        password = {"USERNAME": name, "PASSWORD": PASSWORD}
        flow = "ADMIN_USER_PASSWORD_AUTH"
        return self.call("AdminInitiateAuth", ClientId=client, AuthFlow=flow, AuthParameters=password)[
            "AuthenticationResult"
        ]


def address(process: "subprocess.Popen[str]") -> str:
    """Where moto says that it listens."""
    assert process.stderr is not None
    for line in process.stderr:
        found = line.partition("Running on ")[2].strip()
        if found:
            return found
    raise AssertionError("moto ended while it started")


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with subprocess.Popen(MOTO, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        found = Pool(address(process))
        found.id = found.call("CreateUserPool", PoolName="shop")["UserPool"]["Id"]
        found.person("ann", "sellers")
        found.person("ben")
        yield found
        process.terminate()


@pytest.fixture(scope="module")
def client(pool: Pool) -> str:
    return pool.client("orders")


def serve(folder: Path, pool: Pool, client: str, more: str = "") -> Service:
    """The page's policy for this pool, whose keys are fetched over HTTP; ``more`` goes into its JWT rule."""
    text = EXAMPLE.read_text().replace(EXAMPLE_POOL, pool.id).replace(EXAMPLE_CLIENT, client)
    text = text.replace("app: orders", "app: api")
    issuer = f"https://cognito-idp.eu-central-1.amazonaws.com/{pool.id}"
    keys = f"  - issuer: {issuer}\n    jwksUri: {pool.url}/{pool.id}/.well-known/jwks.json\n{more}"
    (folder / "policies").mkdir()
    (folder / "policies" / "cognito.yaml").write_text(text.replace(f"  - issuer: {issuer}\n", keys))
    return start("grpcio", folder)


@pytest.fixture(scope="module")
def service(pool: Pool, client: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    found = serve(tmp_path_factory.mktemp("cognito"), pool, client)
    yield found
    finish(found)


async def ask(service: Service, token: str) -> tuple[int, str]:
    """
    HTTP status (200: allowed) and body of the answer.

    The first request may come before the keys: it is asked again while that is what the answer says.
    """
    headers = [("authorization", f"Bearer {token}")] if token else []
    ends = time.monotonic() + PATIENCE_SECONDS
    async with grpc.aio.insecure_channel(service.addresses[0]) as channel:
        while True:
            answer = response(await check_call(channel)(check_request(path="/orders", headers=headers)))
            if "Jwks" not in answer.denied_response.body or time.monotonic() > ends:
                break
    assert told(answer), "every answer says how it was decided"
    status = 200 if answer.status.code == 0 else answer.denied_response.status.code
    return status, answer.denied_response.body


async def test_an_access_token_without_an_audience_opens_by_client_and_group(
    service: Service, pool: Pool, client: str
) -> None:
    assert await ask(service, pool.tokens(client, "ann")["AccessToken"]) == (200, "")


async def test_somebody_without_the_group_is_refused(service: Service, pool: Pool, client: str) -> None:
    assert await ask(service, pool.tokens(client, "ben")["AccessToken"]) == (403, "RBAC: access denied")


async def test_an_id_token_is_not_an_access_token(service: Service, pool: Pool, client: str) -> None:
    assert await ask(service, pool.tokens(client, "ann")["IdToken"]) == (403, "RBAC: access denied")


async def test_another_client_of_the_pool_is_refused(service: Service, pool: Pool) -> None:
    other = pool.client("newsletter")
    assert await ask(service, pool.tokens(other, "ann")["AccessToken"]) == (403, "RBAC: access denied")


async def test_no_token_is_refused_by_the_policy(service: Service) -> None:
    assert await ask(service, "") == (403, "RBAC: access denied")


async def test_a_changed_token_is_refused(service: Service, pool: Pool, client: str) -> None:
    header, _, signature = pool.tokens(client, "ben")["AccessToken"].split(".")
    payload = pool.tokens(client, "ann")["AccessToken"].split(".")[1]
    assert await ask(service, f"{header}.{payload}.{signature}") == (401, "Jwt verification fails")


async def test_an_audience_in_the_rule_refuses_every_access_token(pool: Pool, client: str, tmp_path: Path) -> None:
    service = serve(tmp_path, pool, client, f"    audiences: [{client}]\n")
    try:
        refused = await ask(service, pool.tokens(client, "ann")["AccessToken"])
    finally:
        finish(service)
    assert refused == (403, "Audiences in Jwt are not allowed")

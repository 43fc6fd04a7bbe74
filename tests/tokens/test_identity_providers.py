"""
Tokens as identity providers make them, with keys of ours, against the policies of docs/identity-providers.md.

Signatures are real, and key sets have what each provider publishes beside a signing key. The page's own commands, which
take signatures as good, are run by tests/cli/test_examples.py.
"""

import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
from click.testing import CliRunner

from authz.cli import application
from authz.tokens.signing import KeyPool, SigningKey, make_keys, make_token

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "identity-providers.md"
PROVIDERS = ROOT / "docs" / "examples" / "providers"
YAML = re.compile(r"^```yaml\n(.*?)^```", re.MULTILINE | re.DOTALL)
NOW = 1_770_000_000.0
"""Between ``iat`` and ``exp`` of every token there."""
POOL = KeyPool()
MESH = """
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: orders, namespace: shop}
spec: {address: 127.0.0.1, serviceAccount: orders, labels: {app: orders}, ports: {http: 8443}}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: orders, namespace: shop}
spec:
  workloadSelector: {labels: {app: orders}}
  ingress: [{port: {number: 8443, name: http, protocol: HTTP}, defaultEndpoint: "127.0.0.1:8080"}]
"""


class Shape(NamedTuple):
    """How a provider publishes its keys, and what its tokens have in their header."""

    header: Mapping[str, object]
    jwk: Mapping[str, object]
    """Members of the signing key beside ``kty``, ``n``, ``e`` and ``kid``; ``x5c`` is not read."""
    has_encryption_key: bool = False


CERTIFICATE = ["MIIC"]
SHAPES = {
    "keycloak": Shape({"typ": "JWT"}, {"alg": "RS256", "use": "sig", "x5c": CERTIFICATE, "x5t": "P7db"}, True),
    "cognito": Shape({}, {"alg": "RS256", "use": "sig"}),
    "entra": Shape({"typ": "JWT"}, {"use": "sig", "x5t": "nOo3", "x5c": CERTIFICATE, "issuer": "https://"}),
    "entra-v1": Shape({"typ": "JWT", "x5t": "nOo3"}, {"use": "sig", "x5t": "nOo3", "x5c": CERTIFICATE}),
    "okta": Shape({}, {"alg": "RS256", "use": "sig", "status": "ACTIVE"}),
    "auth0": Shape({"typ": "JWT"}, {"alg": "RS256", "use": "sig", "x5c": CERTIFICATE, "x5t": "ZkQ3"}),
    "firebase": Shape({"typ": "JWT"}, {"alg": "RS256", "use": "sig"}),
    "google": Shape({"typ": "JWT"}, {"alg": "RS256", "use": "sig"}),
}


@cache
def keys() -> Mapping[str, SigningKey]:
    kinds = ("theirs", "theirs too", "encryption", "forger")
    return make_keys({name: {"kty": "RSA", "kid": "forged" if name == "forger" else name} for name in kinds}, POOL)


def published(shape: Shape) -> str:
    """A key set as it is published: two keys, for there is always a next one, and Keycloak's for encryption."""
    found = [{**keys()[name].jwk, **shape.jwk} for name in ("theirs", "theirs too")]
    if shape.has_encryption_key:
        found.insert(0, {**keys()["encryption"].jwk, "alg": "RSA-OAEP", "use": "enc"})
    return json.dumps({"keys": found})


def claims(token: str) -> dict[str, object]:
    found: dict[str, object] = json.loads((PROVIDERS / "tokens" / f"{token}.json").read_text())
    return found


def signed(token: str, shape: Shape, key: str = "theirs", kid: str = "theirs") -> str:
    described = {"key": key, "alg": "RS256", "claims": claims(token), "header": {**shape.header, "kid": kid}}
    return make_token(described, keys(), NOW)


def check(tmp_path: Path, policies: str, token: str, key_set: str, *, command: str = "check") -> tuple[int, str]:
    """Exit code and answer for a real token, verified with this key set."""
    (tmp_path / "token").write_text(token)
    (tmp_path / "keys.json").write_text(key_set)
    where = ("-p", str(PROVIDERS / f"{policies}.yaml"), "-n", "shop", "-l", "app=orders", "--port", "8080")
    given = ("--token-file", str(tmp_path / "token"), "--jwks", str(tmp_path / "keys.json"))
    result = CliRunner().invoke(application, [command, *where, *given], prog_name="authz")
    return result.exit_code, result.output


@pytest.mark.parametrize("provider", SHAPES)
def test_a_providers_token_opens_what_its_policy_opens(provider: str, tmp_path: Path) -> None:
    shape = SHAPES[provider]
    code, said = check(tmp_path, provider, signed(provider, shape), published(shape))
    assert (code, said.splitlines()[0]) == (0, "allow at stage allow: ALLOW rule shop/sellers/0 matched"), said
    issuer, subject = str(claims(provider)["iss"]), str(claims(provider)["sub"])
    assert f"{issuer}/{subject}, accepted by shop/people/0" in said


@pytest.mark.parametrize("provider", SHAPES)
@pytest.mark.parametrize(("key", "kid"), [("forger", "theirs"), ("forger", "forged"), ("theirs too", "theirs")])
def test_the_same_claims_under_another_key_open_nothing(provider: str, key: str, kid: str, tmp_path: Path) -> None:
    shape = SHAPES[provider]
    code, said = check(tmp_path, provider, signed(provider, shape, key, kid), published(shape))
    assert code == 3, said
    assert said.startswith("deny (401) at stage jwt: "), said


def test_a_key_for_encryption_signs_nothing(tmp_path: Path) -> None:
    shape = SHAPES["keycloak"]
    code, said = check(tmp_path, "keycloak", signed("keycloak", shape, "encryption", "encryption"), published(shape))
    assert (code, said[:24]) == (3, "deny (401) at stage jwt:")


class Mistake(NamedTuple):
    policies: str
    token: str
    answer: str
    """How the first line begins."""
    why: str
    """Part of what ``check`` and ``explain`` say."""


NO_ALLOW, ALLOWED = "deny (403) at stage allow: no ALLOW", "allow at stage allow: ALLOW rule shop/sellers/0"
ISSUER, AUDIENCE = "deny (401) at stage jwt: Jwt issuer is not", "deny (403) at stage jwt: Audiences in Jwt are not"
MISTAKES = (
    Mistake("keycloak", "keycloak-internal", ISSUER, "`http://keycloak:8080/realms/shop`; the rules expect"),
    Mistake("keycloak", "keycloak-account", AUDIENCE, "the token has aud `account`"),
    Mistake("mistakes/keycloak-dotted", "keycloak", NO_ALLOW, "written `request.auth.claims[realm_access][roles]`"),
    Mistake("mistakes/cognito-audience", "cognito", AUDIENCE, "the token has no aud"),
    Mistake("mistakes/cognito-any-client", "cognito-other-client", ALLOWED, ""),
    Mistake("mistakes/cognito-email", "cognito", NO_ALLOW, "the token has no claim `email`"),
    Mistake("entra", "entra-v1", ISSUER, "`https://sts.windows.net/"),
    Mistake("entra", "entra-graph", AUDIENCE, "aud `00000003-0000-0000-c000-000000000000`"),
    Mistake("mistakes/entra-scp", "entra", NO_ALLOW, "name `scp` in `spaceDelimitedClaims`"),
    Mistake("okta", "okta-org", ISSUER, "`https://acme.okta.com`; the rules expect"),
    Mistake("okta", "okta-no-groups", NO_ALLOW, "the token has no claim `groups`"),
    Mistake("mistakes/okta-scope", "okta", NO_ALLOW, "the token has no claim `scope`"),
    Mistake("mistakes/auth0-slash", "auth0", ISSUER, "differs by a slash at the end"),
    Mistake("mistakes/auth0-roles", "auth0", NO_ALLOW, "its claims are `https://example.com/roles`"),
    Mistake("mistakes/firebase-boolean", "firebase-admin", NO_ALLOW, "got the boolean true, which never matches"),
    Mistake("mistakes/firebase-anonymous", "firebase-anonymous", ALLOWED, ""),
    Mistake("mistakes/firebase-google-issuer", "firebase", ISSUER, "`https://securetoken.google.com/acme-shop`"),
    Mistake("mistakes/google-any-audience", "google-other-app", ALLOWED, ""),
    Mistake("mistakes/google-email", "google-consumer", ALLOWED, ""),
)
"""The two that are not JWTs, Auth0's encrypted and Google's opaque one, are on the page alone."""


@pytest.mark.parametrize("command", ["check", "explain"])
@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: f"{Path(mistake.policies).name}:{mistake.token}")
def test_a_mistake_is_told(mistake: Mistake, command: str, tmp_path: Path) -> None:
    shape = SHAPES[mistake.token.partition("-")[0]]
    code, said = check(tmp_path, mistake.policies, signed(mistake.token, shape), published(shape), command=command)
    assert said.startswith(mistake.answer), said
    assert mistake.why in said
    assert code == (0 if mistake.answer is ALLOWED else 3)


@pytest.mark.parametrize(
    ("policies", "token"),
    [("cognito", "cognito-other-client"), ("firebase", "firebase-anonymous"), ("google", "google-other-app")],
)
def test_what_a_mistake_allows_the_policy_of_the_page_refuses(policies: str, token: str, tmp_path: Path) -> None:
    shape = SHAPES[policies]
    code, said = check(tmp_path, policies, signed(token, shape), published(shape))
    assert (code, said[:10]) == (3, "deny (403)"), said


def test_a_domain_without_a_workspace_account_is_refused(tmp_path: Path) -> None:
    shape = SHAPES["google"]
    code, said = check(tmp_path, "google", signed("google-consumer", shape), published(shape))
    assert (code, "the token has no claim `hd`" in said) == (3, True), said


@pytest.mark.parametrize("file", sorted(PROVIDERS.rglob("*.yaml")), ids=lambda file: file.stem)
def test_every_example_is_valid(file: Path) -> None:
    """A mistake is in what a policy means: none of them is a wrong field."""
    result = CliRunner().invoke(application, ["validate", str(file)], prog_name="authz")
    assert (result.exit_code, result.output) == (0, "2 policies in 1 file: ok\n")


@pytest.mark.envoy
@pytest.mark.slow
@pytest.mark.parametrize("provider", SHAPES)
def test_a_real_envoy_decides_the_same_by_its_own_filters(provider: str, tmp_path: Path) -> None:
    (tmp_path / "mesh.yaml").write_text(MESH)
    where = ("-p", str(PROVIDERS / f"{provider}.yaml"), "--mesh", str(tmp_path / "mesh.yaml"), "-o", "json")
    result = CliRunner().invoke(application, ["verify", *where], prog_name="authz")
    assert result.exit_code == 0, result.output
    (workload,) = json.loads(result.stdout)["workloads"]
    assert all(rule["hit"] for rule in workload["rules"]), workload
    assert (workload["allowed"] > 0, workload["disagreements"]) == (True, [])


def test_every_policy_on_the_page_is_the_file_that_is_run() -> None:
    shown = YAML.findall(PAGE.read_text())
    assert sorted(shown) == sorted(file.read_text() for file in PROVIDERS.glob("*.yaml"))


def test_every_provider_has_three_mistakes_on_the_page() -> None:
    _, *sections = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)
    bold = {part.partition("\n")[0]: len(re.findall(r"^\*\*[A-Z`]", part, re.MULTILINE)) for part in sections}
    assert bold == dict.fromkeys(bold, 3)
    assert len(bold) == 7


def test_every_token_and_every_mistake_is_used_on_the_page() -> None:
    text = PAGE.read_text()
    unused = {str(file.relative_to(PROVIDERS)) for file in PROVIDERS.rglob("*.*") if f"/{file.name}" not in text}
    own = {f"tokens/{name}.json" for name in ("google", "cognito", "entra", "keycloak", "okta", "auth0", "firebase")}
    assert unused - own == {"entra-v1.yaml"}

"""``tokenIntrospection`` of the mesh settings: what is read, and what is said of the rest."""

import pytest

from authz.core.engine import Engine
from authz.core.introspection import Introspection
from authz.core.resources import JwtRule, Metadata, RequestAuthentication, Resources
from authz.policy.mesh_config import read_mesh
from authz.policy.reader import read_policies
from authz.policy.version import version_of
from authz.sources.keys.needs import key_needs

ENTRY = """\
tokenIntrospection:
- issuer: https://issuer.example
  endpoint: https://issuer.example/introspect
  clientId: authz
  clientSecretFile: /etc/authz/secret
"""
READ = Introspection("https://issuer.example", "https://issuer.example/introspect", "authz", "/etc/authz/secret")


def test_an_entry_is_read_with_its_defaults() -> None:
    mesh, problems = read_mesh("mesh.yaml", ENTRY.encode())
    assert problems == ()
    assert mesh.introspections == (READ,)
    assert mesh.written == {"introspections"}  # a later reading that lost it is refused


def test_durations_are_read() -> None:
    text = f"{ENTRY}  timeout: 500ms\n  maxAge: 5m\n  refusedMaxAge: 1s\n"
    one = read_mesh("mesh.yaml", text.encode())[0].introspections[0]
    assert (one.timeout_seconds, one.max_age_seconds, one.refused_max_age_seconds) == (0.5, 300, 1)


@pytest.mark.parametrize(
    ("old", "new", "place", "message"),
    [
        ("issuer: https://issuer.example", "issuer: ''", (2, 11), "the value is empty"),
        ("clientId: authz", "clientId: ''", (4, 13), "the value is empty"),
        ("- issuer: https://issuer.example\n ", "-", (2, 3), "an entry of `tokenIntrospection` without `issuer`"),
        ("  clientId: authz\n", "", (2, 3), "an entry of `tokenIntrospection` without `clientId`"),
        ("  clientSecretFile: /etc/authz/secret\n", "", (2, 3), "an entry of `tokenIntrospection` without "
         "`clientSecretFile`"),
        ("/etc/authz/secret", "secret", (5, 21), "`secret` is not an absolute path"),
        ("endpoint: https://issuer.example/", "endpoint: http://issuer.example/", (3, 13),
         "`http://issuer.example/introspect` would get the client secret in plaintext"),
        ("endpoint: https://", "endpoint: https://me:pw@", (3, 13), "the endpoint has a user or a fragment"),
        ("endpoint: https://issuer.example/introspect", "endpoint: introspect", (3, 13),
         "`introspect` is not an address of an endpoint"),
        ("clientId: authz", "clientId: authz\n  timeout: 2m", (5, 12), "`2m` is longer than 60 s"),
        ("clientId: authz", "clientId: authz\n  maxAge: 2h", (5, 11), "`2h` is longer than 3600 s"),
        ("clientId: authz", "clientId: authz\n  maxAge: soon", (5, 11), "`soon` is not a duration"),
        ("clientId: authz", "clientId: authz\n  clientSecret: hunter2", (5, 3), "unknown field "
         "`clientSecret`; did you mean `clientSecretFile`?"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_place(old: str, new: str, place: tuple[int, int], message: str) -> None:
    assert old in ENTRY
    _, problems = read_mesh("mesh.yaml", ENTRY.replace(old, new).encode())
    (problem,) = problems
    assert problem.is_error
    assert (problem.location.line, problem.location.column) == place
    assert problem.message == message
    assert "hunter2" not in problem.message


def test_an_endpoint_on_this_machine_may_be_plain() -> None:
    for host in ("127.0.0.1:9000", "localhost", "[::1]:9000"):
        text = ENTRY.replace("https://issuer.example/introspect", f"http://{host}/introspect")
        assert read_mesh("mesh.yaml", text.encode())[1] == ()


def test_an_issuer_stands_there_once() -> None:
    second = ENTRY.removeprefix("tokenIntrospection:\n")
    _, problems = read_mesh("mesh.yaml", (ENTRY + second).encode())
    assert [(p.location.line, p.message) for p in problems] == [
        (line, "the issuer `https://issuer.example` has several entries") for line in (2, 6)
    ]


@pytest.mark.parametrize(
    ("issuer", "said"),
    [("https://issuer.example", ()), ("https://issuer.exampel", ("did you mean `https://issuer.exampel`?",))],
)
def test_an_issuer_that_no_rule_names_is_warned_of(issuer: str, said: tuple[str, ...]) -> None:
    mesh = read_mesh("mesh.yaml", ENTRY.encode())[0]
    policy = f"""apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: a, namespace: shop}}
spec: {{jwtRules: [{{issuer: "{issuer}"}}]}}
"""
    problems = read_policies([("p.yaml", policy.encode())], mesh).problems
    assert tuple(p.help for p in problems) == said
    assert [(p.location.file, p.location.line) for p in problems] == [("mesh.yaml", 2)] * len(said)


def test_it_is_part_of_the_policy_version() -> None:
    without, mesh = (read_mesh("mesh.yaml", text.encode())[0] for text in ("trustDomain: cluster.local\n", ENTRY))
    longer = read_mesh("mesh.yaml", f"{ENTRY}  maxAge: 61s\n".encode())[0]
    moved = read_mesh("other.yaml", f"# moved\n{ENTRY}".encode())[0]
    assert len({version_of([], one) for one in (without, mesh, longer)}) == 3
    assert version_of([], mesh) == version_of([], moved)


def test_rules_of_the_issuer_are_asked_and_need_no_keys_of_their_own() -> None:
    rules = (JwtRule("https://issuer.example"), JwtRule("https://issuer.example", jwks_uri="https://k"), JwtRule("i"))
    resources = Resources(request_authentications=(RequestAuthentication(Metadata("a", "shop"), jwt_rules=rules),))
    mesh = read_mesh("mesh.yaml", ENTRY.encode())[0]
    engine = Engine(resources, mesh, lambda policy: pytest.fail("there is no policy"))
    assert [rule.introspection for rule in engine.token_rules()] == [READ, READ, None]
    assert list(key_needs(engine.token_rules())) == ["uri:https://k", "oidc:i"]

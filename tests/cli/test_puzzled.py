"""
Reports as their puzzled authors write them, each with the one question that must lead to its cause.

A case is the policies, a question (``check``, ``explain`` or ``analyze`` with options) and what the answer must say.
The kinds are those of public bug reports and forum threads about Istio's policies.
"""

import json
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.cli.conftest import Run

HEAD = "---\napiVersion: security.istio.io/v1\nkind: {}\nmetadata: {{name: {}, namespace: {}}}\nspec: {}\n"
ISSUER = "https://idp.example/realms/shop"
WEB = "cluster.local/ns/shop/sa/web"
SELECT = "selector: {matchLabels: {app: cart}}, "


def ap(rules: str, name: str = "p", namespace: str = "shop", action: str = "ALLOW", more: str = "") -> str:
    return HEAD.format("AuthorizationPolicy", name, namespace, f"{{action: {action}, {more}rules: [{rules}]}}")


def ra(rule: str = f"issuer: {ISSUER}", name: str = "jwt", namespace: str = "shop", more: str = "") -> str:
    rules = ", ".join(f"{{{one}}}" for one in rule.split(" | "))
    return HEAD.format("RequestAuthentication", name, namespace, f"{{{more}jwtRules: [{rules}]}}")


def pa(spec: str, name: str = "mtls", namespace: str = "shop") -> str:
    return HEAD.format("PeerAuthentication", name, namespace, f"{{{spec}}}")


def custom(provider: str) -> str:
    spec = f"{{action: CUSTOM, provider: {{name: {provider}}}, rules: [{{}}]}}"
    return HEAD.format("AuthorizationPolicy", provider, "shop", spec)


def source(field: str, *values: str, more: str = "") -> str:
    listed = ", ".join(f'"{value}"' for value in values)
    return f"{{from: [{{source: {{{field}: [{listed}]}}}}]{more}}}"


def to(**fields: str) -> str:
    written = ", ".join(f'{name}: ["{value}"]' for name, value in fields.items())
    return f"{{to: [{{operation: {{{written}}}}}]}}"


def when(key: str, *values: str, field: str = "values") -> str:
    listed = ", ".join(f'"{value}"' for value in values)
    return f'{{when: [{{key: "{key}", {field}: [{listed}]}}]}}'


def token(**claims: object) -> tuple[str, str]:
    return "--claims", json.dumps({"iss": ISSUER, "sub": "ann", **claims})


SIGNED_IN = source("requestPrincipals", "*")
ISSUERS = " | ".join(f"issuer: https://login{n}.example/{n}" for n in range(7)) + f" | issuer: {ISSUER}"


class Puzzle(NamedTuple):
    report: str
    policies: str
    question: tuple[str, ...]
    said: tuple[str, ...]
    mesh: str = ""


def check(*options: str) -> tuple[str, ...]:
    return ("check", "-p", "p.yaml", "-n", "shop", "-l", "app=cart", "--port", "8080", *options)


def explain(*options: str) -> tuple[str, ...]:
    return ("explain", *check(*options)[1:])


AS_WEB = ("--source-principal", WEB)
ANALYZE = ("analyze", "p.yaml")

PUZZLES = [
    # tokens
    Puzzle(
        "my token is fine at jwt.io, and Istio says the issuer is not configured",
        ra() + ap(SIGNED_IN),
        check(*token(iss=f"{ISSUER}/")),
        ("differs by a slash at the end", f"`{ISSUER}`"),
    ),
    Puzzle(
        "which of my eight issuers does it mean?",
        ra(ISSUERS) + ap(SIGNED_IN),
        check(*token(iss=ISSUER.replace("https", "http"))),
        (f"the rules expect `{ISSUER}` (rule shop/jwt/7, differs by the scheme)", "`https://login3.example/3`"),
    ),
    Puzzle(
        "403 although the token is valid",
        ra(f"issuer: {ISSUER}, audiences: [cart-api]") + ap(SIGNED_IN),
        check(*token(aud="account")),
        ("the token has aud `account`, rule shop/jwt/0 wants `cart-api`",),
    ),
    Puzzle(
        "Audiences in Jwt are not allowed, for a client-credentials token",
        ra(f"issuer: {ISSUER}, audiences: [a, b]") + ap(SIGNED_IN),
        check(*token()),
        ("the token has no aud, rule shop/jwt/0 wants one of `a`, `b`",),
    ),
    Puzzle(
        "the token worked an hour ago",
        ra() + ap(SIGNED_IN),
        check(*token(exp=1_600_000_000)),
        ("Jwt is expired: token", "days ago"),
    ),
    Puzzle(
        "only verified users: email_verified is true but I get 403",
        ra() + ap(when("request.auth.claims[email_verified]", "true")),
        check(*token(email_verified=True)),
        ("got the boolean true, which never matches: only strings and lists of strings do",),
    ),
    Puzzle(
        "tenant 42 in the token, '42' in the policy",
        ra() + ap(when("request.auth.claims[tenant]", "42")),
        check(*token(tenant=42)),
        ("got the number 42, which never matches",),
    ),
    Puzzle(
        "Keycloak roles do not match",
        ra() + ap(when("request.auth.claims[realm_access.roles]", "admin")),
        check(*token(realm_access={"roles": ["admin"]})),
        ("a nested one is written `request.auth.claims[realm_access][roles]`",),
    ),
    Puzzle(
        "realm_access contains admin, see for yourself",
        ra() + ap(when("request.auth.claims[realm_access]", "admin")),
        check(*token(realm_access={"roles": ["admin"]})),
        ("got an object, which never matches", "`roles`"),
    ),
    Puzzle(
        "the groups claim is there, I swear",
        ra() + ap(when("request.auth.claims[groups]", "dev")),
        check(*token(Groups=["dev"])),
        ("has no claim `groups` but `Groups`",),
    ),
    Puzzle(
        "scope 'read write' no longer matches",
        ra() + ap(when("request.auth.claims[scope]", "read write")),
        check(*token(scope="read write")),
        ("`scope` is split at its spaces",),
    ),
    Puzzle(
        "roles are a text with blanks",
        ra() + ap(when("request.auth.claims[roles]", "admin")),
        check(*token(roles="user admin")),
        ("name `roles` in `spaceDelimitedClaims`",),
    ),
    Puzzle(
        "machine tokens are refused by requestPrincipals *",
        ra() + ap(SIGNED_IN),
        check("--claims", f'{{"iss": "{ISSUER}"}}'),
        ("the token has no `sub`, so it has no principal",),
    ),
    Puzzle(
        "requestPrincipals with my issuer does not work",
        ra() + ap(source("requestPrincipals", ISSUER)),
        check(*token()),
        (f"any subject of it is `{ISSUER}/*`",),
    ),
    Puzzle(
        "requestPrincipals https://idp.example* should be a prefix",
        ra() + ap(source("requestPrincipals", "https://idp.example*")),
        ANALYZE,
        ("AN-10", f"write `{ISSUER}/*`"),
    ),
    Puzzle(
        "*/* does not match any principal",
        ra() + ap(source("requestPrincipals", "*/*")),
        ANALYZE,
        ("any issuer with the subject `*`, not any principal",),
    ),
    Puzzle(
        "the subject has a slash (auth0|x/y)",
        ra() + ap(source("requestPrincipals", f"{ISSUER}/team/ann")),
        check(*token(sub="team/ann")),
        ("a subject with a slash is matched only by",),
    ),
    Puzzle(
        "RequestAuthentication is there and requests without token come through",
        ra(),
        check(),
        ("none, and none is required: RequestAuthentication alone admits requests without",),
    ),
    Puzzle("the same, asked of the whole set", ra(), ANALYZE, ("AN-20", 'requestPrincipals: ["*"]')),
    Puzzle(
        "my token is in x-jwt and is not seen",
        ra(f"issuer: {ISSUER}, fromHeaders: [{{name: x-jwt}}]") + ap(SIGNED_IN),
        check("-H", "authorization: Bearer x.y.z"),
        ("no token at header `x-jwt`", "`authorization` that was sent holds none"),
    ),
    Puzzle(
        "token in x-jwt with Bearer in front: invalid",
        ra(f"issuer: {ISSUER}, fromHeaders: [{{name: x-jwt}}]") + ap(SIGNED_IN),
        check("-H", "x-jwt: Bearer eyJhbGciOiJSUzI1NiJ9.e30.eA"),
        ("give `fromHeaders` the prefix `Bearer `",),
    ),
    Puzzle(
        "lower-case bearer",
        ra() + ap(SIGNED_IN),
        check("-H", "authorization: bearer x.y.z"),
        ("header `authorization` after `Bearer `", "that was sent holds none"),
    ),
    Puzzle("an opaque access token", ra() + ap(SIGNED_IN), check("--token", "abcdef"), ("1 section, so it is opaque",)),
    Puzzle(
        "Authorization header condition never matches",
        ra() + ap(when("request.headers[Authorization]", "Bearer *")),
        check(*token()),
        ("the header of an accepted token is removed unless `forwardOriginalToken`",),
    ),
    Puzzle(
        "browser preflight is refused",
        ra() + ap(SIGNED_IN),
        explain("--method", "OPTIONS", "-H", "origin: https://a.example", "-H", "access-control-request-method: PUT"),
        ("a CORS preflight skips this stage", "no accepted token"),
    ),
    Puzzle(
        "claim with a domain in its name does not reach the header",
        ra(f"issuer: {ISSUER}, outputClaimToHeaders: [{{header: x-role, claim: 'https://shop.example/role'}}]")
        + ap(SIGNED_IN),
        ANALYZE,
        ("AN-11", "steps into objects"),
    ),
    Puzzle("RequestAuthentication in the wrong namespace", ra(namespace="default") + ap(SIGNED_IN), ANALYZE, ("AN-6",)),
    # identities and mTLS
    Puzzle("principals never match", ap(source("principals", WEB)), check(), ("the caller has no mTLS identity",)),
    Puzzle("principals with spiffe://", ap(source("principals", f"spiffe://{WEB}")), ANALYZE, ("without the scheme",)),
    Puzzle(
        "namespace: [a, b] in one string",
        ap(source("namespaces", "web,shop")),
        check(*AS_WEB),
        ("one value with a comma in it", "list each by itself"),
    ),
    Puzzle(
        "ns/sa as principal",
        ap(source("principals", "shop/web")),
        check(*AS_WEB),
        ("is not of the form `<trust domain>/ns/<namespace>/sa/<service account>`",),
    ),
    Puzzle(
        "star in the middle of a principal",
        ap(source("principals", "*/ns/shop/*")),
        check(*AS_WEB),
        ("has a star that is an ordinary character",),
    ),
    Puzzle(
        "after the trust domain was changed",
        ap(source("principals", "new.example/ns/shop/sa/web")),
        check(*AS_WEB),
        ("only the trust domain differs",),
        "trustDomain: new.example\n",
    ),
    Puzzle(
        "cluster.local in the policy, another domain in the mesh",
        ap(source("principals", WEB)),
        check(*AS_WEB),
        ("only the trust domain differs",),
        "trustDomain: td.example\n",
    ),
    Puzzle(
        "service account of another namespace",
        ap(source("serviceAccounts", "web"), namespace="istio-system"),
        check(*AS_WEB),
        ("means the namespace of the policy",),
    ),
    Puzzle(
        "port 80 is STRICT in portLevelMtls, but plaintext passes",
        pa("selector: {matchLabels: {app: cart}}, portLevelMtls: {80: {mode: STRICT}}"),
        check(),
        ("`portLevelMtls` of shop/mtls sets ports 80 STRICT; 8080 is none of them: they are ports of the workload",),
    ),
    Puzzle(
        "connection reset from a client without sidecar", pa("mtls: {mode: STRICT}"), check(), ("STRICT of shop/mtls",)
    ),
    Puzzle(
        "PeerAuthentication with selector in istio-system does nothing",
        pa("selector: {matchLabels: {app: cart}}, mtls: {mode: STRICT}", namespace="istio-system"),
        check(),
        ("a selector in the root namespace makes Istio ignore it",),
    ),
    Puzzle(
        "two PeerAuthentications, the second has no effect",
        pa("mtls: {mode: STRICT}", "a") + pa("mtls: {mode: PERMISSIVE}", "b"),
        ANALYZE,
        ("AN-22", "shop/a"),
    ),
    Puzzle(
        "DENY for a namespace, and curl from outside the mesh passes",
        ap(source("namespaces", "evil"), action="DENY"),
        ANALYZE,
        ("AN-8", "a caller without a certificate"),
    ),
    Puzzle(
        "DENY notPrincipals hits my load balancer",
        ap(source("notPrincipals", WEB), action="DENY"),
        check(),
        ("expected none of", "the caller has no mTLS identity"),
    ),
    # which policies apply
    Puzzle(
        "the policy has no effect: a typo in the selector",
        ap("", more="selector: {matchLabels: {app: carts}}, "),
        check(),
        ("its selector wants app=carts, the workload has app=cart",),
    ),
    Puzzle(
        "the policy has no effect: wrong namespace",
        ap("", namespace="policies", more=SELECT),
        check(),
        ("it is in namespace `policies`, the workload in `shop`",),
    ),
    Puzzle(
        "a DENY on the Service by targetRefs",
        HEAD.format(
            "AuthorizationPolicy",
            "t",
            "shop",
            "{action: DENY, targetRefs: [{kind: Service, group: '', name: cart}], rules: [{}]}",
        ),
        check(),
        ("it has targetRefs, which no sidecar obeys",),
    ),
    Puzzle(
        "my allow-nothing policy breaks everything", ap(""), check(*AS_WEB), ("has no rules and so allows nothing",)
    ),
    Puzzle(
        "allow-nothing beside an ALLOW: still open",
        ap("", "lock") + ap("{}", "open"),
        ANALYZE,
        ("AN-9", "ALLOW policies are a union"),
    ),
    Puzzle(
        "the CUSTOM policy denies everything",
        custom("oauth2-proxy"),
        check(),
        ("oauth2-proxy", "deny (403) at stage custom"),
    ),
    Puzzle("two providers", custom("a") + custom("b"), ANALYZE, ("AN-23",)),
    Puzzle(
        "dry-run is on and nothing is refused",
        ap(source("principals", WEB)).replace(
            "namespace: shop}", 'namespace: shop, annotations: {"istio.io/dry-run": "true"}}'
        ),
        check(),
        ("ALLOW policies would have denied",),
    ),
    # operations
    Puzzle(
        "/api is allowed, /api/users is not",
        ap(to(paths="/api")),
        check("--path", "/api/users"),
        ("what lies below is `/api/*`",),
    ),
    Puzzle(
        "/api/* does not allow /api", ap(to(paths="/api/*")), check("--path", "/api"), ("begins with a slash more",)
    ),
    Puzzle("regular expression", ap(to(paths="^/api/.*$")), ANALYZE, ("no regular expressions", "write `/api/*`")),
    Puzzle("star in the middle of a path", ap(to(paths="/users/*/orders")), ANALYZE, ("write `/users/{*}/orders`",)),
    Puzzle("doubled slash", ap(to(paths="/api/x")), check("--path", "/api//x"), ("see MERGE_SLASHES",)),
    Puzzle("get is not GET", ap(to(methods="get")), ANALYZE, ("methods are compared with regard to case",)),
    Puzzle(
        "GET,POST in one string",
        ap(to(methods="GET,POST")),
        check("--method", "POST"),
        ("one value with a comma in it",),
    ),
    Puzzle("the host has a port", ap(to(hosts="a.example")), check("--host", "a.example:8080"), ("add `a.example:*`",)),
    Puzzle(
        "the host has a dot at its end", ap(to(hosts="a.example")), check("--host", "a.example."), ("a dot at its end",)
    ),
    Puzzle(
        "*.example.com and example.com",
        ap(to(hosts="*.example.com")),
        check("--host", "example.com"),
        ("only names below",),
    ),
    Puzzle(
        "short name of the Service",
        ap(to(hosts="cart")),
        check("--host", "cart.shop.svc.cluster.local"),
        ("not its long name",),
    ),
    Puzzle("https:// in hosts", ap(to(hosts="https://a.example")), ANALYZE, ("AN-13", "write `a.example`")),
    Puzzle("ports are those of the Service", ap(to(ports="80")), check(), ("never the Service's port",)),
    Puzzle("gRPC method without its slash", ap(to(paths="shop.Cart/Get")), ANALYZE, ("write `/shop.Cart/Get`",)),
    Puzzle(
        "notPaths opens everything else to anyone",
        ap(to(notPaths="/internal")),
        check("--path", "/admin"),
        ("because:", "expected none of `/internal`, got `/admin`"),
    ),
    Puzzle(
        "a DENY on paths breaks my database port",
        ap(to(paths="/admin"), action="DENY"),
        check("--tcp"),
        ("on TCP what a DENY rule asks of HTTP is left out",),
    ),
    Puzzle(
        "an ALLOW on paths refuses TCP",
        ap(to(paths="/x")),
        check("--tcp", *AS_WEB),
        ("on TCP an ALLOW rule that asks for anything of HTTP is left out",),
    ),
    Puzzle(
        "header value with another case",
        ap(when("request.headers[x-env]", "prod")),
        check("-H", "X-Env: Prod"),
        ("differs by upper and lower case",),
    ),
    Puzzle(
        "role header with several values",
        ap(when("request.headers[x-role]", "admin")),
        check("-H", "x-role: user, admin"),
        ("compared whole, commas included",),
    ),
    # what is written means something else
    Puzzle(
        "two entries under from are either, not both",
        ap('{from: [{source: {namespaces: [web]}}, {source: {requestPrincipals: ["*"]}}]}'),
        check("--source-principal", "cluster.local/ns/web/sa/x"),
        ("because:  from[0].source.namespaces",),
    ),
    Puzzle(
        "the namespace is the ingress gateway's",
        ap(source("namespaces", "default")),
        check("--source-principal", "cluster.local/ns/istio-system/sa/ingressgateway"),
        ("the caller's namespace is `istio-system`",),
    ),
    Puzzle(
        "an issuer with a star",
        ra("issuer: 'https://*.okta.example'") + ap(SIGNED_IN),
        check(*token(iss="https://dev.okta.example")),
        ("a star is an ordinary character",),
    ),
    Puzzle(
        "DENY with notValues hits those without a token",
        ra() + ap(when("request.auth.claims[role]", "admin", field="notValues"), action="DENY"),
        check(),
        ("expected none of `admin`, got no value: the request has no accepted token",),
    ),
    Puzzle("ports, and none was given", ap(to(ports="8080")), ("check", "-p", "p.yaml", "-n", "shop"), ("--port",)),
    Puzzle("a mesh-wide object elsewhere", ra(namespace="auth") + ap(SIGNED_IN), check(), ("[AN-6]",)),
    # addresses
    Puzzle(
        "ipBlocks with the office's address",
        ap(source("ipBlocks", "203.0.113.7")),
        check("--gateway", "-H", "x-forwarded-for: 203.0.113.7"),
        ("this is the direct peer", "remoteIpBlocks"),
    ),
    Puzzle(
        "remoteIpBlocks sees the load balancer",
        ap(source("remoteIpBlocks", "203.0.113.7")),
        check("--gateway", "-H", "x-forwarded-for: 203.0.113.7"),
        ("numTrustedProxies",),
    ),
    Puzzle(
        "ipBlocks at the ingress gateway",
        ap(
            source("ipBlocks", "203.0.113.7"),
            namespace="istio-system",
            more="selector: {matchLabels: {istio: ingressgateway}}, ",
        ),
        ANALYZE,
        ("AN-21",),
    ),
    # server names
    Puzzle("upper-case server name", ap(when("connection.sni", "A.example")), ANALYZE, ("compared in lower case",)),
    Puzzle(
        "SNI at the egress gateway",
        ap(when("connection.sni", "a.example"), more="selector: {matchLabels: {istio: egressgateway}}, "),
        ANALYZE,
        ("AN-18", "`ports`"),
    ),
    Puzzle(
        "--sni on a plaintext request",
        ap("{}"),
        check("--sni", "a.example"),
        ("warning: the server name (SNI) is not used",),
    ),
    Puzzle("--claims without RequestAuthentication", ap("{}"), check(*token()), ("warning: --claims is not read",)),
]


@pytest.mark.parametrize("puzzle", PUZZLES, ids=[puzzle.report for puzzle in PUZZLES])
def test_one_answer_leads_to_the_cause(run: Run, tmp_path: Path, puzzle: Puzzle) -> None:
    (tmp_path / "p.yaml").write_text(puzzle.policies)
    (tmp_path / "mesh.yaml").write_text(puzzle.mesh)
    mesh = ("--mesh", "mesh.yaml") if puzzle.mesh else ()
    result = run(*puzzle.question, *mesh)
    assert result.exit_code in (0, 3), result.output
    for text in puzzle.said:
        assert text in result.output

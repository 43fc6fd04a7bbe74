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
    Puzzle("get is not GET", ap(to(methods="get")), ANALYZE, ("methods are case-sensitive",)),
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
        ("on TCP the HTTP conditions of a DENY rule are left out",),
    ),
    Puzzle(
        "an ALLOW on paths refuses TCP",
        ap(to(paths="/x")),
        check("--tcp", *AS_WEB),
        ("on TCP an ALLOW rule with any HTTP condition is left out",),
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
    # what is nearly alike
    Puzzle(
        "Keycloak's groups: admins, and the token has it",
        ra() + ap(when("request.auth.claims[groups]", "admins")),
        check(*token(groups=["/admins"])),
        ("differs by a slash at the beginning",),
    ),
    Puzzle(
        "*@example.com refuses Ann",
        ra() + ap(when("request.auth.claims[email]", "*@example.com")),
        check(*token(email="Ann@Example.com")),
        ("`*@example.com` differs by upper and lower case",),
    ),
    Puzzle(
        "/Shop/* refuses", ap(to(paths="/Shop/*")), check("--path", "/shop/a"), ("differs by upper and lower case",)
    ),
    Puzzle(
        "a slash after the template",
        ap(to(paths="/users/{*}")),
        check("--path", "/users/1/"),
        ("`/users/1/` has a slash at its end, which makes it another path",),
    ),
    Puzzle(
        "the claim's name in quotes",
        ra() + ap("{when: [{key: 'request.auth.claims[\"groups\"]', values: [a]}]}"),
        check(*token(groups=["a"])),
        ("but `groups`: write it without quotes", "write `request.auth.claims[groups]`"),
    ),
    Puzzle(
        "the value in quotes",
        ap("{when: [{key: 'request.headers[x-env]', values: ['\"prod\"']}]}"),
        check("-H", "x-env: prod"),
        ("differs by quotes",),
    ),
    Puzzle(
        "a regular expression for the browser",
        ap(when("request.headers[user-agent]", "Mozilla/.*")),
        check("-H", "user-agent: Mozilla/5.0"),
        ("there are no regular expressions",),
    ),
    Puzzle(
        "a regular expression for the host", ap(to(hosts=r"^api\\d+$")), ANALYZE, ("AN-16", "no regular expressions")
    ),
    Puzzle(
        "10.0.0.0/8 refuses 10.1.1.1",
        ap(source("ipBlocks", "10.0.0.0/8")),
        check("--source-ip", "::ffff:10.1.1.1"),
        ("IPv4 in the form of IPv6",),
    ),
    # where it comes from
    Puzzle(
        "since the gateway has a policy everything is refused",
        ap(to(paths="/public"), name="gateway", namespace="istio-system"),
        check("--path", "/cart", *AS_WEB),
        ("istio-system/gateway is in the root namespace and has no selector, so it applies to every workload",),
    ),
    Puzzle(
        "everything is refused, and my namespace has no policy",
        ap("", name="nothing", namespace="istio-system"),
        check(*AS_WEB),
        ("istio-system/nothing is in the root namespace",),
    ),
    Puzzle(
        "a DENY of somebody hits me",
        ap(to(paths="/debug*"), name="debug", namespace="istio-system", action="DENY"),
        check("--path", "/debugger"),
        ("istio-system/debug is in the root namespace", "expected one of `/debug*`, got `/debugger`"),
    ),
    Puzzle(
        "my dry-run policy refuses",
        ap("{}", action="DENY").replace("namespace: shop}", "namespace: shop, labels: {istio.io/dry-run: 'true'}}"),
        check(),
        ("`istio.io/dry-run` is an annotation; as a label it has no effect",),
    ),
    Puzzle(
        "the pipeline filled in the namespace",
        ap(source("namespaces", "@NAMESPACE@")),
        check(*AS_WEB),
        ("`@NAMESPACE@` looks like a variable that nobody replaced",),
    ),
    Puzzle(
        "the header is sent, see for yourself",
        ap(when("request.headers[x_user]", "ann")),
        check("-H", "x-user: ann"),
        ("the request has no header `x_user` but `x-user`",),
    ),
    # two dashes, two rules; what nearly fired; what comes before
    Puzzle(
        "only web may call cart, and everybody can",
        ap(f"{source('serviceAccounts', 'shop/web')}, {to(hosts='cart.shop')}"),
        check("--host", "cart.shop", "--source-principal", "cluster.local/ns/shop/sa/batch"),
        ("[AN-25]", "remove the dash"),
    ),
    Puzzle(
        "the same with a path",
        ap(f"{source('serviceAccounts', 'shop/web')}, {to(paths='/cart')}"),
        check("--path", "/cart", "--source-principal", "cluster.local/ns/shop/sa/batch"),
        ("each dash begins a rule, and one is enough",),
    ),
    Puzzle(
        "deny-all, and a pod of the namespace still reaches the internet",
        ap("", name="nothing"),
        check("--host", "www.example.com"),
        ("policies are asked where a request arrives; what the workload itself calls is not",),
    ),
    Puzzle(
        "the same, asked of the whole set",
        ap(f"{to(methods='GET')}, {source('serviceAccounts', 'shop/web')}"),
        ANALYZE,
        ("AN-25", "remove the dash"),
    ),
    Puzzle(
        "DENY for a namespace does nothing, curl to the pod's address still gets 200",
        ap(source("namespaces", "dev"), action="DENY"),
        check(),
        ("no DENY:  shop/p/0", "the caller has no mTLS identity"),
    ),
    Puzzle(
        "path parameters get around my DENY",
        ap(to(paths="/internal/*"), action="DENY"),
        check("--path", "/internal;v=1/users"),
        ("what follows a semicolon is part of the path",),
    ),
    Puzzle(
        "both groups are required, one is enough",
        ra() + ap(when("request.auth.claims[groups]", "a", "b")),
        check(*token(groups=["a"])),
        ("expected one of `a`, `b`, got `a`",),
    ),
    Puzzle(
        "403 where the documentation says 401",
        ra() + ap(SIGNED_IN),
        check(),
        ("a missing one is refused by policies with 403, a bad one with 401",),
    ),
    Puzzle(
        "the mobile app's tokens are refused on a path that is open to all",
        ra() + ap(to(paths="/mobile/*")),
        check("--path", "/mobile/x", *token(iss="mobile")),
        ("a bad one is refused before any AuthorizationPolicy is asked, whatever the path",),
    ),
    Puzzle(
        "a bad token is redirected to the login page instead of 401",
        ra() + custom("login"),
        check("--provider", "login=deny", "-H", "authorization: Bearer a.b.c"),
        ("CUSTOM policies are asked before tokens are",),
        mesh="extensionProviders: [{name: login, envoyExtAuthzHttp: {service: l.a.svc.cluster.local, port: '80'}}]",
    ),
    Puzzle(
        "garbage in Authorization is let through",
        ra(),
        check("-H", "authorization: eyJhbGciOi"),
        ("none is required", "after `Bearer `", "that was sent holds none there"),
    ),
    Puzzle(
        "the header of my list claim is garbage",
        ra(f"issuer: {ISSUER}, outputClaimToHeaders: [{{header: x-groups, claim: groups}}]") + ap(SIGNED_IN),
        check(*token(groups=["a", "b"])),
        ("set x-groups (base64 of JSON: `groups` is a list)",),
    ),
    Puzzle(
        "the payload header is garbage",
        ra(f"issuer: {ISSUER}, outputPayloadToHeader: X-Payload") + ap(SIGNED_IN),
        check(*token()),
        ("set x-payload (base64 of the claims)",),
    ),
    Puzzle(
        "requestPrincipals * does not match a token whose sub is empty",
        ra() + ap(SIGNED_IN),
        check(*token(sub="")),
        ("the `sub` of the token is empty",),
    ),
    # who calls, and from where
    Puzzle(
        "A calls B through the gateway, and B refuses it",
        ap(source("principals", "cluster.local/ns/shop/sa/a")),
        check("--source-principal", "cluster.local/ns/istio-system/sa/istio-ingressgateway-service-account"),
        ("this is a gateway: whoever is behind it is known by a token",),
    ),
    Puzzle(
        "the same with a namespace",
        ap(source("namespaces", "shop")),
        check("--source-principal", "cluster.local/ns/infra/sa/istio-ingressgateway"),
        ("the caller's namespace is `infra`; this is a gateway",),
    ),
    Puzzle(
        "the same with a service account",
        ap(source("serviceAccounts", "shop/a")),
        check("--source-principal", "cluster.local/ns/infra/sa/shop-gateway-istio"),
        ("this is a gateway",),
    ),
    Puzzle(
        "remoteIpBlocks works at the gateway and not at the sidecar, numTrustedProxies is right",
        ap(source("remoteIpBlocks", "203.0.113.7")),
        check("-H", "x-forwarded-for: 203.0.113.7, 10.0.2.200"),
        ("a sidecar takes the last one, whatever `numTrustedProxies` says",),
    ),
    Puzzle(
        "x-envoy-external-address in a block of addresses",
        ap(when("request.headers[x-envoy-external-address]", "192.0.2.0/24")),
        check("-H", "x-envoy-external-address: 192.0.2.9"),
        ("a header is compared as text, not as an address: for `192.0.2.0/24` use `remoteIpBlocks`",),
    ),
    Puzzle(
        "the same, asked of the whole set",
        ap(when("request.headers[x-real-ip]", "192.0.2.0/24")),
        ANALYZE,
        ("AN-24", "no address of `192.0.2.0/24` matches"),
    ),
    Puzzle(
        "permissions header in brackets",
        ap(when("request.headers[permissions]", "READ")),
        check("-H", 'permissions: ["READ","DELETE"]'),
        ("with its brackets, quotes and commas",),
    ),
    Puzzle(
        "compare a claim with a header",
        ra() + ap(when("request.auth.claims[tenant]", "request.headers[x-tenant]")),
        check("-H", "x-tenant: a", *token(tenant="a")),
        ("a value refers to nothing", "[AN-24]"),
    ),
    Puzzle(
        "wildcard with cluster.local and our own trust domain",
        ap(source("principals", "cluster.local/ns/shop/*")),
        check("--source-principal", "ecp/ns/shop/sa/web"),
        ("keeps its `cluster.local`", "AN-24"),
        mesh="trustDomain: ecp",
    ),
    Puzzle(
        "methods of gRPC",
        ap(to(methods="/thanos.Store/Info")),
        check("--method", "POST", "--path", "/thanos.Store/Info"),
        ('write `paths: ["/thanos.Store/Info"]`; the method of gRPC is always `POST`',),
    ),
    Puzzle(
        "deny-all for the mesh, opened for my app, and the gateway still refuses",
        ap("", name="nothing", namespace="istio-system") + ap("{}", more=SELECT),
        ANALYZE,
        ("AN-26", "allow at the gateway, too"),
    ),
    Puzzle(
        "DENY for an external host in the namespace of the callers",
        ap(f"{source('namespaces', 'shop')[:-1]}, {to(hosts='api.partner.example')[1:]}", action="DENY"),
        ANALYZE,
        ("AN-27", "not where one of `shop` leaves for `api.partner.example`"),
    ),
    Puzzle("AUDIT refuses nothing", ap("{}", action="AUDIT"), check(), ("it only marks the request",)),
    Puzzle(
        "not yet valid, and it was issued yesterday",
        ra() + ap(SIGNED_IN),
        check(*token(nbf=1700000000000)),
        ("this looks like milliseconds",),
    ),
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

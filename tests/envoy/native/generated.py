"""
Random policies, and requests that come near their values: for comparisons of evaluators.

Everything is drawn from small pools, so that requests hit rules often and by a hair.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

Json = object

PATHS = (
    "/a", "/a/b", "/a/b/c", "/ab", "/api/v1/users", "/api/v1/users/7", "/api", "/", "/x.y", "/admin", "/admin/", "/A",
    "/a%2Fb", "/a+b", "/a~b",
)  # fmt: skip
ODD_PATHS = (
    "/a%2fb", "/a//b", "//a", "/a/./b", "/a/../a/b", "/a/%2e%2e/ab", "/a\\b", "/%61/b", "/a;x/b", "/a/b;v=1", "/a%2%61",
    "/a%5cb", "/api%2Fv1%2Fusers", "/a/b#c", "/a%zz", "/a/b/?", "/a%00", "/..;/admin", "/api/{*}/users", "/a/b%3Fc",
    "/" + "long/" * 60 + "end", "/é", "/api/x*y/users", "/a/b?x=#y",
)  # fmt: skip
"""What normalisation makes something else of, or nothing."""
PATH_PATTERNS = (
    *PATHS, "/é", "/a*", "/a/*", "/api/*", "*/users", "*b", "*", "/api/v1/*", "/api/{*}/users", "/api/{**}", "/a/{*}",
    "/{**}/c", "/ad*", "*/", "/a/b*", "/a//b", "/a%2fb", "/" + "long/" * 60 + "*", "/a/{*}/{**}", "/a;x*",
)  # fmt: skip
_LITERAL_PATTERNS = tuple(pattern for pattern in PATH_PATTERNS if pattern.startswith("/") and pattern.isascii())
"""A path may have the very characters of a pattern."""
HOSTS = ("a.test", "b.a.test", "A.test", "a.test:8080", "other.test", "a.test.", "[2001:db8::1]:80", "a.test:443")
HOST_PATTERNS = (
    "a.test", "A.TEST", "*.a.test", "a.*", "*", "a.test:*", "other.test", "*.test", "a.test:443", "*.*", "[2001:*",
    "^a.test$", "*:8080", "B.a*",
)  # fmt: skip
METHODS = ("GET", "POST", "PUT", "DELETE")
ODD_METHODS = ("PATCH", "HEAD", "OPTIONS", "CONNECT", "PROPFIND", "get", "TRACE")
"""Some of them by HTTP/2 only."""
METHOD_PATTERNS = ("GET", "POST", "get", "P*", "*T", "*", "CONNECT", "PROPFIND", "HEAD")
PORTS = ("8080", "8081", "080", "9999")
IDENTITIES = (
    "", "spiffe://cluster.local/ns/shop/sa/web", "spiffe://cluster.local/ns/shop/sa/web-2",
    "spiffe://cluster.local/ns/prod/sa/api", "spiffe://td-old/ns/shop/sa/web", "spiffe://td1/ns/prod-eu/sa/api",
    "spiffe://td-new/ns/a/sa/b",
)  # fmt: skip
PRINCIPALS = (
    "cluster.local/ns/shop/sa/web", "cluster.local/ns/prod/sa/api", "td-old/ns/shop/sa/web", "*", "*/sa/web",
    "cluster.local/ns/shop/*", "cluster.local/ns/shop/sa/*", "*/ns/prod/sa/api", "td*/ns/shop/sa/web",
)  # fmt: skip
NAMESPACES = ("shop", "prod", "prod*", "*", "*op", "s*p", "a", "*o*", "p*-*")
ACCOUNTS = ("web", "shop/web", "prod/api", "web-2")
TRUST_DOMAINS = ("cluster.local", "td1", "td-*", "*", "*.local")
ADDRESSES = ("127.1.2.3", "127.1.9.9", "127.9.0.7", "127.2.0.1")
"""Of this machine: the direct peer of RBAC is the physical one, whatever the PROXY protocol says."""
BLOCKS = ("127.1.0.0/16", "127.1.2.3", "127.9.0.0/24", "0.0.0.0/0", "127.1.2.3/8", "2001:db8::/32", "::ffff:127.1.2.3",
          "2001:db8::5", "::/0", "::1/64")  # fmt: skip
HEADERS = ("x-role", "x-tier")
HEADER_VALUES = ("admin", "user", "admin,user", "", "adm")
HEADER_PATTERNS = ("admin", "user", "adm*", "*min", "*", "admin,user")
ISSUERS = ("https://a.test", "https://b.test/x")
SUBJECTS = ("alice", "bob", "a/b")
REQUEST_PRINCIPALS = (
    "https://a.test/alice", "*", "https://a.test/*", "*/alice", "https://*", "*bob", "https://a.test/al*", "*/*",
    "https://b.test/x/bob",
)  # fmt: skip
CLAIMS = ("role", "scope", "groups", "a.b", "flag", "list", "é")
CLAIM_PATTERNS = ("admin", "read", "r*", "*s", "*", "read write", "é", "true", "7")
SNIS = ("", "a.test", "b.test")


@dataclass(frozen=True, slots=True)
class RandomRequest:
    """One HTTP request as its facts."""

    method: str
    host: str
    path: str
    headers: tuple[tuple[str, str], ...]
    identity: str
    """Empty: plain text."""
    source_ip: str
    forwarded_for: str
    """Value of X-Forwarded-For; empty: none."""
    claims: Mapping[str, object] = field(default_factory=dict)
    """Of the token that is sent; empty: none."""


def _some(rng: Random, pool: Sequence[str], most: int = 3) -> list[str]:
    return rng.sample(pool, rng.randint(1, min(most, len(pool))))


def _maybe(rng: Random, entry: dict[str, Json], name: str, pool: Sequence[str], chance: float = 0.3) -> None:
    if rng.random() < chance:
        entry[name] = _some(rng, pool)
    if rng.random() < chance / 3:
        entry["not" + name[0].upper() + name[1:]] = _some(rng, pool, 2)


def _source(rng: Random, *, custom: bool) -> dict[str, Json]:
    entry: dict[str, Json] = {}
    while not entry:
        if not custom:
            if rng.random() < 0.3:
                _maybe(rng, entry, "serviceAccounts", ACCOUNTS, 0.7)
            else:
                _maybe(rng, entry, "principals", PRINCIPALS)
                _maybe(rng, entry, "namespaces", NAMESPACES)
            _maybe(rng, entry, "trustDomains", TRUST_DOMAINS, 0.15)
            _maybe(rng, entry, "requestPrincipals", REQUEST_PRINCIPALS, 0.2)
        _maybe(rng, entry, "ipBlocks", BLOCKS, 0.2)
        _maybe(rng, entry, "remoteIpBlocks", BLOCKS, 0.2)
    return entry


def _operation(rng: Random, paths: Sequence[str]) -> dict[str, Json]:
    entry: dict[str, Json] = {}
    while not entry:
        _maybe(rng, entry, "paths", paths, 0.7)
        _maybe(rng, entry, "hosts", HOST_PATTERNS, 0.25)
        _maybe(rng, entry, "methods", METHOD_PATTERNS, 0.25)
        _maybe(rng, entry, "ports", PORTS, 0.15)
    return entry


def _condition(rng: Random, *, custom: bool) -> dict[str, Json]:
    keys: list[tuple[str, Sequence[str]]] = [
        (f"request.headers[{rng.choice(HEADERS)}]", HEADER_PATTERNS),
        ("source.ip", BLOCKS), ("remote.ip", BLOCKS), ("destination.port", PORTS), ("connection.sni", SNIS[1:]),
        ("destination.ip", ("10.1.0.5", "10.9.0.0/16")), ("request.headers[:path]", ("/a", "/a*", "*?x=1")),
        ("request.headers[:authority]", ("a.test", "A.test", "*")), ("request.headers[host]", ("a.test", "*")),
        ("request.headers[:method]", ("GET", "P*")), ("request.headers[X-Role]", HEADER_PATTERNS),
        ("request.headers[accept]", ("text/html,*/*", "text/html", "*")),
        ("request.headers[authorization]", ("*", "Bear*")),
        ("request.headers[cookie]", ("*", "a=b*")), ("request.headers[x-payload]", ("*", "ey*")),
        ("request.headers[x-forwarded-for]", ("*", "1.2.3.4*")), ("request.headers[:scheme]", ("http", "https")),
        ("experimental.envoy.filters.none[x]", ("a", "[b]")),
    ]  # fmt: skip
    if not custom:
        keys += [
            (f"request.auth.claims[{rng.choice(CLAIMS)}]", CLAIM_PATTERNS),
            ("request.auth.claims[deep][role]", CLAIM_PATTERNS), ("request.auth.claims[deep]", CLAIM_PATTERNS),
            ("request.auth.claims[deep][role][x]", CLAIM_PATTERNS),
            ("request.auth.claims[iss]", ("https://a.test", "*")), ("request.auth.claims[aud]", ("web", "*")),
            ("request.auth.audiences", ("web", "api*")), ("request.auth.presenter", ("web", "*")),
            ("request.auth.principal", REQUEST_PRINCIPALS), ("source.namespace", NAMESPACES),
            ("source.principal", PRINCIPALS), ("source.serviceAccount", ACCOUNTS),
            ("source.trustDomain", TRUST_DOMAINS),
        ]  # fmt: skip
    key, pool = rng.choice(keys)
    entry: dict[str, Json] = {"key": key}
    if rng.random() < 0.75:
        entry["values"] = _some(rng, pool)
    if len(entry) == 1 or rng.random() < 0.2:
        entry["notValues"] = _some(rng, pool, 2)
    return entry


def _rule(rng: Random, paths: Sequence[str], *, custom: bool) -> dict[str, Json]:
    rule: dict[str, Json] = {}
    if rng.random() < 0.5:
        rule["from"] = [{"source": _source(rng, custom=custom)} for _ in range(rng.randint(1, 2))]
    if rng.random() < 0.75:
        rule["to"] = [{"operation": _operation(rng, paths)} for _ in range(rng.randint(1, 2))]
    if rng.random() < 0.3:
        rule["when"] = [_condition(rng, custom=custom) for _ in range(rng.randint(1, 2))]
    return rule


def random_policy(
    rng: Random,
    name: str,
    actions: Sequence[str] = ("ALLOW", "DENY", "AUDIT"),
    paths: Sequence[str] = PATH_PATTERNS,
    providers: Sequence[str] = ("ext",),
    gateway: str = "",
) -> dict[str, Json]:
    """One AuthorizationPolicy for the workload ``app: api`` of namespace ``shop``; ``gateway``: its name as one."""
    action = rng.choice(actions)
    rules = [_rule(rng, paths, custom=action == "CUSTOM") for _ in range(rng.randint(1, 3))]
    metadata: dict[str, Json] = {"name": name, "namespace": rng.choice(("shop", "shop", "istio-system"))}
    if action in ("ALLOW", "DENY") and rng.random() < 0.2:
        metadata["annotations"] = {"istio.io/dry-run": "true"}
    spec: dict[str, Json] = {"action": action, "rules": rules}
    if rng.random() < 0.3:
        spec["selector"] = {"matchLabels": {"app": "api"}}
    if action == "CUSTOM":
        spec["provider"] = {"name": rng.choice(providers)}
    if gateway and "selector" not in spec and rng.random() < 0.4:
        named = {"group": "gateway.networking.k8s.io", "kind": "Gateway"}
        spec["targetRefs"] = [{**named, "name": rng.choice((gateway, gateway, "other"))}]
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": metadata,
        "spec": spec,
    }


def policy_text(rng: Random, number: int, **choices: Any) -> str:
    """Documents of JSON, which is YAML that every reader takes the same way."""
    return "\n---\n".join(json.dumps(random_policy(rng, f"p{index}", **choices)) for index in range(number)) + "\n"


def random_claims(rng: Random) -> dict[str, object]:
    """Claims of a token, or none."""
    if rng.random() < 0.4:
        return {}
    claims: dict[str, object] = {"iss": rng.choice((*ISSUERS, ISSUERS[0])), "sub": rng.choice(SUBJECTS)}
    if rng.random() < 0.15:
        del claims["sub"]
    choices: dict[str, Sequence[object]] = {
        "role": ("admin", "user", 7, ["admin", 3]), "scope": ("read write", "read"), "groups": (["ops", "read"], []),
        "aud": ("web", ["api", "web"]), "azp": ("web", "cli"), "a.b": ("admin", {"x": "read"}), "flag": (True, "true"),
        "deep": ({"role": "admin"}, {"role": ["ops"]}, "x", {"role": {"x": "read"}}, [{"role": "admin"}]),
        "list": ([["admin"], "read"], [["admin"]], [7, None], [{"x": "admin"}]), "é": ("é", ["r\u00e9sum\u00e9"]),
    }  # fmt: skip
    for name, values in choices.items():
        if rng.random() < 0.5:
            claims[name] = rng.choice(values)
    return claims


def random_request(rng: Random, methods: Sequence[str] = METHODS) -> RandomRequest:
    headers = [(name, value) for name in HEADERS for value in _some(rng, HEADER_VALUES, 2) if rng.random() < 0.4]
    if rng.random() < 0.15:
        headers += [("accept", value) for value in rng.choice((("text/html",), ("text/html", "*/*"), ("",)))]
    if rng.random() < 0.1:
        headers.append(("cookie", rng.choice(("a=b", "a=b; c=d", ""))))
    if rng.random() < 0.1:
        headers += [("origin", "http://x.test"), ("access-control-request-method", "GET")]
    path = rng.choice(PATHS if rng.random() < 0.8 else _LITERAL_PATTERNS if rng.random() < 0.5 else ODD_PATHS)
    return RandomRequest(
        rng.choice(methods),
        rng.choice(HOSTS),
        path + rng.choice(("", "", "", "?x=1", "?a/b")),
        tuple(headers),
        rng.choice(IDENTITIES),
        rng.choice(ADDRESSES),
        rng.choice(
            (
                "",
                "",
                "127.1.2.3",
                "1.2.3.4, 127.9.0.7",
                "2001:db8::5",
                "127.1.9.9, 2001:db8::5",
                "::ffff:127.1.2.3",
                "unknown",
                "127.1.2.3, unknown",
                "127.1.2.3,127.9.0.7,127.2.0.1",
            )
        ),
        random_claims(rng),
    )

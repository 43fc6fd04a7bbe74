"""
Where random policies apply: a sidecar, a gateway behind trusted proxies, or a TCP port; with a mesh's settings, token
rules and external providers of its own.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from random import Random
from time import time
from urllib.parse import quote

from authz.analysis.offline.request import OfflineRequest, OfflineWorkload
from authz.core.attributes import Json, Workload
from authz.core.resources import MeshConfig, PathNormalization
from authz.tokens.signing import SigningKey, jwks_text, make_keys, make_token
from tests.envoy.native.generated import ISSUERS, METHODS, ODD_METHODS, PATH_PATTERNS, RandomRequest, policy_text
from tests.envoy.native.providers import PROVIDERS, VERDICT, VERDICTS

WORKLOAD = Workload("shop", frozenset({("app", "api")}), "api")
GATEWAY = Workload("shop", frozenset({("app", "api"), ("gateway.networking.k8s.io/gateway-name", "front")}), "api")
ASCII = "".join(map(chr, range(128)))
_TRUST: tuple[Mapping[str, object], ...] = (
    {},
    {"trust_domain": "td-new", "trust_domain_aliases": ("td-old",)},
    {"trust_domain": "td1", "trust_domain_aliases": ("cluster.local", "td-new")},
)
KEY: dict[str, SigningKey] = make_keys(
    {
        "main": {"kty": "oct", "kid": "main"},
        "rogue": {"kty": "oct", "kid": "main"},
        "second": {"kty": "EC", "alg": "ES256"},
        "edwards": {"kty": "OKP", "kid": "ed"},
    }
)
_SETS = (("main",), ("main", "second"), ("edwards", "main"), ("second", "main", "edwards"))


@dataclass(frozen=True)
class World:
    """Everything around the policies of one set."""

    mesh: MeshConfig
    is_gateway: bool
    is_tcp: bool
    documents: str

    @property
    def target(self) -> OfflineWorkload:
        return OfflineWorkload(GATEWAY if self.is_gateway else WORKLOAD, 8080)

    @property
    def fields(self) -> dict[str, Json]:
        """Of the connection manager, as Istio sets them."""
        mode = self.mesh.path_normalization
        decode = mode is PathNormalization.DECODE_AND_MERGE_SLASHES
        found: dict[str, Json] = {
            "normalize_path": mode is not PathNormalization.NONE,
            "merge_slashes": decode or mode is PathNormalization.MERGE_SLASHES,
            "path_with_escaped_slashes_action": "UNESCAPE_AND_FORWARD" if decode else "KEEP_UNCHANGED",
            "http2_protocol_options": {"allow_connect": True},
            "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": _ROUTES}]},
        }
        if self.is_gateway:
            found |= {"use_remote_address": True, "xff_num_trusted_hops": self.mesh.num_trusted_proxies}
        return found


_ANSWER: Json = {"status": 200, "body": {"inline_string": "ok"}}
_ROUTES: Json = [
    {"match": {"connect_matcher": {}}, "direct_response": _ANSWER},
    {"match": {"prefix": ""}, "direct_response": _ANSWER},
]


def random_world(rng: Random) -> World:
    """Most are plain sidecars; policies are many now and then, so that look-ups nest and split."""
    is_gateway, is_tcp = rng.random() < 0.25, rng.random() < 0.15
    trust = rng.choice(_TRUST)
    mesh = MeshConfig(
        path_normalization=rng.choice((PathNormalization.BASE, PathNormalization.BASE, *PathNormalization)),
        num_trusted_proxies=rng.choice((0, 1, 2)) if is_gateway else 0,
        extension_providers=PROVIDERS,
        multiple_custom_providers=rng.random() < 0.5,
        **trust,  # type: ignore[arg-type]  # names and values as above
    )
    number = rng.choice((1, 2, 3, 5, 8, 8, 20, 40))
    paths: tuple[str, ...] = PATH_PATTERNS
    if number > 10:  # many different values: otherwise every bucket holds everything
        paths = (*PATH_PATTERNS, *(f"/p{index}" for index in range(40)), *(f"/p{index}/*" for index in range(20)))
    actions = ["ALLOW", "DENY", "AUDIT"]
    providers = ["ext"]
    if rng.random() < 0.35:
        actions.append("CUSTOM")
        if is_tcp:
            providers = rng.choice((["grpc"], ["ext"], ["open"], ["broken"], ["missing"]))
        else:
            names = ["ext", "ext", "grpc", "down", "open", "broken", "missing"]
            providers = rng.sample(names, rng.choice((1, 1, 2, 3)))
    gateway = "front" if is_gateway else ""
    text = policy_text(rng, number, paths=paths, actions=actions, providers=providers, gateway=gateway)
    return World(mesh, is_gateway, is_tcp, text + _authentications(rng))


def _authentications(rng: Random) -> str:
    text = ""
    for number in range(rng.choice((0, 1, 1, 1, 2, 3))):
        rules = [_jwt_rule(rng, issuer) for issuer in rng.sample(ISSUERS, rng.choice((1, 1, 2)))]
        document = {
            "apiVersion": "security.istio.io/v1",
            "kind": "RequestAuthentication",
            "metadata": {"name": f"jwt-{number}", "namespace": rng.choice(("shop", "shop", "istio-system"))},
            "spec": {"jwtRules": rules},
        }
        text += f"---\n{json.dumps(document)}\n"
    return text


def _jwt_rule(rng: Random, issuer: str) -> dict[str, object]:
    rule: dict[str, object] = {"issuer": issuer, "jwks": jwks_text([KEY[name] for name in rng.choice(_SETS)])}
    if rng.random() < 0.25:
        rule["fromHeaders"] = [{"name": "x-token", "prefix": rng.choice(("", "T "))}, {"name": "Authorization"}]
    if rng.random() < 0.25:
        rule["fromParams"] = ["tok"]
    if rng.random() < 0.2:
        rule["fromCookies"] = ["tok"]
    if rng.random() < 0.3:
        rule["forwardOriginalToken"] = True
    if rng.random() < 0.2:
        rule["audiences"] = ["https://web/", "api"]
    if rng.random() < 0.2:
        rule["outputPayloadToHeader"] = "x-payload"
    if rng.random() < 0.25:
        rule["outputClaimToHeaders"] = [
            {"header": "x-role", "claim": "role"},
            {"header": "x-tier", "claim": "deep.role"},
        ]
    if rng.random() < 0.2:
        rule["spaceDelimitedClaims"] = ["role", "groups"]
    return rule


def random_methods(rng: Random, *, is_http2: bool) -> tuple[str, ...]:
    """What the codec takes."""
    if is_http2:
        return (*METHODS, *ODD_METHODS)
    return (*METHODS, *(one for one in ODD_METHODS if one in ("PATCH", "HEAD", "OPTIONS", "TRACE")))


def as_sent(world: World, base: RandomRequest, request: RandomRequest, rng: Random) -> OfflineRequest:
    """The request of a client, with its tokens."""
    headers = list(request.headers)
    path = request.path
    if rng.random() < 0.25:
        path = f"/p{rng.randint(0, 39)}{rng.choice(('', '/x'))}"
    if request.claims:
        for _ in range(rng.choice((1, 1, 1, 2))):
            path = _with_token(_token(request.claims, rng), headers, path, rng)
    if request.forwarded_for:
        headers.append(("x-forwarded-for", request.forwarded_for))
    if rng.random() < 0.4:
        headers.append((VERDICT, rng.choice(VERDICTS)))
    return OfflineRequest(
        source_principal=base.identity,
        source_ip=base.source_ip,
        destination_port=8080,
        sni="a.test" if base.identity else "",
        scheme="https" if base.identity else "http",
        method=request.method,
        host=request.host,
        path=None if request.method == "CONNECT" else path,
        headers=tuple(headers),
    )


def as_judged(world: World, request: OfflineRequest, *, is_http2: bool) -> OfflineRequest:
    """
    The same for the engine: a gateway has added its peer to ``x-forwarded-for`` (CS-9).

    A path that is not ASCII is refused in HTTP/1.1, and escaped in HTTP/2 where paths are normalised at all.
    """
    if is_http2:  # cookies are one header, and an empty one is none
        others = [pair for pair in request.headers if pair[0] != "cookie"]
        cookies = "; ".join(value for name, value in request.headers if name == "cookie" and value)
        request = replace(request, headers=(*others, ("cookie", cookies)) if cookies else tuple(others))
    if is_http2 and request.path is not None and world.mesh.path_normalization is not PathNormalization.NONE:
        request = replace(request, path=quote(request.path, safe=ASCII))
    if not world.is_gateway:
        return request
    kept = [pair for pair in request.headers if pair[0] != "x-forwarded-for"]
    before = ",".join(value for name, value in request.headers if name == "x-forwarded-for")
    added = f"{before},{request.source_ip}" if before else request.source_ip
    return replace(request, headers=(*kept, ("x-forwarded-for", added)))


def _token(claims: Mapping[str, object], rng: Random) -> str:
    key, alg = rng.choice((("main", "HS256"), ("main", "HS256"), ("main", "HS512"), ("second", "ES256"),
                           ("edwards", "EdDSA"), ("rogue", "HS256"), ("rogue", "ES256")))  # fmt: skip
    if (key, alg) == ("rogue", "ES256"):
        return make_token({"key": "second", "alg": "ES256", "kid": "unknown", "claims": dict(claims)}, KEY, time())
    description: dict[str, object] = {"key": key, "alg": alg, "claims": dict(claims)}
    if rng.random() < 0.15:
        description["kid"] = None
    return make_token(description, KEY, time())


def _with_token(token: str, headers: list[tuple[str, str]], path: str, rng: Random) -> str:
    place = rng.choice(("authorization", "authorization", "authorization", "x-token", "query", "cookie"))
    if place == "query":
        return f"{path}{'&' if '?' in path else '?'}tok={token}"
    if place == "cookie":
        headers.append(("cookie", f"tok={token}"))
    elif place == "x-token":
        headers.append(("x-token", rng.choice(("", "T ")) + token))
    else:
        headers.append(("authorization", f"Bearer {token}"))
    return path

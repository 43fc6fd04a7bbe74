"""
Random pairs of policy sets over Istio's vocabulary, and random requests that know nothing of how they are compared.

One half of a pair is made of the other by a few changes; some of them change no answer.
"""

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from authz.analysis.offline.request import OfflineRequest, OfflineWorkload, passed_through, to_attributes
from authz.analysis.offline.stubs import stub_answer
from authz.analysis.sets.model import PolicyPair
from authz.core.attributes import AttributeContext, Authentication, AuthenticationOutcome, Token, Workload
from authz.core.compiler import compile_as_needed
from authz.core.decision import Decision
from authz.core.engine import WorkloadPolicies
from authz.core.pipeline import decide
from authz.core.resources import ExtensionProvider, JwtRule, MeshConfig, PathNormalization
from authz.policy.reader import read_policies
from tests.envoy.native import generated

WORKLOAD = Workload("shop", frozenset({("app", "api")}))
ISSUERS = ("https://a.test", "https://b.test/x")
_UNMODELLED = (":path", ":scheme", "x-forwarded-for", "[deep]", "x-payload")
Document = dict[str, Any]


def random_documents(rng: Random) -> list[Document]:
    """Policies of all kinds for one workload."""
    found: list[Document] = []
    for number in range(rng.randint(1, 4)):
        while True:
            policy = generated.random_policy(rng, f"p{number}", ("ALLOW", "ALLOW", "DENY", "DENY", "AUDIT", "CUSTOM"))
            text = json.dumps(policy)
            if not any(word in text for word in _UNMODELLED) or rng.random() < 0.01:
                break
        found.append(policy)
    if rng.random() < 0.4:
        found.append(_peer(rng))
    if rng.random() < 0.6:
        found.append(_tokens(rng))
    return found


def _peer(rng: Random) -> Document:
    modes = ("STRICT", "PERMISSIVE", "DISABLE")
    spec: Document = {"mtls": {"mode": rng.choice(modes)}}
    if rng.random() < 0.5:
        spec |= {"selector": {"matchLabels": {"app": "api"}}, "portLevelMtls": {"8080": {"mode": rng.choice(modes)}}}
    return _document("PeerAuthentication", spec)


def _tokens(rng: Random) -> Document:
    rules = []
    for issuer in rng.sample(ISSUERS, rng.randint(1, 2)):
        rule: Document = {"issuer": issuer, "jwksUri": f"{issuer}/keys"}
        if rng.random() < 0.4:
            rule["audiences"] = rng.sample(("web", "api", "https://web/"), rng.randint(1, 2))
        if rng.random() < 0.2:
            rule["fromHeaders"] = [{"name": "x-jwt"}]
        rules.append(rule)
    return _document("RequestAuthentication", {"jwtRules": rules})


def _document(kind: str, spec: Document) -> Document:
    metadata = {"name": kind.lower(), "namespace": "shop"}
    return {"apiVersion": "security.istio.io/v1", "kind": kind, "metadata": metadata, "spec": spec}


def changed(rng: Random, documents: list[Document]) -> list[Document]:
    """A few changes; with luck none that matters."""
    found = copy.deepcopy(documents)
    if rng.random() < 0.45:
        for _ in range(rng.randint(1, 3)):
            _refactor(rng, found)
        return found
    for _ in range(rng.randint(1, 3)):
        _change(rng, found)
    return found


def _refactor(rng: Random, found: list[Document]) -> None:
    policies = [one for one in found if one["kind"] == "AuthorizationPolicy"]
    policy = rng.choice(policies)
    rules = policy["spec"]["rules"]
    way = rng.randrange(5)
    if way == 0:
        policy["metadata"]["name"] += "-renamed"
    elif way == 1:
        rng.shuffle(rules)
    elif way == 2 and len(rules) > 1:
        other = copy.deepcopy(policy)
        other["metadata"]["name"] += "-second"
        other["spec"]["rules"], policy["spec"]["rules"] = rules[:1], rules[1:]
        found.append(other)
    elif way == 3:
        rule = rng.choice(rules)
        for name in ("from", "to"):
            if len(rule.get(name, ())) > 1:
                rules.append({**copy.deepcopy(rule), name: [rule[name].pop()]})
                break
    else:
        for values in _lists(policy):
            rng.shuffle(values)
            values += values[:1]


def _change(rng: Random, found: list[Document]) -> None:
    document = rng.choice(found)
    if document["kind"] != "AuthorizationPolicy":
        found.remove(document)
        found.append(_peer(rng) if document["kind"] == "PeerAuthentication" else _tokens(rng))
        return
    way = rng.randrange(7)
    lists = list(_lists(document))
    rules = document["spec"]["rules"]
    if way == 0 and len(rules) > 1:
        rules.remove(rng.choice(rules))
    elif way == 1:
        document["spec"]["selector"] = {"matchLabels": {"app": rng.choice(("api", "other"))}}
    elif way == 2 and document["spec"]["action"] in ("ALLOW", "DENY"):
        document["spec"]["action"] = rng.choice(("ALLOW", "DENY", "AUDIT"))
    elif way == 3:
        new = generated.random_policy(rng, document["metadata"]["name"])
        if not any(word in json.dumps(new) for word in _UNMODELLED):
            document["spec"] = new["spec"]
    elif lists:
        values = rng.choice(lists)
        if len(values) > 1 and rng.random() < 0.5:
            values.remove(rng.choice(values))
        else:
            values.append(rng.choice(rng.choice(lists)))
            while len(values) > 1 and rng.random() < 0.3:
                values.pop(0)


def _lists(policy: Document) -> list[list[str]]:
    found: list[list[str]] = []

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            for child in node.values():
                walk(child)
        elif isinstance(node, list):
            if node and isinstance(node[0], str):
                found.append(node)
            for child in node:
                walk(child)

    walk(policy["spec"].get("rules", []))
    return found


@dataclass(frozen=True)
class RandomPair:
    """A pair as documents and compiled."""

    old: list[Document]
    new: list[Document]
    pair: PolicyPair


def _other_mesh(rng: Random, mesh: MeshConfig) -> MeshConfig:
    """Other mesh settings, most of which the two sides have in common."""
    (provider,) = mesh.extension_providers
    if rng.random() < 0.5:
        provider = replace(provider, fail_open=rng.random() < 0.5, status_on_error=rng.choice((403, 503)))
    same = mesh.path_normalization
    return replace(
        mesh,
        trust_domain=rng.choice(("cluster.local", "cluster.local", "td1")),
        trust_domain_aliases=rng.choice(((), ("td1", "td-old"), ("cluster.local",))),
        extension_providers=(provider,),
        path_normalization=rng.choice((same,) * 5 + tuple(PathNormalization)),
        root_namespace=rng.choice(("istio-system", "istio-system", "shop")),
    )


def random_pair(seed: int, *, other_mesh: bool = False) -> RandomPair | None:
    """The pair of a seed, perhaps with other mesh settings on the new side; None where the reader refuses one half."""
    rng = Random(seed)
    mesh = MeshConfig(
        trust_domain_aliases=rng.choice(((), ("td1", "td-old"))),
        path_normalization=rng.choice(tuple(PathNormalization)),
        extension_providers=(ExtensionProvider("ext", service="ext.test", port=9000, fail_open=rng.random() < 0.5),),
    )
    old = random_documents(rng)
    new = changed(rng, old)
    if other_mesh:
        new = new if rng.random() < 0.3 else old
    meshes = (mesh, _other_mesh(rng, mesh) if other_mesh else mesh)
    compiled = [_compiled(documents, one) for documents, one in zip((old, new), meshes, strict=True)]
    if compiled[0] is None or compiled[1] is None:
        return None
    ports = rng.choice(((), (), (8080,), (8080, 9999)))
    return RandomPair(old, new, PolicyPair(compiled[0], compiled[1], rng.random() < 0.2, ports))


def _compiled(documents: list[Document], mesh: MeshConfig) -> WorkloadPolicies | None:
    text = "\n---\n".join(map(json.dumps, documents))
    read = read_policies([("policies.yaml", text.encode())], mesh)
    if any(problem.is_error for problem in read.problems):
        return None
    return compile_as_needed(read.resources, mesh).for_workload(WORKLOAD)


# --- requests ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """A request, its token and the answers of providers."""

    request: OfflineRequest
    claims: Mapping[str, Any]
    """Of its token; empty: it has none."""
    place: str
    """The header with the token."""
    answers: Mapping[str, str]


def _mutated(rng: Random, text: str) -> str:
    way = rng.randrange(6)
    at = rng.randint(0, len(text))
    letter = rng.choice("abxz/-.:019*%~A")
    if way == 0:
        return text[:at] + letter + text[at:]
    if way == 1:
        return text[:at] + text[at + 1 :]
    if way == 2:
        return text + letter
    if way == 3:
        return text.replace("*", letter * rng.randint(0, 2)).replace("{", "").replace("}", "")
    if way == 4:
        return text.swapcase()
    return text


def _text(rng: Random, pool: list[str], usual: tuple[str, ...]) -> str:
    text = rng.choice(pool) if pool and rng.random() < 0.6 else rng.choice(usual)
    for _ in range(rng.choice((0, 0, 1, 1, 2))):
        text = _mutated(rng, text)
    if rng.random() < 0.1 and pool:
        text += rng.choice(pool)
    return text.replace("{**}", "q/q").replace("{*}", "q").replace("*", rng.choice(("", "q", "q/q", "b")))


def _legal(text: str, usual: str, letters: str) -> str:
    kept = "".join(letter for letter in text if letter.isascii() and (letter.isalnum() or letter in letters))
    return kept or usual


def random_asked(rng: Random, pair: RandomPair) -> Asked:
    """A request near the values that are written in either half, as a client could send it."""
    pool = [value for half in (pair.old, pair.new) for one in half for values in _lists(one) for value in values]
    near = generated.random_request(rng)
    tls = rng.choice(("mtls", "mtls", "plaintext", "simple"))
    path = "/" + _text(rng, [value for value in pool if "/" in value], generated.PATHS).lstrip("/")
    path = "".join(letter for letter in path if letter.isascii() and letter > " " and letter not in "?#")
    headers = [(name, value.strip()) for name, value in near.headers]
    headers = [(n, _text(rng, pool, ("admin",)).strip() if rng.random() < 0.3 else v) for n, v in headers]
    remote = rng.choice(("", "127.1.2.3", "127.9.0.7", "2001:db8::5", "127.0.255.255", "128.0.0.0", "8.8.8.8"))
    if remote:
        headers.append(("x-forwarded-for", remote))
    is_tcp = rng.random() < 0.15
    method = _legal(_text(rng, [], (*generated.METHODS, *generated.ODD_METHODS)), "GET", "-")
    has_no_path = method == "CONNECT" and rng.random() < 0.7
    ports = pair.pair.ports or (8080, 8081, 80, 9999, 1)
    request = OfflineRequest(
        protocol="tcp" if is_tcp else "http",
        source_principal=_identity(rng, pool) if tls == "mtls" else "",
        tls=tls,
        source_ip=rng.choice((*generated.ADDRESSES, "2001:db8::5", "2001:db7:ffff::1", "::1", "126.255.255.255")),
        destination_ip=rng.choice(("10.1.0.5", "10.9.1.1", "10.8.255.255", "10.10.0.0", "::1")),
        destination_port=rng.choice(ports),
        sni=_legal(_text(rng, [], generated.SNIS), "", ".-").lower() if tls != "plaintext" else "",
        method=method,
        host=_legal(_text(rng, [*generated.HOST_PATTERNS], generated.HOSTS), "h", ".-:[]"),
        path=None if has_no_path else path,
        headers=tuple(headers),
        metadata={"envoy.filters.none": {"x": rng.choice(("a", "b", ["b"], ["a", "b"]))}}
        if rng.random() < 0.3
        else None,
    )
    return Asked(
        request,
        _claims(rng, pool),
        rng.choice(("authorization", "authorization", "x-jwt")),
        {"ext": rng.choice(("allow", "allow", "deny", "error"))},
    )


def _identity(rng: Random, pool: list[str]) -> str:
    known = [value for value in generated.IDENTITIES if value]
    if rng.random() < 0.5:
        return rng.choice(known)
    domain = _legal(_text(rng, [], ("cluster.local", "td1", "td-old", "td-x")).lower(), "td", ".-")
    words = [value for value in pool if value.isascii() and "/" not in value]
    namespace = _legal(_text(rng, words, ("shop", "prod", "prod-eu", "a")), "shop", "-").replace(".", "")
    account = _legal(_text(rng, words, ("web", "api", "web-2")), "web", "-")
    return f"spiffe://{domain}/ns/{namespace}/sa/{account}" if rng.random() < 0.9 else f"spiffe://{domain}/{account}"


def _claims(rng: Random, pool: list[str]) -> dict[str, Any]:
    claims = generated.random_claims(rng)
    if not claims:
        return {}
    if rng.random() < 0.3 and "sub" in claims:
        claims["sub"] = _text(rng, pool, generated.SUBJECTS)
    for name in ("role", "scope", "groups", "aud", "azp"):
        if rng.random() < 0.3:
            texts = [_text(rng, pool, ("admin", "read", "web")) for _ in range(rng.randint(1, 3))]
            claims[name] = texts if name == "aud" or rng.random() < 0.5 else texts[0]
    return claims


def answer_of(asked: Asked, policies: WorkloadPolicies, *, gateway: bool) -> Decision:
    """What the engine says; tokens are judged here, by rules of issuer and audience as tests know them."""

    def authenticate(attributes: AttributeContext, rules: tuple[JwtRule, ...]) -> Authentication:
        return _judged_token(asked, attributes, rules)

    seen = _before_token(asked, policies, gateway=gateway)
    return decide(policies, seen, authenticate, lambda question: stub_answer(asked.answers, question))[1]


def seen_of(asked: Asked, policies: WorkloadPolicies, *, gateway: bool) -> AttributeContext:
    """What rules see of a request, its token included."""
    seen = _before_token(asked, policies, gateway=gateway)
    return seen.after(_judged_token(asked, seen, policies.jwt_rules)) if seen.http is not None else seen


def _before_token(asked: Asked, policies: WorkloadPolicies, *, gateway: bool) -> AttributeContext:
    target = OfflineWorkload(policies.workload)
    before = to_attributes(asked.request, target, policies.mesh, gateway=gateway)
    seen = passed_through(asked.request, before, policies)
    return seen if seen.http is not None else replace(seen, source=replace(seen.source, remote_ip=seen.source.ip))


def _judged_token(asked: Asked, attributes: AttributeContext, rules: tuple[JwtRule, ...]) -> Authentication:
    http = attributes.http
    if http is None or not http.path or not asked.claims or not rules:
        return Authentication()
    if http.method == "OPTIONS" and {"origin", "access-control-request-method"} <= http.headers.keys():
        return Authentication()
    looking = [rule for rule in rules if _header_of(rule) == asked.place]
    if not looking:
        return Authentication()
    for rule in looking:
        if rule.issuer == asked.claims["iss"] and _fits(rule, asked.claims.get("aud")):
            claims = dict(asked.claims)
            if isinstance(scope := claims.get("scope"), str) and scope.split():
                claims["scope"] = [piece for piece in scope.split(" ") if piece]
            return Authentication(AuthenticationOutcome.ACCEPTED, Token(claims, rule.issuer, ""))
    is_known = any(rule.issuer == asked.claims["iss"] for rule in looking)
    return Authentication(AuthenticationOutcome.REJECTED, status=403 if is_known else 401)


def _header_of(rule: JwtRule) -> str:
    return rule.from_headers[0].name if rule.from_headers else "authorization"


def _fits(rule: JwtRule, audiences: Any) -> bool:
    def plain(text: str) -> str:
        return text.removeprefix("http://").removeprefix("https://").removesuffix("/")

    own = [audiences] if isinstance(audiences, str) else audiences or []
    return not rule.audiences or bool({plain(text) for text in own} & {plain(text) for text in rule.audiences})

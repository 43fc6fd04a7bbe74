"""
Three evaluators of one set of policies, asked the same: Istio's linear filters and the looked-up filters on a real
Envoy, and our engine.

A pair is one policy set and one request; a disagreement is told with all that is needed to repeat it.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from time import time
from typing import Any

from authz.analysis.offline.request import OfflineRequest, OfflineWorkload, to_attributes
from authz.analysis.suites.run import compile_texts
from authz.analysis.suites.suite import PolicyText
from authz.analysis.verify.certificates import Identities
from authz.analysis.verify.proxy import NUMBER, Endpoints, Running, Told, listener, running
from authz.analysis.verify.told import OK, facts_of_engine, facts_of_envoy
from authz.core.attributes import AttributeContext, Authentication, Workload
from authz.core.decision import Decision
from authz.core.engine import Engine
from authz.core.pipeline import decide
from authz.core.providers import ProviderAnswer
from authz.core.resources import JwtRule, MeshConfig
from authz.envoy.native.filters import NativeFilters, http_filters
from authz.envoy.native.indexed import Form
from authz.envoy.native.matcher_tree import as_one_filter
from authz.tokens.authenticate import authenticate
from authz.tokens.signing import SigningKey, jwks_text, make_keys, make_token
from tests.envoy.client import http1_bytes
from tests.envoy.native.generated import ISSUERS, PATH_PATTERNS, RandomRequest, policy_text, random_request

WORKLOAD = Workload("shop", frozenset({("app", "api")}), "api")
TARGET = OfflineWorkload(WORKLOAD, 8080)
MESHES = (
    MeshConfig(),
    MeshConfig(trust_domain="td-new", trust_domain_aliases=("td-old",)),
    MeshConfig(trust_domain="td1", trust_domain_aliases=("cluster.local",)),
)
PER_CONNECTION = 10
KEY: dict[str, SigningKey] = make_keys({"main": {"kty": "oct", "kid": "main"}, "rogue": {"kty": "oct", "kid": "main"}})


@dataclass(frozen=True)
class PolicySet:
    """Policies and their three forms."""

    seed: int
    text: str
    engine: Engine
    linear: NativeFilters
    indexed: NativeFilters


def policy_set(seed: int) -> PolicySet:
    """The policy set of a seed: mostly some policies, sometimes dozens, so that look-ups nest and split."""
    rng = Random(seed)
    number = rng.choice((1, 2, 3, 5, 8, 8, 20, 40))
    paths: tuple[str, ...] = PATH_PATTERNS
    if number > 10:  # many different values: otherwise every bucket holds everything
        paths = (*PATH_PATTERNS, *(f"/p{index}" for index in range(40)), *(f"/p{index}/*" for index in range(20)))
    text = policy_text(rng, number, paths=paths)
    if rng.random() < 0.75:
        rule = {"issuer": ISSUERS[0], "jwks": jwks_text([KEY["main"]])}
        document = {
            "apiVersion": "security.istio.io/v1",
            "kind": "RequestAuthentication",
            "metadata": {"name": "jwt", "namespace": "shop"},
            "spec": {"jwtRules": [rule]},
        }
        text += f"---\n{json.dumps(document)}\n"
    mesh = rng.choice(MESHES)
    engine = compile_texts([PolicyText("policies.yaml", text)], mesh)
    assert isinstance(engine, Engine), engine
    walk = rng.choice((0, 1, 3, 20))
    linear = http_filters(engine, WORKLOAD, {}, form=Form.LINEAR)
    return PolicySet(seed, text, engine, linear, http_filters(engine, WORKLOAD, {}, form=Form.INDEXED, walk=walk))


@dataclass(frozen=True)
class Disagreement:
    seed: int
    request: RandomRequest
    facts: tuple[tuple[str, object, object, object], ...]
    """Fact, what the linear form, the looked-up form and the engine say."""


@dataclass
class Compared:
    pairs: int = 0
    allowed: int = 0
    disagreements: list[Disagreement] = field(default_factory=list)


def compare(directory: Path, first_seed: int, sets: int, requests: int) -> Compared:
    """Compare so many policy sets by so many requests each."""
    identities = Identities(directory)
    identities.write(directory / "server", "spiffe://cluster.local/ns/shop/sa/api")
    chosen = [policy_set(seed) for seed in range(first_seed, first_seed + sets)]
    listeners = []
    for one in chosen:
        listeners.append(listener(f"linear-{one.seed}", one.linear.filters, directory))
        filters = one.indexed.filters
        # Every other set as the one resource that a mesh delivers.
        found = [as_one_filter(filters)] if one.seed % 2 else filters
        listeners.append(listener(f"indexed-{one.seed}", found, directory))
    compared = Compared()
    with running(directory, listeners, identities) as envoy:
        asked = [found for one in chosen for found in _ask(one, envoy, requests)]
        log = envoy.logged(2 * len(asked))
    for question in asked:
        compared.pairs += 1
        compared.allowed += question.linear.status == OK
        facts = question.differences(log)
        if facts:
            compared.disagreements.append(Disagreement(question.policies.seed, question.request, facts))
    return compared


@dataclass(frozen=True)
class _Asked:
    policies: PolicySet
    request: RandomRequest
    sent: OfflineRequest
    linear: Told
    indexed: Told
    number: str

    def differences(self, log: Mapping[str, Mapping[str, Any]]) -> tuple[tuple[str, object, object, object], ...]:
        restricted = self.policies.engine.for_workload(WORKLOAD).http.allow is not None
        linear = facts_of_envoy(self.linear, log[f"l{self.number}"], restricted=restricted)
        indexed = facts_of_envoy(self.indexed, log[f"i{self.number}"], restricted=restricted)
        ours = _facts_of_engine(self.policies.engine, self.sent)
        return tuple(
            (name, value, indexed[name], ours[name])
            for name, value in linear.items()
            if not value == indexed[name] == ours[name]
        )


def _ask(one: PolicySet, envoy: Running, requests: int) -> Iterator[_Asked]:
    rng = Random(one.seed + 10**6)
    for round_number in range(max(1, requests // PER_CONNECTION)):
        base = random_request(rng)
        batch = [random_request(rng) for _ in range(PER_CONNECTION)]
        sent = [_offline(base, found, rng) for found in batch]
        numbers = [f"{one.seed}-{round_number}-{index}" for index in range(PER_CONNECTION)]
        answers = []
        for form in ("linear", "indexed"):
            written = [
                http1_bytes(replace(found, headers=(*found.headers, (NUMBER, form[0] + number))))
                for found, number in zip(sent, numbers, strict=True)
            ]
            ends = Endpoints(base.source_ip, "10.1.0.5", 8080)
            answers.append(envoy.ask(f"{form}-{one.seed}", written, identity=base.identity, ends=ends))
        for facts in zip(batch, sent, *answers, numbers, strict=True):
            yield _Asked(one, *facts)


def _offline(base: RandomRequest, request: RandomRequest, rng: Random) -> OfflineRequest:
    headers = list(request.headers)
    if request.claims:
        key = "rogue" if rng.random() < 0.05 else "main"
        description = {"key": key, "alg": "HS256", "claims": dict(request.claims)}
        headers.append(("authorization", f"Bearer {make_token(description, KEY, time())}"))
    if request.forwarded_for:
        headers.append(("x-forwarded-for", request.forwarded_for))
    path = request.path
    if rng.random() < 0.3:
        path = f"/p{rng.randint(0, 39)}{rng.choice(('', '/x'))}"
    return OfflineRequest(
        source_principal=base.identity,
        source_ip=base.source_ip,
        destination_port=8080,
        sni="a.test" if base.identity else "",
        scheme="https" if base.identity else "http",
        method=request.method,
        host=request.host,
        path=path,
        headers=tuple(headers),
    )


def _judged(engine: Engine, request: OfflineRequest) -> tuple[AttributeContext, Decision]:
    def judge(attributes: AttributeContext, rules: tuple[JwtRule, ...]) -> Authentication:
        return authenticate(attributes, rules, {}, time())

    attributes = to_attributes(request, TARGET, engine.mesh)
    return decide(engine.for_workload(WORKLOAD), attributes, judge, lambda _: ProviderAnswer(False))


def _facts_of_engine(engine: Engine, request: OfflineRequest) -> dict[str, object]:
    return facts_of_engine(_judged(engine, request)[1])

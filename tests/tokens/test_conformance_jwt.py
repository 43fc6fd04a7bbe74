"""The JWT cases of the conformance corpus through ``authenticate`` alone: rejected or not, what is set and removed."""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from authz.analysis.suites.placeholders import substitute_keys, substitute_tokens
from authz.core.attributes import (
    AttributeContext,
    AuthenticationOutcome,
    Destination,
    HttpRequest,
    Source,
    Workload,
)
from authz.core.normalize import join_headers
from authz.core.resources import ClaimToHeader, JwtHeader, JwtRule
from authz.tokens.authenticate import authenticate
from authz.tokens.cache import TokenCache
from authz.tokens.jwks import read_key_set
from authz.tokens.key_sets import KeySetState
from authz.tokens.signing import KeyPool, make_keys, make_tokens
from tests.yaml_text import read_all_yaml, read_yaml

NOW = 1_800_000_000.0
CORPUS = Path(__file__).parents[1] / "conformance"
POOL = KeyPool()
FILES = ("09", "10", "11", "12", "13")


@cache
def groups() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for file in sorted(CORPUS.glob("[0-9]*.yaml")):
        if file.name[:2] in FILES:
            found |= {group["id"]: group for group in read_yaml(file.read_text())["groups"]}
    return found


def cases() -> Iterator[tuple[str, int]]:
    for name, group in groups().items():
        yield from ((name, index) for index in range(len(group["cases"])))


def read_rule(spec: Mapping[str, Any], name: str) -> JwtRule:
    return JwtRule(
        issuer=spec.get("issuer", ""),
        audiences=tuple(spec.get("audiences", ())),
        jwks=spec.get("jwks", ""),
        jwks_uri=spec.get("jwksUri", ""),
        from_headers=tuple(JwtHeader(h["name"], h.get("prefix", "")) for h in spec.get("fromHeaders", ())),
        from_params=tuple(spec.get("fromParams", ())),
        from_cookies=tuple(spec.get("fromCookies", ())),
        forward_original_token=spec.get("forwardOriginalToken", False),
        output_payload_to_header=spec.get("outputPayloadToHeader", ""),
        output_claim_to_headers=tuple(
            ClaimToHeader(o["header"], o["claim"]) for o in spec.get("outputClaimToHeaders", ())
        ),
        space_delimited_claims=tuple(spec.get("spaceDelimitedClaims", ())),
        name=name,
    )


def rules_for(text: str, workload: Mapping[str, Any]) -> tuple[JwtRule, ...]:
    """As much of selection as the JWT groups of the corpus need."""
    rules = []
    for document in read_all_yaml(text):
        if document["kind"] != "RequestAuthentication":
            continue
        metadata, spec = document["metadata"], document["spec"]
        labels = spec.get("selector", {}).get("matchLabels", {})
        if metadata["namespace"] in (workload["namespace"], "istio-system") and (
            labels.items() <= workload.get("labels", {}).items()
        ):
            for index, rule in enumerate(spec["jwtRules"]):
                rules.append(read_rule(rule, f"{metadata['namespace']}/{metadata['name']}/{index}"))
    return tuple(sorted(rules, key=lambda rule: rule.issuer.encode()))


def header_pairs(headers: Mapping[str, Any], tokens: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name, values in headers.items():
        for value in values if isinstance(values, list) else [values]:
            yield name.lower(), substitute_tokens(value, tokens)


@pytest.mark.parametrize(("group_name", "index"), list(cases()), ids=lambda value: str(value))
def test_corpus_case(group_name: str, index: int) -> None:
    group = groups()[group_name]
    case = group["cases"][index]
    if case["expect"].get("stage") in ("custom", "peer-authentication", "normalization"):
        pytest.skip("refused before the stage under test")
    keys = make_keys(group.get("keys", {}), POOL)
    tokens = make_tokens(group.get("tokens", {}), keys, NOW)
    policies = substitute_keys(group["policies"], keys)
    workload = case.get("workload", group["workload"])
    rules = rules_for(policies.text, workload)
    key_sets = {f"uri:{uri}": KeySetState(read_key_set(text), NOW) for uri, text in policies.documents.items()}
    request = group.get("request", {}) | case.get("request", {})
    if request.get("protocol") == "tcp":
        pytest.skip("there is no JWT stage for TCP (EV-5)")
    path = substitute_tokens(request.get("path", "/"), tokens)
    http = HttpRequest(
        method=request.get("method", "GET"),
        host=request.get("host", "api.example.com"),
        path=path,
        headers=join_headers(header_pairs(request.get("headers", {}), tokens)),
        scheme=request.get("scheme", "http"),
    )
    attributes = AttributeContext(Source(), Destination(Workload(workload["namespace"])), http)
    token_cache = TokenCache()
    answer = authenticate(attributes, rules, key_sets, NOW, cache=token_cache)
    again = authenticate(attributes, rules, key_sets, NOW, cache=token_cache)

    assert again == answer, "the cache changes nothing"
    expect = case["expect"]
    assert (answer.outcome is AuthenticationOutcome.REJECTED) == (expect.get("stage") == "jwt")
    if expect.get("stage") == "jwt":
        assert answer.status == expect["status"]
        assert answer.body == expect.get("body", answer.body)
        assert answer.challenge == expect.get("wwwAuthenticate", answer.challenge)
    upstream = attributes.after(answer)
    for name, value in expect.get("upstream", {}).get("present", {}).items():
        assert upstream.header(name) == (substitute_tokens(value, tokens),)
    for name in expect.get("upstream", {}).get("absent", ()):
        assert upstream.header(name) == ()

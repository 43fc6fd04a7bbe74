"""What a run of cases compares, and what it says when they differ."""

import pytest

from authz.analysis.suites.coverage import Coverage
from authz.analysis.suites.run import CaseResult, Select, run_suite
from authz.analysis.suites.suite_reader import read_suite
from authz.cli.report import lines

NOW = 1_800_000_000.0
SUITE = """\
format: 1
groups:
- id: g
  workload: {namespace: shop, labels: {app: api}, port: 8080}
  keys: {k: {kty: oct, kid: k}}
  tokens:
    good: {key: k, alg: HS256, claims: {iss: i, sub: s}}
    late: {key: k, alg: HS256, claims: {iss: i, sub: s, exp: {$now: -3600}}}
  mesh:
    extensionProviders:
    - {name: idp, envoyExtAuthzGrpc: {service: idp.example.com, port: 9000}}
  policies: |
    apiVersion: security.istio.io/v1
    kind: AuthorizationPolicy
    metadata: {name: some, namespace: shop}
    spec:
      rules:
      - to: [{operation: {paths: ["/a*"]}}]
      - to: [{operation: {paths: ["/never"]}}]
    ---
    apiVersion: security.istio.io/v1
    kind: AuthorizationPolicy
    metadata: {name: watch, namespace: shop}
    spec: {action: AUDIT, rules: [{to: [{operation: {paths: ["/a/secret"]}}]}]}
    ---
    apiVersion: security.istio.io/v1
    kind: AuthorizationPolicy
    metadata: {name: shadow, namespace: shop, annotations: {istio.io/dry-run: "true"}}
    spec: {action: DENY, rules: [{to: [{operation: {paths: ["/a/shadow"]}}]}]}
    ---
    apiVersion: security.istio.io/v1
    kind: AuthorizationPolicy
    metadata: {name: ask, namespace: shop}
    spec: {action: CUSTOM, provider: {name: idp}, rules: [{to: [{operation: {paths: ["/a/ask"]}}]}]}
    ---
    apiVersion: security.istio.io/v1
    kind: RequestAuthentication
    metadata: {name: jwt, namespace: shop}
    spec: {jwtRules: [{issuer: i, jwks: '${JWKS:k}', outputPayloadToHeader: x-payload}]}
  cases:
  - {id: c, request: REQUEST, expect: EXPECT}
"""
BEARER = 'headers: {authorization: "Bearer ${TOKEN:good}"}'
LATE = 'headers: {authorization: "Bearer ${TOKEN:late}"}'


def run(request: str, expect: str, text: str = SUITE) -> CaseResult:
    suite = read_suite("s.yaml", text.replace("REQUEST", request).replace("EXPECT", expect).encode())
    assert suite.problems == ()
    (result,) = run_suite(suite, NOW)
    return result


@pytest.mark.parametrize(
    ("request_text", "right", "wrong", "said"),
    [
        ("{path: /a}", "decision: allow", "decision: deny", "decision: expected `deny`, got `allow`"),
        ("{path: /b}", "status: 403", "status: 401", "status: expected `401`, got `403`"),
        ("{path: /b}", "stage: allow", "stage: deny", "stage: expected `deny`, got `allow`"),
        ("{path: /a}", "by: shop/some/0", "by: null", "by: expected nothing, got `shop/some/0`"),
        ("{path: /b}", "by: null", "by: shop/some/0", "by: expected `shop/some/0`, got nothing"),
        (
            "{path: /a}",
            'reported: "ns[shop]-policy[some]-rule[0]"',
            "reported: some",
            "reported: expected `some`, got `ns[shop]-policy[some]-rule[0]`",
        ),
        ("{path: /b}", 'body: "RBAC: access denied"', "body: no", "body: expected `no`, got `RBAC: access denied`"),
        ("{path: /a/secret}", "audit: true", "audit: false", "audit: expected `false`, got `true`"),
        ("{path: /a}", "audit: false", "audit: null", "audit: expected nothing, got `false`"),
        (
            "{path: /a/shadow}",
            "dryRunDeny: {result: denied, by: shop/shadow/0}",
            "dryRunDeny: {result: allowed}",
            "dryRunDeny: expected result `allowed`, got result `denied`",
        ),
        (
            "{path: /a}",
            "dryRunAllow: null",
            "dryRunAllow: {result: allowed, by: null}",
            "dryRunAllow: expected result `allowed`, by nothing, got nothing",
        ),
        (
            "{path: /x/../a}",
            "normalizedPath: /a",
            "normalizedPath: /x/../a",
            "normalizedPath: expected `/x/../a`, got `/a`",
        ),
        ("{path: /a%00}", "normalizedPath: null", "normalizedPath: /a", "normalizedPath: expected `/a`, got nothing"),
        (
            "{path: /a/b, " + BEARER + "}",
            "upstream: {absent: [authorization]}",
            "upstream: {absent: [x-payload]}",
            "upstream.absent.x-payload: expected nothing, got ",
        ),
        (
            "{path: /a/b, " + BEARER + "}",
            'upstream: {present: {X-Payload: "${PAYLOAD:good}"}}',
            "upstream: {present: {x-payload: forged}}",
            "upstream.present.x-payload: expected `forged`, got ",
        ),
        (
            "{path: '/a/b?q', " + LATE + "}",
            'wwwAuthenticate: \'Bearer realm="http://api.example.com/a/b?q", error="invalid_token"\'',
            "wwwAuthenticate: null",
            "wwwAuthenticate: expected nothing, got ",
        ),
        ("{path: /a/ask}", "stage: custom", "stage: allow", "stage: expected `allow`, got `custom`"),
    ],
)
def test_every_key_is_compared_and_the_difference_said(request_text: str, right: str, wrong: str, said: str) -> None:
    assert run(request_text, f"{{{right}}}").passed
    result = run(request_text, f"{{{wrong}}}")
    assert not result.passed
    assert any(line.startswith(said) for line in lines(result)), list(lines(result))


def test_a_failure_comes_with_its_explanation() -> None:
    result = run("{path: /b}", "{decision: allow}")
    assert list(lines(result)) == [
        "decision: expected `allow`, got `deny`",
        "because: no ALLOW rule matched",
        "closest: shop/some/0 at s.yaml:18",
        "  to[0].operation.paths (paths): expected one of `/a*`, got `/b`",
    ]


@pytest.mark.parametrize(
    ("stub", "expect"),
    [
        ("customStub: {idp: allow}", "{decision: allow, stage: allow, by: shop/some/0}"),
        ("customStub: {idp: deny}", "{decision: deny, stage: custom, status: 403, by: shop/ask/0}"),
        ("customStub: {idp: error}", "{decision: deny, stage: custom, status: 403}"),
        ("customStub: {}", '{decision: deny, stage: custom, status: 403, body: "RBAC: access denied"}'),
    ],
)
def test_providers_answer_as_the_stub_says_and_without_one_are_unusable(stub: str, expect: str) -> None:
    result = run("{path: /a/ask}", expect, SUITE.replace("  policies: |", f"  {stub}\n  policies: |"))
    assert result.passed, list(lines(result))


def test_a_path_that_envoy_refuses_is_still_refused_for_plaintext_on_a_strict_port_first() -> None:
    strict = """---
    apiVersion: security.istio.io/v1
    kind: PeerAuthentication
    metadata: {name: strict, namespace: shop}
    spec: {mtls: {mode: STRICT}}
  cases:"""
    assert run("{path: /a%00}", "{stage: normalization, status: 400}").passed
    assert run("{path: /a%00}", "{stage: peer-authentication}", SUITE.replace("  cases:", f"    {strict}")).passed


def test_only_selected_cases_run() -> None:
    text = SUITE.replace("REQUEST", "{path: /a}").replace("EXPECT", "{decision: allow}")
    suite = read_suite("dir/s.yaml", text.encode())
    assert len(list(run_suite(suite, NOW, select=Select("s.yaml/g/c$")))) == 1
    assert list(run_suite(suite, NOW, select=Select("^g"))) == []


def test_coverage_tells_rules_that_fired_from_those_that_were_only_considered() -> None:
    text = SUITE.replace("REQUEST", "{path: /a}").replace("EXPECT", "{decision: allow}")
    coverage = Coverage()
    list(run_suite(read_suite("s.yaml", text.encode()), NOW, coverage=coverage))
    assert [(rule.rule, rule.considered, rule.fired, rule.location.line) for rule in coverage.rules] == [
        ("shop/some/0", 1, 1, 18),
        ("shop/some/1", 1, 0, 19),
        ("shop/watch/0", 1, 0, 24),
        ("shop/shadow/0", 1, 0, 29),
        ("shop/ask/0", 1, 0, 34),
    ]
    assert (coverage.fired, coverage.percent) == (1, 20.0)


def test_rules_of_a_stage_that_was_not_reached_are_not_considered() -> None:
    text = SUITE.replace("REQUEST", "{path: /a/ask}").replace("EXPECT", "{decision: deny}")
    coverage = Coverage()
    list(run_suite(read_suite("s.yaml", text.encode()), NOW, coverage=coverage))
    assert {rule.rule: (rule.considered, rule.fired) for rule in coverage.rules} == {
        "shop/some/0": (0, 0),
        "shop/some/1": (0, 0),
        "shop/watch/0": (0, 0),
        "shop/shadow/0": (0, 0),
        "shop/ask/0": (1, 1),
    }


def test_a_run_without_rules_is_covered() -> None:
    assert Coverage().percent == 100.0


def test_key_sets_stand_for_what_would_be_fetched() -> None:
    for given in ("jwksUri: https://idp.example/jwks", "issuer: i"):
        text = SUITE.replace(
            "{issuer: i, jwks: '${JWKS:k}'", "{issuer: i, " + given.replace("issuer: i", "audiences: []")
        )
        text = text.replace("  tokens:", "  keySets: {https://idp.example/jwks: [k], i: [k]}\n  tokens:")
        expect = "{decision: allow, upstream: {present: {x-payload: '${PAYLOAD:good}'}}}"
        result = run("{path: /a/b, " + BEARER + "}", expect, text)
        assert result.passed, list(lines(result))

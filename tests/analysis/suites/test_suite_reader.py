"""Suites as written: every misspelling is found, at its place, and spoils no more than it must."""

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authz.analysis.suites.run import run_suite
from authz.analysis.suites.suite_reader import read_suite
from authz.cli.report import lines
from authz.core.resources import MeshConfig, PathNormalization

NOW = 1_800_000_000.0
SUITE = """\
format: 1
groups:
- id: reads
  about: reading is free
  clauses: [AP-4]
  workload: {namespace: shop, labels: {app: api}, serviceAccount: api, port: 8080}
  mesh: {pathNormalization: BASE}
  keys: {main: {kty: EC, crv: P-256, kid: main}}
  tokens:
    good: {key: main, alg: ES256, claims: {iss: i, sub: s, exp: {$now: 60}}}
  customStub: {idp: allow}
  policies: |
    apiVersion: security.istio.io/v1
    kind: AuthorizationPolicy
    metadata: {name: reads, namespace: shop}
    spec:
      rules:
      - to: [{operation: {methods: ["GET"]}}]
    ---
    apiVersion: security.istio.io/v1
    kind: RequestAuthentication
    metadata: {name: jwt, namespace: shop}
    spec: {jwtRules: [{issuer: i, jwks: '${JWKS:main}'}]}
  request: {headers: {authorization: "Bearer ${TOKEN:good}"}}
  cases:
  - {id: get, request: {}, expect: {decision: allow, stage: allow, by: shop/reads/0}}
  - {id: put, request: {method: PUT}, expect: {decision: deny, status: 403, stage: allow, by: null}}
documents:
- {id: empty, expect: ok, clauses: [RE-12], yaml: ""}
"""


def problems(text: str) -> list[str]:
    return [str(problem) for problem in read_suite("s.yaml", text.encode()).problems]


def outcomes(text: str) -> list[str]:
    suite = read_suite("s.yaml", text.encode())
    return ["error" if r.error else "pass" if r.passed else "fail" for r in run_suite(suite, NOW)]


def test_the_valid_suite_passes() -> None:
    assert problems(SUITE) == []
    assert outcomes(SUITE) == ["pass", "pass", "pass"]


@pytest.mark.parametrize(
    ("before", "after", "message", "outcome"),
    [
        ("format: 1", "format: 2", "s.yaml:1:9: error: format: unknown suite format", "pass pass pass"),
        ("format: 1\n", "", "s.yaml:1:1: error: the suite does not say its `format`", "pass pass pass"),
        (
            "groups:",
            "group:",
            "s.yaml:2:1: error: group: unknown key of a suite `group`; did you mean `groups`?",
            "pass",
        ),
        ("about:", "abuot:", "unknown key of a group `abuot`; did you mean `about`?", "error error pass"),
        ("mesh: {path", "mesh: {Path", "did you mean `pathNormalization`?", "error error pass"),
        ("BASE}", "BAES}", "`BAES` is not a path normalisation; did you mean `BASE`?", "error error pass"),
        (
            "mesh: {pathNormalization: BASE}",
            "mesh: {trustDomain: '-'}",
            "`-` is not a trust domain",
            "error error pass",
        ),
        ("kty: EC", "kty: ECC", "`ECC` is not a key type; did you mean `EC`?", "error error pass"),
        ("P-256", "P-257", "`P-257` is not a curve; did you mean `P-256`?", "error error pass"),
        ("key: main,", "key: mian,", "there is no key `mian`; did you mean `main`?", "error error pass"),
        ("key: main, ", "", "the token `good` names no `key`", "error error pass"),
        ("  tokens:", "  keySets: {i: [mian]}\n  tokens:", "there is no key `mian`", "error error pass"),
        ("$now: 60", "$now: soon", "`$now` takes a whole number of seconds", "error error pass"),
        ("JWKS:main", "JWKS:other", "there is no key `other`", "error error pass"),
        ("TOKEN:good", "TOKEN:god", "there is no token `god`; did you mean `good`?", "error error pass"),
        ("idp: allow", "idp: alow", "`alow` is not an answer of a provider; did you mean `allow`?", "error error pass"),
        ("- {id: get,", "- {idd: get,", "unknown key of a case `idd`; did you mean `id`?", "error pass pass"),
        ("id: put", "id: get", "the case `get` is already defined at s.yaml:26:5", "pass error pass"),
        (
            "{method: PUT}",
            "{mehtod: PUT}",
            "unknown key of a request `mehtod`; did you mean `method`?",
            "pass error pass",
        ),
        ("{method: PUT}", "{method: [PUT]}", "expected a text, got a list", "pass error pass"),
        ("{method: PUT}", "{protocol: udp}", "`udp` is not a protocol", "pass error pass"),
        ("{method: PUT}", "{sourceIp: 10.0.0}", "request.sourceIp: `10.0.0` is not an IP address", "pass error pass"),
        ("{method: PUT}", "{destinationPort: 65536}", "`65536` is too large", "pass error pass"),
        ("status: 403", "statsu: 403", "unknown key of expect `statsu`; did you mean `status`?", "pass error pass"),
        ("status: 403", "status: forbidden", "expected a number", "pass error pass"),
        ("status: 403", "audit: maybe", "expected true or false", "pass error pass"),
        (
            "stage: allow, by: null",
            "stage: alow, by: null",
            "`alow` is not a stage; did you mean `allow`?",
            "pass error pass",
        ),
        ("decision: deny", "decision: refuse", "`refuse` is not a decision", "pass error pass"),
        ("status: 403", "dryRunDeny: {reslut: denied}", "did you mean `result`?", "pass error pass"),
        ("status: 403", "upstream: {presnt: {}}", "did you mean `present`?", "pass error pass"),
        (
            "expect: {decision: allow, stage: allow, by: shop/reads/0}",
            "expect: {}",
            "the case `get` expects nothing",
            "error pass pass",
        ),
        ("expect: ok", "expect: okay", "`okay` is not a result of validation", "pass pass error"),
        (', yaml: ""}', "}", "the document `empty` has no `yaml`", "pass pass error"),
        ("  cases:", "  casse:", "unknown key of a group `casse`; did you mean `cases`?", "pass"),
        ("  cases:", "  cases: 5\n  about2:", "expected cases, a list, got the number `5`", "pass"),
        ("  cases:", "  policyFiles: [p.yaml]\n  cases:", "files cannot be named here", "error error pass"),
    ],
)
def test_a_mistake_is_named_and_the_rest_still_runs(before: str, after: str, message: str, outcome: str) -> None:
    assert SUITE.count(before) >= 1
    text = SUITE.replace(before, after, 1)
    assert any(message in problem for problem in problems(text)), problems(text)
    assert outcomes(text) == outcome.split()


def test_a_directory_without_policies_is_a_problem() -> None:
    """Everything would be allowed, and most suites expect that something is."""
    text = SUITE.replace("  cases:", "  policyFiles: [empty]\n  cases:", 1)
    suite = read_suite("s.yaml", text.encode(), lambda name: [])
    assert [problem.message for problem in suite.problems] == ["`empty` holds no policy file"]


@pytest.mark.parametrize("content", ["", "# nothing left\n", "---\n---\n"])
def test_a_policy_file_that_became_empty_is_a_problem(content: str) -> None:
    text = SUITE.replace("  cases:", "  policyFiles: [p.yaml]\n  cases:", 1)
    suite = read_suite("s.yaml", text.encode(), lambda name: [(name, content.encode())])
    assert [problem.message for problem in suite.problems] == [
        "`p.yaml` holds no document, and what is missing may be what denies"
    ]


@pytest.mark.parametrize(
    "text", ["", "- 1", "format: 1", "groups: [", "5", "format: 1\ngroups: 7\n", "\x00", "a: &a [*a]"]
)
def test_nonsense_is_a_problem_and_not_an_exception(text: str) -> None:
    assert problems(text)
    assert outcomes(text) == []


def test_problems_of_inline_policies_stand_at_their_place_in_the_suite() -> None:
    suite = read_suite("s.yaml", SUITE.replace("methods:", "method:").encode())
    results = list(run_suite(suite, NOW))
    assert [result.error for result in results] == ["the group cannot be prepared"] * 2 + [""]
    assert str(results[0].problems[0]) == (
        "s.yaml:18:27: document 1, AuthorizationPolicy shop/reads: error: spec.rules[0].to[0].operation.method: "
        "unknown field `method`; did you mean `methods`? [RE-6]"
    )
    line = SUITE.splitlines()[17].replace("methods:", "method:")
    assert line[26:].startswith("method:"), "the column is that of the suite"


def test_policies_and_mesh_settings_may_come_from_files() -> None:
    files = {
        "p.yaml": b"apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n"
        b"metadata: {name: lock, namespace: platform}\nspec: {}\n",
        "m.yaml": b"rootNamespace: platform\npathNormalization: {normalization: MERGE_SLASHES}\n",
    }

    def load(name: str) -> Iterable[tuple[str, bytes]]:
        if name not in files:
            raise FileNotFoundError(2, "No such file or directory", name)
        return [(f"dir/{name}", files[name])]

    text = """\
format: 1
policyFiles: [p.yaml]
meshFile: m.yaml
groups:
- id: g
  workload: {namespace: shop}
  mesh: {trustDomain: td}
  cases:
  - {id: locked, expect: {decision: deny, stage: allow, normalizedPath: /a/b}, request: {path: /a//b}}
"""
    suite = read_suite("dir/s.yaml", text.encode(), load)
    assert suite.problems == ()
    assert suite.groups[0].mesh == MeshConfig(
        root_namespace="platform", trust_domain="td", path_normalization=PathNormalization.MERGE_SLASHES
    )
    assert [result.passed for result in run_suite(suite, NOW)] == [True]

    missing = read_suite("dir/s.yaml", text.replace("p.yaml", "q.yaml").encode(), load)
    assert [str(problem) for problem in missing.problems] == [
        "dir/s.yaml:2:15: error: policyFiles[0]: `q.yaml` cannot be read: No such file or directory [SUITE]\n"
        "  help: paths are relative to the suite"
    ]
    assert [bool(result.error) for result in run_suite(missing, NOW)] == [True]


FRAGMENTS = [
    "null",
    "[]",
    "{}",
    '"\\ud800"',
    "-1",
    "1e400",
    ".nan",
    "${TOKEN:x}",
    "${JWKS:}",
    "\0",
    "é",
    "&a ",
    "*a",
    "!!x ",
    "- ",
]


@settings(max_examples=150, deadline=None)
@given(
    at=st.integers(0, len(SUITE)),
    cut=st.integers(0, 25),
    fragment=st.sampled_from(["", *FRAGMENTS]) | st.text(max_size=4),
)
def test_no_mutilated_suite_raises(at: int, cut: int, fragment: str) -> None:
    text = SUITE[:at] + fragment + SUITE[at + cut :]
    suite = read_suite("s.yaml", text.encode("utf-8", "surrogatepass"))
    for result in run_suite(suite, NOW):
        assert list(lines(result)) or result.passed

"""``authz verify`` on a real Envoy: it agrees where filters are right, and tells where they are not."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from authz.analysis.verify import sides
from authz.cli import application
from authz.envoy.native.filters import NativeFilters, http_filters
from tests.mesh.meshes import ONE_SIDECAR

pytestmark = pytest.mark.envoy
pytest.importorskip("envoy")

POLICIES = """
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: jwt, namespace: shop}
spec: {jwtRules: [{issuer: https://issuer.test, jwksUri: https://issuer.test/keys, audiences: [shop]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: audited, namespace: shop}
spec: {action: AUDIT, rules: [{to: [{operation: {methods: [DELETE, delete]}}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: tried, namespace: shop, annotations: {istio.io/dry-run: "true"}}
spec: {action: DENY, rules: [{to: [{operation: {hosts: ["*.old"]}}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: never, namespace: shop}
spec: {action: DENY, rules: [{to: [{operation: {paths: [/never/*]}}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: some, namespace: shop}
spec:
  rules:
  - to: [{operation: {paths: [/free, "/items/{*}"], methods: [GET, HEAD]}}]
  - from: [{source: {principals: [cluster.local/ns/shop/sa/cart]}}]
    when: [{key: "request.headers[x-tier]", values: ["gold*"]}]
  - when: [{key: "request.auth.claims[role]", values: [admin]}]
  - from: [{source: {ipBlocks: [10.0.0.0/8]}}]
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "p.yaml").write_text(POLICIES)
    (tmp_path / "mesh.yaml").write_text(ONE_SIDECAR)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def verify(*options: str) -> tuple[int, str, str]:
    found = CliRunner().invoke(application, ["verify", "--policies", "policies", "--mesh", "mesh.yaml", *options])
    return found.exit_code, found.stdout, found.stderr


@pytest.mark.parametrize("form", ["linear", "indexed"])
def test_filters_that_are_right_agree_and_every_rule_is_accounted_for(form: str, here: Path) -> None:
    code, told, _ = verify("--form", form, "-o", "json")
    assert code == 0, told
    answer = json.loads(told)
    (workload,) = answer["workloads"]
    rules = {one["rule"]: one for one in workload["rules"]}
    assert workload["disagreements"] == []
    assert [name for name, one in rules.items() if not one["hit"]] == ["shop/some/3"]
    assert "no client of this machine has a direct address that is one of 10.0.0.0/8" in rules["shop/some/3"]["why"]
    assert workload["hit"] == len(rules) - 1 == 6
    assert workload["requests"] > 80
    assert 0 < workload["allowed"] < workload["requests"]


def test_filters_without_a_rule_are_found_out_with_the_command(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_deny(*arguments: object, **options: object) -> NativeFilters:
        found = http_filters(*arguments, **options)  # type: ignore[arg-type]  # passed on as they are
        kept = [one for one in found.filters if "never" not in json.dumps(one.as_extension())]
        return replace(found, filters=tuple(kept))

    monkeypatch.setattr(sides, "http_filters", without_deny)
    code, told, progress = verify()
    assert code == 3
    assert "api-v1: 7 rules," in progress
    assert "  rule: Envoy says '', the engine 'ns[shop]-policy[never]-rule[0]'" in told or "status: Envoy says" in told
    assert "authz check \\\n  --policies policies \\\n  --mesh mesh.yaml" in told
    assert "disagreements" in told.splitlines()[-1]


def test_the_limit_of_requests_is_kept_and_said(here: Path) -> None:
    code, told, _ = verify("--max-requests", "9")
    assert code == 0
    assert "beyond --max-requests" in told
    assert told.splitlines()[-1].startswith("1 workload, ")
    assert ", 9 requests: Envoy and the engine agree" in told


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--envoy", "./no-envoy"), "error: `./no-envoy` is not a program that can be run"),
        (("--envoy", "false"), "error: Envoy does not start: it says nothing"),
    ],
)
def test_without_an_envoy_it_says_so(options: tuple[str, ...], message: str, here: Path) -> None:
    code, _, told = verify(*options)
    assert code == 1
    assert message in told

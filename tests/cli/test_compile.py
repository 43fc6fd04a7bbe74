"""``authz compile``: filters for people with their own Envoy, and the report."""

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from authz.cli import application
from tests.mesh.meshes import ONE_SIDECAR

POLICIES = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: read, namespace: shop}
spec:
  selector: {matchLabels: {app: api}}
  rules: [{to: [{operation: {methods: [GET]}}]}]
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: jwt, namespace: shop}
spec: {jwtRules: [{issuer: https://a.test, jwksUri: https://a.test/keys, PRESENCE}]}
"""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "mesh.yaml").write_text(ONE_SIDECAR)
    (tmp_path / "policies.yaml").write_text(POLICIES.replace(", PRESENCE", ""))
    return tmp_path


def run(files: Path, *arguments: str) -> tuple[int, str, str]:
    common = [
        "compile",
        "--policies",
        str(files / "policies.yaml"),
        "--mesh",
        str(files / "mesh.yaml"),
        "--to",
        "api-v1",
    ]
    result = CliRunner().invoke(application, [*common, *arguments])
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize("form", ["yaml", "json"])
def test_filters_are_printed_in_istios_order(files: Path, form: str) -> None:
    code, told, remarks = run(files, "-o", form)
    assert code == 0
    found = yaml.safe_load(told)
    assert [one["name"] for one in found["http_filters"]] == ["envoy.filters.http.jwt_authn", "envoy.filters.http.rbac"]
    assert [one["name"] for one in found["network_filters"]] == ["envoy.filters.network.rbac"]
    assert "shop/jwt/0: no keys: every token is refused; give them with `--jwks https://a.test/keys=FILE`" in remarks


def test_files_are_written_with_one_that_a_running_envoy_follows(files: Path) -> None:
    assert run(files, "--out", str(files / "out"))[0] == 0
    assert sorted(path.name for path in (files / "out").iterdir()) == [
        "authz-rules.json", "http-filters.json", "network-filters.json",
    ]  # fmt: skip
    (resource,) = json.loads((files / "out" / "authz-rules.json").read_text())["resources"]
    assert resource["name"] == "authz-rules"


def test_what_stays_with_the_check_is_never_left_out_silently(files: Path) -> None:
    (files / "policies.yaml").write_text(POLICIES.replace(", PRESENCE", ", presence: REQUIRED"))
    reason = "Istio's filters do not know `presence: REQUIRED`"
    code, told, remarks = run(files)
    assert (code, told) == (3, "")
    assert reason in remarks
    code, told, _ = run(files, "--report")
    assert code == 3
    assert reason in told
    assert "the workload stays with the check" in told
    found = json.loads(run(files, "--report", "-o", "json")[1])
    assert not found["native"]


def test_a_workload_whose_issuer_is_asked_about_tokens_stays_with_the_check(files: Path) -> None:
    entry = "issuer: https://a.test, endpoint: https://a.test/ask, clientId: c, clientSecretFile: /s"
    config = f"kind: ConfigMap\nmetadata: {{name: istio}}\ndata:\n  mesh: |\n    tokenIntrospection: [{{{entry}}}]\n"
    (files / "mesh.yaml").write_text(f"{ONE_SIDECAR}---\napiVersion: v1\n{config}")
    code, told, _ = run(files, "--report")
    assert code == 3
    assert "Envoy's filters cannot ask https://a.test about opaque tokens" in told


def test_the_report_says_of_every_rule_who_decides_it(files: Path) -> None:
    code, told, _ = run(files, "--report", "-o", "json")
    assert code == 0
    assert [(one["resource"], one["rule"], one["native"]) for one in json.loads(told)["rules"]] == [
        ("AuthorizationPolicy shop/read", 0, True),
        ("RequestAuthentication shop/jwt", 0, True),
    ]


def test_an_unknown_workload_is_told_with_those_that_are_there(files: Path) -> None:
    code, _, remarks = run(files, "--to", "nobody")
    assert code == 1
    assert "the mesh has no workload `nobody`; it has api-v1" in remarks


def test_keys_are_taken_from_a_file(files: Path) -> None:
    (files / "keys.json").write_text(
        '{"keys": [{"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LTEyMw", "kid": "k"}]}'
    )
    code, told, remarks = run(files, "-o", "json", "--jwks", f"https://a.test/keys={files / 'keys.json'}")
    assert code == 0
    assert "no keys" not in remarks
    assert r"\"kid\":\"k\"" in told
    assert run(files, "--jwks", "nothing")[0] == 2

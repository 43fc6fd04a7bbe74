"""Run the command line in this process, and files to run it on."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from authz.cli import application

POLICIES = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: reads, namespace: shop}
spec:
  selector: {matchLabels: {app: cart}}
  rules:
  - from: [{source: {principals: ["cluster.local/ns/shop/sa/web"]}}]
    to: [{operation: {methods: ["GET"], paths: ["/cart*"]}}]
  - from: [{source: {requestPrincipals: ["*"]}}]
    to: [{operation: {methods: ["PUT"]}}]
    when: [{key: "request.headers[x-team]", values: ["red"]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-admin, namespace: shop}
spec:
  action: DENY
  rules:
  - to: [{operation: {paths: ["/admin*"], ports: ["8080"]}}]
"""

Run = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run ``authz`` in an empty directory, without a terminal."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FORCE_COLOR", raising=False)

    def invoke(*arguments: str, stdin: str | None = None, **environment: str) -> Result:
        return CliRunner().invoke(application, arguments, input=stdin, env=environment, prog_name="authz")

    return invoke


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    """A directory with one file of policies, named ``policies`` in the directory that commands run in."""
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "shop.yaml").write_text(POLICIES)
    return folder

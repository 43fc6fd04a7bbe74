"""``authz ca jwt``, ``bundle`` and ``federation``; and policies that know callers by JWT-SVIDs."""

import json
import time
from pathlib import Path

import pytest

from authz.core.spiffe import TrustDomain
from authz.identity.bundle_document import read_bundle_document
from authz.identity.ca import CertificateAuthority
from authz.identity.ledger import LEDGER_FILE, Ledger
from tests.cli.conftest import Run
from tests.identity.spire import spire_authority

WEB = "spiffe://cluster.local/ns/shop/sa/web"
POLICIES = """\
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: jwt-svids, namespace: shop}
spec:
  jwtRules:
  - jwksUri: https://ca.example:8443/keys
    audiences: [cart]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: web, namespace: shop}
spec:
  rules:
  - when: [{key: "request.auth.claims[sub]", values: ["spiffe://cluster.local/ns/shop/sa/web"]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: anybody-with-a-principal, namespace: shop}
spec:
  rules:
  - from: [{source: {requestPrincipals: ["*"]}}]
    to: [{operation: {paths: ["/principal"]}}]
"""


@pytest.fixture
def authority(run: Run, tmp_path: Path) -> Path:
    assert run("ca", "init").exit_code == 0
    return tmp_path / "ca"


def minted(run: Run, *options: str, spiffe_id: str = WEB) -> str:
    result = run("ca", "jwt", "mint", spiffe_id, "--audience", "cart", *options)
    assert result.exit_code == 0, result.output
    return str(result.stdout).strip()


def test_a_token_is_minted_validated_and_recorded(run: Run, authority: Path, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(minted(run) + "\n")
    good = run("ca", "jwt", "validate", "token", "--audience", "cart")
    assert (good.exit_code, good.stdout.startswith(f"{WEB}, valid until ")) == (0, True)
    bad = run("ca", "jwt", "validate", "token", "--audience", "billing")
    assert (bad.exit_code, bad.stdout) == (3, "the token is not for the audience `billing`\n")
    (record,) = Ledger(authority / LEDGER_FILE).read()
    assert (record.kind, record.spiffe_id, record.audience) == ("jwt-svid", WEB, ("cart",))
    assert record.evidence == "command:mint"
    assert (tmp_path / "token").read_text().strip() not in (authority / LEDGER_FILE).read_text()


def test_keys_are_rotated_with_overlap_and_revoked_at_once(run: Run, authority: Path, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(minted(run))
    assert run("ca", "jwt", "rotate").exit_code == 0
    keys = json.loads(run("ca", "jwt", "show", "-o", "json").stdout)["keys"]
    assert [key["state"] for key in keys] == ["active", "prepared"]
    assert run("ca", "jwt", "validate", "token", "--audience", "cart").exit_code == 0
    assert run("ca", "jwt", "rotate", "--revoke").exit_code == 0
    assert run("ca", "jwt", "validate", "token", "--audience", "cart").exit_code == 3
    assert "active" in run("ca", "jwt", "show").stdout


def test_the_bundle_is_shown_in_three_forms(run: Run, authority: Path) -> None:
    minted(run)
    assert run("ca", "bundle", "show").stdout.encode() == (authority / "bundle.pem").read_bytes()
    document = read_bundle_document(
        TrustDomain("cluster.local"), run("ca", "bundle", "show", "--format", "spiffe").stdout.encode()
    )
    assert document.bundle.roots == CertificateAuthority.load(authority).roots
    (key,) = json.loads(run("ca", "bundle", "show", "--format", "jwks").stdout)["keys"]
    assert key["kid"] == document.bundle.jwt_keys[0].kid


def test_a_token_of_a_trust_domain_that_was_fetched_is_validated_by_its_bundle(
    run: Run, authority: Path, tmp_path: Path
) -> None:
    """Here another authority of ours is the partner."""
    assert run("ca", "init", "--ca", "partner", "--trust-domain", "partner.test").exit_code == 0
    foreign = minted(run, "--ca", "partner", spiffe_id="spiffe://partner.test/app")
    (tmp_path / "token").write_text(foreign)
    refused = run("ca", "jwt", "validate", "token", "--audience", "cart")
    assert (refused.exit_code, refused.stdout) == (3, "the trust domain `partner.test` is not trusted\n")
    (authority / "federated").mkdir()
    shown = run("ca", "bundle", "show", "--ca", "partner", "--format", "spiffe").stdout
    (authority / "federated" / "partner.test.json").write_text(shown)
    assert run("ca", "jwt", "validate", "token", "--audience", "cart").exit_code == 0


# Federation

FEDERATION = """\
federatesWith:
- trustDomain: spire.test
  bundleEndpointURL: https://127.0.0.1:1/
  bundleEndpointProfile: https_spiffe
  endpointSpiffeID: spiffe://spire.test/spire/server
  trustDomainBundlePath: spire.test.json
"""


def test_relationships_are_checked_and_shown(run: Run, tmp_path: Path) -> None:
    (tmp_path / "federation.yaml").write_text(FEDERATION)
    good = run("ca", "federation", "validate", "federation.yaml")
    assert good.exit_code == 0
    assert "spiffe://spire.test/spire/server" in good.stdout
    (tmp_path / "federation.yaml").write_text(FEDERATION.replace("https_spiffe", "https"))
    bad = run("ca", "federation", "validate", "federation.yaml")
    assert bad.exit_code == 3
    assert "federation.yaml:4:26" in bad.output
    assert "`https` is neither https_web nor https_spiffe" in bad.output


def test_a_bundle_that_cannot_be_fetched_is_said(run: Run, tmp_path: Path) -> None:
    (tmp_path / "federation.yaml").write_text(FEDERATION)
    (tmp_path / "spire.test.json").write_bytes(spire_authority(TrustDomain("spire.test"), time.time()).document)
    result = run("ca", "federation", "refresh", "federation.yaml", "--out", "bundles")
    assert result.exit_code == 3
    assert not (tmp_path / "bundles" / "spire.test.json").exists()


# Policies


def checked(run: Run, tmp_path: Path, token: str, path: str) -> tuple[int, str]:
    (tmp_path / "policies.yaml").write_text(POLICIES)
    (tmp_path / "keys.json").write_text(run("ca", "bundle", "show", "--format", "jwks").stdout)
    (tmp_path / "token").write_text(token)
    request = ("-n", "shop", "--path", path, "--token-file", "token", "--jwks", "keys.json")
    result = run("check", "-p", "policies.yaml", *request, "-o", "json")
    return result.exit_code, str(result.output)


OTHER = "spiffe://cluster.local/ns/shop/sa/other"


@pytest.mark.parametrize(
    ("spiffe_id", "options", "path", "code"),
    [
        (WEB, (), "/", 0),
        (OTHER, (), "/", 3),
        (OTHER, (), "/principal", 3),  # AP-39: without `iss` there is no request principal
        (OTHER, ("--jwt-issuer", "https://ca.example"), "/principal", 0),
    ],
)
@pytest.mark.usefixtures("authority")
def test_a_caller_is_known_by_its_jwt_svid(
    run: Run, tmp_path: Path, spiffe_id: str, options: tuple[str, ...], path: str, code: int
) -> None:
    """RA-24: "If the rule has no issuer (allowed when `jwksUri` is set) any or no `iss` is accepted"."""
    found, told = checked(run, tmp_path, minted(run, *options, spiffe_id=spiffe_id), path)
    assert found == code, told


@pytest.mark.usefixtures("authority")
def test_a_token_of_another_audience_or_another_authority_is_refused(run: Run, tmp_path: Path) -> None:
    assert run("ca", "init", "--ca", "other", "--trust-domain", "cluster.local").exit_code == 0
    minted(run)
    code, told = checked(run, tmp_path, minted(run, "--ca", "other"), "/")
    assert (code, "Jwks doesn't have key to match kid" in told) == (3, True)
    other_audience = str(run("ca", "jwt", "mint", WEB, "--audience", "billing").stdout).strip()
    code, told = checked(run, tmp_path, other_audience, "/")
    assert (code, "Audiences in Jwt are not allowed" in told) == (3, True)

"""The files behind the judgement of peers: followed when they change, kept when they break."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from authz.core.attributes import AttributeContext
from authz.core.errors import LoadError, SettingsError
from authz.core.spiffe import SpiffeId, TrustDomain
from authz.identity.ca import CertificateAuthority, Issued
from authz.identity.rotation import activate, prepare, retire, taint
from authz.service.evidence import BundleFiles, PeerEvidence
from tests.build import request

NOW = 1_800_000_000.0
MESH = TrustDomain("mesh.test")
REVIEWS = SpiffeId(MESH, "/ns/shop/sa/reviews")


def seen(issued: Issued, caller: str = str(REVIEWS)) -> AttributeContext:
    """As Envoy says it: the leaf alone."""
    leaf = issued.chain_pem.decode().split("-----END CERTIFICATE-----\n")[0] + "-----END CERTIFICATE-----\n"
    return replace(request(caller=caller), certificate=leaf)


@pytest.fixture
def ca(tmp_path: Path) -> CertificateAuthority:
    made = CertificateAuthority.create(MESH, NOW)
    made.save(tmp_path / "ca")
    (tmp_path / "revoked.txt").write_text("")
    return made


@pytest.fixture
def evidence(tmp_path: Path, ca: CertificateAuthority) -> PeerEvidence:
    assert ca.trust_domain == MESH
    return PeerEvidence([BundleFiles.of_authority(MESH, tmp_path / "ca")], tmp_path / "revoked.txt")


def test_the_rightful_peer_passes_and_another_does_not(evidence: PeerEvidence, ca: CertificateAuthority) -> None:
    issued = ca.issue_svid(REVIEWS, NOW)
    assert evidence.judge(seen(issued), NOW) is None
    assert evidence.judge(seen(issued, "spiffe://mesh.test/ns/shop/sa/ratings"), NOW) is not None
    assert evidence.judge(request(caller=None), NOW) is None


def test_a_revocation_is_in_force_as_soon_as_it_is_looked_at(
    evidence: PeerEvidence, ca: CertificateAuthority, tmp_path: Path
) -> None:
    issued = ca.issue_svid(REVIEWS, NOW)
    assert not evidence.look()
    (tmp_path / "revoked.txt").write_text(f"serial:{issued.serial:x}\n")
    assert evidence.look()
    assert evidence.judge(seen(issued), NOW) == f"the certificate with serial number {issued.serial:x} is revoked"


def test_a_retired_root_is_trusted_no_more(evidence: PeerEvidence, ca: CertificateAuthority, tmp_path: Path) -> None:
    before = ca.issue_svid(REVIEWS, NOW)
    rotated = retire(taint(activate(prepare(ca, NOW))))
    rotated.save(tmp_path / "ca")
    assert evidence.look()
    assert evidence.judge(seen(before), NOW) is not None
    assert evidence.judge(seen(rotated.issue_svid(REVIEWS, NOW)), NOW) is None


@pytest.mark.parametrize(
    ("file", "content"), [("revoked.txt", "nonsense"), ("ca/bundle.pem", ""), ("ca/intermediates.pem", "x")]
)
def test_a_broken_change_keeps_what_was_in_force(
    evidence: PeerEvidence,
    ca: CertificateAuthority,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    file: str,
    content: str,
) -> None:
    (tmp_path / file).write_text(content)
    with caplog.at_level(logging.ERROR):
        assert not evidence.look()
    assert "is not taken" in caplog.text
    assert evidence.judge(seen(ca.issue_svid(REVIEWS, NOW)), NOW) is None


@pytest.mark.usefixtures("ca")
def test_files_that_cannot_be_used_refuse_the_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="the trust bundles cannot be used"):
        PeerEvidence([BundleFiles(MESH, tmp_path / "nowhere.pem")])
    (tmp_path / "revoked.txt").write_text("nonsense")
    with pytest.raises(LoadError):
        PeerEvidence([BundleFiles.of_authority(MESH, tmp_path / "ca")], tmp_path / "revoked.txt")

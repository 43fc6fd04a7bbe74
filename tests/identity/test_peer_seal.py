"""What servers tell each other is believed from servers alone."""

from pathlib import Path

import pytest

from authz.core.errors import AuthzError
from authz.core.spiffe import SpiffeId, TrustDomain
from authz.identity.ca import CertificateAuthority
from authz.identity.peer_seal import PeerSeal

NOW = 1_800_000_000.0
CA, OTHER_CA = (CertificateAuthority.create(TrustDomain("mesh.test"), NOW) for _ in range(2))


def sealing(folder: Path, path: str, signer: CertificateAuthority = CA, kind: str = "key set") -> PeerSeal:
    folder.mkdir()
    issued = signer.issue_svid(SpiffeId(signer.trust_domain, path), NOW)
    files = {"ca.pem": CA.bundle_pem, "tls.crt": issued.chain_pem, "tls.key": issued.key_pem}
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return PeerSeal(kind, *(folder / name for name in files))


def test_one_of_the_same_identity_is_believed(tmp_path: Path) -> None:
    one, other = sealing(tmp_path / "one", "/authz/reader"), sealing(tmp_path / "other", "/authz/reader")
    assert one.unseal(other.seal({"text": "keys"}), NOW) == {"text": "keys"}


@pytest.mark.parametrize(
    ("path", "signer", "kind", "at", "said"),
    [
        (
            "/authz/truth",
            CA,
            "key set",
            NOW,
            "/authz/truth` signed it, and not one of `/authz/reader`",
        ),
        ("/authz/reader", OTHER_CA, "key set", NOW, "its signer is not trusted: "),
        ("/authz/reader", CA, "announcement", NOW, "its signature does not fit"),
        ("/authz/reader", CA, "key set", NOW + 366 * 86400, "its signer is not trusted: the certificate expired"),
    ],
    ids=["a server of the truth", "another authority", "another kind", "expired"],
)
def test_nobody_else_is(
    tmp_path: Path, path: str, signer: CertificateAuthority, kind: str, at: float, said: str
) -> None:
    own, other = sealing(tmp_path / "own", "/authz/reader"), sealing(tmp_path / "other", path, signer, kind)
    with pytest.raises(ValueError, match=said):
        own.unseal(other.seal({"text": "keys"}), at)


def test_files_that_do_not_fit_are_named(tmp_path: Path) -> None:
    own = sealing(tmp_path / "own", "/authz/reader")
    (tmp_path / "own" / "tls.crt").write_text("nonsense")
    with pytest.raises(AuthzError, match=r"tls.crt`: not a PEM certificate"):
        own.seal({})

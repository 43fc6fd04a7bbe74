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


@pytest.mark.parametrize(
    ("own", "other", "is_believed"),
    [
        ("/authz/reader", "/authz/reader", True),
        ("/authz/reader/web-1", "/authz/reader/web-2", True),
        ("/authz/reader/web-1", "/authz/reader", True),
        ("/authz/reader/web-1", "/authz/publisher/web-1", False),
        ("/authz/reader/web-1", "/authz/reader/web-2/x", False),
        ("/authz/reader", "/authz/readers", False),
        ("/authz/ca", "/authz/ca/x", False),
        ("/ns/shop/sa/web", "/ns/shop/sa/web", True),
        ("/ns/shop/sa/web", "/ns/shop/sa/web/x", False),
    ],
)
def test_one_of_the_same_identity_or_role_is_believed(tmp_path: Path, own: str, other: str, is_believed: bool) -> None:
    one, another = sealing(tmp_path / "one", own), sealing(tmp_path / "other", other)
    if is_believed:
        assert one.unseal(another.seal({"text": "keys"}), NOW) == {"text": "keys"}
    else:
        with pytest.raises(ValueError, match="signed it, "):
            one.unseal(another.seal({"text": "keys"}), NOW)


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

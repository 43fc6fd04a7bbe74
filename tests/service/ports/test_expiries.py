"""The certificates whose expiry is shown: a mesh's directory, and the server's own."""

import json
import os
from pathlib import Path

import pytest

from authz.core.spiffe import SpiffeId
from authz.identity.ca import CertificateAuthority
from authz.service.ports.expiries import CertificateFiles

NOW = 1_800_000_000.0
HOUR = 3600.0
REVIEWS = SpiffeId.for_workload("mesh.test", "shop", "reviews")


@pytest.fixture(scope="module")
def authority() -> CertificateAuthority:
    return CertificateAuthority.create("mesh.test", NOW)


def keep(directory: Path, name: str, pem: bytes) -> Path:
    (directory / name).parent.mkdir(exist_ok=True)
    (directory / name).write_bytes(pem)
    return directory / name


def test_each_certificate_of_a_directory_is_shown_with_its_end(tmp_path: Path, authority: CertificateAuthority) -> None:
    keep(tmp_path, "reviews-v1/tls.crt", authority.issue_svid(REVIEWS, NOW, ttl_seconds=HOUR).chain_pem)
    keep(tmp_path, "web/tls.crt", authority.issue_server_certificate(("shop.example",), NOW).chain_pem)
    keep(tmp_path, "roots/ca.crt", authority.bundle_pem)
    keep(tmp_path, "signing/intermediates.crt", authority.active.chain_pem)
    keep(tmp_path, "broken/tls.crt", b"no certificate")
    files = CertificateFiles([tmp_path], clock=lambda: NOW)
    files.read()
    found = {status.workload: status for status in files.status}
    assert {name: status.kind for name, status in found.items()} == {
        "reviews-v1": "workload",
        "web": "server",
        "roots": "root",
        "signing": "intermediate",
    }
    reviews = found["reviews-v1"]
    assert (reviews.not_after, reviews.namespace, reviews.identity) == (NOW + HOUR, "shop", str(REVIEWS))


def test_the_servers_own_certificate_is_shown_by_its_name(tmp_path: Path, authority: CertificateAuthority) -> None:
    file = keep(tmp_path, "authz/tls.crt", authority.issue_svid(REVIEWS, NOW, ttl_seconds=HOUR).chain_pem)
    files = CertificateFiles((), {"authz": file, "authz-admin": None}, clock=lambda: NOW)
    files.read()
    (status,) = files.status
    assert (status.kind, status.workload, status.not_after) == ("server", "authz", NOW + HOUR)


def test_a_renewed_certificate_is_read_anew_and_a_removed_one_forgotten(
    tmp_path: Path, authority: CertificateAuthority
) -> None:
    file = keep(tmp_path, "a/tls.crt", authority.issue_svid(REVIEWS, NOW, ttl_seconds=HOUR).chain_pem)
    files = CertificateFiles([tmp_path], clock=lambda: NOW)
    files.read()
    keep(tmp_path, "a/tls.crt", authority.issue_svid(REVIEWS, NOW + HOUR, ttl_seconds=HOUR).chain_pem)
    os.utime(file, (NOW, NOW))
    files.read()
    assert [status.not_after for status in files.status] == [NOW + 2 * HOUR]
    file.unlink()
    files.read()
    assert files.status == ()


async def test_nothing_to_look_at_is_not_looked_at() -> None:
    files = CertificateFiles((), {"authz": None}, clock=lambda: NOW)
    await files.run()
    assert files.status == ()


def issuance(identity: str, not_after: float, *, is_issued: bool = True) -> bytes:
    return json.dumps({"spiffe_id": identity, "not_after": not_after, "is_issued": is_issued}).encode() + b"\n"


def ends(files: CertificateFiles) -> dict[str, float]:
    files.read()
    return {status.workload: status.not_after - NOW for status in files.status}


def test_the_newest_certificate_of_each_identity_is_read_from_an_authoritys_ledger(tmp_path: Path) -> None:
    path, now = tmp_path / "issued.jsonl", [NOW]
    files = CertificateFiles([path], clock=lambda: now[0])
    assert ends(files) == {}, "there is no ledger yet"
    path.write_bytes(issuance(str(REVIEWS), NOW + 60) + issuance("spiffe://mesh.test/ns/shop/sa/cart", NOW + 90))
    assert ends(files) == {"reviews": 60, "cart": 90}
    with path.open("ab") as file:
        file.write(issuance(str(REVIEWS), NOW + 120) + issuance(str(REVIEWS), NOW + 500, is_issued=False) + b"{half")
    assert ends(files) == {"cart": 90, "reviews": 120}
    path.rename(tmp_path / "issued.jsonl.1")
    path.write_bytes(issuance(str(REVIEWS), NOW + 180) + b"[]\n" + issuance("no identity", NOW))
    assert ends(files) == {"cart": 90, "reviews": 180}
    now[0] = NOW + 100
    assert ends(files) == {"cart": 90, "reviews": 180}, "what ended is shown: nobody renewed it"
    now[0] = NOW + 90 + 3600
    assert ends(files) == {"reviews": 180}, "until its workload is surely no more"

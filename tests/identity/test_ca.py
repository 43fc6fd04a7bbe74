"""What the authority issues, where it keeps itself, and that other people's TLS libraries agree."""

import json
import socket
import ssl
import stat
import subprocess
import threading
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from authz.core.spiffe import SpiffeId, TrustDomain
from authz.identity.authority import AuthorityState, read_authority
from authz.identity.ca import STATE_FILE, CertificateAuthority
from authz.identity.keys import KeyType, generate_key, key_bytes, read_key, write_key
from authz.identity.secret_files import read_secret, write_file, write_secret_files
from authz.identity.sign import read_serial
from authz.identity.svid_validation import Examined, validate_svid
from tests.identity.certificates import INTERMEDIATE, KEYS, LEAF, NOW, ROOT, changed, pem

REVIEWS = SpiffeId.parse("spiffe://mesh.test/ns/shop/sa/reviews")
MESH = TrustDomain("mesh.test")


def authority(now: float = NOW, key_type: KeyType = KeyType.ECDSA_P256) -> CertificateAuthority:
    return CertificateAuthority.create("mesh.test", now, key_type=key_type)


def leaf_of(chain_pem: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificates(chain_pem)[0]


def test_an_svid_has_one_uri_both_usages_and_lives_a_day() -> None:
    issued = authority().issue_svid(REVIEWS, NOW, dns=("reviews.shop.svc",))
    leaf = leaf_of(issued.chain_pem)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [str(REVIEWS)]
    assert names.get_values_for_type(x509.DNSName) == ["reviews.shop.svc"]
    usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(usages) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    assert (issued.not_before, issued.not_after) == (NOW - 10, NOW + 24 * 3600)
    assert issued.serial == leaf.serial_number
    assert issued.spiffe_id == REVIEWS


def test_what_is_issued_is_valid_for_the_authoritys_own_bundle() -> None:
    ca = authority()
    answer = validate_svid(ca.issue_svid(REVIEWS, NOW).chain_pem, {MESH: ca.trust_bundle}, NOW)
    assert isinstance(answer, Examined)
    assert answer.spiffe_id == REVIEWS


def test_a_web_servers_certificate_is_nobodys_identity() -> None:
    issued = authority().issue_server_certificate(("shop.example",), NOW, addresses=("127.0.0.1",))
    leaf = leaf_of(issued.chain_pem)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == []
    assert [str(a) for a in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usages) == [ExtendedKeyUsageOID.SERVER_AUTH]


def test_the_holders_own_key_is_certified_and_none_is_made() -> None:
    key = generate_key()
    issued = authority().issue_svid(REVIEWS, NOW, public_key=key.public_key())
    assert issued.key_pem == b""
    assert leaf_of(issued.chain_pem).public_key() == key.public_key()


def test_a_leaf_never_outlives_its_issuer() -> None:
    ca = CertificateAuthority.create("mesh.test", NOW, intermediate_ttl_seconds=600)
    assert ca.issue_svid(REVIEWS, NOW, ttl_seconds=3600).not_after == NOW + 600
    with pytest.raises(ValueError, match="its issuer has expired"):
        ca.issue_svid(REVIEWS, NOW + 700)


REFUSED = [
    ("spiffe://other.test/a", "`spiffe://other.test/a` is not in the trust domain `mesh.test`"),
    ("spiffe://mesh.test", "`spiffe://mesh.test` has no path: a workload's SPIFFE ID needs one"),
]


@pytest.mark.parametrize(("spiffe_id", "message"), REFUSED)
def test_an_identity_that_is_not_a_workloads_here_is_refused(spiffe_id: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        authority().issue_svid(SpiffeId.parse(spiffe_id), NOW)
    assert str(caught.value) == message


def test_a_server_certificate_needs_a_name() -> None:
    with pytest.raises(ValueError, match="at least one DNS name or IP address"):
        authority().issue_server_certificate((), NOW)


@pytest.mark.parametrize("random", [b"\x00" * 16, b"\xff" * 16])
def test_a_serial_number_is_positive_and_fits(random: bytes) -> None:
    serial = read_serial(random)
    assert 0 < serial < 2**127
    with pytest.raises(ValueError, match="16 random bytes"):
        read_serial(b"short")


def test_serial_numbers_come_from_the_random_bytes_given() -> None:
    ca = CertificateAuthority.create("mesh.test", NOW, random=lambda n: b"\x02" * n)
    assert ca.issue_svid(REVIEWS, NOW).serial == read_serial(b"\x02" * 16)


# On disk


def test_an_authority_is_the_same_after_saving_and_loading(tmp_path: Path) -> None:
    ca = authority()
    ca.save(tmp_path / "ca")
    loaded = CertificateAuthority.load(tmp_path / "ca")
    assert loaded.trust_domain == MESH
    assert loaded.bundle_pem == ca.bundle_pem == (tmp_path / "ca/bundle.pem").read_bytes()
    assert loaded.active.id == ca.active.id
    assert isinstance(validate_svid(loaded.issue_svid(REVIEWS, NOW).chain_pem, {MESH: ca.trust_bundle}, NOW), Examined)


def test_private_keys_are_for_the_owner_only_and_everything_else_is_readable(tmp_path: Path) -> None:
    authority().save(tmp_path / "ca")
    for path in (tmp_path / "ca").rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        if path.is_file():
            assert mode == (0o600 if path.suffix == ".key" else 0o644), path
            assert (b"PRIVATE KEY" in path.read_bytes()) == (path.suffix == ".key")


def test_the_roots_key_may_be_taken_away(tmp_path: Path) -> None:
    ca = authority()
    ca.save(tmp_path)
    (tmp_path / ca.active.id / "root.key").unlink()
    assert CertificateAuthority.load(tmp_path).active.root_key is None


def test_no_repr_shows_a_private_key() -> None:
    ca = authority()
    issued = ca.issue_svid(REVIEWS, NOW)
    secret = issued.key_pem.decode().splitlines()[1]
    for shown in (repr(issued), repr(ca), repr(ca.active), repr(ca.active.issuer)):
        assert "PRIVATE" not in shown
        assert secret not in shown


def test_a_key_that_others_may_read_is_not_used(tmp_path: Path) -> None:
    ca = authority()
    ca.save(tmp_path)
    key = tmp_path / ca.active.id / "signing.key"
    key.chmod(0o640)
    with pytest.raises(ValueError, match="others may read"):
        CertificateAuthority.load(tmp_path)


BROKEN_STATE = [b"", b"[]", b"{}", b'{"trustDomain": "UPPER", "authorities": []}', b'{"trustDomain": "a"}', b"\xff"]


@pytest.mark.parametrize("state", BROKEN_STATE)
def test_a_broken_state_file_is_said(tmp_path: Path, state: bytes) -> None:
    (tmp_path / STATE_FILE).write_bytes(state)
    with pytest.raises(ValueError, match="is not a list of authorities"):
        CertificateAuthority.load(tmp_path)


def test_a_state_without_an_active_authority_is_refused(tmp_path: Path) -> None:
    ca = authority()
    ca.save(tmp_path)
    state = json.loads((tmp_path / STATE_FILE).read_text())
    state["authorities"][0]["state"] = "old"
    (tmp_path / STATE_FILE).write_text(json.dumps(state))
    with pytest.raises(ValueError, match="exactly one active authority, got 0"):
        CertificateAuthority.load(tmp_path)


def test_a_swapped_key_is_noticed(tmp_path: Path) -> None:
    ca = authority()
    ca.save(tmp_path)
    write_file(tmp_path / ca.active.id / "signing.key", write_key(generate_key()), 0o600)
    with pytest.raises(ValueError, match="does not belong to"):
        CertificateAuthority.load(tmp_path)


def test_files_are_replaced_by_rename_and_the_key_first(tmp_path: Path) -> None:
    certificate, key = write_secret_files(tmp_path / "a", "tls", b"one", b"key one")
    before = certificate.stat().st_ino
    write_secret_files(tmp_path / "a", "tls", b"two", b"key two")
    assert certificate.read_bytes() == b"two"
    assert certificate.stat().st_ino != before
    assert key.stat().st_mtime_ns <= certificate.stat().st_mtime_ns
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["tls.crt", "tls.key"]
    assert read_secret(key) == b"key two"


def test_a_file_that_cannot_be_put_in_place_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError):
        write_file(tmp_path / "taken", b"data")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


# Keys


@pytest.mark.parametrize("key_type", list(KeyType))
def test_a_key_is_the_same_after_writing_and_reading(key_type: KeyType) -> None:
    key = generate_key(key_type)
    assert key_bytes(read_key(write_key(key)).public_key()) == key_bytes(key.public_key())


def test_a_broken_key_is_refused_without_quoting_it() -> None:
    with pytest.raises(ValueError) as caught:
        read_key(b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n")
    assert str(caught.value) == "the private key is not an unencrypted PEM key"
    assert caught.value.__cause__ is None


# Bring your own

INTERMEDIATE_KEY, ROOT_KEY, OTHER_KEY = (write_key(KEYS[n]) for n in ("intermediate", "root", "other"))
ROOT_CERT, INTERMEDIATE_CERT = ROOT.certificate(), INTERMEDIATE.certificate()


def test_an_intermediate_of_ones_own_signs_below_ones_own_root(tmp_path: Path) -> None:
    adopted = read_authority(pem(ROOT_CERT), pem(INTERMEDIATE_CERT), INTERMEDIATE_KEY, NOW)
    ca = CertificateAuthority(MESH, (adopted,))
    ca.save(tmp_path)
    issued = CertificateAuthority.load(tmp_path).issue_svid(REVIEWS, NOW)
    assert len(x509.load_pem_x509_certificates(issued.chain_pem)) == 2
    assert isinstance(validate_svid(issued.chain_pem, {MESH: ca.trust_bundle}, NOW), Examined)


def test_a_root_of_ones_own_signs_by_itself(tmp_path: Path) -> None:
    ca = CertificateAuthority(MESH, (read_authority(pem(ROOT_CERT), b"", ROOT_KEY, NOW),))
    ca.save(tmp_path)
    issued = CertificateAuthority.load(tmp_path).issue_svid(REVIEWS, NOW)
    assert len(x509.load_pem_x509_certificates(issued.chain_pem)) == 1
    assert isinstance(validate_svid(issued.chain_pem, {MESH: ca.trust_bundle}, NOW), Examined)
    assert ca.active.state is AuthorityState.ACTIVE


def other(**changes: object) -> bytes:
    return pem(changed(INTERMEDIATE, **changes).certificate())


UNUSABLE = [
    (b"x", b"", ROOT_KEY, "the certificates are not readable as PEM"),
    (pem(ROOT_CERT), b"", OTHER_KEY, "the private key does not belong to `CN=root`"),
    (pem(ROOT_CERT), pem(INTERMEDIATE_CERT), ROOT_KEY, "the private key does not belong to `CN=intermediate`"),
    (pem(ROOT_CERT), other(signer=KEYS["other"]), INTERMEDIATE_KEY, "`CN=intermediate` was not signed by `CN=root`"),
    (pem(INTERMEDIATE_CERT), b"", INTERMEDIATE_KEY, "`CN=intermediate` was not signed by `CN=intermediate`"),
    (pem(ROOT_CERT), pem(LEAF.certificate()), ROOT_KEY, "`CN=leaf` was not signed by `CN=root`"),
    (pem(ROOT_CERT), other(basic=(False, None)), INTERMEDIATE_KEY, "`CN=intermediate` is not an authority: basicC"),
    (pem(ROOT_CERT), other(basic=None), INTERMEDIATE_KEY, "`CN=intermediate` is not an authority: it has no basicC"),
    (pem(ROOT_CERT), other(usage=None), INTERMEDIATE_KEY, "`CN=intermediate` is not an authority: it has no keyUsage"),
    (pem(ROOT_CERT), other(usage=("crl_sign",)), INTERMEDIATE_KEY, "`CN=intermediate` may not sign certificates"),
    (pem(ROOT_CERT), other(end=NOW - 1), INTERMEDIATE_KEY, "`CN=intermediate` has expired"),
    (pem(ROOT_CERT), other(begin=NOW + 1), INTERMEDIATE_KEY, "`CN=intermediate` is not yet valid"),
]


@pytest.mark.parametrize(("root", "chain", "key", "message"), UNUSABLE)
def test_an_unusable_authority_is_refused_with_its_reason(root: bytes, chain: bytes, key: bytes, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        read_authority(root, chain, key, NOW)
    assert str(caught.value).startswith(message)


# Others' eyes


@pytest.mark.parametrize("key_type", list(KeyType))
def test_openssl_verifies_every_chain_strictly(tmp_path: Path, key_type: KeyType) -> None:
    ca = authority(time.time(), key_type)
    issued = ca.issue_svid(REVIEWS, time.time(), dns=("reviews.shop.svc",))
    certificate, _ = write_secret_files(tmp_path, "tls", issued.chain_pem, issued.key_pem)
    (tmp_path / "roots.pem").write_bytes(ca.bundle_pem)
    command = ["openssl", "verify", "-x509_strict", "-CAfile", str(tmp_path / "roots.pem"), "-untrusted"]
    for purpose in ("sslserver", "sslclient"):
        run = [*command, str(certificate), "-purpose", purpose, str(certificate)]
        assert subprocess.run(run, capture_output=True, text=True).stdout == f"{certificate}: OK\n"


def test_openssl_keeps_an_intermediate_to_its_trust_domain(tmp_path: Path) -> None:
    """The name constraint is understood by others too: a stolen intermediate names no foreign workload."""
    ca = authority(time.time())
    stolen = CertificateAuthority(TrustDomain("other.test"), ca.authorities)
    issued = stolen.issue_svid(SpiffeId.parse("spiffe://other.test/ns/a/sa/b"), time.time())
    certificate, _ = write_secret_files(tmp_path, "tls", issued.chain_pem, issued.key_pem)
    (tmp_path / "roots.pem").write_bytes(ca.bundle_pem)
    command = ["openssl", "verify", "-CAfile", str(tmp_path / "roots.pem"), "-untrusted", str(certificate)]
    answer = subprocess.run([*command, str(certificate)], capture_output=True, text=True)
    assert "permitted subtree violation" in answer.stderr


@pytest.mark.parametrize("key_type", [KeyType.ECDSA_P256, KeyType.RSA_2048])
def test_python_ssl_speaks_mutual_tls_with_what_is_issued(tmp_path: Path, key_type: KeyType) -> None:
    now = time.time()
    ca = authority(now)
    (tmp_path / "roots.pem").write_bytes(ca.bundle_pem)
    contexts = []
    for name, protocol in (("server", ssl.PROTOCOL_TLS_SERVER), ("client", ssl.PROTOCOL_TLS_CLIENT)):
        spiffe_id = SpiffeId.parse(f"spiffe://mesh.test/ns/shop/sa/{name}")
        issued = ca.issue_svid(spiffe_id, now, dns=("server.shop.svc",), key_type=key_type)
        context = ssl.SSLContext(protocol)
        context.load_cert_chain(*write_secret_files(tmp_path, name, issued.chain_pem, issued.key_pem))
        context.load_verify_locations(tmp_path / "roots.pem")
        context.verify_mode = ssl.CERT_REQUIRED
        contexts.append(context)
    near, far = socket.socketpair()
    seen: list[object] = []

    def serve() -> None:
        with contexts[0].wrap_socket(far, server_side=True) as connection:
            seen.append(connection.getpeercert())
            connection.sendall(b"hello")

    thread = threading.Thread(target=serve)
    thread.start()
    with contexts[1].wrap_socket(near, server_hostname="server.shop.svc") as connection:
        assert connection.recv(5) == b"hello"
    thread.join()
    assert isinstance(seen[0], dict)
    assert ("URI", "spiffe://mesh.test/ns/shop/sa/client") in seen[0]["subjectAltName"]

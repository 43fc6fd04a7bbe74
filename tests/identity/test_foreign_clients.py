"""Clients that nobody here wrote verify our chains: openssl's, and a Go program of its standard library alone."""

import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from authz.core.spiffe import SpiffeId, TrustDomain
from authz.identity.ca import CertificateAuthority, Issued
from authz.identity.keys import KeyType
from authz.identity.secret_files import write_secret_files

REVIEWS, RATINGS = (f"spiffe://mesh.test/ns/shop/sa/{name}" for name in ("reviews", "ratings"))
STRANGER = "spiffe://other.test/ns/shop/sa/reviews"
GO, OPENSSL = shutil.which("go"), shutil.which("openssl")
needs_go = pytest.mark.skipif(GO is None, reason="Go is not installed, and the client is compiled when it is needed")
needs_openssl = pytest.mark.skipif(OPENSSL is None, reason="openssl is not installed")


@dataclass(frozen=True)
class Files:
    directory: Path

    def chain(self, name: str) -> str:
        return str(self.directory / f"{name}.crt")

    def key(self, name: str) -> str:
        return str(self.directory / f"{name}.key")

    @property
    def roots(self) -> str:
        return str(self.directory / "roots.pem")


@pytest.fixture(scope="module", params=[KeyType.ECDSA_P256, KeyType.RSA_2048, KeyType.ED25519])
def files(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Files:
    """One authority of each kind of key, what it issues, and what others claim."""
    directory, now = tmp_path_factory.mktemp("files"), time.time()
    ca = CertificateAuthority.create("mesh.test", now, key_type=request.param)
    foreign = CertificateAuthority.create("other.test", now)
    # The same keys under another trust domain: what an intermediate signs that is not its business.
    bent = replace(ca, trust_domain=TrustDomain("other.test"))
    issued: dict[str, Issued] = {
        "reviews": ca.issue_svid(SpiffeId.parse(REVIEWS), now),
        "ratings": ca.issue_svid(SpiffeId.parse(RATINGS), now),
        "expired": ca.issue_svid(SpiffeId.parse(REVIEWS), now - 7200, ttl_seconds=3600),
        "self-made": CertificateAuthority.create("mesh.test", now).issue_svid(SpiffeId.parse(REVIEWS), now),
        "foreign": foreign.issue_svid(SpiffeId.parse(STRANGER), now),
        "beyond its name constraint": bent.issue_svid(SpiffeId.parse(STRANGER), now),
        "web server": ca.issue_server_certificate(("shop.example",), now),
    }
    for name, one in issued.items():
        write_secret_files(directory, name, one.chain_pem, one.key_pem)
    (directory / "roots.pem").write_bytes(ca.bundle_pem)
    return Files(directory)


@pytest.fixture(scope="module")
def go_client(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Compiled once; nothing is downloaded, because it uses nothing but the standard library."""
    binary = tmp_path_factory.mktemp("go") / "goclient"
    source = Path(__file__).parent / "goclient"
    assert GO is not None
    subprocess.run([GO, "build", "-o", str(binary), "."], cwd=source, check=True, timeout=300)
    return str(binary)


@pytest.fixture
def served(files: Files) -> Iterator[int]:
    """A server with the certificate of reviews that demands one; it welcomes whoever passed the handshake."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=files.roots)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(files.chain("reviews"), files.key("reviews"))
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                raw, _ = listener.accept()
            except OSError:  # it was closed: the test is over
                return
            try:
                with context.wrap_socket(raw, server_side=True) as stream:
                    stream.sendall(b"welcome")
                    stream.unwrap()
            except OSError:
                raw.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(5)


def ran(*command: str) -> tuple[int, str]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL)
    return done.returncode, done.stdout + done.stderr


JUDGED = [
    ("reviews", "server", REVIEWS, "ok"),
    ("reviews", "client", REVIEWS, "ok"),
    ("reviews", "client", RATINGS, f"refused: it is {REVIEWS}"),
    ("expired", "client", REVIEWS, "has expired"),
    ("self-made", "client", REVIEWS, "signed by unknown authority"),
    ("foreign", "client", STRANGER, "signed by unknown authority"),
    ("beyond its name constraint", "client", STRANGER, "is not permitted by any constraint"),
    ("web server", "client", REVIEWS, "incompatible key usage"),
]


@needs_go
@pytest.mark.parametrize(("name", "usage", "spiffe_id", "expected"), JUDGED)
def test_go_judges_a_chain(files: Files, go_client: str, name: str, usage: str, spiffe_id: str, expected: str) -> None:
    code, told = ran(go_client, "-roots", files.roots, "-id", spiffe_id, "-chain", files.chain(name), "-usage", usage)
    assert expected in told
    assert code == (0 if expected == "ok" else 3)


@needs_go
@pytest.mark.parametrize(
    ("own", "expects", "told"),
    [
        ("ratings", REVIEWS, "ok"),
        ("ratings", RATINGS, f"refused: it is {REVIEWS}"),
        ("expired", REVIEWS, "refused: remote error: tls:"),
        ("self-made", REVIEWS, "refused: remote error: tls:"),
        ("beyond its name constraint", REVIEWS, "refused: remote error: tls:"),
    ],
)
def test_a_go_client_and_an_openssl_server_meet(
    files: Files, go_client: str, served: int, own: str, expects: str, told: str
) -> None:
    pair = ("-chain", files.chain(own), "-key", files.key(own))
    _, said = ran(go_client, "-roots", files.roots, "-id", expects, "-connect", f"127.0.0.1:{served}", *pair)
    assert told in said


@needs_openssl
@pytest.mark.parametrize(
    ("name", "purpose", "expected"),
    [
        ("reviews", "sslserver", "OK"),
        ("reviews", "sslclient", "OK"),
        ("expired", "sslclient", "certificate has expired"),
        ("self-made", "sslclient", "unable to get"),
        ("foreign", "sslclient", "unable to get"),
        ("beyond its name constraint", "sslclient", "permitted subtree violation"),
        ("web server", "sslclient", "unsuitable certificate purpose"),
    ],
)
def test_openssl_verifies_a_chain(files: Files, name: str, purpose: str, expected: str) -> None:
    chain = files.chain(name)
    assert OPENSSL is not None
    code, told = ran(
        *(OPENSSL, "verify", "-x509_strict", "-purpose", purpose),
        *("-CAfile", files.roots, "-untrusted", chain, chain),
    )
    assert expected in told
    assert (code == 0) == (expected == "OK")


@needs_openssl
def test_openssl_reads_one_uri_and_nothing_else(files: Files) -> None:
    assert OPENSSL is not None
    _, told = ran(OPENSSL, "x509", "-in", files.chain("reviews"), "-noout", "-ext", "subjectAltName")
    assert told.split("\n")[1].strip() == f"URI:{REVIEWS}"


@needs_openssl
def test_an_openssl_client_is_served(files: Files, served: int) -> None:
    assert OPENSSL is not None
    code, told = ran(
        *(OPENSSL, "s_client", "-connect", f"127.0.0.1:{served}", "-brief", "-verify_return_error"),
        *("-CAfile", files.roots, "-cert", files.chain("ratings"), "-cert_chain", files.chain("ratings")),
        *("-key", files.key("ratings")),
    )
    assert "Verification: OK" in told
    assert code == 0

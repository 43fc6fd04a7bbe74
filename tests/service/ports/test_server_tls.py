"""TLS of the gRPC port: mTLS, rotation without a restart, broken files."""

import os
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from authz.core.errors import SettingsError
from authz.service.ports.server_tls import ServerCertificate
from authz.service.server import CheckServer
from tests.service.messages import check_request, response
from tests.service.running import check_call, refuse
from tests.service.test_check_function import ALLOW_OPEN, function


class Pair:
    """A certificate with its key; one that signs itself is a CA."""

    def __init__(self, name: str, by: "Pair | None" = None, began: datetime | None = None, *, spiffe: str = "") -> None:
        names: list[x509.GeneralName] = [x509.IPAddress(IPv4Address("127.0.0.1"))]
        names += [x509.UniformResourceIdentifier(spiffe)] if spiffe else []
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = by or self
        now = began or datetime.now(UTC)
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(self.name)
            .issuer_name(issuer.name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=by is None, path_length=None), critical=True)
            .sign(issuer.key, hashes.SHA256())
        )

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def write(self, folder: Path) -> None:
        """As files are rotated: written aside, then renamed."""
        for name, data in (("tls.key", self.key_pem), ("tls.crt", self.pem)):
            (folder / "aside").write_bytes(data)
            (folder / "aside").rename(folder / name)


@pytest.fixture(scope="module")
def authority() -> Pair:
    return Pair("ca")


async def ask(address: str, root: Pair, client: Pair | None = None) -> int:
    """Check once on a connection of its own; the answer's status code."""
    credentials = grpc.ssl_channel_credentials(
        root.pem, client.key_pem if client else None, client.pem if client else None
    )
    async with grpc.aio.secure_channel(
        address, credentials, options=[("grpc.use_local_subchannel_pool", 1)]
    ) as channel:
        return response(await check_call(channel)(check_request(path="/open"))).status.code


async def test_clients_need_a_certificate_where_a_bundle_is_given(tmp_path: Path, authority: Pair) -> None:
    Pair("server", authority).write(tmp_path)
    (tmp_path / "ca.crt").write_bytes(authority.pem)
    files = ServerCertificate(tmp_path / "tls.crt", tmp_path / "tls.key", tmp_path / "ca.crt")
    server = CheckServer(function(ALLOW_OPEN), refuse, max_message_bytes=1 << 20, credentials=files.credentials())
    await server.start(["127.0.0.1:0"])
    address = server.addresses[0]
    try:
        assert await ask(address, authority, Pair("client", authority)) == 0
        for stranger in (None, Pair("client", Pair("other ca"))):
            with pytest.raises(grpc.aio.AioRpcError):
                await ask(address, authority, stranger)
    finally:
        await server.stop()


async def test_a_new_bundle_for_clients_is_in_force_without_a_restart(tmp_path: Path, authority: Pair) -> None:
    """As a root is rotated: first both are trusted, then only the new one."""
    Pair("server", authority).write(tmp_path)
    (tmp_path / "ca.crt").write_bytes(authority.pem)
    files = ServerCertificate(tmp_path / "tls.crt", tmp_path / "tls.key", tmp_path / "ca.crt")
    server = CheckServer(function(ALLOW_OPEN), refuse, max_message_bytes=1 << 20, credentials=files.credentials())
    await server.start(["127.0.0.1:0"])
    address, following = server.addresses[0], Pair("following ca")
    old, new = Pair("client", authority), Pair("client", following)
    try:
        for trusted, is_old, is_new in (((authority,), True, False), ((authority, following), True, True),
                                        ((following,), False, True)):  # fmt: skip
            (tmp_path / "ca.crt").write_bytes(b"".join(pair.pem for pair in trusted))
            for client, is_served in ((old, is_old), (new, is_new)):
                if is_served:
                    assert await ask(address, authority, client) == 0
                    continue
                with pytest.raises(grpc.aio.AioRpcError):
                    await ask(address, authority, client)
        (tmp_path / "ca.crt").write_bytes(b"nonsense")
        assert await ask(address, authority, new) == 0, "a broken bundle keeps the last good one"
        assert files.problem.endswith("ca.crt` cannot be used as they are now: no certificate or crl found")
        (tmp_path / "ca.crt").write_bytes(following.pem)
        assert await ask(address, authority, new) == 0
        assert files.problem == ""
    finally:
        await server.stop()


async def test_a_new_certificate_is_served_without_a_restart(
    tmp_path: Path, authority: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    Pair("server", authority).write(tmp_path)
    files = ServerCertificate(tmp_path / "tls.crt", tmp_path / "tls.key")
    server = CheckServer(function(ALLOW_OPEN), refuse, max_message_bytes=1 << 20, credentials=files.credentials())
    await server.start(["127.0.0.1:0"])
    address = server.addresses[0]
    next_authority = Pair("next ca")
    try:
        assert await ask(address, authority) == 0
        (tmp_path / "tls.key").write_bytes(Pair("other").key_pem)
        assert await ask(address, authority) == 0, "a broken pair keeps the last good one"
        assert "the server certificate was not replaced" in caplog.text
        Pair("server", next_authority).write(tmp_path)
        assert await ask(address, next_authority) == 0
        with pytest.raises(grpc.aio.AioRpcError):
            await ask(address, authority)
    finally:
        await server.stop()


@pytest.mark.parametrize("broken", ["tls.crt", "tls.key"])
@pytest.mark.parametrize("how", ["missing", "nonsense"])
def test_files_that_cannot_be_used_stop_the_start(tmp_path: Path, authority: Pair, broken: str, how: str) -> None:
    Pair("server", authority).write(tmp_path)
    if how == "missing":
        os.unlink(tmp_path / broken)
    else:
        (tmp_path / broken).write_text("nonsense")
    with pytest.raises(SettingsError, match="are not a usable certificate"):
        ServerCertificate(tmp_path / "tls.crt", tmp_path / "tls.key")

"""Mutual TLS of the server's own port: a sidecar asks for itself, whichever server answers."""

import json
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from authz.core.spiffe import SpiffeId
from authz.identity.ca import BUNDLE_FILE, INTERMEDIATES_FILE, CertificateAuthority
from authz.identity.secret_files import write_secret_files
from tests.service.messages import CALLER, OWN, check_request, peer, response, told
from tests.service.ports.test_handshakes import _write
from tests.service.ports.test_server_tls import Pair
from tests.service.running import check_call
from tests.service.test_app import worker, write_policies

NAMED = {"authz/namespace": "shop", "authz/service-account": "api"}


class Svid(Pair):
    """A certificate of an authority with these URIs."""

    def __init__(self, by: Pair, *uris: str) -> None:
        super().__init__("svid", by)
        builder = (
            x509.CertificateBuilder()
            .subject_name(self.name)
            .issuer_name(by.name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.certificate.not_valid_before_utc)
            .not_valid_after(self.certificate.not_valid_after_utc)
        )
        if uris:
            names = [x509.UniformResourceIdentifier(uri) for uri in uris]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        self.certificate = builder.sign(by.key, hashes.SHA256())


@pytest.mark.slow
@pytest.mark.parametrize("server", ["grpcio", "envoy"])
async def test_an_svid_asks_for_its_own_workload_alone(tmp_path: Path, server: str) -> None:
    if server == "envoy":
        pytest.importorskip("pyvoy")
    authority = Pair("authority")
    ca, _ = _write(authority, tmp_path, "ca")
    certificate, key = _write(Pair("server", authority), tmp_path, "server")
    flags = ["--policies", str(write_policies(tmp_path)), "--listen", "127.0.0.1:0", "--server", server]
    tls: dict[str, Any] = {"tls_certificate": certificate, "tls_key": key, "tls_client_ca": ca}
    async with worker(*flags, "--audit", "none", "--drain-delay-seconds", "0", **tls) as service:
        address = await service.says(r"listening (127[^\s,]+)")
        await service.says("health is SERVING" if server == "grpcio" else "workers serve")

        async def ask(svid: Pair, message: bytes, *metadata: tuple[str, str]) -> tuple[int, str]:
            pem = serialization.Encoding.PEM
            own_key = svid.key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
            credentials = grpc.ssl_channel_credentials(ca.read_bytes(), own_key, svid.certificate.public_bytes(pem))
            async with grpc.aio.secure_channel(address, credentials) as channel:
                if not metadata:
                    answer = response(await check_call(channel)(message))
                else:
                    method = "/envoy.service.auth.v3.Authorization/Check"
                    call = channel.unary_unary(method, request_serializer=bytes, response_deserializer=bytes)
                    answer = response(await call(message, metadata=metadata))
            return answer.status.code, str(told(answer)["stage"])

        mtls = check_request(path="/open")
        plaintext = check_request(path="/open", destination=peer("", "10.1.0.5", 8080, NAMED))
        own, other = Svid(authority, OWN), Svid(authority, CALLER)
        forged = ("x-forwarded-client-cert", f"URI={OWN}")
        for message in (mtls, plaintext):
            assert await ask(own, message) == (0, "allow")
            assert await ask(other, message) == (7, "identity")
            assert await ask(other, message, forged) == (7, "identity")
            assert await ask(Svid(authority, OWN, CALLER), message) == (7, "identity")
            assert await ask(Svid(authority), message) == (0, "allow")  # no SPIFFE ID: nothing to compare


@pytest.mark.slow
@pytest.mark.parametrize("server", ["grpcio", "envoy"])
async def test_a_revoked_caller_is_answered_no_more_on_the_connection_it_has(tmp_path: Path, server: str) -> None:
    if server == "envoy":
        pytest.importorskip("pyvoy")
    now = time.time()
    authority = CertificateAuthority.create("cluster.local", now)
    authority.save(tmp_path / "ca")
    ca = tmp_path / "ca" / BUNDLE_FILE
    server_id = SpiffeId.parse("spiffe://cluster.local/authz/server")
    own = authority.issue_svid(server_id, now, dns=("localhost",))
    certificate, key = write_secret_files(tmp_path / "own", "tls", own.chain_pem, own.key_pem)
    revoked = tmp_path / "revoked.txt"
    revoked.write_text("# nobody\n")
    flags = ["--policies", str(write_policies(tmp_path)), "--listen", "127.0.0.1:0", "--server", server]
    tls: dict[str, Any] = {"tls_certificate": certificate, "tls_key": key, "tls_client_ca": ca}
    flags += [
        "--peer-certificate",
        "optional",
        "--peer-trust-bundles",
        json.dumps({"cluster.local": f"{ca},{tmp_path / 'ca' / INTERMEDIATES_FILE}"}),
    ]
    flags += ["--peer-revocations", str(revoked), "--audit", "none", "--drain-delay-seconds", "0"]
    async with worker(*flags, **tls) as service:
        address = await service.says(r"listening (127[^\s,]+)")
        port = address.rpartition(":")[2]
        await service.says("health is SERVING" if server == "grpcio" else "workers serve")
        svid = authority.issue_svid(SpiffeId.parse(OWN), now)
        credentials = grpc.ssl_channel_credentials(ca.read_bytes(), svid.key_pem, svid.chain_pem)
        message = check_request(path="/open", destination=peer("", "10.1.0.5", 8080, NAMED))
        async with grpc.aio.secure_channel(f"localhost:{port}", credentials) as channel:
            assert response(await check_call(channel)(message)).status.code == 0
            revoked.write_text(f"{OWN}\n")
            await service.says("trust bundles and revocations are in force as they are now")
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await check_call(channel)(message)
            assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED
            assert "revo" in str(raised.value.details())

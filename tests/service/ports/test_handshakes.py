"""Refused TLS handshakes leave a trace: at the gRPC port and at HTTPS of the operator's side."""

import asyncio
import socket
import ssl
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives import serialization

from tests.service.ports.test_server_tls import Pair
from tests.service.test_app import worker, write_policies


def _write(pair: Pair, folder: Path, name: str) -> tuple[Path, Path]:
    certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
    certificate.write_bytes(pair.certificate.public_bytes(serialization.Encoding.PEM))
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    key.write_bytes(pair.key.private_bytes(pem, pkcs8, serialization.NoEncryption()))
    return certificate, key


def _knock(address: str, trust: Path, own: tuple[Path, Path] | None, protocol: str) -> None:
    """Shake hands and read, which is when a client of TLS 1.3 learns of a refusal."""
    context = ssl.create_default_context(cafile=str(trust))
    context.check_hostname = False
    context.set_alpn_protocols([protocol])
    if own is not None:
        context.load_cert_chain(*own)
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as raw:
        try:
            with context.wrap_socket(raw) as secure:
                assert not secure.recv(10), "it was let in"
        except OSError:
            return


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
async def test_refused_handshakes_are_counted_and_logged(tmp_path: Path, workers: str) -> None:
    authority = Pair("authority")
    ca, _ = _write(authority, tmp_path, "ca")
    certificate, key = _write(Pair("server", authority), tmp_path, "server")
    own = _write(Pair("client", authority), tmp_path, "client")
    stranger = _write(Pair("stranger"), tmp_path, "stranger")
    flags = ["--policies", str(write_policies(tmp_path)), "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
    flags += ["--workers", workers, "--server", "grpcio", "--drain-delay-seconds", "0"]
    tls: dict[str, Any] = {"tls_certificate": certificate, "tls_key": key, "tls_client_ca": ca}
    async with worker(*flags, **tls, **{f"admin_{name}": file for name, file in tls.items()}) as service:
        if workers == "1":
            address, admin = (
                await service.says(r"listening (127[^\s,]+)"),
                await service.says(r"admin     (\S+)/healthz"),
            )
            await service.says("health is SERVING")
        else:
            admin = await service.says(r"admin     (\S+)/healthz")
            address = await service.says(r"listening (127[^\s,]+)")
            await service.says("workers serve")
        await asyncio.to_thread(_knock, address, ca, None, "h2")
        assert "peer did not return a certificate" in await service.says(r"gRPC port: TLS handshake \d+ refused: .*")
        await asyncio.to_thread(_knock, address, ca, stranger, "h2")
        assert "certificate verify failed: self" in await service.says(r"gRPC port: TLS handshake \d+ refused: .*")
        await asyncio.to_thread(_knock, admin.removeprefix("https://"), ca, None, "http/1.1")
        assert "peer did not return" in await service.says(r"admin port: TLS handshake \d+ refused: .*")
        context = ssl.create_default_context(cafile=str(ca))
        context.load_cert_chain(*own)
        async with httpx.AsyncClient(verify=context, trust_env=False) as client:
            page = (await client.get(f"{admin}/metrics")).text
        counted = [line for line in page.splitlines() if line.startswith("authz_tls_handshakes_refused_total")]
        assert sum(float(line.rpartition(" ")[2]) for line in counted) == (3 if workers == "1" else 2)


@pytest.mark.slow
async def test_handshakes_that_a_hosting_envoy_refuses_are_counted_and_logged(tmp_path: Path) -> None:
    pytest.importorskip("pyvoy")
    authority = Pair("authority")
    ca, _ = _write(authority, tmp_path, "ca")
    certificate, key = _write(Pair("server", authority), tmp_path, "server")
    stranger = _write(Pair("stranger"), tmp_path, "stranger")
    flags = ["--policies", str(write_policies(tmp_path)), "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
    tls: dict[str, Any] = {"tls_certificate": certificate, "tls_key": key, "tls_client_ca": ca}
    async with worker(*flags, "--server", "envoy", "--drain-delay-seconds", "0", **tls) as service:
        admin = await service.says(r"admin     (\S+)/healthz")
        address = await service.says(r"listening (127[^\s,]+)")
        await service.says("workers serve")
        for own, protocol, reason in (
            (None, "h2", "did not return a certificate .Envoy's fail_verify_no_cert"),
            (stranger, "h2", "not vouched for, or not valid now .Envoy's fail_verify_error"),
        ):
            await asyncio.to_thread(_knock, address, ca, own, protocol)
            await service.says(rf"gRPC port: TLS handshake \d+ refused: .*{reason}")
        with socket.create_connection((address.rpartition(":")[0], int(address.rpartition(":")[2])), timeout=10) as raw:
            raw.sendall(b"GET / HTTP/1.1\r\n\r\n")
            await asyncio.to_thread(raw.recv, 10)
        await service.says(r"gRPC port: TLS handshake 3 refused: no TLS, .*Envoy's connection_error")
        async with httpx.AsyncClient(trust_env=False) as client:
            page = (await client.get(f"{admin}/metrics")).text
        counted = [line for line in page.splitlines() if line.startswith("authz_tls_handshakes_refused_total")]
        assert sum(float(line.rpartition(" ")[2]) for line in counted) == 3

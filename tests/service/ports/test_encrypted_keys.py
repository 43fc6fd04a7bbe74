"""Wherever a private key is read, an encrypted one is an error that names the file; nobody is asked for anything."""

import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from authz.audit.trail import AuditTrail
from authz.cli.status import _tls
from authz.core.errors import SettingsError
from authz.identity.secret_files import read_secret
from authz.service.ports.http import make_admin_server
from authz.service.ports.server_tls import ServerCertificate
from authz.service.recording import make_tracer, make_trail
from authz.settings.audit_section import AuditSettings
from authz.settings.sections import AdminSettings, OtlpSettings
from authz.settings.settings import Settings
from authz.telemetry.counters import Telemetry
from tests.service.ports.test_server_tls import Pair


async def _app(*_: object) -> None:
    raise AssertionError("nobody asks")


def _trail(settings: Settings) -> AuditTrail:
    otlp = OtlpSettings.of(settings)
    return make_trail(AuditSettings.of(settings), otlp, None, Telemetry(), make_tracer(otlp), lambda: None, None)  # type: ignore[arg-type]


DOORS: dict[str, Callable[[Path, Path], object]] = {
    "server": lambda certificate, key: ServerCertificate(certificate, key),
    "admin": lambda certificate, key: make_admin_server(
        _app,
        AdminSettings("127.0.0.1:0", None, certificate, key, certificate, ()),
    ),
    "otlp": lambda certificate, key: make_tracer(
        OtlpSettings.of(Settings(otlp_endpoint="https://127.0.0.1:1", otlp_certificate=certificate, otlp_key=key))
    ),
    "audit": lambda certificate, key: _trail(
        Settings(audit=(f"file:{key}.jsonl",), audit_chain="on", audit_signing_key=key)
    ),
    "status": lambda certificate, key: _tls(certificate, certificate, key),
    "authority": lambda certificate, key: read_secret(key),
}


@pytest.mark.parametrize("door", DOORS)
def test_an_encrypted_key_is_an_error_that_names_it(door: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Pair("me")
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    certificate.write_bytes(pair.certificate.public_bytes(serialization.Encoding.PEM))
    encryption = serialization.BestAvailableEncryption(b"secret")
    key.write_bytes(pair.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption))
    key.chmod(0o600)
    with pytest.raises((SettingsError, OSError, ValueError), match=r"(?s)encrypted") as caught:
        DOORS[door](certificate, key)
    assert str(key) in str(caught.value)
    assert "openssl pkey" in str(caught.value)
    assert not isinstance(caught.value, ssl.SSLError)

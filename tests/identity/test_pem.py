"""Encrypted private keys are told from others, and refused by name."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from authz.identity.pem import refuse_encrypted_key

KEY = ec.generate_private_key(ec.SECP256R1())
PASSWORD = serialization.BestAvailableEncryption(b"secret")


@pytest.mark.parametrize("form", [serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL])
def test_an_encrypted_key_is_refused_and_the_file_is_named(tmp_path: Path, form: serialization.PrivateFormat) -> None:
    file = tmp_path / "tls.key"
    file.write_bytes(KEY.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    refuse_encrypted_key(file)
    file.write_bytes(KEY.private_bytes(serialization.Encoding.PEM, form, PASSWORD))
    with pytest.raises(OSError, match=f"`{file}` is encrypted.*openssl pkey"):
        refuse_encrypted_key(file)

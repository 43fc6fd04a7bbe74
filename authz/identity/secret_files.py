"""
Secrets on disk: created 0600, never seen half-written, renamed into place (XA-149 to XA-151).

Envoy follows renames only (XA-150), and a certificate that is renamed before its key fails to load for a moment
(XA-151), so the key goes first.
"""

import os
from pathlib import Path

from authz.identity.pem import encrypted_key, is_encrypted_key

SECRET_MODE = 0o600
PUBLIC_MODE = 0o644
FILE_NAME = "tls"
"""``tls.crt`` and ``tls.key``, as in a Secret of Kubernetes."""


def write_file(path: Path, data: bytes, mode: int = PUBLIC_MODE) -> None:
    """
    Replace ``path`` whole by rename. The new file has ``mode`` from the moment it exists.

    Raises OSError.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    try:
        os.fchmod(descriptor, mode)  # the umask may have taken away the group's right to read public files
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_secret_files(directory: Path, name: str, chain_pem: bytes, key_pem: bytes) -> tuple[Path, Path]:
    """
    Write ``<name>.key`` (0600) and then ``<name>.crt``, each by rename, and return (certificate, key) paths.

    The directory is made (0700) when it is missing. Raises OSError.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    certificate, key = directory / f"{name}.crt", directory / f"{name}.key"
    write_file(key, key_pem, SECRET_MODE)
    write_file(certificate, chain_pem)
    return certificate, key


def read_secret(path: Path) -> bytes:
    """
    Read a private key's file. Raises ValueError when others may read it or it is encrypted, OSError.

    The mode is taken from the opened file, so that it cannot be exchanged in between.
    """
    descriptor = os.open(path, os.O_RDONLY)
    with os.fdopen(descriptor, "rb") as file:
        mode = os.fstat(descriptor).st_mode & 0o777
        if mode & 0o077:
            raise ValueError(f"`{path}` is a private key that others may read (mode {mode:04o}); run chmod 600")
        found = file.read()
    if is_encrypted_key(found):
        raise ValueError(encrypted_key(path))
    return found

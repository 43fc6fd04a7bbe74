"""Tell, without a library, whether the private key in a PEM file is encrypted, and what stands in the blocks of one."""

import base64
import errno
import re
from pathlib import Path

_BLOCK = re.compile(rb"-----BEGIN ([^-]+)-----(.*?)-----END \1-----", re.DOTALL)
_ENCRYPTED = (b"BEGIN ENCRYPTED PRIVATE KEY", b"Proc-Type: 4,ENCRYPTED")


def is_encrypted_key(pem: bytes) -> bool:
    """PKCS#8 says so in its first line, the older forms in a header."""
    return any(mark in pem for mark in _ENCRYPTED)


def read_pem(pem: bytes) -> bytes:
    """The DER of every block, one after the other, as the SPIFFE Workload API wants it. For what we wrote ourselves."""
    return b"".join(base64.b64decode(block[2]) for block in _BLOCK.finditer(pem))


def refuse_encrypted_key(file: Path | str) -> None:
    """
    Refuse a file with an encrypted key: libraries would ask for its pass phrase on the terminal.

    Raises:
        OSError: its ``strerror`` names the file and says what to do; or the file cannot be read.
    """
    if is_encrypted_key(Path(file).read_bytes()):
        raise OSError(errno.EINVAL, encrypted_key(file))


def encrypted_key(file: Path | str) -> str:
    """The message about an encrypted key."""
    return (
        f"the private key in `{file}` is encrypted, and nobody is asked for a pass phrase: write it without one, "
        f"`openssl pkey -in {file} -out PLAIN.key`, readable by this user alone"
    )

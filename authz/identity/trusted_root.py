"""
A root that is trusted here although this authority has no intermediate below it yet: somebody else prepared it.

    <directory>/<id>/root.crt
    <directory>/<id>/awaited.key      of the intermediate that was asked for
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from authz.identity.authority import root_id
from authz.identity.keys import PrivateKey, read_key, write_key
from authz.identity.secret_files import SECRET_MODE, read_secret, write_file

AWAITED_KEY = "awaited.key"


@dataclass(frozen=True, slots=True)
class TrustedRoot:
    """The root, and the key of the intermediate that this authority wants below it."""

    root: x509.Certificate
    key: PrivateKey = field(repr=False)

    @property
    def id(self) -> str:
        """As of an authority below it."""
        return root_id(self.root)

    @property
    def awaited(self) -> str:
        """The public key, as PEM, for which the holder of the root's key is asked for an intermediate."""
        return self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def write_trusted_roots(directory: Path, roots: Iterable[TrustedRoot]) -> None:
    """Write each to its directory, the key first. Raises OSError."""
    for one in roots:
        place = directory / one.id
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_file(place / AWAITED_KEY, write_key(one.key), SECRET_MODE)
        write_file(place / "root.crt", one.root.public_bytes(Encoding.PEM))


def read_trusted_root(place: Path) -> TrustedRoot:
    """Read one. Raises ValueError, OSError."""
    root = x509.load_pem_x509_certificate((place / "root.crt").read_bytes())
    if root_id(root) != place.name:
        raise ValueError(f"`{place}` holds the root `{root_id(root)}`, not `{place.name}`")
    return TrustedRoot(root, read_key(read_secret(place / AWAITED_KEY)))

"""Key sets in the truth: a bucket as ``KeyStore`` of ``sources.keys`` has it, beside those of other roles."""

from collections.abc import Mapping
from typing import Any, Protocol

from authz.core.errors import AuthzError
from authz.truth.truth_bucket import KEY_SETS, TruthBucket
from authz.truth.truth_client import TruthChanged, TruthClient

FIRST_SECONDS = 1.0
"""For the first connection: a server that starts asks the others before it asks the issuer."""


class DocumentSeal(Protocol):
    """Signs by the certificate of this server; both methods may raise OSError, too, for its files."""

    def seal(self, payload: Mapping[str, Any]) -> bytes:
        """As ``KeyStore.seal``."""

    def unseal(self, data: bytes, now: float) -> Mapping[str, Any]:
        """As ``KeyStore.unseal``."""


class TruthKeyStore:
    """The key sets of servers that have one SPIFFE ID."""

    def __init__(self, client: TruthClient, signing: DocumentSeal, *, among: str = "", is_lent: bool = False) -> None:
        """
        Begin to connect.

        Args:
            client: whose answers are waited for.
            signing: of those who share these key sets.
            among: a name for them, where others with another SPIFFE ID keep key sets there, too: none believes the
                other's, and each would fetch what the other replaced.
            is_lent: the client is somebody else's, who stops it.
        """
        self._client = client
        self._bucket = TruthBucket(client, KEY_SETS)
        self._signing = signing
        self._before = f"{among}." if among else ""
        self._is_lent = is_lent
        self._is_first = True
        client.begin()

    def get(self, name: str) -> tuple[bytes, int] | None:
        """As ``KeyStore.get``."""
        if self._is_first:
            self._client.wait(FIRST_SECONDS)
            self._is_first = False
        entry = self._bucket.get(self._before + name)
        return (entry.value, entry.revision) if entry is not None else None

    def change(self, name: str, value: bytes, revision: int) -> bool:
        """As ``KeyStore.change``."""
        try:
            self._bucket.update(self._before + name, value, revision)
        except TruthChanged:
            return False
        return True

    def put(self, name: str, value: bytes) -> object:
        """As ``KeyStore.put``."""
        return self._bucket.put(self._before + name, value)

    def seal(self, payload: Mapping[str, Any]) -> bytes:
        """As ``KeyStore.seal``."""
        try:
            return self._signing.seal(payload)
        except OSError as error:
            raise AuthzError(f"the certificate of this server: {error}") from error

    def unseal(self, data: bytes, now: float) -> Mapping[str, Any]:
        """As ``KeyStore.unseal``."""
        try:
            return self._signing.unseal(data, now)
        except OSError as error:
            raise AuthzError(f"the certificate of this server: {error}") from error

    def close(self) -> None:
        """As ``KeyStore.close``."""
        if not self._is_lent:
            self._client.stop()

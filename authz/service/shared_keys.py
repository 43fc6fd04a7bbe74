"""
Key sets that are shared by the truth of a fleet: where they are kept, and who may write them.

INVARIANT: whoever can write to the truth, or is one of its servers, cannot make a key that is believed. A set is taken
only with the signature of a server that has the same SPIFFE ID as this one, by a certificate that ``truth_ca`` vouches
for and that is valid now. The servers of NATS have certificates of that authority, too, with an ID of their own.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from authz.core.errors import AuthzError, SettingsError
from authz.identity.peer_seal import PeerSeal
from authz.service.truth_connection import truth_client
from authz.settings.sections import KeySettings, TruthSettings
from authz.sources.keys.http_proxy import Proxies
from authz.sources.keys.key_sharing import KeySharing
from authz.sources.keys.source import KeySource
from authz.tokens.jwks import KeySet, read_key_set
from authz.tokens.key_sets import KeySetState

if TYPE_CHECKING:
    from authz.truth.truth_client import TruthClient

_KIND = "key set"
FIRST_SECONDS = 1.0
"""For the first connection: a server that starts asks the others before it asks the issuer."""


def make_key_source(
    keys: KeySettings, truth: TruthSettings, clock: Callable[[], float], proxies: Proxies
) -> KeySource[KeySet, KeySetState]:
    """Make what fetches key sets as the settings say. Raises SettingsError."""
    return KeySource[KeySet, KeySetState](
        read_key_set,
        KeySetState,
        clock=clock,
        refresh_seconds=keys.refresh_seconds,
        ca_bundles=keys.ca_bundles,
        proxies=proxies,
        sharing=key_sharing(keys, truth, clock),
    )


def key_sharing(keys: KeySettings, truth: TruthSettings, clock: Callable[[], float]) -> KeySharing | None:
    """
    What a server shares its key sets by; None without the setting.

    Raises:
        SettingsError: names the setting.
    """
    if not keys.shared:
        return None
    if truth.ca is None or truth.certificate is None or truth.key is None:
        raise SettingsError(
            "setting `jwks_shared`: key sets are taken only with the signature of a server of the fleet, which needs "
            "`truth_ca`, `truth_certificate` and `truth_key`"
        )
    client = truth_client("jwks_shared", keys.shared, truth)
    try:
        signing = PeerSeal(_KIND, truth.ca, truth.certificate, truth.key)
        signing.seal({})
    except (AuthzError, OSError) as error:
        client.stop()
        raise SettingsError(f"setting `jwks_shared`: {error}") from error
    return KeySharing(TruthKeyStore(client, signing), clock=clock)


class TruthKeyStore:
    """A bucket of the truth, as ``KeyStore`` has it."""

    def __init__(self, client: "TruthClient", signing: PeerSeal) -> None:
        """Begin to connect."""
        from authz.truth.truth_bucket import KEY_SETS, TruthBucket

        self._client = client
        self._bucket = TruthBucket(client, KEY_SETS)
        self._signing = signing
        self._is_first = True
        client.begin()

    def get(self, name: str) -> tuple[bytes, int] | None:
        """As ``KeyStore.get``."""
        if self._is_first:
            self._client.wait(FIRST_SECONDS)
            self._is_first = False
        entry = self._bucket.get(name)
        return (entry.value, entry.revision) if entry is not None else None

    def change(self, name: str, value: bytes, revision: int) -> bool:
        """As ``KeyStore.change``."""
        from authz.truth.truth_client import TruthChanged

        try:
            self._bucket.update(name, value, revision)
        except TruthChanged:
            return False
        return True

    def put(self, name: str, value: bytes) -> object:
        """As ``KeyStore.put``."""
        return self._bucket.put(name, value)

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
        self._client.stop()

"""
Key sets that are shared by the truth of a fleet: where they are kept, and who may write them.

INVARIANT: whoever can write to the truth, or is one of its servers, cannot make a key that is believed. A set is taken
only with the signature of a server that has the same SPIFFE ID as this one, by a certificate that ``truth_ca`` vouches
for and that is valid now. The servers of NATS have certificates of that authority, too, with an ID of their own.
"""

from collections.abc import Callable

from authz.core.errors import AuthzError, SettingsError
from authz.identity.peer_seal import PeerSeal
from authz.service.truth_connection import truth_client
from authz.settings.sections import KeySettings, TruthSettings
from authz.sources.keys.http_proxy import Proxies
from authz.sources.keys.key_sharing import KeySharing
from authz.sources.keys.source import KeySource
from authz.tokens.jwks import KeySet, read_key_set
from authz.tokens.key_sets import KeySetState

_KIND = "key set"


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
    from authz.truth.truth_key_store import TruthKeyStore  # nats is an extra, and there by now

    return KeySharing(TruthKeyStore(client, signing), clock=clock)

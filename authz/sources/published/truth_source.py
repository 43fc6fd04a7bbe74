"""The bundle in force in the truth of a fleet: heard of at once, fetched by its digest, and judged as any other."""

from collections.abc import Callable

from authz.bundles.packing import MAX_PACKED_BYTES
from authz.core.errors import FetchError
from authz.sources.published.bundle_source import BundleTrust
from authz.sources.published.delivery import Delivery, NotTaken, TakenRevision
from authz.truth.policy_head import DamagedHead
from authz.truth.policy_revisions import PolicyRevisions
from authz.truth.truth_address import TruthAccess, TruthAddress
from authz.truth.truth_client import TruthAway, TruthClient, TruthRefused

BEGIN_SECONDS = 5.0
"""For the first connection; from then on the client reconnects beside the askings."""
AWAY_SECONDS = 5.0
"""
Between askings of a truth that is away. A client whose server was cut off from the others stays connected to it, and is
not told when there is a majority again; what was pushed meanwhile is not told again, either.
"""


class TruthSource:
    """``PolicySource`` of the truth. While it is away every asking fails at once."""

    away_seconds: float | None = AWAY_SECONDS

    def __init__(self, address: TruthAddress, access: TruthAccess, trust: BundleTrust) -> None:
        """
        Nothing is asked yet.

        Raises:
            SettingsError: address and access do not fit, or a file cannot be used.
        """
        self._trust = trust
        self._address = address
        self._client = TruthClient(address, access, name="authz policies")
        self.revisions = PolicyRevisions(self._client)
        """What is asked."""
        self._is_begun = False

    def ask(self, last: TakenRevision | None, allowed: str, tag: str, now: float) -> Delivery | None:
        """As ``PolicySource``; the tag is the digest of the archive."""
        if not self._is_begun:
            self._is_begun = True
            self._client.begin()
            self._client.wait(BEGIN_SECONDS)
        try:
            found = self.revisions.head()
            if found is None:
                raise FetchError(f"{self._address}: nothing was pushed yet: `authz policies push` does")
            head = found.head
            if head.digest == tag:
                return None
            data = self.revisions.archive(head, MAX_PACKED_BYTES)
        except TruthAway as error:
            raise FetchError(str(error)) from error
        except (TruthRefused, DamagedHead) as error:
            raise NotTaken(str(error)) from error
        delivery = self._trust.judge(data, last, allowed, head.digest, now)
        if delivery.revision.number != head.number:
            raise NotTaken(f"the head says revision {head.number}, and its bundle is {delivery.revision.number}")
        return delivery

    def restore(self, kept: bytes | None, last: TakenRevision | None, now: float) -> Delivery | None:
        """As ``PolicySource``; what was taken last is as old as it is."""
        return None if kept is None else self._trust.judge(kept, last, "", "", now)

    def watch(self, wake: Callable[[], None]) -> None:
        """As ``PolicySource``."""
        self.revisions.watch(wake)

    def stop(self) -> None:
        """End the connection."""
        self._client.stop()

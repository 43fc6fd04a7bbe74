"""
What the authority hands out through any service: SVIDs on their shelves, trust bundles, and who is told of changes.

The services (``sds``, ``workload_api``) are shells around it: each open stream is a ``Listener`` that is woken when it
may have something new. Everything runs on one event loop.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Protocol

from authz.core.spiffe import TrustDomain
from authz.identity.authority import AuthorityState
from authz.identity.bundle import Bundles, TrustBundle
from authz.identity.jwt_shelf import JwtShelf
from authz.identity.registrar import Registrar
from authz.identity.registration import Evidence, SvidPeer
from authz.identity.renewal import Holder, Shelf

log = logging.getLogger(__name__)

MAX_TICK_SECONDS = 1.0
MIN_TICK_SECONDS = 0.02
Clock = Callable[[], float]


class Listener(Protocol):
    """One open stream."""

    @property
    def evidence(self) -> Evidence:
        """Who listens."""

    @property
    def holders(self) -> Iterable[Holder]:
        """The certificates that it wants to have renewed."""

    def wake(self) -> None:
        """Say that something may have changed. Does not wait."""


class Stock:
    """Serves every peer of one registrar, and renews what it gave out as long as somebody listens."""

    def __init__(self, registrar: Registrar, clock: Clock, jitter: Callable[[], float]) -> None:
        self.registrar = registrar
        self.clock = clock
        self.jitter = jitter
        self.shelf = Shelf(registrar, jitter)
        self.jwts = JwtShelf(registrar)
        self.federated: Bundles = {}
        """Bundles of other trust domains; replaced whole by ``replace_federated``."""
        self._listeners: set[Listener] = set()
        self._minded: set[Listener] = set()
        """Those of them that are looked at every second."""

    def replace_federated(self, federated: Iterable[TrustBundle]) -> None:
        """Trust these bundles besides our own, each for its own trust domain."""
        self.federated = {bundle.trust_domain: bundle for bundle in federated}
        self.tell()

    def bundles_for(self, evidence: Evidence) -> dict[TrustDomain, TrustBundle]:
        """Our own bundle first, and those that some entry of the peer federates with."""
        own = self.registrar.trust_bundle
        grants = self.registrar.grants(evidence).values()
        allowed = {domain for grant in grants for domain in grant.federates_with} - {own.trust_domain}
        return {own.trust_domain: own, **{domain: b for domain, b in self.federated.items() if domain in allowed}}

    def listen(self, listener: Listener, *, minds_itself: bool = False) -> None:
        """
        Wake the listener from now on.

        Args:
            listener: the stream.
            minds_itself: whether it wants no certificates and wakes when its own proof expires; there may be thousands.
        """
        self._listeners.add(listener)
        if not minds_itself:
            self._minded.add(listener)

    def leave(self, listener: Listener) -> None:
        """Stop waking it; what nobody else wants is not renewed."""
        self._listeners.discard(listener)
        self._minded.discard(listener)

    def tell(self, renewed: Iterable[Holder] | None = None) -> None:
        """Wake the streams that may have something new: all, or those of the holders given."""
        holders = None if renewed is None else set(renewed)
        for listener in self._listeners if holders is None else self._minded:
            if holders is None or holders & set(listener.holders):
                listener.wake()

    def tick(self, now: float) -> None:
        """Renew what is due, push what was renewed, end the streams whose proof has expired."""
        for listener in self._minded:
            if has_expired(listener.evidence, now):
                listener.wake()
        wanted = {holder for listener in self._minded for holder in listener.holders}
        authorities = self.registrar.ca.authorities
        sound = {a.id for a in authorities if a.state is not AuthorityState.TAINTED}
        condemned = {kept.svid.authority_id for kept in self.shelf.kept.values()} - sound
        renewed = self.shelf.renew_due(now, wanted, condemned)
        if renewed:
            self.tell(renewed)

    async def keep_current(self) -> None:
        """Renew for ever."""
        while True:
            due = self.shelf.next_due()
            pause = MAX_TICK_SECONDS if due is None else due - self.clock()
            await asyncio.sleep(min(MAX_TICK_SECONDS, max(MIN_TICK_SECONDS, pause)))
            try:
                self.tick(self.clock())
            except Exception:  # a renewal that fails must not end all renewals
                log.exception("renewing certificates failed; the old ones stay in use")


def has_expired(evidence: Evidence, now: float) -> bool:
    """Whether the proof itself has expired: the SVID that a stream began with."""
    return isinstance(evidence, SvidPeer) and now >= evidence.expires_at

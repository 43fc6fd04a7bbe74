"""
When to renew, and the SVIDs that are in use: a shelf that is asked with ``now`` and never waits.

A renewal that fails keeps the old certificate and is tried again; what nobody wants any longer is not renewed.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from authz.core.spiffe import SpiffeId
from authz.identity.ca import Issued
from authz.identity.registrar import Refused, Registrar
from authz.identity.registration import Evidence, Grant

JITTER = 0.1
"""Renewals are spread over this share of a life, around its half, so that a mesh does not renew all at once."""
RETRY_SECONDS = 5.0
MIN_RETRY_SECONDS = 0.2

Holder = tuple[Evidence, SpiffeId]
"""Keys are never shared between different peers, even if they hold the same identity."""


def renewal_time(begin: float, end: float, jitter: float) -> float:
    """Half of the life, moved by up to a tenth of it. ``jitter``: a random number from 0 to 1."""
    return begin + (end - begin) * (0.5 + JITTER * (2 * jitter - 1) / 2)


@dataclass(slots=True)
class KeptAnswer:
    """One SVID in use."""

    svid: Issued
    grant: Grant
    """The grant by which it was issued."""
    renew_at: float
    failure: str = ""
    """Why the last renewal failed; empty when it did not."""


class Shelf:
    """The current SVID of every holder."""

    def __init__(self, registrar: Registrar, jitter: Callable[[], float]) -> None:
        self._registrar = registrar
        self._jitter = jitter
        self._kept: dict[Holder, KeptAnswer] = {}

    def get(self, evidence: Evidence, spiffe_id: SpiffeId, now: float) -> Issued | Refused:
        """
        The SVID in use, issued when there is none, and judged again each time: entries and revocations change.

        A changed entry and a revoked serial number replace it at once; for a changed entry the limit may delay that.
        """
        judged = self._registrar.judge(evidence, spiffe_id)
        if isinstance(judged, Refused):
            self._kept.pop((evidence, spiffe_id), None)
            self._registrar.refuse(str(evidence), str(spiffe_id), judged, now)
            return judged
        kept = self._kept.get((evidence, spiffe_id))
        if kept is None or now >= kept.svid.not_after or kept.svid.serial in self._registrar.revocations.serials:
            return self._issue(evidence, spiffe_id, now)
        if kept.grant == judged:
            return kept.svid
        answer = self._issue(evidence, spiffe_id, now)
        return kept.svid if isinstance(answer, Refused) else answer

    def renew_due(self, now: float, wanted: Collection[Holder], condemned: Collection[str] = ()) -> tuple[Holder, ...]:
        """
        Renew what is due, and at once what an authority in ``condemned`` (tainted, gone) signed.

        ``wanted`` is who still listens; the rest is forgotten. Returns whose SVID changed.
        """
        for holder in [holder for holder in self._kept if holder not in wanted]:
            del self._kept[holder]
        renewed = []
        for holder, kept in list(self._kept.items()):
            is_condemned = kept.svid.authority_id in condemned and not kept.failure
            if now < kept.renew_at and not is_condemned:
                continue
            answer = self._issue(*holder, now)
            if isinstance(answer, Refused):
                kept.failure = answer.reason
                kept.renew_at = now + max(MIN_RETRY_SECONDS, min(RETRY_SECONDS, (kept.svid.not_after - now) / 4))
            else:
                renewed.append(holder)
        return tuple(renewed)

    def next_due(self) -> float | None:
        """When ``renew_due`` has something to do, or None."""
        return min((kept.renew_at for kept in self._kept.values()), default=None)

    @property
    def kept(self) -> dict[Holder, KeptAnswer]:
        """List what is in use, for display."""
        return dict(self._kept)

    def _issue(self, evidence: Evidence, spiffe_id: SpiffeId, now: float) -> Issued | Refused:
        answer = self._registrar.issue(evidence, spiffe_id, now)
        grant = self._registrar.judge(evidence, spiffe_id)
        if not isinstance(answer, Refused) and not isinstance(grant, Refused):
            renew_at = renewal_time(answer.not_before, answer.not_after, self._jitter())
            # The cushion before a very short life must not make it due at once: half of what is left is enough.
            renew_at = max(renew_at, now + (answer.not_after - now) * (0.5 - JITTER / 2))
            self._kept[(evidence, spiffe_id)] = KeptAnswer(answer, grant, renew_at)
        return answer

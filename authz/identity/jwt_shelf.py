"""
The JWT-SVIDs in use: a shelf that is asked with ``now``, so that an application may ask for each call it makes.

As spire's agent does, the same question gets the same token until half of its life is over; only what is signed counts
for the limit. Who may have it is judged each time.
"""

from cachetools import LRUCache

from authz.core.spiffe import SpiffeId
from authz.identity.jwt_svid import IssuedJwt
from authz.identity.registrar import JWT_SVID, Refused, Registrar
from authz.identity.registration import Evidence

KEPT_TOKENS = 2_000
"""About 1 kB each, 10 kB with many audiences; beyond, the one unasked for the longest has to be signed again."""
USED_SHARE = 0.5
"""Of a token's life, during which it is handed out: whoever gets it has the other half to use it."""


class JwtShelf:
    """Tokens by who asked for which identity and audience."""

    def __init__(self, registrar: Registrar) -> None:
        self._registrar = registrar
        self._kept: LRUCache[tuple[Evidence, SpiffeId, tuple[str, ...]], IssuedJwt] = LRUCache(KEPT_TOKENS)

    def get(
        self, evidence: Evidence, spiffe_id: SpiffeId, audience: tuple[str, ...], now: float
    ) -> IssuedJwt | Refused:
        """The token in use, signed when there is none that is fresh, or why there is none."""
        grant = self._registrar.judge(evidence, spiffe_id)
        if isinstance(grant, Refused):
            self._registrar.refuse(str(evidence), str(spiffe_id), grant, now, JWT_SVID)
            return grant
        kept = self._kept.get((evidence, spiffe_id, audience))
        if kept is not None and kept.kid in {key.kid for key in self._registrar.jwt_keys.keys}:
            half = min(grant.jwt_ttl_seconds, kept.expires_at - kept.issued_at) * USED_SHARE
            if kept.issued_at <= now < kept.issued_at + half:
                return kept
        answer = self._registrar.issue_jwt(evidence, spiffe_id, audience, now)
        if not isinstance(answer, Refused):
            self._kept[(evidence, spiffe_id, audience)] = answer
        return answer

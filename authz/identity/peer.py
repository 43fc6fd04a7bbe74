"""
The peer's certificate as evidence: Envoy verified it when the connection began; here it is judged on every request.

So expiry, revocation and a changed trust bundle take effect on connections that live on (XA-159). Envoy sends only the
leaf (XA-35): the bundles must hold the intermediates.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import inf

from authz.core.spiffe import SpiffeId
from authz.identity.bundle import Bundles, TrustBundle
from authz.identity.leaf import read_parts
from authz.identity.revocation import NO_REVOCATIONS, Revocations
from authz.identity.svid_validation import Examined, Rejection, examine, read_chain

CACHED_CERTIFICATES = 4096
"""About 1 kB each; one per peer and rotation."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The identity that was found to be in order, valid while ``begin <= now < end``, in seconds since the epoch."""

    principal: str
    begin: float
    end: float

    def holds(self, principal: str, now: float) -> bool:
        """Whether the judgement covers this principal at this time, seconds since the epoch."""
        return self.principal == principal and self.begin <= now < self.end


NO_SVID = Accepted("", -inf, inf)
"""The peer's certificate comes from another kind of authority: nothing here judges it."""
NOBODY = Accepted("", 0.0, 0.0)
"""Plaintext: there is nothing to judge, and nothing to remember."""


def judge_peer(
    certificate_pem: str,
    principal: str,
    bundles: Bundles,
    revocations: Revocations = NO_REVOCATIONS,
    now: float = 0.0,
) -> str | None:
    """
    Judge a peer by its certificate. Never raises.

    Args:
        certificate_pem: PEM of the leaf, percent-decoded; intermediates may follow. Empty: Envoy sent none.
        principal: ``source.principal`` as Envoy states it, with or without ``spiffe://``; empty for plaintext.
        bundles: what is trusted, each bundle for its own trust domain.
        revocations: what is refused before its time.
        now: seconds since the epoch.

    Returns:
        Why the request must be denied, or None. Plaintext (neither certificate nor principal) is None: whether it is
        allowed is a question of PeerAuthentication, not of evidence.

    """
    answer = examine_peer(certificate_pem, principal, bundles, revocations, now)
    return answer if isinstance(answer, str) else None


def examine_peer(
    certificate_pem: str,
    principal: str,
    bundles: Bundles,
    revocations: Revocations = NO_REVOCATIONS,
    now: float = 0.0,
) -> Accepted | str:
    """Judge like ``judge_peer``, and say until when the answer holds, or why the request must be denied."""
    if not certificate_pem:
        return "the peer's certificate was not sent, so its identity has no evidence" if principal else NOBODY
    if not principal:
        return "there is a peer certificate but no peer identity"
    claimed = _parse(principal)
    if isinstance(claimed, str):
        return claimed
    bundle = bundles.get(claimed.trust_domain)
    if bundle is None:
        return f"the trust domain `{claimed.trust_domain}` is not trusted"
    examined = _examine(certificate_pem, bundle)
    if isinstance(examined, Rejection):
        return examined.reason
    if examined.spiffe_id != claimed:
        return f"the peer's certificate is `{examined.spiffe_id}`'s, not `{claimed}`'s"
    rejection = examined.at(now)
    if rejection is not None:
        return rejection.reason
    revoked = revocations.judge(examined.spiffe_id, examined.serial)
    if revoked is not None:
        return revoked
    begin, end = max(w.begin for w in examined.windows), min(w.end for w in examined.windows)
    return Accepted(principal, begin, end)


def spiffe_uri(certificate_pem: str) -> str | Rejection:
    """The first URI of a certificate that looks like a SPIFFE ID, unjudged; empty when there is none. Never raises."""
    chain = read_chain(certificate_pem)
    if isinstance(chain, Rejection):
        return chain
    parts = read_parts(chain[0], "the certificate")
    if isinstance(parts, str):
        return Rejection(parts)
    return next((uri for uri in parts.uris if uri.lower().startswith("spiffe:")), "")


@lru_cache(maxsize=CACHED_CERTIFICATES)
def _examine(certificate_pem: str, bundle: TrustBundle) -> Examined | Rejection:
    """Examine once per certificate and bundle: parsing and signatures cost about a millisecond."""
    return examine(certificate_pem, {bundle.trust_domain: bundle})


@lru_cache(maxsize=CACHED_CERTIFICATES)
def _parse(principal: str) -> SpiffeId | str:
    """The identity, or why there is none."""
    try:
        return SpiffeId.parse(principal if principal.startswith("spiffe://") else f"spiffe://{principal}")
    except ValueError as error:
        return str(error)

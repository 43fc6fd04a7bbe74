"""
The one place where it is decided whether a certificate or a JWT-SVID is signed: evidence, entries, revocations, rate.

Every answer, yes or no, is handed to ``observe``; that record never holds a key or a token.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from cachetools import LRUCache
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding

from authz.core.spiffe import SpiffeId
from authz.identity.bundle import TrustBundle
from authz.identity.ca import CertificateAuthority, Issued
from authz.identity.jwt_keys import JwtKeys
from authz.identity.jwt_svid import IssuedJwt, sign_jwt_svid
from authz.identity.keys import KeyType, PrivateKey, PublicKey, signature_hash
from authz.identity.leaf import weak_key
from authz.identity.registration import Evidence, Grant, RegistrationEntry, SvidPeer, granted
from authz.identity.revocation import NO_REVOCATIONS, Revocations

REMEMBERED_PEERS = 10_000


X509_SVID, JWT_SVID = "x509-svid", "jwt-svid"
"""Kinds of SVIDs in the record."""


class Cause(StrEnum):
    """The kind of a refusal; istiod counts them apart, too."""

    DENIED = "denied"
    """Whoever asks has no proof, no entry, or is revoked."""
    REQUEST = "request"
    """The certificate request cannot be used."""
    LIMIT = "limit"
    """There were too many requests; asking again later may succeed."""
    SIGNING = "signing"
    """Ours: it should have been signed, and could not be."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Why nothing was signed."""

    reason: str
    cause: Cause = Cause.DENIED


@dataclass(frozen=True, slots=True)
class Issuance:
    """The audit record of one request for an SVID."""

    time: float
    evidence: str
    spiffe_id: str
    is_issued: bool
    reason: str = ""
    """Why not; empty when it was issued."""
    cause: str = ""
    """The kind of refusal, ``Cause``; empty when it was issued."""
    serial: int = 0
    not_before: float = 0.0
    not_after: float = 0.0
    authority_id: str = ""
    """The authority, or the ``kid`` of the key that signed a token."""
    kind: str = X509_SVID
    audience: tuple[str, ...] = ()
    """Of a JWT-SVID."""


class SigningLimit:
    """
    Token buckets, one for each asker and one for all: whoever asks in a loop cannot use up the others'
    share.

    An asker is a peer with one of its identities, so that a host with many workloads is not slowed down.
    """

    def __init__(self, per_peer: float = 1.0, burst: int = 20, total: float = 100.0, total_burst: int = 1000) -> None:
        """``per_peer`` and ``total`` are signatures a second; the bursts, what may be taken at once after a pause."""
        self._rates = (per_peer, total)
        self._bursts = (float(burst), float(total_burst))
        self._peers: LRUCache[str, tuple[float, float]] = LRUCache(REMEMBERED_PEERS)
        self._all = (self._bursts[1], 0.0)

    def take(self, peer: str, now: float) -> bool:
        """Take one signature's worth, if there is one in both buckets."""
        mine = self._filled(self._peers.get(peer, (self._bursts[0], now)), 0, now)
        everyone = self._filled(self._all, 1, now)
        allowed = mine >= 1 and everyone >= 1
        spent = 1.0 if allowed else 0.0
        self._peers[peer] = (mine - spent, now)
        self._all = (everyone - spent, now)
        return allowed

    def _filled(self, bucket: tuple[float, float], which: int, now: float) -> float:
        level, at = bucket
        return min(self._bursts[which], level + max(0.0, now - at) * self._rates[which])


def _observe_nothing(_: Issuance) -> None:
    """Keep no record, for callers who want none."""


@dataclass(slots=True)
class Registrar:
    """The authority and the rules by which it signs. Its parts are replaced whole when their files change."""

    ca: CertificateAuthority
    entries: tuple[RegistrationEntry, ...] = ()
    revocations: Revocations = NO_REVOCATIONS
    limit: SigningLimit = field(default_factory=SigningLimit)
    observe: Callable[[Issuance], None] = _observe_nothing
    key_type: KeyType = KeyType.ECDSA_P256
    """The kind of key pairs that are made for local peers."""
    jwt_keys: JwtKeys = field(default_factory=JwtKeys)
    jwt_issuer: str = ""
    """``iss`` of JWT-SVIDs; empty: they have none."""

    @property
    def trust_bundle(self) -> TrustBundle:
        """What our own trust domain is trusted by: roots, intermediates, keys of JWT-SVIDs of all its authorities."""
        bundle = self.ca.trust_bundle
        return replace(bundle, jwt_keys=(*self.jwt_keys.public, *bundle.jwt_keys))

    def grants(self, evidence: Evidence) -> Mapping[str, Grant]:
        """Every identity that this evidence is good for, by SPIFFE ID."""
        return granted(self.entries, evidence)

    def revoked(self, evidence: Evidence) -> str | None:
        """Say what is revoked of a peer's own proof (it then gets nothing, not even a bundle), or None."""
        return self.revocations.judge(evidence.spiffe_id, evidence.serial) if isinstance(evidence, SvidPeer) else None

    def judge(self, evidence: Evidence, spiffe_id: SpiffeId) -> Grant | Refused:
        """Decide whether a peer may have an identity; the rate is not looked at."""
        if revoked := self.revoked(evidence):
            return Refused(revoked)
        grant = self.grants(evidence).get(str(spiffe_id))
        if grant is None:
            return Refused(f"no registration entry grants `{spiffe_id}` to {evidence}")
        if str(spiffe_id) in self.revocations.spiffe_ids:
            return Refused(f"the identity `{spiffe_id}` is revoked")
        return grant

    def issue(
        self, evidence: Evidence, spiffe_id: SpiffeId, now: float, public_key: PublicKey | None = None
    ) -> Issued | Refused:
        """Sign a certificate, or say why not. Without ``public_key`` a key pair is made."""
        answer = self._issue(evidence, spiffe_id, now, public_key)
        if isinstance(answer, Refused):
            self.refuse(str(evidence), str(spiffe_id), answer, now)
        else:
            record = Issuance(
                now,
                str(evidence),
                str(spiffe_id),
                True,
                serial=answer.serial,
                not_before=answer.not_before,
                not_after=answer.not_after,
                authority_id=answer.authority_id,
            )
            self.observe(record)
        return answer

    def issue_jwt(
        self, evidence: Evidence, spiffe_id: SpiffeId, audience: tuple[str, ...], now: float
    ) -> IssuedJwt | Refused:
        """Sign a JWT-SVID, or say why not."""
        answer = self._issue_jwt(evidence, spiffe_id, audience, now)
        if isinstance(answer, Refused):
            self.refuse(str(evidence), str(spiffe_id), answer, now, JWT_SVID)
            return answer
        record = Issuance(now, str(evidence), str(spiffe_id), True, kind=JWT_SVID, audience=audience)
        self.observe(replace(record, not_before=now, not_after=answer.expires_at, authority_id=answer.kid))
        return answer

    def refuse(self, evidence: str, spiffe_id: str, refused: Refused, now: float, kind: str = X509_SVID) -> None:
        """Record a refusal that was decided elsewhere: at the socket, or for a bad token."""
        self.observe(Issuance(now, evidence, spiffe_id, False, refused.reason, refused.cause.value, kind=kind))

    def _issue(
        self, evidence: Evidence, spiffe_id: SpiffeId, now: float, public_key: PublicKey | None
    ) -> Issued | Refused:
        grant = self.judge(evidence, spiffe_id)
        if isinstance(grant, Refused):
            return grant
        if spiffe_id.trust_domain != self.ca.trust_domain:
            return Refused(f"`{spiffe_id}` is not in the trust domain `{self.ca.trust_domain}`")
        if not self.limit.take(f"{evidence} {spiffe_id}", now):
            return Refused(f"too many certificates for {evidence}, try again later", Cause.LIMIT)
        try:
            return self.ca.issue_svid(
                spiffe_id,
                now,
                dns=grant.dns,
                ttl_seconds=grant.ttl_seconds,
                public_key=public_key,
                key_type=self.key_type,
            )
        except (ValueError, UnsupportedAlgorithm) as error:
            return Refused(str(error), Cause.SIGNING)

    def _issue_jwt(
        self, evidence: Evidence, spiffe_id: SpiffeId, audience: tuple[str, ...], now: float
    ) -> IssuedJwt | Refused:
        grant = self.judge(evidence, spiffe_id)
        if isinstance(grant, Refused):
            return grant
        if spiffe_id.trust_domain != self.ca.trust_domain:
            return Refused(f"`{spiffe_id}` is not in the trust domain `{self.ca.trust_domain}`")
        key = self.jwt_keys.active(now)
        if key is None:
            return Refused("there is no key that signs JWT-SVIDs now", Cause.SIGNING)
        if not self.limit.take(f"jwt {evidence} {spiffe_id}", now):
            return Refused(f"too many tokens for {evidence}, try again later", Cause.LIMIT)
        try:
            return sign_jwt_svid(key, spiffe_id, audience, now, grant.jwt_ttl_seconds, self.jwt_issuer)
        except ValueError as error:
            return Refused(str(error), Cause.REQUEST)


def read_certificate_request(pem: bytes) -> PublicKey | Refused:
    """
    Take the public key from a PKCS#10 request whose signature proves possession of the private one.

    Names and extensions in it are not looked at: the registrar says what the certificate is to be.
    """
    try:
        request = x509.load_pem_x509_csr(pem)
        key = request.public_key()
        if not request.is_signature_valid:
            return Refused("the certificate request is not signed by its own key", Cause.REQUEST)
    except (ValueError, UnsupportedAlgorithm, InvalidSignature, TypeError, x509.InvalidVersion):
        return Refused("not a PEM certificate request", Cause.REQUEST)
    weak = weak_key(key, "the certificate request")
    return Refused(weak, Cause.REQUEST) if weak else key  # type: ignore[return-value]  # weak_key passes the three kinds of PublicKey only


def write_certificate_request(key: PrivateKey) -> bytes:
    """A PKCS#10 request, as PEM, that says nothing but the key."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, signature_hash(key)).public_bytes(Encoding.PEM)

"""
One authority: a root, the chain down to the certificate that signs, and that certificate's key.

The words are spire's (``localauthority x509``): prepared, active, old, tainted; a retired one is gone.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from authz.core.spiffe import TrustDomain
from authz.identity.certificate_template import (
    INTERMEDIATE_TTL_SECONDS,
    intermediate_template,
    root_template,
)
from authz.identity.keys import KeyType, PrivateKey, generate_key, key_bytes, read_key
from authz.identity.sign import SERIAL_BYTES, Issuer, read_serial, sign, sign_self

RandomBytes = Callable[[int], bytes]
"""``os.urandom`` or, in tests, something that always returns the same."""


class AuthorityState(StrEnum):
    """All but a retired authority are in the trust bundle; only the active one signs."""

    PREPARED = "prepared"
    ACTIVE = "active"
    OLD = "old"
    TAINTED = "tainted"
    """Still trusted, but every SVID of it is renewed at once; the step before it is retired."""


@dataclass(frozen=True, slots=True)
class Authority:
    """``chain`` begins with the signing certificate and ends below the root; empty when the root itself signs."""

    state: AuthorityState
    root: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    key: PrivateKey = field(repr=False)
    """The key of the signing certificate."""
    root_key: PrivateKey | None = field(default=None, repr=False)
    """Kept only when it was generated here; it may be moved to a safe."""
    former: tuple[x509.Certificate, ...] = ()
    """Intermediates that signed before; whoever judges a leaf on its own needs them while such leaves live (XA-35)."""

    @property
    def id(self) -> str:
        """The first 16 hexadecimal digits of the SHA-256 of the root's certificate."""
        return root_id(self.root)

    @property
    def signing(self) -> x509.Certificate:
        """The certificate that signs leaves: the first of the chain, or the root itself."""
        return self.chain[0] if self.chain else self.root

    @property
    def files(self) -> str:
        """Names of the signing certificate's and key's files: another intermediate never overwrites them."""
        return f"signing-{self.signing.fingerprint(SHA256()).hex()[:16]}" if self.former else "signing"

    @property
    def issuer(self) -> Issuer:
        """The signing certificate with its key."""
        return Issuer(self.signing, self.key)

    @property
    def chain_pem(self) -> bytes:
        """The certificates that follow a leaf on the wire: the intermediates, without the root."""
        return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in self.chain)

    @property
    def root_pem(self) -> bytes:
        """The root certificate in PEM."""
        return self.root.public_bytes(Encoding.PEM)


def root_id(root: x509.Certificate) -> str:
    """The id of every authority below this root."""
    return hashlib.sha256(root.public_bytes(Encoding.DER)).hexdigest()[:16]


def create_authority(
    trust_domain: TrustDomain,
    now: float,
    random: RandomBytes,
    *,
    key_type: KeyType = KeyType.ECDSA_P256,
    intermediate_ttl_seconds: float = INTERMEDIATE_TTL_SECONDS,
    state: AuthorityState = AuthorityState.PREPARED,
) -> Authority:
    """Make a root and an intermediate."""
    root_key, key = generate_key(key_type), generate_key(key_type)
    root = sign_self(root_template(trust_domain, now), root_key, read_serial(random(SERIAL_BYTES)))
    intermediate = sign(
        intermediate_template(trust_domain, now, intermediate_ttl_seconds),
        key.public_key(),
        read_serial(random(SERIAL_BYTES)),
        Issuer(root, root_key),
    )
    return Authority(state, root, (intermediate,), key, root_key)


def renew_intermediate(
    authority: Authority,
    trust_domain: TrustDomain,
    now: float,
    random: RandomBytes,
    *,
    key_type: KeyType = KeyType.ECDSA_P256,
    ttl_seconds: float = INTERMEDIATE_TTL_SECONDS,
) -> Authority:
    """Sign with another intermediate of the same root. Raises ValueError when the root's key is not here."""
    if authority.root_key is None:
        raise ValueError("the root's key is not here; bring an intermediate that it signed")
    key = generate_key(key_type)
    template = intermediate_template(trust_domain, now, ttl_seconds)
    serial = read_serial(random(SERIAL_BYTES))
    made = sign(template, key.public_key(), serial, Issuer(authority.root, authority.root_key))
    return succeed(authority, (made,), key, now)


def succeed(authority: Authority, chain: tuple[x509.Certificate, ...], key: PrivateKey, now: float) -> Authority:
    """Sign with this chain from now on; what signed before is remembered until it expires."""
    before = (*authority.chain, *authority.former)
    former = tuple(c for c in before if c not in chain and c.not_valid_after_utc.timestamp() > now)
    return replace(authority, chain=chain, key=key, former=former)


def adopt_authority(
    root: x509.Certificate,
    chain: tuple[x509.Certificate, ...],
    key: PrivateKey,
    now: float,
    state: AuthorityState = AuthorityState.PREPARED,
    root_key: PrivateKey | None = None,
) -> Authority:
    """
    Take an authority that somebody else made: a root with its key (``chain`` empty), or an intermediate below a root.

    Raises ValueError, one reason at a time: the files belong to one person, who fixes them one after the other.
    """
    authority = Authority(state, root, chain, key, root_key)
    path = (*chain, root)
    for certificate, issuer in zip(path, (*path[1:], root), strict=True):
        name = certificate.subject.rfc4514_string()
        try:
            certificate.verify_directly_issued_by(issuer)
        except (ValueError, TypeError, InvalidSignature):
            raise ValueError(f"`{name}` was not signed by `{issuer.subject.rfc4514_string()}`") from None
        _check_authority_certificate(certificate, name, now)
    public_key = authority.signing.public_key()
    if key_bytes(key.public_key()) != key_bytes(public_key):  # type: ignore[arg-type]  # unusual keys just differ
        raise ValueError(f"the private key does not belong to `{authority.signing.subject.rfc4514_string()}`")
    if root_key is not None and key_bytes(root_key.public_key()) != key_bytes(root.public_key()):  # type: ignore[arg-type]  # as above
        raise ValueError(f"the root's private key does not belong to `{root.subject.rfc4514_string()}`")
    return authority


def read_authority(root_pem: bytes, chain_pem: bytes, key_pem: bytes, now: float) -> Authority:
    """Read an authority that somebody else made from PEM. Raises ValueError."""
    try:
        root = x509.load_pem_x509_certificate(root_pem)
        chain = tuple(x509.load_pem_x509_certificates(chain_pem)) if chain_pem.strip() else ()
    except ValueError as error:
        raise ValueError(f"the certificates are not readable as PEM: {error}") from error
    chain = tuple(certificate for certificate in chain if certificate != root)
    key = read_key(key_pem)
    return adopt_authority(root, chain, key, now, AuthorityState.ACTIVE, None if chain else key)


def _check_authority_certificate(certificate: x509.Certificate, name: str, now: float) -> None:
    extensions = certificate.extensions
    try:
        is_ca = extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except x509.ExtensionNotFound as missing:
        raise ValueError(f"`{name}` is not an authority: it has no {missing.oid._name}") from None
    if not is_ca:
        raise ValueError(f"`{name}` is not an authority: basicConstraints says CA:FALSE")
    try:
        if not extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign:
            raise ValueError(f"`{name}` may not sign certificates: keyUsage lacks keyCertSign")
    except x509.ExtensionNotFound:
        raise ValueError(f"`{name}` is not an authority: it has no keyUsage") from None
    if now < certificate.not_valid_before_utc.timestamp():
        raise ValueError(f"`{name}` is not yet valid")
    if now >= certificate.not_valid_after_utc.timestamp():
        raise ValueError(f"`{name}` has expired")

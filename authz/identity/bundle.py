"""
What one trust domain is trusted by: its roots and its keys for JWT-SVIDs, and intermediates that help build a path but
are not trusted.

Federation is a mapping from trust domain to bundle: no bundle speaks for a trust domain that is not its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from authz.core.spiffe import TrustDomain
from authz.tokens.jwks import Key


@dataclass(frozen=True, slots=True, eq=False)
class TrustBundle:
    """Compared by identity: a bundle is replaced whole, and caches are keyed by it."""

    trust_domain: TrustDomain
    roots: tuple[x509.Certificate, ...]
    intermediates: tuple[x509.Certificate, ...] = ()
    """
    Intermediates for peers whose chain is not at hand: Envoy sends only the leaf to the authorization server (XA-35).
    """
    jwt_keys: tuple[Key, ...] = ()
    """Public keys that sign JWT-SVIDs."""

    @property
    def pem(self) -> bytes:
        """The roots."""
        return b"".join(root.public_bytes(Encoding.PEM) for root in self.roots)


Bundles = Mapping[TrustDomain, TrustBundle]


def read_bundle(trust_domain: TrustDomain, roots_pem: bytes, intermediates_pem: bytes = b"") -> TrustBundle:
    """
    Read PEM bundles. Raises ValueError when there is no root, or when a certificate is not self-issued.

    An intermediate among the roots is refused: trusting it would outlive the root that vouches for it.
    """
    roots = read_certificates(roots_pem, "bundle")
    if not roots:
        raise ValueError(f"the bundle of `{trust_domain}` is empty")
    for root in roots:
        if root.issuer != root.subject:
            raise ValueError(
                f"the bundle of `{trust_domain}` holds `{root.subject.rfc4514_string()}`, which is not a root"
            )
    return TrustBundle(trust_domain, roots, read_certificates(intermediates_pem, "list of intermediates"))


def split_bundle(trust_domain: TrustDomain, pem: bytes) -> TrustBundle:
    """
    Read roots and intermediates from one PEM text: what is self-issued is a root, the rest only helps build paths.

    For judges of lone leaves (XA-35). Raises ValueError when there is no root.
    """
    found = read_certificates(pem, "bundle")
    roots = tuple(certificate for certificate in found if certificate.issuer == certificate.subject)
    if not roots:
        raise ValueError(f"the bundle of `{trust_domain}` holds no root")
    return TrustBundle(trust_domain, roots, tuple(certificate for certificate in found if certificate not in roots))


def read_certificates(pem: bytes, what: str) -> tuple[x509.Certificate, ...]:
    """A list of PEM certificates, in its order. Raises ValueError, which says ``what`` it should be."""
    if not pem.strip():
        return ()
    try:
        return tuple(x509.load_pem_x509_certificates(pem))
    except ValueError as error:
        raise ValueError(f"the {what} is not a list of PEM certificates: {error}") from error

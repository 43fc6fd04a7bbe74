"""A certificate as delivered: when it ends, when to renew it, whose key it has, who signed it."""

from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from authz.identity.authority import root_id
from authz.identity.bundle import read_certificates
from authz.identity.keys import PrivateKey, key_bytes
from authz.identity.renewal import renewal_time
from authz.identity.svid_validation import Rejection, is_signed_by, read_chain


@dataclass(frozen=True, slots=True)
class Delivered:
    """The first certificate of a PEM text, and what follows it."""

    leaf: x509.Certificate
    chain: tuple[x509.Certificate, ...] = ()
    """What follows it in the text."""

    @classmethod
    def read(cls, pem: bytes) -> "Delivered":
        """Read the first certificate. Raises ValueError with a reason that fits after ``is``."""
        chain = read_chain(pem)
        if isinstance(chain, Rejection):
            raise ValueError(chain.reason)
        return cls(chain[0], tuple(chain[1:]))

    @property
    def begin(self) -> float:
        """Seconds since the epoch."""
        return self.leaf.not_valid_before_utc.timestamp()

    @property
    def end(self) -> float:
        """Seconds since the epoch."""
        return self.leaf.not_valid_after_utc.timestamp()

    @property
    def renew_at(self) -> float:
        """Half of its life, seconds since the epoch."""
        return renewal_time(self.begin, self.end, 0.5)

    def roots_among(self, bundle_pem: bytes) -> tuple[tuple[str, ...], str]:
        """The ids of all roots in a bundle, and of that below which this is; empty if none. Raises ValueError."""
        roots = read_certificates(bundle_pem, "bundle")
        top = (self.leaf, *self.chain)[-1]
        return tuple(map(root_id, roots)), next((root_id(root) for root in roots if is_signed_by(top, root)), "")

    def is_of(self, key: PrivateKey) -> bool:
        """Whether it is a certificate for this key."""
        try:
            return key_bytes(self.leaf.public_key()) == key_bytes(key.public_key())  # type: ignore[arg-type]  # unusual keys just differ
        except (ValueError, UnsupportedAlgorithm):
            return False

    def is_signed_by(self, signing: "Delivered") -> bool:
        """Whether one of the other's certificates directly signed it."""
        return any(is_signed_by(self.leaf, certificate) for certificate in (signing.leaf, *signing.chain))

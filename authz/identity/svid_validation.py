"""
Validate an X.509-SVID against the bundle of its trust domain. The clock is an argument, and "no" is a value.

Spire's three steps: read the certificate and its one SPIFFE ID, choose the bundle of that trust domain, build and check
the path to one of its roots. What does not depend on time is ``examine``, so that its answer can be cached.
"""

import warnings
from dataclasses import dataclass
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import ExtensionOID

from authz.core.spiffe import SpiffeId
from authz.identity.bundle import Bundles, TrustBundle
from authz.identity.leaf import (
    Parts,
    constraint_reasons,
    judge_authority,
    judge_leaf,
    read_identity,
    read_parts,
)

MAX_CHAIN = 6
"""Certificates below the root; nobody has longer chains, and each certificate costs a signature check."""

MAX_AUTHORITIES = 256
"""Of so many it is remembered how they were judged."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a certificate is not accepted: one line, lower-case, no period."""

    reason: str


@dataclass(frozen=True, slots=True)
class Window:
    """The time in which one certificate of the path is valid: ``begin <= now < end``, seconds since the epoch."""

    name: str
    begin: float
    end: float


@dataclass(frozen=True, slots=True)
class Examined:
    """A certificate that is in order apart from time."""

    spiffe_id: SpiffeId
    serial: int
    windows: tuple[Window, ...]
    """Leaf first, root last."""

    def at(self, now: float) -> Rejection | None:
        """Judge the validity of the whole path at ``now``."""
        for window in self.windows:
            if now < window.begin:
                return Rejection(f"{window.name} is not yet valid: it begins in {_span(window.begin - now)}")
            if now >= window.end:
                return Rejection(f"{window.name} expired {_span(now - window.end)} ago")
        return None


def validate_svid(chain_pem: str | bytes, bundles: Bundles, now: float) -> Examined | Rejection:
    """Validate a chain, leaf first, at ``now``. Never raises on content."""
    examined = examine(chain_pem, bundles)
    if isinstance(examined, Rejection):
        return examined
    return examined.at(now) or examined


def examine(chain_pem: str | bytes, bundles: Bundles) -> Examined | Rejection:
    """Do everything of ``validate_svid`` that does not depend on time."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)  # odd values are judged here, not warned of
        return _examine(chain_pem, bundles)


def _examine(chain_pem: str | bytes, bundles: Bundles) -> Examined | Rejection:
    chain = read_chain(chain_pem)
    if isinstance(chain, Rejection):
        return chain
    leaf = read_parts(chain[0], "the certificate")
    if isinstance(leaf, str):
        return Rejection(leaf)
    if reason := judge_leaf(leaf):
        return Rejection(reason)
    spiffe_id = read_identity(leaf)
    if isinstance(spiffe_id, str):
        return Rejection(spiffe_id)
    bundle = bundles.get(spiffe_id.trust_domain)
    if bundle is None:
        return Rejection(f"the trust domain `{spiffe_id.trust_domain}` is not trusted")
    path = _build_path(leaf, chain[1:], bundle)
    if isinstance(path, Rejection):
        return path
    for i, authority in enumerate(path[1:]):
        if reason := _judged(authority.certificate, authority.name, i) or next(
            constraint_reasons(authority, leaf), None
        ):
            return Rejection(reason)
    return Examined(spiffe_id, chain[0].serial_number, tuple(_window(parts) for parts in path))


def identity_of_leaf(der: bytes) -> SpiffeId | Rejection:
    """
    The SPIFFE ID of a certificate whose chain and validity somebody else has verified, by the right bundle: TLS.

    Never raises on content.
    """
    try:
        certificate = x509.load_der_x509_certificate(der)
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion):
        return Rejection("the certificate cannot be read")
    leaf = read_parts(certificate, "the certificate")
    reason = leaf if isinstance(leaf, str) else judge_leaf(leaf)
    if reason is not None or isinstance(leaf, str):
        return Rejection(str(reason))
    spiffe_id = read_identity(leaf)
    return Rejection(spiffe_id) if isinstance(spiffe_id, str) else spiffe_id


def read_chain(pem: str | bytes) -> list[x509.Certificate] | Rejection:
    """Read a PEM chain of at least one certificate."""
    try:
        data = pem.encode("ascii") if isinstance(pem, str) else pem
        chain = x509.load_pem_x509_certificates(data)
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion):
        return Rejection("not a PEM certificate")
    try:
        for certificate in chain:
            _ = (certificate.subject, certificate.issuer)  # decoded only when they are asked for
    except ValueError:
        return Rejection("the chain has a certificate whose names cannot be decoded")
    if len(chain) > MAX_CHAIN:
        return Rejection(f"the chain has {len(chain)} certificates, at most {MAX_CHAIN} are taken")
    return chain


def _build_path(leaf: Parts, given: list[x509.Certificate], bundle: TrustBundle) -> list[Parts] | Rejection:
    """
    Follow issuer names from the leaf to a root of the bundle; every signature is checked.

    A given chain must be in order ("each following certificate MUST directly certify the one preceding it",
    RFC 5246 7.4.2). The bundle's own intermediates continue it where it stops.
    """
    path = [leaf]
    pool = list(given)
    while len(path) <= MAX_CHAIN:
        current = path[-1].certificate
        root = _issuer_among(bundle.roots, current, is_leaf=len(path) == 1)
        if root is not None:
            parts = _parts(root, "the root")
            if isinstance(parts, str):
                return Rejection(parts)
            return [*path, parts] if root != current else path
        if current.issuer == current.subject:
            return Rejection(f"{path[-1].name} is self-signed and not a root of `{bundle.trust_domain}`")
        step = _next_above(path[-1], pool, bundle, is_leaf=len(path) == 1)
        if isinstance(step, Rejection):
            return step
        path.append(step)
    return Rejection("the chain goes in a circle")


def _next_above(below: Parts, pool: list[x509.Certificate], bundle: TrustBundle, *, is_leaf: bool) -> Parts | Rejection:
    above = pool.pop(0) if pool else _issuer_among(bundle.intermediates, below.certificate, is_leaf=is_leaf)
    issuer = below.certificate.issuer.rfc4514_string()
    if above is None:
        named = any(root.subject == below.certificate.issuer for root in (*bundle.roots, *bundle.intermediates))
        if named:
            return Rejection(f"{below.name} carries the name of `{issuer}` but not its signature")
        return Rejection(f"{below.name} was issued by `{issuer}`, which is unknown to `{bundle.trust_domain}`")
    name = f"the intermediate `{above.subject.rfc4514_string()}`"
    if above.subject != below.certificate.issuer:
        return Rejection(f"{below.name} was issued by `{issuer}`, but {name} follows in the chain")
    if not (is_signed_by if is_leaf else _is_authority_signed_by)(below.certificate, above):
        return Rejection(f"{below.name} is not signed by {name}")
    parts = _parts(above, name)
    return Rejection(parts) if isinstance(parts, str) else parts


def _issuer_among(
    candidates: tuple[x509.Certificate, ...], below: x509.Certificate, *, is_leaf: bool
) -> x509.Certificate | None:
    """Several roots may bear one name during a rotation: the signature decides."""
    is_signed = is_signed_by if is_leaf else _is_authority_signed_by
    for candidate in candidates:
        if candidate.subject == below.issuer and _key_ids_agree(below, candidate) and is_signed(below, candidate):
            return candidate
    return None


def _key_ids_agree(below: x509.Certificate, above: x509.Certificate) -> bool:
    """Spare the signature check where the key identifiers already differ; what cannot be read decides nothing."""
    try:
        wanted = below.extensions.get_extension_for_oid(ExtensionOID.AUTHORITY_KEY_IDENTIFIER).value
        had = above.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_KEY_IDENTIFIER).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return True
    assert isinstance(wanted, x509.AuthorityKeyIdentifier)
    assert isinstance(had, x509.SubjectKeyIdentifier)
    return wanted.key_identifier is None or wanted.key_identifier == had.digest


def is_signed_by(below: x509.Certificate, above: x509.Certificate) -> bool:
    """Whether ``above`` directly signed ``below``, names and signature."""
    try:
        below.verify_directly_issued_by(above)
    except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm):
        return False
    return True


# Thousands of workloads have a few authorities: of these, everything is judged once that does not depend on the leaf.
_is_authority_signed_by = lru_cache(MAX_AUTHORITIES)(is_signed_by)
_parts = lru_cache(MAX_AUTHORITIES)(read_parts)


@lru_cache(MAX_AUTHORITIES)
def _judged(authority: x509.Certificate, name: str, below: int) -> str | None:
    parts = _parts(authority, name)
    return parts if isinstance(parts, str) else judge_authority(parts, below)


def _window(parts: Parts) -> Window:
    certificate = parts.certificate
    return Window(parts.name, certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp())


def _span(seconds: float) -> str:
    """``3s``, ``5m``, ``7h``, ``2d``: enough for a person to see a clock fault."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{int(seconds)}s"

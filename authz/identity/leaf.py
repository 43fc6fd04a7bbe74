"""
The rules for one certificate by itself: a leaf X.509-SVID, and an authority in its chain. Time is judged elsewhere.

Each rule answers a reason or None; the first reason is the answer. One line, lower-case, no period.
Source: SPIFFE X.509-SVID sections 2 to 5, SPIFFE-ID section 2, RFC 5280.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from authz.core.spiffe import MAX_ID_BYTES, SpiffeId
from authz.identity.keys import MIN_RSA_BITS

UNDERSTOOD = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.NAME_CONSTRAINTS,
        ExtensionOID.SUBJECT_KEY_IDENTIFIER,
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
    }
)
"""Extensions whose meaning is kept here. A certificate with any other critical one is refused (RFC 5280 4.2)."""

WEAK_DIGESTS = frozenset({"md5", "sha1"})
MAX_SERIAL_BITS = 159
"""20 octets in DER, positive (RFC 5280 4.1.2.2)."""


@dataclass(frozen=True, slots=True)
class Parts:
    """A certificate with its extensions decoded; an absent one is None."""

    certificate: x509.Certificate
    name: str
    """The certificate's name in messages: ``the certificate`` or ``the intermediate `O=…` ``."""
    basic_constraints: x509.BasicConstraints | None
    key_usage: x509.KeyUsage | None
    is_key_usage_critical: bool
    extended_key_usage: x509.ExtendedKeyUsage | None
    names: x509.SubjectAlternativeName | None
    constraints: x509.NameConstraints | None
    unknown_critical: tuple[str, ...]

    @property
    def uris(self) -> tuple[str, ...]:
        """URIs among the subject's alternative names; empty without any."""
        return tuple(self.names.get_values_for_type(x509.UniformResourceIdentifier)) if self.names else ()


def dns_names(pem: bytes) -> tuple[str, ...]:
    """DNS names of the first certificate of a PEM chain, as they are written. Raises ValueError: there is none."""
    found = read_parts(x509.load_pem_x509_certificates(pem)[0], "the certificate")
    if isinstance(found, str):
        raise ValueError(found)
    return tuple(found.names.get_values_for_type(x509.DNSName)) if found.names else ()


def read_parts(certificate: x509.Certificate, name: str) -> Parts | str:
    """Decode a certificate's extensions, or say why that cannot be done."""
    try:
        if certificate.version is not x509.Version.v3:
            return f"{name} is an X.509 {certificate.version.name} certificate, which cannot say who it is for"
        extensions = certificate.extensions
    except x509.DuplicateExtension as error:
        return f"{name} has the extension {error.oid._name} twice"
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion, x509.UnsupportedGeneralNameType):
        return f"{name} has an extension that cannot be decoded"
    found: dict[str, x509.ExtensionType] = {e.oid.dotted_string: e.value for e in extensions}
    critical = {e.oid for e in extensions if e.critical}
    basic, usage, extended, names, constraints = (
        found.get(oid.dotted_string)
        for oid in (
            ExtensionOID.BASIC_CONSTRAINTS,
            ExtensionOID.KEY_USAGE,
            ExtensionOID.EXTENDED_KEY_USAGE,
            ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
            ExtensionOID.NAME_CONSTRAINTS,
        )
    )
    return Parts(
        certificate,
        name,
        basic if isinstance(basic, x509.BasicConstraints) else None,
        usage if isinstance(usage, x509.KeyUsage) else None,
        ExtensionOID.KEY_USAGE in critical,
        extended if isinstance(extended, x509.ExtendedKeyUsage) else None,
        names if isinstance(names, x509.SubjectAlternativeName) else None,
        constraints if isinstance(constraints, x509.NameConstraints) else None,
        tuple(sorted(oid.dotted_string for oid in critical - UNDERSTOOD)),
    )


def judge_leaf(parts: Parts) -> str | None:
    """Say why this is not a leaf X.509-SVID, or None."""
    return _first((_strength, _leaf_role, _key_usage, _extended_key_usage, _one_uri), parts)


def judge_authority(parts: Parts, below: int) -> str | None:
    """Say why this may not sign the one below it. ``below`` counts the authorities between it and the leaf."""
    return _first((_strength, _authority_role, _authority_names), parts) or _path_length(parts, below)


def read_identity(parts: Parts) -> SpiffeId | str:
    """The SPIFFE ID of a leaf that ``judge_leaf`` passed, or why its URI is not one (SPIFFE-ID section 2)."""
    uri = parts.uris[0]
    if len(uri.encode()) > MAX_ID_BYTES:
        return f"the SPIFFE ID has {len(uri.encode())} bytes, at most {MAX_ID_BYTES} are allowed"
    shown = uri if uri.isprintable() else repr(uri)
    for mark, what in (("?", "a query"), ("#", "a fragment"), ("%", "a percent-encoded character")):
        if mark in uri:
            return f"the SPIFFE ID `{shown}` has {what}"
    host = uri.partition("://")[2].partition("/")[0]
    if "@" in host:
        return f"the SPIFFE ID `{shown}` has a user part"
    if ":" in host:
        return f"the SPIFFE ID `{shown}` has a port"
    try:
        spiffe_id = SpiffeId.parse(uri)
    except ValueError as error:
        return str(error)
    if not spiffe_id.path:
        return f"the SPIFFE ID `{spiffe_id}` has no path: it is a trust domain's, not a workload's"
    return spiffe_id


def digest(certificate: x509.Certificate) -> str:
    """SHA-256 of the DER, hexadecimal."""
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()


def _first(rules: tuple[Callable[[Parts], str | None], ...], parts: Parts) -> str | None:
    return next((reason for rule in rules if (reason := rule(parts)) is not None), None)


def _strength(parts: Parts) -> str | None:
    """Key, signature digest, serial number and dates are what today's TLS libraries take."""
    certificate, name = parts.certificate, parts.name
    if parts.unknown_critical:
        return f"{name} has the critical extension {parts.unknown_critical[0]}, which is not understood here"
    serial = certificate.serial_number
    if serial <= 0:
        return f"{name} has a serial number that is not positive"
    if serial.bit_length() > MAX_SERIAL_BITS:
        return f"{name} has a serial number of more than 20 octets"
    if certificate.not_valid_after_utc <= certificate.not_valid_before_utc:
        return f"{name} ends before it begins"
    try:
        algorithm = certificate.signature_hash_algorithm
        key = certificate.public_key()
    except (UnsupportedAlgorithm, ValueError):
        return f"{name} has a key or signature of a kind that is not understood here"
    if algorithm is not None and algorithm.name in WEAK_DIGESTS:
        return f"{name} is signed with {algorithm.name.upper()}, which is too weak"
    return weak_key(key, name)


def weak_key(key: object, name: str) -> str | None:
    """Say why a public key is too weak or of an unusual kind, or None."""
    match key:
        case rsa.RSAPublicKey() if key.key_size < MIN_RSA_BITS:
            return f"{name} has an RSA key of {key.key_size} bits, at least {MIN_RSA_BITS} are needed"
        case ec.EllipticCurvePublicKey() if not isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1):
            return f"{name} has a key on the curve {key.curve.name}, only P-256 and P-384 are taken"
        case rsa.RSAPublicKey() | ec.EllipticCurvePublicKey() | ed25519.Ed25519PublicKey():
            return None
    return f"{name} has a key that is neither RSA, ECDSA nor Ed25519"


def _leaf_role(parts: Parts) -> str | None:
    """ "Leaf certificates … MUST set the cA field to false" (X.509-SVID 4.1)."""
    if parts.basic_constraints is not None and parts.basic_constraints.ca:
        return "the certificate is an authority's (CA:TRUE), a workload's is not"
    if parts.basic_constraints is not None and parts.basic_constraints.path_length is not None:
        return "the certificate has a path length, which only an authority has"
    if parts.constraints is not None:
        return "the certificate has name constraints, which only an authority has"
    return None


def _key_usage(parts: Parts) -> str | None:
    """ "The Key Usage extension MUST be set on all SVIDs, and MUST be marked critical" (X.509-SVID 4.3)."""
    usage = parts.key_usage
    if usage is None:
        return "the certificate has no keyUsage"
    if not parts.is_key_usage_critical:
        return "the certificate's keyUsage is not critical"
    if usage.key_cert_sign:
        return "the certificate may sign certificates (keyCertSign), a workload's may not"
    if usage.crl_sign:
        return "the certificate may sign revocation lists (cRLSign), a workload's may not"
    if not usage.digital_signature:
        return "the certificate's keyUsage lacks digitalSignature"
    return None


def _extended_key_usage(parts: Parts) -> str | None:
    """ "When included, fields id-kp-serverAuth and id-kp-clientAuth MUST be set" (X.509-SVID 4.4, XA-133)."""
    usages = parts.extended_key_usage
    if usages is None:
        return None
    if ExtendedKeyUsageOID.CLIENT_AUTH not in usages:
        return "the certificate's extendedKeyUsage lacks clientAuth"
    if ExtendedKeyUsageOID.SERVER_AUTH not in usages:
        return "the certificate's extendedKeyUsage lacks serverAuth"
    return None


def _one_uri(parts: Parts) -> str | None:
    """ "An X.509 SVID MUST contain exactly one URI SAN" (X.509-SVID 2)."""
    if parts.names is None:
        return "the certificate has no subjectAltName"
    if not parts.uris:
        return "the certificate has no URI among its subjectAltNames"
    if len(parts.uris) > 1:
        return f"the certificate has {len(parts.uris)} URIs, exactly one is allowed"
    return None


def _authority_role(parts: Parts) -> str | None:
    if parts.basic_constraints is None:
        return f"{parts.name} has no basicConstraints"
    if not parts.basic_constraints.ca:
        return f"{parts.name} is not an authority (CA:FALSE)"
    if parts.key_usage is None:
        return f"{parts.name} has no keyUsage"
    if not parts.key_usage.key_cert_sign:
        return f"{parts.name} may not sign certificates: its keyUsage lacks keyCertSign"
    return None


def _authority_names(parts: Parts) -> str | None:
    """ "The SPIFFE ID of a signing certificate MUST NOT have a path component" (X.509-SVID 4.1)."""
    for uri in parts.uris:
        if uri.startswith("spiffe://") and "/" in uri.removeprefix("spiffe://"):
            return f"{parts.name} has the SPIFFE ID `{uri}`, an authority's has no path"
    return None


def _path_length(parts: Parts, below: int) -> str | None:
    """RFC 5280 4.2.1.9: how many authorities that are not self-issued may follow."""
    limit = parts.basic_constraints.path_length if parts.basic_constraints else None
    if limit is not None and below > limit:
        return f"{parts.name} allows {limit} authorities below it, the chain has {below}"
    return None


def constraint_reasons(authority: Parts, leaf: Parts) -> Iterator[str]:
    """
    Why the leaf's names are outside what the authority is allowed to sign (RFC 5280 4.2.1.10).

    URI constraints apply to the host; one that begins with a dot permits every host below it. Kinds of names that
    cannot be judged here (e-mail, directory names) are outside as soon as there is a constraint on them.
    """
    constraints = authority.constraints
    if constraints is None or leaf.names is None:
        return
    for name in leaf.names:
        permitted = [n for n in constraints.permitted_subtrees or () if type(n) is type(name)]
        excluded = [n for n in constraints.excluded_subtrees or () if type(n) is type(name)]
        if permitted and not any(_is_within(name, subtree, unknown=False) for subtree in permitted):
            yield f"`{_shown(name)}` is outside the name constraints of {authority.name}"
        if any(_is_within(name, subtree, unknown=True) for subtree in excluded):
            yield f"`{_shown(name)}` is excluded by the name constraints of {authority.name}"


def _is_within(name: x509.GeneralName, subtree: x509.GeneralName, *, unknown: bool) -> bool:
    match name, subtree:
        case x509.UniformResourceIdentifier(value=uri), x509.UniformResourceIdentifier(value=wanted):
            host = uri.partition("://")[2].partition("/")[0].lower()
            return host.endswith(wanted.lower()) if wanted.startswith(".") else host == wanted.lower()
        case x509.DNSName(value=host), x509.DNSName(value=wanted):
            bare = wanted.lower().removeprefix(".")
            return not bare or host.lower() == bare or host.lower().endswith(f".{bare}")
        case x509.IPAddress(value=address), x509.IPAddress(value=network):
            return unknown if not hasattr(network, "network_address") else address in network  # type: ignore[operator]  # a subtree is a network
    return unknown


def _shown(name: x509.GeneralName) -> str:
    return str(name.value)

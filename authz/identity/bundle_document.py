"""
The SPIFFE bundle document: a trust bundle as a JWK Set, read and written (SPIFFE Trust Domain and Bundle 4).

    {"keys": [{"use": "x509-svid", "kty": …, "x5c": [DER in base64]}, {"use": "jwt-svid", "kid": …, …}],
     "spiffe_sequence": 3, "spiffe_refresh_hint": 300}

It does not say whose it is: whoever fetched it knows, and gives the trust domain.
"""

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from authz.core.attributes import Json
from authz.core.spiffe import TrustDomain
from authz.identity.bundle import TrustBundle, read_bundle, split_bundle
from authz.tokens.json_text import read_object
from authz.tokens.jwks import Key, read_key_set
from authz.tokens.signatures import Material

X509_USE, JWT_USE = "x509-svid", "jwt-svid"
MAX_DOCUMENT_BYTES = 1024 * 1024
MAX_SEQUENCE = 2**63
JWT_KEY_TYPES = ("RSA", "EC")
"""Others sign no JWT-SVID, and a symmetric key in a public document would be everybody's (JWT-SVID 2.1)."""
_CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}


@dataclass(frozen=True, slots=True)
class BundleDocument:
    """What a document says."""

    bundle: TrustBundle
    """Without any key it is its owner's word that nothing is to be trusted any more."""
    sequence: int | None = None
    refresh_hint_seconds: float | None = None


def write_bundle_document(bundle: TrustBundle, sequence: int, refresh_hint_seconds: int) -> bytes:
    """Write the document of our own or another trust domain; intermediates are not part of it."""
    keys = [*(_root_jwk(root) for root in bundle.roots), *(_jwk(key) | {"use": JWT_USE} for key in bundle.jwt_keys)]
    document = {"keys": keys, "spiffe_sequence": sequence, "spiffe_refresh_hint": refresh_hint_seconds}
    return json.dumps(document, indent=2).encode() + b"\n"


def write_key_set(keys: Iterable[Key], use: str = "") -> bytes:
    """Write a plain JWK Set of public keys, for verifiers of tokens that know nothing of SPIFFE."""
    return json.dumps({"keys": [_jwk(key) | ({"use": use} if use else {}) for key in keys]}).encode()


def read_bundle_document(trust_domain: TrustDomain, data: bytes) -> BundleDocument:
    """
    Read a document as a whole or not at all. Raises ValueError.

    "Clients encountering unknown key types or uses MUST ignore the corresponding JWK element" (4.1.3).
    """
    what = f"the bundle of `{trust_domain}`"
    if len(data) > MAX_DOCUMENT_BYTES:
        raise ValueError(f"{what} has more than {MAX_DOCUMENT_BYTES} bytes")
    try:
        document = read_object(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{what} is not a JSON object: {error}") from error
    entries = document.get("keys")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"{what} has no `keys` list of objects")
    listed: list[dict[str, Json]] = [entry for entry in entries if isinstance(entry, dict)]
    known = [entry for entry in listed if entry.get("use") in (X509_USE, JWT_USE)]
    if listed and not known:
        raise ValueError(f"no key of {what} is for SVIDs: `use` is neither {X509_USE} nor {JWT_USE}")
    try:
        roots = b"".join(_certificate(entry) for entry in known if entry.get("use") == X509_USE)
        jwt_keys = _jwt_keys([entry for entry in known if entry.get("use") == JWT_USE])
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error
    trusted = read_bundle(trust_domain, roots).roots if roots else ()
    return BundleDocument(
        TrustBundle(trust_domain, trusted, jwt_keys=jwt_keys),
        _whole(document, "spiffe_sequence", what),
        _whole(document, "spiffe_refresh_hint", what),
    )


def read_any_bundle(trust_domain: TrustDomain, data: bytes) -> TrustBundle:
    """Read a bundle from PEM, or from a SPIFFE document. Raises ValueError."""
    if data.lstrip().startswith(b"{"):
        return read_bundle_document(trust_domain, data).bundle
    return read_bundle(trust_domain, data)


def read_bundle_files(trust_domain: TrustDomain, files: Iterable[bytes]) -> TrustBundle:
    """
    Read one bundle from several files for a judge of lone leaves: SPIFFE documents, and PEM of roots and intermediates.

    Raises ValueError, also when there is no root at all; a document without keys is its owner's word, and accepted.
    """
    pems: list[bytes] = []
    roots: tuple[x509.Certificate, ...] = ()
    is_told = False
    for data in files:
        if data.lstrip().startswith(b"{"):
            roots, is_told = (*roots, *read_bundle_document(trust_domain, data).bundle.roots), True
        else:
            pems.append(data)
    if not is_told:
        return split_bundle(trust_domain, b"\n".join(pems))
    pem = b"\n".join([*pems, *(root.public_bytes(Encoding.PEM) for root in roots)])
    return split_bundle(trust_domain, pem) if roots else TrustBundle(trust_domain, ())


def _whole(document: Mapping[str, Json], name: str, what: str) -> int | None:
    value = document.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < MAX_SEQUENCE:
        raise ValueError(f"`{name}` of {what} is not a whole number")
    return value


def _certificate(entry: Mapping[str, Json]) -> bytes:
    chain = entry.get("x5c")
    if not isinstance(chain, list) or len(chain) != 1 or not isinstance(chain[0], str):
        raise ValueError("a key for X.509-SVIDs has no `x5c` of exactly one certificate")
    try:
        certificate = x509.load_der_x509_certificate(base64.b64decode(chain[0], validate=True))
    except (ValueError, binascii.Error, UnsupportedAlgorithm, x509.InvalidVersion):
        raise ValueError("an `x5c` is not a certificate in base64") from None
    return certificate.public_bytes(Encoding.PEM)


def _jwt_keys(entries: list[dict[str, Json]]) -> tuple[Key, ...]:
    usable = [entry for entry in entries if entry.get("kty") in JWT_KEY_TYPES]
    kids = [entry.get("kid") for entry in usable]
    if not all(isinstance(kid, str) and kid for kid in kids):
        raise ValueError("a key for JWT-SVIDs has no `kid`")
    if len({str(kid) for kid in kids}) < len(kids):
        raise ValueError("two keys for JWT-SVIDs have the same `kid`")
    if not usable:
        return ()
    found = read_key_set(json.dumps({"keys": usable}))
    if found.skipped:
        raise ValueError(f"a key for JWT-SVIDs cannot be used: {found.skipped[0]}")
    return found.keys


def _jwk(key: Key) -> dict[str, Json]:
    return key.public_members() | ({"alg": key.alg} if key.alg else {})


def _root_jwk(root: x509.Certificate) -> dict[str, Json]:
    certificate = base64.b64encode(root.public_bytes(Encoding.DER)).decode()
    family, material = _family(root)
    return Key(family, "", "", material).public_members() | {"use": X509_USE, "x5c": [certificate]}


def _family(root: x509.Certificate) -> tuple[str, Material]:
    """Raises ValueError for a key of a kind that no SVID is validated with."""
    match key := root.public_key():
        case rsa.RSAPublicKey():
            return "RSA", key
        case ec.EllipticCurvePublicKey() if key.curve.name in _CURVES:
            return _CURVES[key.curve.name], key
        case ed25519.Ed25519PublicKey():
            return "Ed25519", key
    raise ValueError(f"`{root.subject.rfc4514_string()}` has a key that is neither RSA, ECDSA nor Ed25519")

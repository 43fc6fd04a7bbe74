"""
An authority whose certificates and bundle are shaped as SPIRE's (spiffe/spire, ``credtemplate``), without its code.

Its names, key usages, the serial number in the root's name, the unique identifier in a leaf's, and the document with
indented JWKs without ``alg``.
"""

import base64
import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from authz.core.attributes import Json
from authz.core.spiffe import TrustDomain
from authz.tokens.jwks import Key


def _name(organization: str, *more: tuple[x509.ObjectIdentifier, str]) -> x509.Name:
    pairs = ((NameOID.COUNTRY_NAME, "US"), (NameOID.ORGANIZATION_NAME, organization), *more)
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in pairs])


def _usage(*names: str) -> x509.KeyUsage:
    known = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
             "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")  # fmt: skip
    return x509.KeyUsage(**{name: name in names for name in known})


@dataclass(frozen=True)
class Spire:
    trust_domain: TrustDomain
    now: float
    key: ec.EllipticCurvePrivateKey
    signing: x509.Certificate
    root: x509.Certificate
    jwt_key: ec.EllipticCurvePrivateKey

    def svid(self, path: str, trust_domain: TrustDomain | None = None) -> bytes:
        """A workload's chain without the root, PEM."""
        uri = f"spiffe://{trust_domain or self.trust_domain}{path}"
        unique = hashlib.sha256(uri.encode()).hexdigest()[:32]
        usages = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = (
            _certificate(
                self.now, timedelta(hours=1), _name("SPIRE", (NameOID.X500_UNIQUE_IDENTIFIER, unique)), uri, key
            )
            .issuer_name(self.signing.subject)
            .add_extension(_usage("key_encipherment", "key_agreement", "digital_signature"), critical=True)
            .add_extension(usages, critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        below = [] if self.signing == self.root else [self.signing]
        return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in (leaf, *below))

    @property
    def document(self) -> bytes:
        """As ``spire-server bundle show -format spiffe``."""
        der = base64.b64encode(self.root.public_bytes(Encoding.DER)).decode()
        public = self.root.public_key()
        assert isinstance(public, ec.EllipticCurvePublicKey)
        family = "P-256" if isinstance(public.curve, ec.SECP256R1) else "P-384"
        token_key = Key("P-256", "C6vs25welZOx6WksNYfbMfiw9l96pMnD", "", self.jwt_key.public_key())
        keys: list[Json] = [
            {"use": "x509-svid", **Key(family, "", "", public).public_members(), "x5c": [der]},
            {"use": "jwt-svid", **token_key.public_members()},
        ]
        return json.dumps({"keys": keys, "spiffe_sequence": 12, "spiffe_refresh_hint": 300}, indent=4).encode()


def _certificate(
    now: float, life: timedelta, subject: x509.Name, uri: str, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    begin = datetime.fromtimestamp(now, UTC) - timedelta(seconds=10)
    builder = x509.CertificateBuilder().subject_name(subject).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(begin).not_valid_after(begin + life)
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)] if uri else [x509.DNSName("upstream")])
    return builder.add_extension(names, critical=False).add_extension(
        x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
    )


def spire_authority(trust_domain: TrustDomain, now: float, *, has_upstream: bool = False) -> Spire:
    """A self-signed SPIRE server, or one below an upstream authority, which is in the bundle instead."""
    key, upstream_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP384R1())
    subject = _name("SPIFFE", (NameOID.SERIAL_NUMBER, "293488923874293847")) if not has_upstream else _name("SPIRE")
    upstream = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "upstream root")])
    authority = (
        _certificate(now, timedelta(days=1), subject, f"spiffe://{trust_domain}", key)
        .issuer_name(upstream if has_upstream else subject)
        .add_extension(_usage("key_cert_sign", "crl_sign"), critical=True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )
    root = (
        _certificate(now, timedelta(days=3650), upstream, "", upstream_key)
        .issuer_name(upstream)
        .add_extension(_usage("key_cert_sign", "crl_sign"), critical=True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(upstream_key, hashes.SHA384())
    )
    jwt_key = ec.generate_private_key(ec.SECP256R1())
    if has_upstream:
        return Spire(trust_domain, now, key, authority.sign(upstream_key, hashes.SHA384()), root, jwt_key)
    signed = authority.sign(key, hashes.SHA256())
    return Spire(trust_domain, now, key, signed, signed, jwt_key)

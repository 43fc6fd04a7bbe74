"""A valid chain of a test trust domain; tests change one thing of one certificate by name."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NOW = 1_800_000_000.0
DAY = 86_400.0
REVIEWS = "spiffe://mesh.test/ns/shop/sa/reviews"

SERVER_AUTH = ExtendedKeyUsageOID.SERVER_AUTH
CLIENT_AUTH = ExtendedKeyUsageOID.CLIENT_AUTH
DIGITAL_SIGNATURE = "digital_signature"
USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)

KEYS = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("root", "intermediate", "leaf", "other")}


@dataclass(frozen=True)
class Recipe:
    """One certificate. None leaves an extension out."""

    name: str
    key: CertificateIssuerPrivateKeyTypes
    signer: CertificateIssuerPrivateKeyTypes
    issuer: str
    begin: float = NOW - DAY
    end: float = NOW + DAY
    serial: int = 0x1234
    uris: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    emails: tuple[str, ...] = ()
    has_names: bool = True
    basic: tuple[bool, int | None] | None = (False, None)
    usage: tuple[str, ...] | None = (DIGITAL_SIGNATURE,)
    usage_critical: bool = True
    extended: tuple[x509.ObjectIdentifier, ...] | None = (SERVER_AUTH, CLIENT_AUTH)
    permitted: tuple[x509.GeneralName, ...] = ()
    excluded: tuple[x509.GeneralName, ...] = ()
    extra: tuple[tuple[x509.ExtensionType, bool], ...] = ()
    digest: hashes.SHA256 | hashes.SHA384 | hashes.SHA1 | None = field(default_factory=hashes.SHA256)
    key_ids: bool = True

    def certificate(self) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(self.name))
            .issuer_name(_name(self.issuer))
            .public_key(self.key.public_key())
            .serial_number(self.serial)
            .not_valid_before(datetime.fromtimestamp(self.begin, UTC))
            .not_valid_after(datetime.fromtimestamp(self.end, UTC))
        )
        for extension, critical in self._extensions():
            builder = builder.add_extension(extension, critical)
        return builder.sign(self.signer, self.digest)  # type: ignore[arg-type]  # SHA-1 is one of the broken things

    def _extensions(self) -> list[tuple[x509.ExtensionType, bool]]:
        found: list[tuple[x509.ExtensionType, bool]] = list(self.extra)
        if self.basic is not None:
            found.append((x509.BasicConstraints(*self.basic), True))
        if self.usage is not None:
            usage = x509.KeyUsage(**{name: name in self.usage for name in USAGES})
            found.append((usage, self.usage_critical))
        if self.extended is not None:
            found.append((x509.ExtendedKeyUsage(self.extended), False))
        if self.permitted or self.excluded:
            found.append((x509.NameConstraints(self.permitted or None, self.excluded or None), True))
        names: list[x509.GeneralName] = [
            *(x509.UniformResourceIdentifier(uri) for uri in self.uris),
            *(x509.DNSName(name) for name in self.dns),
            *(x509.RFC822Name(name) for name in self.emails),
        ]
        if self.has_names and names:
            found.append((x509.SubjectAlternativeName(names), False))
        if self.key_ids:
            found.append((x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), False))
            issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.signer.public_key())
            found.append((issuer_key, False))
        return found


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


ROOT = Recipe(
    "root",
    KEYS["root"],
    KEYS["root"],
    "root",
    begin=NOW - 100 * DAY,
    end=NOW + 100 * DAY,
    uris=("spiffe://mesh.test",),
    basic=(True, None),
    usage=("key_cert_sign", "crl_sign"),
    extended=None,
)
INTERMEDIATE = Recipe(
    "intermediate",
    KEYS["intermediate"],
    KEYS["root"],
    "root",
    begin=NOW - 50 * DAY,
    end=NOW + 50 * DAY,
    uris=("spiffe://mesh.test",),
    basic=(True, 0),
    usage=("key_cert_sign", "crl_sign"),
    extended=None,
    permitted=(x509.UniformResourceIdentifier("mesh.test"),),
)
LEAF = Recipe("leaf", KEYS["leaf"], KEYS["intermediate"], "intermediate", uris=(REVIEWS,))


def pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)


def changed(recipe: Recipe, **changes: object) -> Recipe:
    return replace(recipe, **changes)  # type: ignore[arg-type]  # tables hold values of every kind

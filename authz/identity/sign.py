"""
Turn a template into a certificate. The serial number and the issuer are arguments; nothing is looked up.

A certificate never outlives its issuer: what the template asks for is cut off at the issuer's end.
"""

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from authz.identity.certificate_template import CertificateTemplate
from authz.identity.keys import PrivateKey, PublicKey, signature_hash

SERIAL_BYTES = 16


@dataclass(frozen=True, slots=True)
class Issuer:
    """A certificate and its private key, which ``repr`` omits."""

    certificate: x509.Certificate
    key: PrivateKey = field(repr=False)


def read_serial(random: bytes) -> int:
    """Make a serial number, positive and at most 20 bytes in DER (RFC 5280 section 4.1.2.2), from 16 random bytes."""
    if len(random) != SERIAL_BYTES:
        raise ValueError(f"a serial number is made of {SERIAL_BYTES} random bytes, got {len(random)}")
    return int.from_bytes(random) >> 1 | 1


def sign(template: CertificateTemplate, public_key: PublicKey, serial: int, issuer: Issuer) -> x509.Certificate:
    """Sign a certificate with an issuer's key."""
    end = min(template.not_after, issuer.certificate.not_valid_after_utc.timestamp())
    key_id = issuer.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = _builder(template, public_key, serial, end)
    builder = builder.issuer_name(issuer.certificate.subject).add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key_id), critical=False
    )
    return builder.sign(issuer.key, signature_hash(issuer.key))


def sign_self(template: CertificateTemplate, key: PrivateKey, serial: int) -> x509.Certificate:
    """Sign a root with its own key."""
    builder = _builder(template, key.public_key(), serial, template.not_after)
    return builder.issuer_name(_subject(template)).sign(key, signature_hash(key))


def _builder(template: CertificateTemplate, public_key: PublicKey, serial: int, end: float) -> x509.CertificateBuilder:
    if end <= template.not_before:
        raise ValueError("the certificate would end before it begins: its issuer has expired")
    builder = (
        x509.CertificateBuilder()
        .subject_name(_subject(template))
        .public_key(public_key)
        .serial_number(serial)
        .not_valid_before(datetime.fromtimestamp(template.not_before, UTC))
        .not_valid_after(datetime.fromtimestamp(end, UTC))
    )
    for extension, critical in _extensions(template, public_key):
        builder = builder.add_extension(extension, critical)
    return builder


def _extensions(template: CertificateTemplate, public_key: PublicKey) -> Iterator[tuple[x509.ExtensionType, bool]]:
    yield x509.BasicConstraints(template.is_ca, template.path_length), True
    yield (
        x509.KeyUsage(
            digital_signature=not template.is_ca,
            key_cert_sign=template.is_ca,
            crl_sign=template.is_ca,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        ),
        True,
    )
    usages = [
        *([ExtendedKeyUsageOID.SERVER_AUTH] if template.is_server else []),
        *([ExtendedKeyUsageOID.CLIENT_AUTH] if template.is_client else []),
    ]
    if usages:
        yield x509.ExtendedKeyUsage(usages), False
    if template.permitted_hosts:
        hosts = [x509.UniformResourceIdentifier(host) for host in template.permitted_hosts]
        yield x509.NameConstraints(permitted_subtrees=hosts, excluded_subtrees=None), True
    names: list[x509.GeneralName] = [
        *(x509.UniformResourceIdentifier(uri) for uri in template.uris),
        *(x509.DNSName(name) for name in template.dns),
        *(x509.IPAddress(ipaddress.ip_address(address)) for address in template.addresses),
    ]
    if names:
        yield x509.SubjectAlternativeName(names), False
    yield x509.SubjectKeyIdentifier.from_public_key(public_key), False


def _subject(template: CertificateTemplate) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, template.organization)]
    if template.common_name:
        attributes.append(x509.NameAttribute(NameOID.COMMON_NAME, template.common_name))
    return x509.Name(attributes)

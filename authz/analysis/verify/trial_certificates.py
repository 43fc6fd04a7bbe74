"""Client and workload certificates made on the fly, one for every identity that a case names."""

import datetime
import ssl
from collections.abc import Iterator
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


class Identities:
    """Certificates of one authority. All share one key: it is the names that matter here."""

    def __init__(self, directory: Path) -> None:
        """Write ``ca.crt`` into a directory that is there; the key of the authority stays in memory."""
        self._directory = directory
        self._authority_key = ec.generate_private_key(ec.SECP256R1())
        self._authority = root_certificate(self._authority_key)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._contexts: dict[str, ssl.SSLContext] = {}
        self.publish(directory / "ca.crt")

    def publish(self, file: Path) -> None:
        """Write the authority's certificate."""
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(self._authority.public_bytes(serialization.Encoding.PEM))

    def write(self, directory: Path, identity: str) -> None:
        """Write ``tls.key`` and ``tls.crt``."""
        directory.mkdir(parents=True, exist_ok=True)
        encoded = self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (directory / "tls.key").write_bytes(encoded)
        (directory / "tls.crt").write_bytes(self._certificate(identity).public_bytes(serialization.Encoding.PEM))

    def client(self, identity: str) -> ssl.SSLContext:
        """The client side of mTLS as ``identity``; without one, of one-way TLS."""
        context = self._contexts.get(identity)
        if context is None:
            context = ssl.create_default_context(cafile=str(self._directory / "ca.crt"))
            context.check_hostname = False  # the server is known by its authority: its names are workloads
            if identity:
                directory = self._directory / f"client-{len(self._contexts)}"
                self.write(directory, identity)
                context.load_cert_chain(directory / "tls.crt", directory / "tls.key")
            self._contexts[identity] = context
        return context

    def _certificate(self, identity: str) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        subject, names = x509.Name([]), list(_names(identity))
        if not names:
            # A subject as text has its most specific part first, as Envoy shows it (XA-30).
            subject = x509.Name.from_rfc4514_string(identity)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._authority.subject)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
        return builder.sign(self._authority_key, hashes.SHA256())


def root_certificate(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    """A root of its own for a trial: good for an hour."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "root of a trial")])
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )


def _names(identity: str) -> Iterator[x509.GeneralName]:
    """A URI, else a subject (which has no alternative name), else a DNS name (CS-1)."""
    if identity.partition("/")[0].endswith(":") or identity.startswith("urn:"):
        yield x509.UniformResourceIdentifier(identity)
    elif "=" not in identity:
        yield x509.DNSName(identity)

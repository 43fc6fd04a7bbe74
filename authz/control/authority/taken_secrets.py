"""What a proxy trusts and is signed below, as far as the secrets say that it has acknowledged."""

from collections.abc import Mapping

from authz._proto import sds_pb2 as wire
from authz.control.authority.holders import Holders
from authz.control.discovery.discovered import Discovered
from authz.control.discovery.secrets import ROOTS
from authz.core.spiffe import TrustDomain
from authz.identity.authority import root_id
from authz.identity.bundle import TrustBundle, read_certificates
from authz.identity.delivered import Delivered


def note_taken(holders: Holders, stream: int, peer: str, sent: Mapping[str, Discovered], own: TrustBundle) -> None:
    """
    Note what a stream has acknowledged.

    Args:
        holders: where it is noted.
        stream: its number.
        peer: who it is of, for people.
        sent: the secrets by name. Envoys that ask for ``ALL`` are known by nothing.
        own: the bundle of our own trust domain, by whose roots a certificate is told.
    """
    for name, one in sent.items():
        secret = wire.Secret.FromString(one.message)
        if name in (ROOTS, _bundle_name(own.trust_domain)):
            roots = read_certificates(secret.validation_context.trusted_ca.inline_bytes, "bundle")
            holders.note_stream(stream, peer, frozenset(map(root_id, roots)), "")
        elif secret.HasField("tls_certificate"):
            chain = Delivered.read(secret.tls_certificate.certificate_chain.inline_bytes)
            holders.note_stream(stream, name, None, chain.roots_among(own.pem)[1])


def _bundle_name(trust_domain: TrustDomain) -> str:
    return f"spiffe://{trust_domain}"

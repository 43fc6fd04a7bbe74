"""
Secrets as resources of the discovery conversation. Their versions are digests of the public part.
"""

from collections.abc import Mapping

from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message

from authz._proto import sds_pb2 as wire
from authz.control.discovery.discovered import SECRET_TYPE, Discovered, digest

SPIFFE_VALIDATOR = "envoy.tls.cert_validator.spiffe"
SPIFFE_VALIDATOR_TYPE = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig"
ROOTS = "ROOTCA"
"""The name by which Istio's and spire's Envoys ask for the trust bundle of their own trust domain."""
FEDERATED_ROOTS = "ALL"
"""Spire's name for every known bundle, each valid for its own trust domain only."""


def tls_secret(name: str, chain_pem: bytes, key_pem: bytes) -> Discovered:
    """A certificate chain, leaf first, with its private key."""
    message = wire.Secret(
        name=name,
        tls_certificate=wire.TlsCertificate(
            certificate_chain=wire.DataSource(inline_bytes=chain_pem),
            private_key=wire.DataSource(inline_bytes=key_pem),
        ),
    )
    return _secret(message, digest(chain_pem))


def roots_secret(name: str, bundle_pem: bytes) -> Discovered:
    """The roots to trust."""
    context = wire.CertificateValidationContext(trusted_ca=wire.DataSource(inline_bytes=bundle_pem))
    return _secret(wire.Secret(name=name, validation_context=context), digest(bundle_pem))


def federated_roots_secret(name: str, bundles: Mapping[str, bytes]) -> Discovered:
    """The roots of several trust domains (name to PEM), each for its own SPIFFE IDs only: Envoy's SPIFFE validator."""
    ordered = sorted(bundles.items())
    config = wire.SpiffeCertValidatorConfig(
        trust_domains=[
            wire.SpiffeCertValidatorConfig.TrustDomain(name=domain, trust_bundle=wire.DataSource(inline_bytes=bundle))
            for domain, bundle in ordered
        ]
    )
    context = wire.CertificateValidationContext(
        custom_validator_config=wire.TypedExtensionConfig(
            name=SPIFFE_VALIDATOR, typed_config=_pack(SPIFFE_VALIDATOR_TYPE, config)
        )
    )
    version = digest(b"".join(domain.encode() + b"\0" + bundle for domain, bundle in ordered))
    return _secret(wire.Secret(name=name, validation_context=context), version)


def _secret(message: wire.Secret, version: str) -> Discovered:
    packed = _pack(SECRET_TYPE, message).SerializeToString()
    return Discovered(message.name, version, packed)


def _pack(type_url: str, message: Message) -> Any:
    """Pack under Envoy's type name: our proto package has another name."""
    return Any(type_url=type_url, value=message.SerializeToString())

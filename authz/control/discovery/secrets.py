"""
The secret discovery conversation without a stream: requests in, responses out (XA-153 to XA-157).

A ``SecretStream`` knows what one Envoy asked for, what it was sent and what it took. It never resends a secret that was
refused (XA-154: that would be a tight loop) until there is a newer one. It knows neither gRPC nor who may have what:
the shell gives it only secrets that its peer may see.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message

from authz._proto import sds_pb2 as wire

SECRET_TYPE = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"  # noqa: S105  # a type's name
SPIFFE_VALIDATOR = "envoy.tls.cert_validator.spiffe"
SPIFFE_VALIDATOR_TYPE = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig"
ROOTS = "ROOTCA"
"""The name by which Istio's and spire's Envoys ask for the trust bundle of their own trust domain."""
FEDERATED_ROOTS = "ALL"
"""Spire's name for every known bundle, each valid for its own trust domain only."""


@dataclass(frozen=True, slots=True)
class Secret:
    """One secret as Envoy is to see it. ``repr`` omits the message, which may hold a private key."""

    name: str
    version: str
    """Digest of the public part: equal for equal secrets, whoever serves them."""
    message: wire.Secret = field(repr=False, compare=False)


def tls_secret(name: str, chain_pem: bytes, key_pem: bytes) -> Secret:
    """A certificate chain, leaf first, with its private key."""
    message = wire.Secret(
        name=name,
        tls_certificate=wire.TlsCertificate(
            certificate_chain=wire.DataSource(inline_bytes=chain_pem),
            private_key=wire.DataSource(inline_bytes=key_pem),
        ),
    )
    return Secret(name, _digest(chain_pem), message)


def roots_secret(name: str, bundle_pem: bytes) -> Secret:
    """The roots to trust."""
    context = wire.CertificateValidationContext(trusted_ca=wire.DataSource(inline_bytes=bundle_pem))
    return Secret(name, _digest(bundle_pem), wire.Secret(name=name, validation_context=context))


def federated_roots_secret(name: str, bundles: Mapping[str, bytes]) -> Secret:
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
    version = _digest(b"".join(domain.encode() + b"\0" + bundle for domain, bundle in ordered))
    return Secret(name, version, wire.Secret(name=name, validation_context=context))


class SecretStream:
    """
    One stream of one Envoy, state of the world.

    Envoy opens one stream per secret with exactly one name (XA-154), but several names work as well.
    """

    def __init__(self, secrets: Mapping[str, Secret] | None = None) -> None:
        self._secrets: Mapping[str, Secret] = secrets or {}
        self._sent: dict[str, str] = {}
        self._nonce = 0
        self.names: tuple[str, ...] = ()
        """The names that the last request asked for."""
        self.node = ""
        """``node.id`` from the first request: later ones may leave it out (XA-154)."""
        self.rejection = ""
        """Envoy's words when it refused the last response; empty after it took one."""

    def receive(self, request: wire.DiscoveryRequest) -> list[wire.DiscoveryResponse]:
        """
        Take a request: a subscription, an ACK or a NACK. Return what is due, often nothing.

        Raises ValueError when something other than secrets is asked for.
        """
        if request.type_url not in ("", SECRET_TYPE):
            raise ValueError(f"this server has secrets only, not `{request.type_url}`")
        if request.node.id:
            self.node = request.node.id
        if request.response_nonce and request.response_nonce != str(self._nonce):
            return []  # an answer to a response that a newer one has overtaken
        if request.response_nonce:
            self._note_answer(request)
        else:
            self._sent.clear()  # "resend anyway": the first request after a reconnect (XA-154, 5)
        names = tuple(dict.fromkeys(request.resource_names))
        self._sent = {name: version for name, version in self._sent.items() if name in names}
        self.names = names
        return self._due()

    def update(self, secrets: Mapping[str, Secret]) -> list[wire.DiscoveryResponse]:
        """Replace what there is; return a push if this Envoy has not been sent it yet."""
        self._secrets = secrets
        return self._due()

    def _note_answer(self, request: wire.DiscoveryRequest) -> None:
        if request.HasField("error_detail"):
            self.rejection = request.error_detail.message or f"code {request.error_detail.code}"
        else:
            self.rejection = ""

    def _due(self) -> list[wire.DiscoveryResponse]:
        """
        Respond when a wanted secret is new to this Envoy.

        A response repeats every wanted secret that exists: state of the world. One that does not exist yet is left
        out, so that Envoy goes on waiting for it (XA-155).
        """
        found = [self._secrets[name] for name in self.names if name in self._secrets]
        if all(self._sent.get(secret.name) == secret.version for secret in found):
            return []
        self._sent = {secret.name: secret.version for secret in found}
        self._nonce += 1
        return [respond(found, str(self._nonce))]


def respond(secrets: list[Secret], nonce: str = "") -> wire.DiscoveryResponse:
    """Build a response; ``FetchSecrets`` uses it without a stream."""
    version = secrets[0].version if len(secrets) == 1 else _digest(b"".join(s.version.encode() for s in secrets))
    return wire.DiscoveryResponse(
        version_info=version,
        nonce=nonce,
        type_url=SECRET_TYPE,
        resources=[_pack(SECRET_TYPE, secret.message) for secret in secrets],
    )


def _pack(type_url: str, message: Message) -> Any:
    """Pack under Envoy's type name: our proto package has another name."""
    return Any(type_url=type_url, value=message.SerializeToString())


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]

"""
The gRPC shell of secret discovery: streams around ``discovery.conversation.Conversation``, filled from the ``stock``.

The socket by which a peer came in decides who it is: by the kernel's credentials (``unix_peers``), or by the
certificate of its mutual TLS.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import grpc

from authz._proto import sds_pb2 as wire
from authz.control.authority.holders import Holders
from authz.control.authority.stock import Stock, has_expired
from authz.control.authority.taken_secrets import note_taken
from authz.control.discovery.conversation import Conversation
from authz.control.discovery.discovered import SECRET_TYPE, Discovered, Push, version_of
from authz.control.discovery.secrets import (
    FEDERATED_ROOTS,
    ROOTS,
    federated_roots_secret,
    roots_secret,
    tls_secret,
)
from authz.core.spiffe import SpiffeId
from authz.identity.registrar import Cause, Refused
from authz.identity.registration import Evidence, SvidPeer
from authz.identity.renewal import Holder
from authz.identity.svid_validation import Rejection, validate_svid

log = logging.getLogger(__name__)

SERVICE = "envoy.service.secret.v3.SecretDiscoveryService"
STATUS = {
    Cause.DENIED: grpc.StatusCode.PERMISSION_DENIED,
    Cause.REQUEST: grpc.StatusCode.INVALID_ARGUMENT,
    Cause.LIMIT: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Cause.SIGNING: grpc.StatusCode.INTERNAL,
}
"""How a refusal is answered."""
MAX_INBOX = 16
"""Requests of one stream that wait; further ones wait in the connection."""
MAX_NAMES = 64
"""Secrets that one stream may ask for."""
SHOWN_CHARACTERS = 200
"""The most characters that are shown of an unknown name."""

_Context = grpc.aio.ServicerContext[wire.DiscoveryRequest, bytes]
Identify = Callable[[grpc.aio.ServicerContext[Any, Any]], Evidence | Refused]
"""Says who the peer of a call is. Calls are typed Any, because the answer is the same for every kind."""


@dataclass(slots=True, eq=False)
class _Listener:
    """One open stream. ``inbox`` takes requests and, as None, the word that something changed."""

    evidence: Evidence
    conversation: Conversation = field(default_factory=lambda: Conversation(only=SECRET_TYPE))
    inbox: asyncio.Queue[wire.DiscoveryRequest | None] = field(default_factory=lambda: asyncio.Queue(MAX_INBOX))
    is_told: bool = False
    number: int = 0
    """Tells it from others of the same peer."""

    @property
    def holders(self) -> list[Holder]:
        """The certificates that the stream asked for."""
        names = (name for name in self.names if name.startswith("spiffe://"))
        return [(self.evidence, SpiffeId.parse(name)) for name in names]

    @property
    def names(self) -> tuple[str, ...]:
        """What the stream asked for."""
        subscription = self.conversation.subscriptions.get(SECRET_TYPE)
        return () if subscription is None else tuple(subscription.names)

    def wake(self) -> None:
        """A full inbox needs none: every request that is taken from there looks at the secrets again."""
        if not self.is_told and not self.inbox.full():
            self.is_told = True
            self.inbox.put_nowait(None)


@dataclass(slots=True)
class Figures:
    """Counts since the start, for metrics."""

    pushes: int = 0
    acknowledged: int = 0
    rejected: int = 0
    refused: int = 0


class SecretServer:
    """Serves secrets of one stock."""

    def __init__(self, stock: Stock, holders: Holders | None = None) -> None:
        """``holders``: where it is noted what peers have acknowledged, for those who change the root."""
        self._stock = stock
        self._noted = holders
        self._numbers = count(1)
        self._registrar = stock.registrar
        self.streams = 0
        """How many are open."""
        self.figures = Figures()

    def handler(self, identify: Identify) -> "grpc.GenericRpcHandler[wire.DiscoveryRequest, bytes]":
        """The gRPC service for peers that ``identify`` tells apart."""

        async def stream(requests: AsyncIterator[wire.DiscoveryRequest], context: _Context) -> AsyncIterator[bytes]:
            evidence = await self._identified(identify, context)
            async for response in self._converse(evidence, requests, context):
                yield response

        async def fetch(request: wire.DiscoveryRequest, context: _Context) -> bytes:
            evidence = await self._identified(identify, context)
            found = await self._secrets_or_abort(evidence, tuple(request.resource_names), context)
            return Push(SECRET_TYPE, version_of(found.values()), "", tuple(found.values())).encode()

        read = wire.DiscoveryRequest.FromString
        methods = {
            "StreamSecrets": grpc.stream_stream_rpc_method_handler(stream, read),
            "FetchSecrets": grpc.unary_unary_rpc_method_handler(fetch, read),
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    def identify_svid(self, context: grpc.aio.ServicerContext[Any, Any]) -> Evidence | Refused:
        """The peer of a mutual TLS connection: judged again here, for expiry and for intermediates (XA-159)."""
        shown = context.auth_context()
        leaf = b"".join(shown.get("x509_pem_cert", []))
        if not leaf:
            return Refused("a client certificate is needed")
        # Another authority of this trust domain may have signed it, whose intermediate is new to us. At this end of a
        # connection OpenSSL leaves the leaf out of the chain.
        above = b"".join(shown.get("x509_pem_cert_chain", []))
        bundle = self._registrar.ca.trust_bundle
        examined = validate_svid(
            above if above.startswith(leaf) else leaf + above, {bundle.trust_domain: bundle}, self._stock.clock()
        )
        if isinstance(examined, Rejection):
            return Refused(examined.reason)
        return SvidPeer(examined.spiffe_id, examined.serial, min(window.end for window in examined.windows))

    async def _identified(self, identify: Identify, context: _Context) -> Evidence:
        evidence = identify(context)
        if isinstance(evidence, Refused):
            self.figures.refused += 1
            self._registrar.refuse(context.peer(), "", evidence, self._stock.clock())
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, evidence.reason)
        return evidence

    async def _converse(
        self, evidence: Evidence, requests: AsyncIterator[wire.DiscoveryRequest], context: _Context
    ) -> AsyncIterator[bytes]:
        listener = _Listener(evidence, number=next(self._numbers))
        self._stock.listen(listener)
        self.streams += 1
        reading = asyncio.create_task(_read_into(requests, listener.inbox))
        try:
            while not (reading.done() and listener.inbox.empty()):
                request = await listener.inbox.get()
                pushes: list[Push] = []
                if request is None:
                    listener.is_told = False
                else:
                    pushes = await self._receive(listener, request, context)
                secrets = await self._secrets_or_abort(evidence, listener.names, context)
                pushes += listener.conversation.update({SECRET_TYPE: secrets})
                for push in pushes:
                    self.figures.pushes += 1
                    yield push.encode()
        finally:
            reading.cancel()
            self._stock.leave(listener)
            self.streams -= 1
            if self._noted is not None:
                self._noted.end_stream(listener.number, self._stock.clock())

    async def _receive(self, listener: _Listener, request: wire.DiscoveryRequest, context: _Context) -> list[Push]:
        conversation = listener.conversation
        before = conversation.subscriptions.get(SECRET_TYPE)
        sent, nonce = (dict(before.sent), before.nonce) if before is not None else ({}, "")
        try:
            pushes = conversation.receive(request)
        except ValueError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        if request.HasField("error_detail"):
            self.figures.rejected += 1
            names = ", ".join(request.resource_names)
            told = request.error_detail.message
            log.error("%s refused %s, keeps the old one: %s", conversation.node, names, told)
        elif request.response_nonce:
            self.figures.acknowledged += 1
            if self._noted is not None and request.response_nonce == nonce:
                own = self._registrar.ca.trust_bundle
                note_taken(self._noted, listener.number, str(listener.evidence), sent, own)
        return pushes

    async def _secrets_or_abort(
        self, evidence: Evidence, names: tuple[str, ...], context: _Context
    ) -> dict[str, Discovered]:
        secrets = self._secrets(evidence, names)
        if isinstance(secrets, Refused):
            self.figures.refused += 1
            await context.abort(STATUS[secrets.cause], secrets.reason)
        return secrets

    def _secrets(self, evidence: Evidence, names: tuple[str, ...]) -> dict[str, Discovered] | Refused:
        if len(names) > MAX_NAMES:
            return self._refuse(
                evidence, "", f"{len(names)} secrets were asked for, at most {MAX_NAMES} are served on one stream"
            )
        if has_expired(evidence, self._stock.clock()):
            return self._refuse(evidence, "", "the certificate that opened this stream has expired")
        revoked = self._registrar.revoked(evidence)
        if revoked:
            return self._refuse(evidence, "", revoked)
        found = {}
        for name in names:
            secret = self._secret(evidence, name)
            if isinstance(secret, Refused):
                return secret
            found[name] = secret
        return found

    def _secret(self, evidence: Evidence, name: str) -> Discovered | Refused:
        """A name is ``ROOTCA``, ``ALL``, a trust domain's SPIFFE ID (its bundle) or a workload's."""
        ca = self._registrar.ca
        if name == ROOTS:
            return roots_secret(name, ca.bundle_pem)
        bundles = {domain: b.pem for domain, b in self._stock.bundles_for(evidence).items() if b.roots}
        if name == FEDERATED_ROOTS:
            return federated_roots_secret(name, {domain.name: pem for domain, pem in bundles.items()})
        try:
            spiffe_id = SpiffeId.parse(name)
        except ValueError:
            return self._refuse(evidence, "", f"there is no secret `{name[:SHOWN_CHARACTERS]}`")
        if not spiffe_id.path:
            bundle = bundles.get(spiffe_id.trust_domain)
            if bundle is None:
                return self._refuse(evidence, name, f"the bundle of `{name}` is not for {evidence}")
            return roots_secret(name, bundle)
        svid = self._stock.shelf.get(evidence, spiffe_id, self._stock.clock())
        return svid if isinstance(svid, Refused) else tls_secret(name, svid.chain_pem, svid.key_pem)

    def _refuse(self, evidence: Evidence, name: str, reason: str) -> Refused:
        """Refuse what no certificate is asked for; the shelf records its own refusals."""
        refused = Refused(reason)
        self._registrar.refuse(str(evidence), name, refused, self._stock.clock())
        return refused


async def _read_into(
    requests: AsyncIterator[wire.DiscoveryRequest], inbox: asyncio.Queue[wire.DiscoveryRequest | None]
) -> None:
    """Move requests to the inbox; the last word wakes the loop so that it sees the end."""
    try:
        async for request in requests:
            await inbox.put(request)
    finally:
        if not inbox.full():
            inbox.put_nowait(None)

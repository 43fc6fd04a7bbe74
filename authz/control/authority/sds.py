"""
The gRPC shell of secret discovery: streams around ``discovery.secrets.SecretStream``, renewal around
``identity.renewal.Shelf``.

Everything runs on one event loop. The socket by which a peer came in decides who it is: by the kernel's credentials
(``unix_peers``), or by the certificate of its mutual TLS.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import grpc

from authz._proto import sds_pb2 as wire
from authz.control.discovery.secrets import (
    FEDERATED_ROOTS,
    ROOTS,
    Secret,
    SecretStream,
    federated_roots_secret,
    respond,
    roots_secret,
    tls_secret,
)
from authz.core.spiffe import SpiffeId, TrustDomain
from authz.identity.authority import AuthorityState
from authz.identity.bundle import TrustBundle
from authz.identity.registrar import Cause, Refused, Registrar
from authz.identity.registration import Evidence, SvidPeer
from authz.identity.renewal import Holder, Shelf
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
MAX_TICK_SECONDS = 1.0
MIN_TICK_SECONDS = 0.02
MAX_INBOX = 16
"""Requests of one stream that wait; further ones wait in the connection."""
MAX_NAMES = 64
"""Secrets that one stream may ask for."""
SHOWN_CHARACTERS = 200
"""Characters that are shown of a name that nobody has heard of."""

_Context = grpc.aio.ServicerContext[wire.DiscoveryRequest, wire.DiscoveryResponse]
Identify = Callable[[grpc.aio.ServicerContext[Any, Any]], Evidence | Refused]
"""Tells who the peer of a call is. Calls are typed Any, because the answer is the same for every kind."""
Clock = Callable[[], float]


@dataclass(slots=True, eq=False)
class _Listener:
    """One open stream. ``inbox`` takes requests and, as None, the word that something changed."""

    evidence: Evidence
    conversation: SecretStream = field(default_factory=SecretStream)
    inbox: asyncio.Queue[wire.DiscoveryRequest | None] = field(default_factory=lambda: asyncio.Queue(MAX_INBOX))
    is_told: bool = False


@dataclass(slots=True)
class Figures:
    """Counts since the start, for metrics."""

    pushes: int = 0
    acknowledged: int = 0
    rejected: int = 0
    refused: int = 0


class SecretServer:
    """Serves secrets to every peer of one registrar, and renews them."""

    def __init__(
        self,
        registrar: Registrar,
        clock: Clock,
        jitter: Callable[[], float],
        federated: Iterable[TrustBundle] = (),
    ) -> None:
        self._registrar = registrar
        self._clock = clock
        self._federated = {bundle.trust_domain: bundle for bundle in federated}
        self._listeners: set[_Listener] = set()
        self.shelf = Shelf(registrar, jitter)
        self.figures = Figures()

    @property
    def streams(self) -> int:
        """How many are open."""
        return len(self._listeners)

    # What changes

    def replace_federated(self, federated: Iterable[TrustBundle]) -> None:
        """Trust these bundles besides our own, each for its own trust domain."""
        self._federated = {bundle.trust_domain: bundle for bundle in federated}
        self.tell()

    def tell(self, renewed: Iterable[Holder] | None = None) -> None:
        """Wake the streams that may have something new: all, or those of the holders given."""
        holders = None if renewed is None else set(renewed)
        for listener in self._listeners:
            if holders is None or holders & set(_holders(listener)):
                self._wake(listener)

    def _wake(self, listener: _Listener) -> None:
        """A full inbox needs no notice: every request taken from it looks at the secrets again."""
        if not listener.is_told and not listener.inbox.full():
            listener.is_told = True
            listener.inbox.put_nowait(None)

    def tick(self, now: float) -> None:
        """Renew what is due, push what was renewed, end the streams whose proof has expired."""
        for listener in self._listeners:
            if _has_expired(listener.evidence, now):
                self._wake(listener)
        wanted = {holder for listener in self._listeners for holder in _holders(listener)}
        authorities = self._registrar.ca.authorities
        sound = {a.id for a in authorities if a.state is not AuthorityState.TAINTED}
        condemned = {kept.svid.authority_id for kept in self.shelf.kept.values()} - sound
        renewed = self.shelf.renew_due(now, wanted, condemned)
        if renewed:
            self.tell(renewed)

    async def keep_current(self) -> None:
        """Renew and push, until cancelled."""
        while True:
            due = self.shelf.next_due()
            pause = MAX_TICK_SECONDS if due is None else due - self._clock()
            await asyncio.sleep(min(MAX_TICK_SECONDS, max(MIN_TICK_SECONDS, pause)))
            try:
                self.tick(self._clock())
            except Exception:  # a renewal that fails must not end all renewals
                log.exception("renewing certificates failed; the old ones stay in use")

    # The service

    def handler(self, identify: Identify) -> "grpc.GenericRpcHandler[wire.DiscoveryRequest, wire.DiscoveryResponse]":
        """The gRPC service for peers that ``identify`` tells apart."""

        async def stream(requests: AsyncIterator[wire.DiscoveryRequest], context: _Context) -> AsyncIterator[object]:
            evidence = await self._identified(identify, context)
            async for response in self._converse(evidence, requests, context):
                yield response

        async def fetch(request: wire.DiscoveryRequest, context: _Context) -> wire.DiscoveryResponse:
            evidence = await self._identified(identify, context)
            found = await self._secrets_or_abort(evidence, tuple(request.resource_names), context)
            return respond(list(found.values()))

        read, write = wire.DiscoveryRequest.FromString, wire.DiscoveryResponse.SerializeToString
        methods = {
            "StreamSecrets": grpc.stream_stream_rpc_method_handler(stream, read, write),
            "FetchSecrets": grpc.unary_unary_rpc_method_handler(fetch, read, write),
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    def identify_svid(self, context: grpc.aio.ServicerContext[Any, Any]) -> Evidence | Refused:
        """The peer of a mutual TLS connection: judged again here, for expiry and for intermediates (XA-159)."""
        certificates = list(context.auth_context().get("x509_pem_cert", []))
        if not certificates:
            return Refused("a client certificate is needed")
        bundle = self._registrar.ca.trust_bundle
        examined = validate_svid(bytes(certificates[0]), {bundle.trust_domain: bundle}, self._clock())
        if isinstance(examined, Rejection):
            return Refused(examined.reason)
        return SvidPeer(examined.spiffe_id, examined.serial, min(window.end for window in examined.windows))

    async def _identified(self, identify: Identify, context: _Context) -> Evidence:
        evidence = identify(context)
        if isinstance(evidence, Refused):
            self.figures.refused += 1
            self._registrar.refuse(context.peer(), "", evidence, self._clock())
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, evidence.reason)
        return evidence

    async def _converse(
        self, evidence: Evidence, requests: AsyncIterator[wire.DiscoveryRequest], context: _Context
    ) -> AsyncIterator[wire.DiscoveryResponse]:
        listener = _Listener(evidence)
        self._listeners.add(listener)
        reading = asyncio.create_task(_read_into(requests, listener.inbox))
        try:
            while not (reading.done() and listener.inbox.empty()):
                request = await listener.inbox.get()
                responses: list[wire.DiscoveryResponse] = []
                if request is None:
                    listener.is_told = False
                else:
                    responses = await self._receive(listener, request, context)
                names = listener.conversation.names
                secrets = await self._secrets_or_abort(evidence, names, context)
                responses += listener.conversation.update(secrets)
                for response in responses:
                    self.figures.pushes += 1
                    yield response
        finally:
            reading.cancel()
            self._listeners.discard(listener)

    async def _receive(
        self, listener: _Listener, request: wire.DiscoveryRequest, context: _Context
    ) -> list[wire.DiscoveryResponse]:
        conversation = listener.conversation
        try:
            responses = conversation.receive(request)
        except ValueError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        if request.HasField("error_detail"):
            self.figures.rejected += 1
            names = ", ".join(request.resource_names)
            log.error("%s refused %s, keeps the old one: %s", conversation.node, names, conversation.rejection)
        elif request.response_nonce:
            self.figures.acknowledged += 1
        return responses

    async def _secrets_or_abort(
        self, evidence: Evidence, names: tuple[str, ...], context: _Context
    ) -> dict[str, Secret]:
        secrets = self._secrets(evidence, names)
        if isinstance(secrets, Refused):
            self.figures.refused += 1
            await context.abort(STATUS[secrets.cause], secrets.reason)
        return secrets

    def _secrets(self, evidence: Evidence, names: tuple[str, ...]) -> dict[str, Secret] | Refused:
        if len(names) > MAX_NAMES:
            return self._refuse(
                evidence, "", f"{len(names)} secrets were asked for, at most {MAX_NAMES} are served on one stream"
            )
        if _has_expired(evidence, self._clock()):
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

    def _secret(self, evidence: Evidence, name: str) -> Secret | Refused:
        """A name is ``ROOTCA``, ``ALL``, a trust domain's SPIFFE ID (its bundle) or a workload's."""
        ca = self._registrar.ca
        if name == ROOTS:
            return roots_secret(name, ca.bundle_pem)
        bundles = self._bundles_for(evidence)
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
        svid = self.shelf.get(evidence, spiffe_id, self._clock())
        return svid if isinstance(svid, Refused) else tls_secret(name, svid.chain_pem, svid.key_pem)

    def _refuse(self, evidence: Evidence, name: str, reason: str) -> Refused:
        """Refuse what no certificate is asked for; the shelf records its own refusals."""
        refused = Refused(reason)
        self._registrar.refuse(str(evidence), name, refused, self._clock())
        return refused

    def _bundles_for(self, evidence: Evidence) -> dict[TrustDomain, bytes]:
        ca = self._registrar.ca
        grants = self._registrar.grants(evidence).values()
        allowed = {domain for grant in grants for domain in grant.federates_with}
        federated = {d: bundle.pem for d, bundle in self._federated.items() if d in allowed}
        return {**federated, ca.trust_domain: ca.bundle_pem}


def _holders(listener: _Listener) -> list[Holder]:
    names = (name for name in listener.conversation.names if name.startswith("spiffe://"))
    return [(listener.evidence, SpiffeId.parse(name)) for name in names]


def _has_expired(evidence: Evidence, now: float) -> bool:
    return isinstance(evidence, SvidPeer) and now >= evidence.expires_at


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

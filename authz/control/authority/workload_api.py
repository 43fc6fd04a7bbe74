"""
The SPIFFE Workload API for local applications: SVIDs, trust bundles, and validation of JWT-SVIDs.

It is served on the same socket as secret discovery, to the peer that the kernel names. Every response is the whole of
what the peer may have; a stream is sent another one when that changes (SPIFFE Workload API 4.3, 4.4).
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import grpc
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct

from authz._proto import workload_pb2 as wire
from authz.control.authority.stock import Stock
from authz.core.spiffe import SpiffeId
from authz.identity.bundle_document import JWT_USE, write_key_set
from authz.identity.jwt_svid import judge_audience, validate_jwt_svid
from authz.identity.pem import read_pem
from authz.identity.registrar import Cause, Refused
from authz.identity.registration import UnixPeer
from authz.identity.renewal import RETRY_SECONDS, Holder
from authz.identity.svid_validation import Rejection

SERVICE = "SpiffeWorkloadAPI"
"""The standard's proto has no package."""
HEADER = ("workload.spiffe.io", "true")
"""Without it calls are refused: whoever tricks a browser or proxy into one cannot set it (Workload Endpoint 3)."""
STATUS = {
    Cause.DENIED: grpc.StatusCode.PERMISSION_DENIED,
    Cause.REQUEST: grpc.StatusCode.INVALID_ARGUMENT,
    Cause.LIMIT: grpc.StatusCode.UNAVAILABLE,
    Cause.SIGNING: grpc.StatusCode.UNAVAILABLE,
}
"""The standard's codes (Workload Endpoint 6): what may succeed later is UNAVAILABLE."""
NO_IDENTITY = "no identity issued"
"""Spire's words, for whoever has no registration entry."""

_Context = grpc.aio.ServicerContext[Any, Any]
_Request = TypeVar("_Request", bound=Message)
_Response = TypeVar("_Response", bound=Message)


@dataclass(slots=True, eq=False)
class _Listener:
    """One open stream; ``holders`` are the certificates that its last response had."""

    evidence: UnixPeer
    holders: tuple[Holder, ...] = ()
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def wake(self) -> None:
        self.changed.set()


@dataclass(slots=True)
class WorkloadServer:
    """Serves what is in ``stock``."""

    stock: Stock
    streams: int = 0
    """How many are open."""

    def handler(self, peer: UnixPeer) -> "grpc.GenericRpcHandler[Any, Any]":
        """The gRPC service for one peer."""
        methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "FetchX509SVID": self._streaming(peer, wire.X509SVIDRequest, self._x509_svids),
            "FetchX509Bundles": self._streaming(peer, wire.X509BundlesRequest, self._x509_bundles),
            "FetchJWTBundles": self._streaming(peer, wire.JWTBundlesRequest, self._jwt_bundles),
            "FetchJWTSVID": _single(peer, wire.JWTSVIDRequest, self._jwt_svids),
            "ValidateJWTSVID": _single(peer, wire.ValidateJWTSVIDRequest, self._validated),
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    def _streaming(
        self, peer: UnixPeer, request_type: type[_Request], make: "Callable[[_Listener], _Response | Refused]"
    ) -> "grpc.RpcMethodHandler[_Request, _Response]":
        async def stream(_: _Request, context: _Context) -> AsyncIterator[_Response]:
            await _require_header(context)
            listener, sent = _Listener(peer), b""
            self.stock.listen(listener)
            self.streams += 1
            try:
                while True:
                    listener.changed.clear()
                    response = await _or_abort(make(listener), context)
                    data = response.SerializeToString(deterministic=True)
                    if data != sent:
                        yield response
                        sent = data
                    await listener.changed.wait()
            finally:
                self.stock.leave(listener)
                self.streams -= 1

        return grpc.unary_stream_rpc_method_handler(stream, request_type.FromString, _serialized)

    # Answers

    def _x509_svids(self, listener: _Listener) -> wire.X509SVIDResponse | Refused:
        """Every identity in the order of the entries: the first is the default one (Workload API 5.3)."""
        peer, registrar = listener.evidence, self.stock.registrar
        own, *others = self.stock.bundles_for(peer).values()
        svids, refused, holders = [], Refused(NO_IDENTITY), []
        for grant in registrar.grants(peer).values():
            svid = self.stock.shelf.get(peer, grant.spiffe_id, self.stock.clock())
            if isinstance(svid, Refused):
                refused = svid
                continue
            holders.append((peer, grant.spiffe_id))
            svids.append(
                wire.X509SVID(
                    spiffe_id=str(grant.spiffe_id),
                    x509_svid=read_pem(svid.chain_pem),
                    x509_svid_key=read_pem(svid.key_pem),
                    bundle=read_pem(own.pem),
                )
            )
        listener.holders = tuple(holders)
        if len(svids) < len(registrar.grants(peer)):
            asyncio.get_running_loop().call_later(RETRY_SECONDS, listener.wake)
        federated = {str(SpiffeId(bundle.trust_domain)): read_pem(bundle.pem) for bundle in others if bundle.roots}
        return wire.X509SVIDResponse(svids=svids, federated_bundles=federated) if svids else refused

    def _x509_bundles(self, listener: _Listener) -> wire.X509BundlesResponse | Refused:
        if not self.stock.registrar.grants(listener.evidence):
            return Refused(NO_IDENTITY)
        bundles = self.stock.bundles_for(listener.evidence).items()
        found = {str(SpiffeId(domain)): read_pem(bundle.pem) for domain, bundle in bundles if bundle.roots}
        return wire.X509BundlesResponse(bundles=found)

    def _jwt_bundles(self, listener: _Listener) -> wire.JWTBundlesResponse | Refused:
        if not self.stock.registrar.grants(listener.evidence):
            return Refused(NO_IDENTITY)
        if not self.stock.registrar.jwt_keys.keys:
            return Refused("there are no keys of JWT-SVIDs", Cause.SIGNING)
        bundles = self.stock.bundles_for(listener.evidence).items()
        found = {str(SpiffeId(d)): write_key_set(bundle.jwt_keys, JWT_USE) for d, bundle in bundles if bundle.jwt_keys}
        return wire.JWTBundlesResponse(bundles=found)

    def _jwt_svids(self, peer: UnixPeer, request: wire.JWTSVIDRequest) -> wire.JWTSVIDResponse | Refused:
        audience = tuple(dict.fromkeys(request.audience))
        if reason := judge_audience(audience):
            return Refused(reason, Cause.REQUEST)
        wanted = [grant.spiffe_id for grant in self.stock.registrar.grants(peer).values()]
        if request.spiffe_id:
            try:
                wanted = [SpiffeId.parse(request.spiffe_id)]
            except ValueError as error:
                return Refused(str(error), Cause.REQUEST)
        tokens = [self.stock.jwts.get(peer, spiffe_id, audience, self.stock.clock()) for spiffe_id in wanted]
        refused = [token for token in tokens if isinstance(token, Refused)]
        issued = [token for token in tokens if not isinstance(token, Refused)]
        for answer in refused:
            if answer.cause is not Cause.DENIED or not issued:  # what may succeed later must not look like all there is
                return answer
        if not issued:
            return Refused(NO_IDENTITY)
        return wire.JWTSVIDResponse(svids=[wire.JWTSVID(spiffe_id=str(t.spiffe_id), svid=t.token) for t in issued])

    def _validated(
        self, peer: UnixPeer, request: wire.ValidateJWTSVIDRequest
    ) -> wire.ValidateJWTSVIDResponse | Refused:
        if not (request.audience and request.svid):
            return Refused("`audience` and `svid` are needed", Cause.REQUEST)
        answer = validate_jwt_svid(request.svid, request.audience, self.stock.bundles_for(peer), self.stock.clock())
        if isinstance(answer, Rejection):
            return Refused(answer.reason, Cause.REQUEST)
        if str(answer.spiffe_id) in self.stock.registrar.revocations.spiffe_ids:
            return Refused(f"the identity `{answer.spiffe_id}` is revoked", Cause.REQUEST)
        claims = ParseDict(dict(answer.claims), Struct())
        return wire.ValidateJWTSVIDResponse(spiffe_id=str(answer.spiffe_id), claims=claims)


class _Strangers(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in the stubs only
    """Whoever asks for whatever, of any service: there is nothing for them."""

    def service(self, _: object) -> "grpc.RpcMethodHandler[Any, Any]":
        async def refuse(_: object, context: _Context) -> None:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, NO_IDENTITY)

        return grpc.stream_stream_rpc_method_handler(refuse)


STRANGERS = _Strangers()
"""For peers without a registration entry."""


def _single(
    peer: UnixPeer, request_type: type[_Request], answer: "Callable[[UnixPeer, _Request], _Response | Refused]"
) -> "grpc.RpcMethodHandler[_Request, _Response]":
    async def call(request: _Request, context: _Context) -> _Response:
        await _require_header(context)
        return await _or_abort(answer(peer, request), context)

    return grpc.unary_unary_rpc_method_handler(call, request_type.FromString, _serialized)


async def _require_header(context: _Context) -> None:
    if HEADER not in (context.invocation_metadata() or ()):
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"the metadata `{HEADER[0]}: {HEADER[1]}` is missing")


async def _or_abort(answer: _Response | Refused, context: _Context) -> _Response:
    if isinstance(answer, Refused):
        await context.abort(STATUS[answer.cause], answer.reason)
    return answer


def _serialized(message: Message) -> bytes:
    return message.SerializeToString()

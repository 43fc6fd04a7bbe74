"""
The gRPC shell of enrolment: a join token or a valid SVID, and a certificate request, for a chain and the bundle.

The private key never leaves the workload. Every "no" is audited and answered with the same words as to a local peer.
"""

import asyncio
import logging
from collections.abc import Callable

import grpc

from authz._proto import sds_pb2 as wire
from authz.control.authority.holders import AGAIN_HEADER, ASK_SECONDS, Holders
from authz.control.authority.sds import STATUS, Identify
from authz.core.errors import AuthzError
from authz.identity.join_tokens import UNKNOWN, TakenToken, TokenDirectory, TokenStore
from authz.identity.registrar import Cause, Refused, Registrar, SigningLimit, read_certificate_request
from authz.identity.registration import Evidence, SvidPeer, TokenBearer

log = logging.getLogger("authz.control.authority.server")  # the name that people search logs for
SERVICE = "authz.identity.v1.Enrolment"

_Context = grpc.aio.ServicerContext[wire.EnrolRequest, wire.EnrolResponse]
_LOOKED_HERE = "it was looked for in the directory of this authority, which has no `--truth`"
_LOOKED_IN_TRUTH = "it was looked for in the truth of the fleet, where `authz ca token create --truth` puts it"


class Enrolment:
    """``tokens`` may have to ask other machines, and is asked in a thread."""

    def __init__(
        self, registrar: Registrar, tokens: TokenStore, clock: Callable[[], float], holders: Holders | None = None
    ) -> None:
        self._holders = holders if holders is not None else Holders()
        self._registrar = registrar
        self._tokens = tokens
        self._clock = clock
        self._guesses = SigningLimit()
        """Of its own: strangers from many addresses must not use up what the registrar may sign for others."""

    def handler(self, identify: Identify | None) -> "grpc.GenericRpcHandler[wire.EnrolRequest, wire.EnrolResponse]":
        """The service for holders of an SVID, or, without ``identify``, for bearers of a join token."""

        async def enrol(request: wire.EnrolRequest, context: _Context) -> wire.EnrolResponse:
            if identify is None:
                evidence, answer = await self._join(request, context)
            else:
                evidence = identify(context)
                answer = evidence if isinstance(evidence, Refused) else self._sign(evidence, request)
            if isinstance(answer, Refused):
                if answer is evidence:
                    self._registrar.refuse(context.peer(), "", answer, self._clock())
                await context.abort(STATUS[answer.cause], answer.reason)
            return answer

        async def trust(_: wire.EnrolRequest, context: _Context) -> wire.EnrolResponse:
            """Tell what is trusted, and which certificates sign now: from that a holder sees that it should renew."""
            assert identify is not None
            evidence = identify(context)
            refused = evidence if isinstance(evidence, Refused) else None
            if not isinstance(evidence, Refused) and (revoked := self._registrar.revoked(evidence)):
                refused = Refused(revoked)
            if refused is not None:
                self._registrar.refuse(context.peer(), "", refused, self._clock())
                await context.abort(STATUS[refused.cause], refused.reason)
            assert isinstance(evidence, SvidPeer)
            self._holders.note(evidence, context.invocation_metadata() or (), self._clock())
            if (again := self._holders.again) > ASK_SECONDS:
                context.set_trailing_metadata(((AGAIN_HEADER, str(int(again))),))
            ca = self._registrar.ca
            return wire.EnrolResponse(chain=ca.sound_pem, bundle=ca.bundle_pem)

        calls = {"Enrol": enrol} if identify is None else {"Enrol": enrol, "Trust": trust}
        read, write = wire.EnrolRequest.FromString, wire.EnrolResponse.SerializeToString
        handlers = {name: grpc.unary_unary_rpc_method_handler(call, read, write) for name, call in calls.items()}
        return grpc.method_handlers_generic_handler(SERVICE, handlers)

    async def _join(
        self, request: wire.EnrolRequest, context: _Context
    ) -> "tuple[Evidence | Refused, wire.EnrolResponse | Refused]":
        """
        Sign for the bearer of a token: who that is, and the answer.

        The token is spent by a certificate, and by a refusal that would come again. Where there were too many requests,
        or we could not sign, the bearer still has it.
        """
        taken = await self._bearer(request, context)
        if isinstance(taken, Refused):
            return taken, taken
        evidence = TokenBearer(taken.spiffe_id)
        answer = self._sign(evidence, request)
        is_kept = isinstance(answer, Refused) and answer.cause in (Cause.LIMIT, Cause.SIGNING)
        try:
            await asyncio.to_thread(taken.give_back if is_kept else taken.spend)
        except (AuthzError, OSError) as error:  # taken it is in any case, and the answer stands
            log.warning("a join token of %s could not be %s: %s", evidence, "given back" if is_kept else "spent", error)
        return evidence, answer

    async def _bearer(self, request: wire.EnrolRequest, context: _Context) -> TakenToken | Refused:
        # The limit is per address, so that a stranger who guesses tokens keeps nobody else from enrolling.
        if not self._guesses.take(f"join-token {context.peer().rpartition(':')[0]}", self._clock()):
            return Refused("too many join tokens are tried, try again later", Cause.LIMIT)
        key = read_certificate_request(request.certificate_request)
        if isinstance(key, Refused):
            return key  # judged first, so that a slip does not spend the token
        try:
            taken = await asyncio.to_thread(self._tokens.take, request.join_token, self._clock())
        except (AuthzError, OSError) as error:
            log.error("join tokens cannot be taken: %s", error)
            return Refused("nobody can say now whether the join token was used before, try again later", Cause.SIGNING)
        if isinstance(taken, TakenToken):
            return taken
        looked = f": {_LOOKED_HERE if isinstance(self._tokens, TokenDirectory) else _LOOKED_IN_TRUTH}"
        return Refused(taken.reason + (looked if taken.reason == UNKNOWN else ""))

    def _sign(self, evidence: Evidence, request: wire.EnrolRequest) -> wire.EnrolResponse | Refused:
        assert isinstance(evidence, SvidPeer | TokenBearer)
        key = read_certificate_request(request.certificate_request)
        if isinstance(key, Refused):
            self._registrar.refuse(str(evidence), str(evidence.spiffe_id), key, self._clock())
            return key
        issued = self._registrar.issue(evidence, evidence.spiffe_id, self._clock(), key)
        if isinstance(issued, Refused):
            return issued
        if isinstance(evidence, SvidPeer):
            self._holders.forget(evidence)
        return wire.EnrolResponse(
            chain=issued.chain_pem, bundle=self._registrar.ca.bundle_pem, spiffe_id=str(evidence.spiffe_id)
        )

"""
The grpcio port of Envoy's rate limit service, on addresses of its own, whatever serves the check. It also takes access
log entries, by which proxies tell what they refused by themselves.

It moves bytes between gRPC and ``RateLimiter``, and knows nothing of their content.
"""

import logging
from collections.abc import Callable

import grpc

from authz.core.errors import SettingsError
from authz.service.check_function import Audit
from authz.service.loading.snapshot import Snapshot
from authz.service.native.record import NativeRecord
from authz.service.ports.grpc_port import GrpcPort
from authz.service.ports.log import Announce
from authz.service.ports.server_tls import ServerCertificate
from authz.service.rate_limits.limiting import RateLimiter
from authz.service.rate_limits.quota_store import QuotaStore, StoreDown, open_store
from authz.service.streams import JudgeCaller, TakeStream, refuse_caller, stream_handler
from authz.settings.sections import Sections
from authz.telemetry.status import RateLimitStatus
from authz.wire.limit_messages import METHOD, SERVICE

STOP_SECONDS = 0.5
_grpc_log = logging.getLogger("grpc._cython.cygrpc")


def _is_no_client_text(entry: logging.LogRecord) -> bool:
    """
    Keep out of the log what a client wrote: it may send an ``x-request-id`` that is not UTF-8, with which a proxy asks,
    and grpcio would write a traceback for each such request.
    """
    return not str(entry.msg).startswith("Invalid encoding")


class RateLimitPort:
    """The service on all its addresses; made in a running event loop. ``start`` once, then ``stop`` once."""

    def __init__(
        self,
        settings: Sections,
        audit: Audit,
        store: QuotaStore,
        take: TakeStream,
        tls: ServerCertificate | None,
        judge_caller: JudgeCaller | None,
        clock: Callable[[], float],
    ) -> None:
        """``take``: what access log entries are taken with."""
        _grpc_log.addFilter(_is_no_client_text)  # once, however often
        self._limiter = RateLimiter(store, audit)
        self._listen = settings.rate_limits.listen
        self._store = store
        self._judge_caller = judge_caller
        self._clock = clock
        handler = grpc.unary_unary_rpc_method_handler(self._answer)
        self._port = GrpcPort(
            [
                grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),
                stream_handler(take, judge_caller, clock),
            ],
            max_message_bytes=settings.server.max_message_bytes,
            credentials=tls.credentials() if tls is not None else None,
            socket_mode=settings.server.socket_permissions,
        )

    def replace(self, snapshot: Snapshot) -> None:
        """Put a snapshot's limits in force."""
        self._limiter.replace(snapshot.limits, snapshot.version)

    def status(self) -> RateLimitStatus:
        """What came of counting so far."""
        return self._limiter.status()

    async def start(self, announce: Announce) -> None:
        """Listen and say where. Raises SettingsError as ``GrpcPort.start``."""
        for address in await self._port.start(self._listen):
            announce(f"limits    {address}")

    async def stop(self) -> None:
        """Stop listening, and let go of the store."""
        await self._port.stop(STOP_SECONDS)
        await self._store.close()

    async def _answer(self, message: bytes, context: "grpc.aio.ServicerContext[bytes, bytes]") -> bytes:
        now = self._clock()
        await refuse_caller(context, self._judge_caller, now)
        facts = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        try:
            return await self._limiter.answer(message, facts, now)
        except StoreDown as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        except ValueError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))


def rate_limit_port(
    settings: Sections,
    audit: Audit,
    native: NativeRecord | None,
    tls: ServerCertificate | None,
    judge_caller: JudgeCaller | None,
    clock: Callable[[], float],
) -> RateLimitPort | None:
    """
    The port of the addresses in the settings; None without any. ``native`` takes what proxies tell of their refusals.

    Raises:
        SettingsError: there is no mesh description, or the store cannot be used.
    """
    asked = settings.rate_limits
    if not asked.listen or native is None:
        return None
    if settings.policies.mesh is None:
        raise SettingsError("setting `rate_limits`: limits are part of the mesh description, so set `mesh` as well")
    store = open_store(asked.store, asked.store_password, asked.store_ca)
    return RateLimitPort(settings, audit, store, native.refusals.take, tls, judge_caller, clock)

"""
The access log service of the control plane: what proxies that decide by themselves say, as the record of decisions.

The same receiver as an authorization server's, with the policies that are in force for each workload, a candidate among
them. An entry counts when it comes by the SVID of the workload whose proxy it names. Records are written beside
discovery: entries are taken a few at a time, and not read while the trail is full, so that no configuration waits.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

import grpc

from authz.admin.health import audit_causes
from authz.admin.shadow import difference_json
from authz.audit.sinks import StreamSink
from authz.canary.canary_engine import CanaryEngine
from authz.control.authority.figures import Figured
from authz.control.authority.sds import Identify
from authz.control.authority.stock import Stock, has_expired
from authz.control.records.candidate_comparison import CandidateComparison
from authz.control.records.described_proxies import DescribedProxies
from authz.control.records.quiet_end import until_quiet
from authz.core.policies_by_workload import PoliciesByWorkload
from authz.core.spiffe import SpiffeId
from authz.envoy.native.key_hints import Hinter
from authz.identity.registration import SvidPeer
from authz.mesh.nouns import Mesh
from authz.service.native.intake import Intake
from authz.service.native.stream import AccessLogStream
from authz.service.recording import make_tracer, make_trail
from authz.service.streams import ACCESS_LOG, STREAM_ACCESS_LOGS
from authz.settings.sections import Sections
from authz.telemetry import names
from authz.telemetry.counters import Labels, Telemetry

MAX_STREAMS = 1024
"""
Streams of one proxy: each thread of an Envoy has one for every listener that decides, and opens another when it ends.
"""
STREAM_SECONDS = 700.0
"""
How long a stream lives at least, and at most twice that. A connection lives longer (``ConnectionLife``), though Envoy
may begin a stream on one that is five minutes old: its end would come in the midst of a message. Envoy opens another
stream with its next entry.
"""
HELD_SECONDS = 10.0
"""A sink that hangs raises nothing: after so long it is said."""
_log = logging.getLogger("authz.native")
_Context = grpc.aio.ServicerContext[bytes, bytes]


class RecordReceiver:
    """``start`` in a running event loop, ``close`` at the end; ``replace`` before the proxies have what is new."""

    def __init__(self, settings: Sections, hints: Path, clock: Callable[[], float]) -> None:
        """
        Open what records are written to.

        Args:
            settings: those of records, as a server has them.
            hints: the directory in which whoever renders key sets looks for hints about them.
            clock: seconds since the epoch.

        Raises:
            SettingsError: names the setting that cannot be used.
        """
        self._telemetry = Telemetry()
        self._policies: PoliciesByWorkload | None = None
        self._proxies = DescribedProxies()
        self._streams: Counter[SpiffeId] = Counter()
        self._clock = clock
        self._is_ending = False
        tracer = make_tracer(settings.otlp)
        self._trail = make_trail(
            settings.audit,
            settings.otlp,
            StreamSink(),
            self._telemetry,
            tracer,
            lambda: self._policies,
            truth=settings.truth,
        )
        self._intake = Intake(self._trail, settings.access_logs.verify, clock)
        self._intake.hinter = Hinter(hints, clock)
        self._comparison = CandidateComparison()
        self._intake.compare = self._comparison.take

    def start(self) -> None:
        """Begin to write."""
        self._trail.start(asyncio.get_running_loop().call_soon)

    def reopen(self) -> None:
        """Open files of records again, after somebody has renamed them."""
        self._trail.reopen()

    def replace(self, policies: PoliciesByWorkload, mesh: Mesh) -> None:
        """Judge entries by these policies from now on, and those that name the policies before by these."""
        now = self._clock()
        self._proxies.replace(mesh, now)
        if isinstance(policies, CanaryEngine) and policies.is_like(self._policies):
            policies = self._policies or policies
        if policies is not self._policies:  # a description or key set may be other, and then those before still count
            self._policies = policies
            self._intake.judge.replace(policies, now)
        self._comparison.replace(policies)

    def handler(self, stock: Stock, identify: Identify) -> "grpc.GenericRpcHandler[Any, Any]":
        """The gRPC service for peers that ``identify`` tells apart by their SVIDs."""

        async def take(messages: AsyncIterator[bytes], context: _Context) -> bytes:
            evidence = identify(context)
            if not isinstance(evidence, SvidPeer):
                await context.abort(grpc.StatusCode.UNAUTHENTICATED, "an SVID is needed")

            ends = stock.clock() + STREAM_SECONDS * (1 + stock.jitter())

            async def while_valid() -> AsyncIterator[bytes]:
                async for message in until_quiet(messages, lambda: self._is_ending or stock.clock() >= ends):
                    if has_expired(evidence, stock.clock()):
                        await context.abort(grpc.StatusCode.UNAUTHENTICATED, "the SVID has expired")
                    if revoked := stock.registrar.revoked(evidence):
                        await context.abort(grpc.StatusCode.PERMISSION_DENIED, revoked)
                    yield message

            caller = evidence.spiffe_id
            if self._streams[caller] >= MAX_STREAMS * max(1, self._proxies.count(caller)):
                self._intake.disbelieve("grpc", f"`{caller}` has {self._streams[caller]} streams already")
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many streams")
            stream = AccessLogStream(self._intake, lambda entry: self._proxies.settled(entry, caller, self._clock()))
            self._streams[caller] += 1
            try:
                await stream.take(while_valid(), str(caller))
            except ValueError as error:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            finally:
                self._streams[caller] -= 1
                if not self._streams[caller]:
                    del self._streams[caller]
            return b""

        methods = {STREAM_ACCESS_LOGS: grpc.stream_unary_rpc_method_handler(take)}
        return grpc.method_handlers_generic_handler(ACCESS_LOG, methods)

    def figures(self) -> Figured:
        """Metrics of entries, decisions and the trail, called as those of a server."""
        native, trail = self._intake.status(), self._trail.status()
        yield names.NATIVE_ENTRIES, {(*key,): number for key, number in native.entries.items()}
        yield names.NATIVE_VERDICTS, {(result,): number for result, number in native.verdicts.items()}
        yield names.NATIVE_DISAGREEMENTS, {(*key,): number for key, number in native.disagreements.items()}
        yield names.NATIVE_NEWEST, native.newest_at
        yield names.CANDIDATE_DECISIONS, {(result,): number for result, number in self._comparison.results.items()}
        yield from self._telemetry.counts.items()
        yield names.QUEUED, trail.queued
        yield names.QUEUE_CAPACITY, trail.capacity
        dropped = {"queue_full": trail.dropped, "rule": trail.filtered, "failed": trail.failed}
        yield names.DROPPED, {(reason,): number for reason, number in dropped.items()}
        results: dict[Labels, float] = {(one.name, "written"): one.written for one in trail.sinks}
        yield names.SINK_RECORDS, results | {(one.name, "lost"): one.lost for one in trail.sinks}
        yield names.SINK_OK, {(one.name,): not one.error for one in trail.sinks}
        yield names.SINK_WAITING, {(one.name,): one.waiting or 0 for one in trail.sinks}

    def compared(self) -> dict[str, object]:
        """What the candidate changes, for ``/canary``: numbers by result, and decisions that differ alike."""
        found = self._comparison
        return {"results": found.of_version, "differences": [difference_json(one) for one in found.differences]}

    def causes(self) -> Iterable[dict[str, object]]:
        """Sinks that fail: nobody's requests are refused for that, but records wait or are lost."""
        for cause in audit_causes(self._trail.status()):
            yield {"part": cause.part, "message": cause.message, "blocks": False}
        since = self._intake.held_since
        if since is not None and (lasted := self._clock() - since) >= HELD_SECONDS:
            message = f"nothing is taken from proxies for {lasted:.0f} s: records are not written as fast as they come"
            yield {"part": "audit", "message": message, "blocks": False}

    def end(self) -> None:
        """Let each stream end after its next message: the doors are about to close."""
        self._is_ending = True

    async def close(self) -> None:
        """Write what was taken, and end; what could not be written is said."""
        lost = self._lost()
        is_written = await asyncio.to_thread(self._trail.close)
        if not is_written or self._lost() > lost:
            number = self._trail.status().queued + self._lost() - lost
            _log.error("%d records were taken and are not written: a sink fails or does not end", number)

    def _lost(self) -> int:
        return sum(one.lost for one in self._trail.status().sinks)

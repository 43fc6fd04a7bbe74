"""
What proxies report of their requests (``envoy.request_reports``), and what follows for a candidate from that.

A report is an OTLP export of two sums over the mutual TLS of discovery. It counts for a proxy only when it comes from
the workload whose proxy that is.
"""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as otlp

from authz.canary.canary_judge import CanaryJudge, RequestCounts
from authz.canary.canary_status import CanaryState, canary_json
from authz.control.authority.figures import Figured
from authz.control.authority.sds import Identify
from authz.control.authority.stock import Stock, has_expired
from authz.control.canary_follower import CanaryFollower
from authz.control.fleet.fleet_snapshot import Fleet
from authz.envoy.request_reports import REFUSED, REQUESTS
from authz.identity.registration import SvidPeer
from authz.telemetry import names

log = logging.getLogger("authz.canary")
SERVICE = "opentelemetry.proto.collector.metrics.v1.MetricsService"
_Context = grpc.aio.ServicerContext[Any, Any]


class CanaryWatch:
    """Takes reports, and takes a candidate back by itself where there is a bound. In one event loop."""

    def __init__(self, canary: Callable[[], CanaryFollower], clock: Callable[[], float]) -> None:
        """
        Args:
            canary: the candidate, as it is followed now.
            clock: seconds since the epoch.
        """
        self._canary = canary
        self._judge = CanaryJudge(None)
        self._fleet: Fleet = {}
        self._clock = clock

    def handler(self, stock: Stock, identify: Identify) -> "grpc.GenericRpcHandler[Any, Any]":
        """The gRPC service for peers that ``identify`` tells apart by their SVIDs."""

        async def export(request: otlp.ExportMetricsServiceRequest, context: _Context) -> bytes:
            evidence = identify(context)
            if not isinstance(evidence, SvidPeer) or has_expired(evidence, stock.clock()):
                await context.abort(grpc.StatusCode.UNAUTHENTICATED, "an SVID is needed")
            if revoked := stock.registrar.revoked(evidence):
                await context.abort(grpc.StatusCode.PERMISSION_DENIED, revoked)
            for proxy, counts in _counts(request):
                member = self._fleet.get(proxy)
                if member is None or member.spiffe_id != evidence.spiffe_id:
                    reason = f"`{evidence}` has no such proxy in this mesh"
                    await context.abort(grpc.StatusCode.PERMISSION_DENIED, reason)
                if min(counts.requests, counts.refused) < 0:
                    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"`{proxy}` cannot have counted less than 0")
                self.take(proxy, counts)
            return b""

        read = otlp.ExportMetricsServiceRequest.FromString
        methods = {"Export": grpc.unary_unary_rpc_method_handler(export, read)}
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    def take(self, proxy: str, counts: RequestCounts) -> None:
        """Note what a proxy has counted since it started, and judge the candidate by it."""
        status, now = self._canary().status, self._clock()
        is_in_force = status.state is CanaryState.IN_FORCE
        self._judge.bound = self._canary().bound
        self._judge.begin(f"{status.version} {status.number}" if is_in_force else "", status.chosen, now)
        self._judge.report(proxy, counts, now)
        if reason := self._judge.verdict(now):
            try:
                self._canary().abort(reason)
            except OSError as error:
                log.error("that the candidate was aborted cannot be kept over a restart: %s", error)

    def follow(self, fleet: Fleet) -> None:
        """Take reports of these proxies from now on, and keep nothing of others."""
        self._fleet = fleet
        self._judge.forget(fleet)

    def shown(self) -> dict[str, object]:
        """The answer of ``/canary``."""
        counted = self._judge.counted(self._clock())
        return {
            **canary_json(self._canary().status),
            "counts": {
                name: {
                    "requests": had.requests,
                    "refused": had.refused,
                    "refused_share": float(had.share),
                    "refused_share_before": None if before is None else float(before),
                }
                for name, (had, before) in sorted(counted.items())
            },
        }

    def figures(self) -> Figured:
        """Metrics of the candidate."""
        status = self._canary().status
        counted = [had for had, _ in self._judge.counted(self._clock()).values()]
        yield names.CANARY_WORKLOADS, len(status.chosen)
        yield names.CANARY_STATE, {(state,): float(state is status.state) for state in CanaryState}
        yield names.CANARY_REQUESTS, sum(one.requests for one in counted)
        yield names.CANARY_REFUSED, sum(one.refused for one in counted)


def _counts(request: otlp.ExportMetricsServiceRequest) -> Iterator[tuple[str, RequestCounts]]:
    """What is reported of each proxy; sums of other names are nobody's."""
    found: dict[str, dict[str, int]] = {}
    for resource in request.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                proxy, dot, what = metric.name.rpartition(".")
                if dot and what in (REQUESTS, REFUSED):
                    own = found.setdefault(proxy, {REQUESTS: 0, REFUSED: 0})
                    own[what] += sum(point.as_int for point in metric.sum.data_points)
    for proxy, own in found.items():
        yield proxy, RequestCounts(own[REQUESTS], own[REFUSED])

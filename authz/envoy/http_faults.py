"""Fault injection and CORS: the filters that stand before the router, and what single routes tell them."""

from functools import cache

from envoy_data_plane.envoy.config.core.v3 import RuntimeFractionalPercent
from envoy_data_plane.envoy.extensions.filters.common.fault.v3 import FaultDelay
from envoy_data_plane.envoy.extensions.filters.http.cors.v3 import Cors, CorsPolicy
from envoy_data_plane.envoy.extensions.filters.http.fault.v3 import FaultAbort, HttpFault
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter
from envoy_data_plane.google.protobuf import Any as PackedAny

from authz.envoy.messages import pack, seconds
from authz.envoy.plain import kept
from authz.envoy.text_matchers import fractional, string_matcher
from authz.mesh.virtual_service import GRPC_STATUSES, CorsRules, FaultInjection, HttpRoute

FAULT = "envoy.filters.http.fault"
CORS = "envoy.filters.http.cors"


@cache
def fault_and_cors() -> tuple[HttpFilter, ...]:
    """The filters, in Istio's order; without a word of a route they do nothing."""
    return (
        kept(HttpFilter(name=CORS, typed_config=pack(Cors()))),
        kept(HttpFilter(name=FAULT, typed_config=pack(HttpFault()))),
    )


def route_filters(route: HttpRoute) -> dict[str, PackedAny]:
    """What a route tells the two filters."""
    found = {}
    if route.fault is not None:
        found[FAULT] = pack(_fault(route.fault))
    if route.cors is not None:
        found[CORS] = pack(_cors(route.cors))
    return found


def _fault(fault: FaultInjection) -> HttpFault:
    found = HttpFault()
    if fault.delay_seconds:
        found.delay = FaultDelay(fixed_delay=seconds(fault.delay_seconds), percentage=fractional(fault.delay_percent))
    if fault.abort_status or fault.abort_grpc:
        found.abort = FaultAbort(
            percentage=fractional(fault.abort_percent) if fault.abort_percent is not None else None
        )
        if fault.abort_grpc:
            found.abort.grpc_status = GRPC_STATUSES.index(fault.abort_grpc)
        else:
            found.abort.http_status = fault.abort_status
    return found


def _cors(cors: CorsRules) -> CorsPolicy:
    return CorsPolicy(
        allow_origin_string_match=[string_matcher(one) for one in cors.allow_origins],
        allow_methods=",".join(cors.allow_methods),
        allow_headers=",".join(cors.allow_headers),
        expose_headers=",".join(cors.expose_headers),
        max_age=str(int(cors.max_age)) if cors.max_age is not None else "",
        allow_credentials=cors.allow_credentials,
        forward_not_matching_preflights=not cors.ignore_unmatched_preflights,
        filter_enabled=RuntimeFractionalPercent(default_value=fractional(100)),
    )

"""
A proxy that tells the control plane how much came to it and was refused: what a candidate is judged by.

Envoy sends two sums by OpenTelemetry, on the connection of discovery, and nothing else of its statistics.
"""

from envoy_data_plane.envoy.config.core.v3 import GrpcService, GrpcServiceEnvoyGrpc
from envoy_data_plane.envoy.config.metrics.v3 import StatsSink
from envoy_data_plane.envoy.extensions.matching.common_inputs.stats.v3 import StatFullNameMatchInput
from envoy_data_plane.envoy.extensions.stat_sinks.open_telemetry.v3 import (
    SinkConfig,
    SinkConfigConversionAction,
    SinkConfigDropAction,
)
from envoy_data_plane.xds.core.v3 import TypedExtensionConfig
from envoy_data_plane.xds.type.matcher.v3 import (
    Matcher,
    MatcherMatcherList,
    MatcherMatcherListFieldMatcher,
    MatcherMatcherListPredicate,
    MatcherMatcherListPredicateSinglePredicate,
    MatcherOnMatch,
    RegexMatcher,
    RegexMatcherGoogleRe2,
    StringMatcher,
)

from authz.envoy.messages import pack
from authz.envoy.options import CONTROL_CLUSTER

REQUESTS, REFUSED = "requests", "refused"
"""Names of the sums, behind the proxy's name and a dot."""
_PORTS = r"(inbound|ingress|egress)_[0-9]+\."
"""Those through which others come, by ``stat_prefix``; a TCP connection counts as one request."""
_COUNTED = (
    (rf"http\.{_PORTS}downstream_rq_completed|tcp\.{_PORTS}downstream_cx_total", REQUESTS),
    (rf"http\.{_PORTS}(rbac|jwt_authn|ext_authz)\.denied|tcp\.rbac\.denied|ext_authz\.tcp\.denied", REFUSED),
)


def request_reports(proxy: str) -> StatsSink:
    """The sink; how often it sends is the bootstrap's ``stats_flush_interval``. Sums are those since the start."""
    return StatsSink(
        name="envoy.stat_sinks.open_telemetry",
        typed_config=pack(
            SinkConfig(
                grpc_service=GrpcService(envoy_grpc=GrpcServiceEnvoyGrpc(cluster_name=CONTROL_CLUSTER)),
                emit_tags_as_attributes=False,
                custom_metric_conversions=Matcher(
                    matcher_list=MatcherMatcherList(
                        matchers=[_as_sum(pattern, f"{proxy}.{name}") for pattern, name in _COUNTED]
                    ),
                    on_no_match=MatcherOnMatch(
                        action=TypedExtensionConfig(name="drop", typed_config=pack(SinkConfigDropAction()))
                    ),
                ),
            )
        ),
    )


def _as_sum(pattern: str, name: str) -> MatcherMatcherListFieldMatcher:
    return MatcherMatcherListFieldMatcher(
        predicate=MatcherMatcherListPredicate(
            single_predicate=MatcherMatcherListPredicateSinglePredicate(
                input=TypedExtensionConfig(name="name", typed_config=pack(StatFullNameMatchInput())),
                value_match=StringMatcher(safe_regex=RegexMatcher(google_re2=RegexMatcherGoogleRe2(), regex=pattern)),
            )
        ),
        on_match=MatcherOnMatch(
            action=TypedExtensionConfig(name=name, typed_config=pack(SinkConfigConversionAction(metric_name=name)))
        ),
    )

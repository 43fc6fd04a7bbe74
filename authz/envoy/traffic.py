"""
A traffic policy put into a cluster: bounds, outlier detection, load balancing, as istiod does it.

Facts from Istio's ``cluster_traffic_policy.go``. Where nothing is said, what this mesh has by itself stays, because it
is safe: see ``docs/traffic-destinations.md``.
"""

from functools import lru_cache

from envoy_data_plane.envoy.config.cluster.v3 import (
    CircuitBreakers,
    CircuitBreakersThresholds,
    CircuitBreakersThresholdsRetryBudget,
    Cluster,
    ClusterCommonLbConfig,
    ClusterCommonLbConfigLocalityWeightedLbConfig,
    ClusterLbPolicy,
    ClusterLeastRequestLbConfig,
    ClusterMaglevLbConfig,
    ClusterRingHashLbConfig,
    ClusterRoundRobinLbConfig,
    ClusterSlowStartConfig,
    OutlierDetection,
    UpstreamConnectionOptions,
)
from envoy_data_plane.envoy.config.core.v3 import RuntimeDouble
from envoy_data_plane.envoy.config.core.v3 import TcpKeepalive as EnvoyKeepalive
from envoy_data_plane.envoy.type.v3 import Percent

from authz.envoy.messages import seconds
from authz.envoy.plain import kept
from authz.mesh.traffic_policy import (
    ConnectionPool,
    ConsistentHash,
    LoadBalancer,
    LoadBalancing,
    OutlierPolicy,
    RetryBudget,
    TrafficPolicy,
    Warmup,
)

UNBOUNDED = 2**32 - 1
"""Istio bounds nothing unless it is told to; Envoy's own bounds are 1024 requests and 3 retries at a time."""
_RING = 1024
_AGGRESSION = "authz.warmup_aggression"
_NO_POOL = ConnectionPool()


def apply_policy(cluster: Cluster, policy: TrafficPolicy) -> None:
    """Set everything of a cluster that follows from a policy, but for TLS and the options of HTTP."""
    pool = policy.connection_pool or _NO_POOL
    if pool.connect_seconds is not None:
        cluster.connect_timeout = seconds(pool.connect_seconds)
    if pool.keepalive is not None:
        keepalive = EnvoyKeepalive(
            keepalive_probes=pool.keepalive.probes or None,
            keepalive_time=pool.keepalive.time_seconds,
            keepalive_interval=pool.keepalive.interval_seconds,
        )
        cluster.upstream_connection_options = UpstreamConnectionOptions(tcp_keepalive=keepalive)
    cluster.circuit_breakers = _bounds(pool, policy.retry_budget)
    common = cluster.common_lb_config or ClusterCommonLbConfig()
    if policy.outlier is not None:
        cluster.outlier_detection = _outlier(policy.outlier)
        common.healthy_panic_threshold = Percent(value=policy.outlier.min_health_percent)
    if _weighs_localities(policy):
        common.locality_weighted_lb_config = ClusterCommonLbConfigLocalityWeightedLbConfig()
    if policy.outlier is not None or _weighs_localities(policy):
        cluster.common_lb_config = common
    _balance(cluster, policy.load_balancer or LoadBalancer())


@lru_cache(maxsize=256)
def _bounds(pool: ConnectionPool, budget: RetryBudget | None) -> CircuitBreakers:
    """One message for all clusters with the same bounds, to be left alone."""
    return kept(CircuitBreakers(thresholds=[_thresholds(pool, budget)]))


def _thresholds(pool: ConnectionPool, budget: RetryBudget | None) -> CircuitBreakersThresholds:
    found = CircuitBreakersThresholds(
        max_connections=pool.max_connections or UNBOUNDED,
        max_pending_requests=pool.max_pending_requests or UNBOUNDED,
        max_requests=pool.max_requests or UNBOUNDED,
        max_retries=pool.max_retries or UNBOUNDED,
    )
    if budget is not None:
        found.retry_budget = CircuitBreakersThresholdsRetryBudget(
            budget_percent=Percent(value=budget.percent),
            budget_interval=None if budget.interval_seconds is None else seconds(budget.interval_seconds),
            min_retry_concurrency=budget.min_concurrency,
        )
    return found


def _outlier(policy: OutlierPolicy) -> OutlierDetection:
    """Istio's reading: what is said is enforced wholly, success rates are not looked at."""
    found = OutlierDetection(enforcing_success_rate=0)
    if policy.consecutive_5xx is not None:
        found.consecutive_5xx = policy.consecutive_5xx
        found.enforcing_consecutive_5xx = 100 if policy.consecutive_5xx else 0
    if policy.consecutive_gateway_errors is not None:
        found.consecutive_gateway_failure = policy.consecutive_gateway_errors
        found.enforcing_consecutive_gateway_failure = 100 if policy.consecutive_gateway_errors else 0
    if policy.interval_seconds is not None:
        found.interval = seconds(policy.interval_seconds)
    if policy.base_ejection_seconds is not None:
        found.base_ejection_time = seconds(policy.base_ejection_seconds)
    if policy.max_ejection_percent:
        found.max_ejection_percent = policy.max_ejection_percent
    if policy.split_local_origin:
        found.split_external_local_origin_errors = True
        found.enforcing_local_origin_success_rate = 0
        if policy.consecutive_local_origin:
            found.consecutive_local_origin_failure = policy.consecutive_local_origin
            found.enforcing_consecutive_local_origin_failure = 100
    return found


def _weighs_localities(policy: TrafficPolicy) -> bool:
    """Whether Envoy looks at the weights of localities; it then looks at those of endpoints less closely."""
    locality = policy.load_balancer.locality if policy.load_balancer else None
    if locality is None or not locality.enabled:
        return False
    fails_over = policy.outlier is not None and bool(locality.failover or locality.failover_priority)
    return fails_over or locality.distribute is not None


def _balance(cluster: Cluster, balancer: LoadBalancer) -> None:
    slow_start = _slow_start(balancer.warmup) if balancer.warmup else None
    if balancer.consistent_hash is not None:
        _balance_by_hash(cluster, balancer.consistent_hash)
    elif balancer.simple is LoadBalancing.RANDOM:
        cluster.lb_policy = ClusterLbPolicy.RANDOM
    elif balancer.simple is LoadBalancing.ROUND_ROBIN:
        cluster.lb_policy = ClusterLbPolicy.ROUND_ROBIN
        if slow_start is not None:
            cluster.round_robin_lb_config = ClusterRoundRobinLbConfig(slow_start_config=slow_start)
    else:
        cluster.lb_policy = ClusterLbPolicy.LEAST_REQUEST
        if slow_start is not None:
            cluster.least_request_lb_config = ClusterLeastRequestLbConfig(slow_start_config=slow_start)


def _balance_by_hash(cluster: Cluster, wanted: ConsistentHash) -> None:
    if wanted.maglev is not None:
        cluster.lb_policy = ClusterLbPolicy.MAGLEV
        if wanted.maglev:
            cluster.maglev_lb_config = ClusterMaglevLbConfig(table_size=wanted.maglev)
        return
    cluster.lb_policy = ClusterLbPolicy.RING_HASH
    size = _RING if wanted.ring_size is None else wanted.ring_size
    if size:
        cluster.ring_hash_lb_config = ClusterRingHashLbConfig(minimum_ring_size=size)


def _slow_start(warmup: Warmup) -> ClusterSlowStartConfig:
    aggression = warmup.aggression
    return ClusterSlowStartConfig(
        slow_start_window=seconds(warmup.seconds),
        aggression=None if aggression is None else RuntimeDouble(default_value=aggression, runtime_key=_AGGRESSION),
        min_weight_percent=None if warmup.minimum_percent is None else Percent(value=warmup.minimum_percent),
    )

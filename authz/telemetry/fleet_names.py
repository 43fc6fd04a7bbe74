"""Metrics of a control plane: of its own proxies, and of the whole fleet as it sees it. The others are in ``names``."""

from authz.telemetry.names import Metric

XDS_PROXIES = Metric(
    "authz_xds_proxies",
    "gauge",
    "Proxies of the mesh: current (took all there is), behind (under way), refusing (refused something), missing (not "
    "connected), gone (for so long that its endpoints are unhealthy).",
    ("state",),
)
XDS_KEPT_ENDPOINTS = Metric(
    "authz_xds_kept_endpoints",
    "gauge",
    "Destinations of which too many proxies are gone, so that all of their endpoints stay.",
)
XDS_STREAMS = Metric("authz_xds_streams", "gauge", "Open streams of discovery.")
XDS_PUSHES = Metric("authz_xds_pushes_total", "counter", "Responses sent.", ("type",))
XDS_ACKNOWLEDGED = Metric("authz_xds_acknowledged_total", "counter", "Responses that a proxy took.", ("type",))
XDS_REJECTED = Metric("authz_xds_rejected_total", "counter", "Responses that a proxy refused.", ("type",))
XDS_REFUSED = Metric("authz_xds_refused_total", "counter", "Peers, and names of other workloads, that were refused.")
XDS_OVERDUE = Metric(
    "authz_xds_overdue", "gauge", "Proxies that have left a response without an answer for ten seconds.", ("type",)
)
XDS_REFUSALS = Metric(
    "authz_xds_refusal_info",
    "gauge",
    "What proxies refuse now, in Envoy's words; at most a hundred.",
    ("proxy", "type", "version", "error"),
)
FLEET_SKEW = Metric(
    "authz_fleet_skew_seconds",
    "gauge",
    "For how long the replica or proxy of the fleet that is behind longest has been so; silent ones included.",
)
FLEET_REPLICAS = Metric(
    "authz_fleet_replicas",
    "gauge",
    "Replicas of the fleet: current, behind (an older revision), refusing (cannot use what is there), silent.",
    ("state",),
)
FLEET_PROXIES = Metric(
    "authz_fleet_proxies",
    "gauge",
    "Proxies of the fleet, wherever they are connected: current, behind, refusing, missing (connected nowhere), "
    "unknown (their replica is silent).",
    ("state",),
)
FLEET_REPORTED = Metric(
    "authz_fleet_reported", "gauge", "0 while this replica cannot report to the fleet what it and its proxies run."
)

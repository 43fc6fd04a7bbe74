"""Metrics of a whole fleet, as every control plane of it sees it. The others are in ``names``."""

from authz.telemetry.names import Metric

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

"""Clusters and endpoints brought into the form in which istiod's and ours are compared."""

import re
from pathlib import Path
from typing import Any

import yaml

from tests.yaml_text import read_yaml

ROOT = Path(__file__).parents[1] / "mesh"
CASES: list[dict[str, Any]] = read_yaml((ROOT / "istio_rules.yaml").read_text())
MESH = (ROOT / "istio_mesh.yaml").read_text()
PROXIES = {
    "near": ("app", {"app": "near", "version": "v1"}, "north/a/1"),
    "far": ("app", {"app": "far", "version": "v2"}, "south/b/1"),
    "elsewhere": ("other", {"app": "elsewhere"}, "north/a/1"),
}
"""Namespace, labels and place of the proxies that call."""
_SECONDS = re.compile(r"(\d+(?:\.\d+)?)s")
_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def rules_of(case: dict[str, Any]) -> str:
    """The DestinationRules of a case as documents."""
    made = []
    for i, written in enumerate(case["rules"]):
        spec = {key: value for key, value in written.items() if key not in ("name", "namespace")}
        metadata = {"name": written.get("name", f"rule-{i}"), "namespace": written.get("namespace", "app")}
        made.append(
            {"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": metadata, "spec": spec}
        )
    return "".join(f"\n---\n{yaml.safe_dump(one)}" for one in made)


def plain(value: Any) -> Any:
    """Durations as seconds, numbers as numbers; names that Istio and we choose are left out."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items() if key not in ("@type", "runtime_key")}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, str) and (found := _SECONDS.fullmatch(value)):
        return float(found[1])
    if isinstance(value, str) and value.isdigit():
        return int(value)
    return value


_KEPT = (
    *("lb_policy", "ring_hash_lb_config", "maglev_lb_config", "least_request_lb_config", "round_robin_lb_config"),
    *("common_lb_config", "circuit_breakers", "upstream_connection_options"),
)


def reduced(cluster: dict[str, Any], *, http: bool) -> dict[str, Any]:
    """What of a cluster follows from a DestinationRule; the departures of the documentation are left out."""
    found = plain(cluster)
    kept = {key: found[key] for key in _KEPT if found.get(key)}
    if found.get("connect_timeout") not in (None, 10.0, 2.0):
        kept["connect_timeout"] = found["connect_timeout"]
    outlier = found.get("outlier_detection")
    if outlier is not None and outlier.get("base_ejection_time") != 5.0:
        kept["outlier_detection"] = outlier
    else:
        kept.get("common_lb_config", {}).pop("healthy_panic_threshold", None)
        kept = {key: value for key, value in kept.items() if key != "common_lb_config" or value}
    options = found.get("typed_extension_protocol_options", {}).get(_OPTIONS, {})
    common = {k: v for k, v in options.get("common_http_protocol_options", {}).items() if v != 600.0}
    if common:
        kept["common"] = common
    http2 = options.get("explicit_http_config", {}).get("http2_protocol_options", {})
    kept_http2 = {
        key: value
        for key, value in http2.items()
        if key in ("max_concurrent_streams", "connection_keepalive") and value != {"interval": 10.0, "timeout": 2.0}
    }
    if kept_http2 and http:
        kept["http2"] = kept_http2
    return kept


def socket_of(cluster: dict[str, Any]) -> dict[str, Any]:
    """The transport socket that a rule asks for: how the other side is named and known."""
    config = cluster.get("transport_socket", {}).get("typed_config", {})
    if "common_tls_context" not in config:
        return {"tls": False}
    context = config["common_tls_context"]
    combined = context.get("combined_validation_context", {}).get("default_validation_context", {})
    validation = context.get("validation_context", combined)
    typed = [one["matcher"]["exact"] for one in validation.get("match_typed_subject_alt_names", ())]
    plain_names = [one["exact"] for one in validation.get("match_subject_alt_names", ())]
    shows = bool(context.get("tls_certificate_sds_secret_configs"))
    return {"tls": True, "sni": config.get("sni", ""), "names": sorted(typed + plain_names), "shows": shows}


def places(assignment: dict[str, Any]) -> list[Any]:
    """Endpoints by priority, with their shares; without priorities and shares of places one list of endpoints."""
    groups = []
    for group in plain(assignment).get("endpoints", ()):
        members = sorted(
            (one["endpoint"]["address"]["socket_address"]["address"], one.get("load_balancing_weight", 1))
            for one in group.get("lb_endpoints", ())
        )
        if members:
            total = sum(weight for _, weight in members)
            groups.append((group.get("priority", 0), group.get("load_balancing_weight", total), total, members))
    if all(priority == 0 and weight == total for priority, weight, total, _ in groups):
        return sorted(list(member) for *_, members in groups for member in members)
    return sorted([priority, weight, [list(member) for member in members]] for priority, weight, _, members in groups)

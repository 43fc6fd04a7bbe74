#!/usr/bin/env bash
# WHAT     The cookies of Keycloak's login page over plain HTTP on loopback (26.7.3; needs Maven, Java 17 and 177 MB).
# GUESS    Not `Secure`, since the page is not: a login can be tried with any HTTP library that keeps cookies.
# SEEN     `Secure` all the same. Browsers and curl take loopback for trustworthy and send them; Python's cookie jar, which
#          requests and httpx use, keeps and never sends them, and the form is answered 400 as if cookies were switched off.
# MATTERS  A login that works by hand and with curl fails in a test written in Python, without a word from the library. The
#          jar's policy must be told: `DefaultCookiePolicy(secure_protocols=("http", "https"))`.
set -euo pipefail
command -v mvn >/dev/null && command -v java >/dev/null || { echo "needs Maven and Java" >&2; exit 1; }
work=$(mktemp -d) && trap 'kill "${server:-}" 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$work"' EXIT
cd "$work"
mvn -q -B -ntp dependency:copy -Dartifact=org.keycloak:keycloak-quarkus-dist:26.7.3:zip -DoutputDirectory=. >/dev/null
python3 -m zipfile -e keycloak-quarkus-dist-26.7.3.zip . && cd keycloak-26.7.3
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
export KC_BOOTSTRAP_ADMIN_USERNAME=admin KC_BOOTSTRAP_ADMIN_PASSWORD=admin
sh bin/kc.sh start-dev --http-host=127.0.0.1 --http-port="$port" --http-management-port=0 > log 2>&1 & server=$!
realm="http://127.0.0.1:$port/realms/master"
for _ in $(seq 600); do curl -sf -o /dev/null "$realm" && break; sleep 0.3; done
curl -s -c jar -o page "$realm/protocol/openid-connect/auth?$(python3 - "$port" <<'PY'
import sys
import urllib.parse

print(urllib.parse.urlencode({
    "client_id": "security-admin-console", "response_type": "code", "scope": "openid",
    "redirect_uri": f"http://127.0.0.1:{sys.argv[1]}/admin/master/console/",
    "code_challenge": "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU", "code_challenge_method": "S256",
}))
PY
)"
action=$(python3 -c 'import html, re; print(html.unescape(re.search(r"action=\"([^\"]+)\"", open("page").read())[1]))')
by_curl=$(curl -s -b jar -o /dev/null -w '%{http_code}' "$action" -d username=admin -d password=admin)
python3 - "$port" "$by_curl" <<'PY'
import html
import http.cookiejar
import re
import sys
import urllib.error
import urllib.parse
import urllib.request

port, by_curl = sys.argv[1:]


class Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


def log_in(policy: http.cookiejar.DefaultCookiePolicy) -> tuple[int, int]:
    """Cookies that are Secure, and the status of the form."""
    jar = http.cookiejar.CookieJar(policy)
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar), Stay())
    query = urllib.parse.urlencode({
        "client_id": "security-admin-console", "response_type": "code", "scope": "openid",
        "redirect_uri": f"http://127.0.0.1:{port}/admin/master/console/",
        "code_challenge": "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU", "code_challenge_method": "S256",
    })
    page = opener.open(f"http://127.0.0.1:{port}/realms/master/protocol/openid-connect/auth?{query}").read().decode()
    action = html.unescape(re.search(r'action="([^"]+)"', page)[1])
    try:
        return 0, opener.open(action, b"username=admin&password=admin").status
    except urllib.error.HTTPError as error:
        return sum(cookie.secure for cookie in jar), error.code


kept, plain = log_in(http.cookiejar.DefaultCookiePolicy())
_, told = log_in(http.cookiejar.DefaultCookiePolicy(secure_protocols=("http", "https")))
print(f"{kept} Secure cookies; the form by curl {by_curl}, by Python {plain}, by Python that was told {told}")
if (by_curl, plain, told) != ("302", 400, 302):
    sys.exit("this changed")
PY

#!/usr/bin/env bash
# WHAT     Whose key signs the tokens of Amazon Cognito's user pools that moto 5.2.5 plays.
# GUESS    Every pool has a key of its own, as at Amazon: each has a key set at an address of its own.
# SEEN     One key for all pools, all processes and all installations, called `dummy`: it comes with the package.
# MATTERS  A test that the token of another pool is refused by its signature cannot fail: the signature is good. What tells
#          pools apart there is the issuer, and what tells a forged token is a key of the test's own.
set -euo pipefail
work=$(mktemp -d) && trap 'kill "${server:-}" 2>/dev/null || true; rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check 'moto[cognitoidp]==5.2.5' 'flask==3.1.3' 'flask-cors==6.0.5'
venv/bin/python -m moto.server -H 127.0.0.1 -p 0 2> log & server=$!
for _ in $(seq 100); do grep -q 'Running on' log && break; sleep 0.1; done
venv/bin/python - "$(sed -n 's/.*Running on //p' log)" <<'PY'
import json
import sys
import urllib.request

url = sys.argv[1].strip()
credential = "AKIA/20260101/{}/cognito-idp/aws4_request"


def pool(region: str) -> dict[str, object]:
    headers = {
        "x-amz-target": "AWSCognitoIdentityProviderService.CreateUserPool",
        "content-type": "application/x-amz-json-1.1",
        "authorization": f"AWS4-HMAC-SHA256 Credential={credential.format(region)}, SignedHeaders=host, Signature=0",
    }
    made = urllib.request.urlopen(urllib.request.Request(url, b'{"PoolName": "p"}', headers))
    name = json.load(made)["UserPool"]["Id"]
    (key,) = json.load(urllib.request.urlopen(f"{url}/{name}/.well-known/jwks.json"))["keys"]
    print(f"{name}: key `{key['kid']}`, n = {key['n'][:12]}…")
    return key


one, two = pool("eu-central-1"), pool("us-east-1")
print("the same key" if one == two else "this changed: keys differ")
sys.exit(one != two)
PY

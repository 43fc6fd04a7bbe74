"""``authz check`` and ``authz explain``: one request from flags or a file."""

import json
import time
from pathlib import Path

import pytest

from authz.tokens.signing import jwks_text, make_keys, make_token
from tests.cli.conftest import Run

WEB = "cluster.local/ns/shop/sa/web"
ASKED = ("-p", "policies", "-n", "shop", "-l", "app=cart", "--port", "8080")
KEYS = make_keys({"k": {"kty": "EC", "crv": "P-256", "kid": "k"}})
TOKEN = make_token({"key": "k", "alg": "ES256", "claims": {"iss": "i", "sub": "s"}}, KEYS, time.time())
AUTHENTICATION = """\
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: jwt, namespace: shop}
spec: {jwtRules: [{issuer: i, jwksUri: "https://keys.example.com/jwks"}]}
"""
CUSTOM = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: ask, namespace: shop}
spec: {action: CUSTOM, provider: {name: idp}, rules: [{to: [{operation: {paths: ["/cart/pay"]}}]}]}
"""
MESH = "extensionProviders: [{name: idp, envoyExtAuthzGrpc: {service: idp.example.com, port: 9000}}]\n"


@pytest.mark.parametrize("command", ["check", "explain"])
def test_an_opaque_token_is_not_answered_offline_unless_its_claims_are_said(
    run: Run, policies: Path, tmp_path: Path, command: str
) -> None:
    (policies / "jwt.yaml").write_text(AUTHENTICATION.replace(', jwksUri: "https://keys.example.com/jwks"', ""))
    entry = "issuer: i, endpoint: https://i.example/ask, clientId: c, clientSecretFile: /s"
    (tmp_path / "mesh.yaml").write_text(f"tokenIntrospection: [{{{entry}}}]\n")
    asked = (command, *ASKED, "--mesh", "mesh.yaml", "--path", "/cart/7", "--method", "PUT", "-H", "x-team: red")
    result = run(*asked, "--token", "opaque-7")
    assert result.exit_code == 1
    assert "known to `i`, which is not asked offline" in result.stderr
    assert "opaque-7" not in result.output
    said = run(*asked, "--claims", '{"iss": "i", "sub": "s"}')
    assert (said.exit_code, said.stdout.startswith("allow")) == (0, True)


def test_an_allowed_request_ends_with_zero_and_names_its_rule(run: Run, policies: Path) -> None:
    result = run("check", *ASKED, "--path", "/cart/7", "--source-principal", WEB)
    assert result.exit_code == 0
    assert result.stdout == (
        "allow at stage allow: ALLOW rule shop/reads/0 matched\n"
        f"  request:  GET api.example.com/cart/7 to port 8080, from {WEB}\n"
        "  workload: shop (app=cart), for which 2 AuthorizationPolicies and 0 JWT rules apply\n"
        "  rule:     shop/reads/0 at policies/shop.yaml:7\n"
    )


def test_a_denied_request_ends_with_three_and_names_what_came_closest(run: Run, policies: Path) -> None:
    result = run("check", *ASKED, "--path", "/cart/7", "--method", "POST", "--source-principal", WEB)
    assert result.exit_code == 3
    assert result.stdout == (
        "deny (403) at stage allow: no ALLOW rule matched\n"
        f"  request:  POST api.example.com/cart/7 to port 8080, from {WEB}\n"
        "  workload: shop (app=cart), for which 2 AuthorizationPolicies and 0 JWT rules apply\n"
        "  closest:  shop/reads/0 at policies/shop.yaml:7\n"
        "            to[0].operation.methods (methods): expected one of `GET`, got `POST`\n"
    )


@pytest.mark.parametrize(
    ("arguments", "effect", "stage", "rule"),
    [
        (["--path", "/admin", "--source-principal", WEB], "deny", "deny", "no-admin"),
        (["--path", "/x/../cart", "--source-principal", f"spiffe://{WEB}"], "allow", "allow", "reads"),
        (["--path", "/cart", "--source-principal", "spiffe://other/ns/shop/sa/web"], "deny", "allow", None),
        (["--path", "/cart", "--source-principal", WEB, "--tls", "simple"], "deny", "deny", "no-admin"),  # PA-10: TCP
        (["--path", "/cart%00", "--source-principal", WEB], "deny", "normalization", None),
        (["--tcp", "--source-principal", WEB], "deny", "deny", "no-admin"),
        (["--tcp", "--source-principal", WEB, "--port", "9"], "deny", "allow", None),
        (["--path", "/other", "-l", "app=other"], "allow", "default", None),
        (["--path", "/other", "-n", "elsewhere"], "allow", "default", None),
    ],
)
def test_flags_describe_the_request(
    run: Run, policies: Path, arguments: list[str], effect: str, stage: str, rule: str | None
) -> None:
    labels = [] if "-l" in arguments else ["-l", "app=cart"]
    result = run("check", "-p", "policies", "-n", "shop", "--port", "8080", *labels, *arguments, "-o", "json")
    answer = json.loads(result.stdout)
    assert result.exit_code == (0 if effect == "allow" else 3)
    assert (answer["effect"], answer["stage"], answer["rule"] and answer["rule"]["policy"]) == (effect, stage, rule)


def test_flags_win_over_the_file(run: Run, policies: Path, tmp_path: Path) -> None:
    (tmp_path / "request.yaml").write_text(
        "workload: {namespace: shop, labels: {app: cart}, port: 8080}\n"
        f"request: {{path: /cart, sourcePrincipal: 'spiffe://{WEB}'}}\n"
    )
    assert run("check", "-p", "policies", "-f", "request.yaml").exit_code == 0
    assert run("check", "-p", "policies", "-f", "request.yaml", "--method", "DELETE").exit_code == 3
    assert run("check", "-p", "policies", "-f", "request.yaml", "-n", "other", "--method", "PUT").exit_code == 0


def test_a_malformed_request_file_could_not_be_answered(run: Run, policies: Path) -> None:
    result = run("check", "-p", "policies", "-f", "-", stdin="request: {mehtod: GET}\n")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "request.mehtod: unknown key of a request `mehtod`; did you mean `method`? [SUITE]" in result.stderr


def test_refused_policies_could_not_be_answered(run: Run, policies: Path) -> None:
    (policies / "bad.yaml").write_text("kind: AuthorizationPolicy\n")
    result = run("check", *ASKED)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("policies/bad.yaml:1:1: ")


def test_keys_are_not_fetched_but_may_be_given(run: Run, policies: Path, tmp_path: Path) -> None:
    (policies / "jwt.yaml").write_text(AUTHENTICATION)
    (tmp_path / "jwks.json").write_text(jwks_text(KEYS.values()))
    (tmp_path / "token.txt").write_text(f"{TOKEN}\n")
    asked = ("check", *ASKED, "--method", "PUT", "-H", "x-team: red", "--token-file", "token.txt")
    unanswered = run(*asked)
    assert (unanswered.exit_code, unanswered.stdout) == (1, "")
    assert unanswered.stderr == (
        "error: the keys of `https://keys.example.com/jwks` are not fetched offline; "
        "give them with `--jwks https://keys.example.com/jwks=FILE`\n"
    )
    for jwks in ("https://keys.example.com/jwks=jwks.json", "i=jwks.json", "jwks.json"):
        answered = run(*asked, "--jwks", jwks)
        assert answered.exit_code == 0, answered.output
        assert "token:    i/s, accepted by shop/jwt/0\n" in answered.stdout
        assert "forward:  remove authorization\n" in answered.stdout
    assert "takes keys from `j`" in run(*asked, "--jwks", "j=jwks.json").stderr


def test_no_token_is_ever_printed(run: Run, policies: Path, tmp_path: Path) -> None:
    (policies / "jwt.yaml").write_text(AUTHENTICATION)
    (tmp_path / "jwks.json").write_text(jwks_text(KEYS.values()))
    forged = TOKEN[:-8] + "AAAAAAAA"
    for command in ("check", "explain"):
        for form in ("text", "json"):
            for token in (TOKEN, forged, "opaque-secret-token"):
                path = f"/cart?access_token={token}"
                given = ("--token", token, "--path", path, "-H", f"x-team: {TOKEN}", "--jwks", "jwks.json")
                result = run(command, *ASKED, *given, "-o", form)
                assert result.exit_code == 3
                for part in (*TOKEN.split("."), forged[-12:], "opaque-secret-token"):
                    assert part not in result.output


def test_providers_are_not_asked_but_their_answer_may_be_given(run: Run, policies: Path, tmp_path: Path) -> None:
    (policies / "custom.yaml").write_text(CUSTOM)
    (tmp_path / "mesh.yaml").write_text(MESH)
    asked = ("check", *ASKED, "--mesh", "mesh.yaml", "--path", "/cart/pay", "--source-principal", WEB)
    unanswered = run(*asked)
    assert unanswered.exit_code == 1
    assert unanswered.stderr == (
        "error: provider `idp` is not asked offline; give its answer with `--provider idp=allow`\n"
    )
    assert run(*asked, "--provider", "idp=allow").exit_code == 0
    assert "at stage custom" in run(*asked, "--provider", "idp=deny").stdout
    assert run(*asked, "--provider", "idp=maybe").exit_code == 2


def test_explain_shows_every_stage_and_every_rule(run: Run, policies: Path) -> None:
    result = run("explain", *ASKED, "--path", "/cart", "--method", "PUT", "-H", "x-team: red")
    assert result.exit_code == 3
    assert (
        result.stdout
        == """\
deny (403) at stage allow: no ALLOW rule matched
  request:  PUT api.example.com/cart to port 8080, from no identity
  workload: shop (app=cart), for which 2 AuthorizationPolicies and 0 JWT rules apply
  closest:  shop/reads/0 at policies/shop.yaml:7
            from[0].source.principals (source.principal): expected one of `cluster.local/ns/shop/sa/web`, NOBODY
            to[0].operation.methods (methods): expected one of `GET`, got `PUT`

PeerAuthentication: mode PERMISSIVE, no identity
RequestAuthentication: no policy applies
AUDIT: no policy applies
DENY (dry run): no policy applies
DENY: no rule fired
  no match shop/no-admin/0 at policies/shop.yaml:19
    yes to[0].operation.ports (destination.port): expected one of `8080`, got `8080`
    no  to[0].operation.paths (paths): expected one of `/admin*`, got `/cart`
ALLOW (dry run): no policy applies
ALLOW: no rule fired
  no match shop/reads/0 at policies/shop.yaml:7
    no  from[0].source.principals (source.principal): expected one of `cluster.local/ns/shop/sa/web`, NOBODY
    no  to[0].operation.methods (methods): expected one of `GET`, got `PUT`
    yes to[0].operation.paths (paths): expected one of `/cart*`, got `/cart`
  no match shop/reads/1 at policies/shop.yaml:9
    no  from[0].source.requestPrincipals (request.auth.principal): expected one of `*`, NO TOKEN
    yes to[0].operation.methods (methods): expected one of `PUT`, got `PUT`
    yes when[0] (request.headers[x-team]): expected one of `red`, got `red`
""".replace("NOBODY", "got no value: the caller has no mTLS identity").replace(
            "NO TOKEN", "got no value: the request has no accepted token"
        )
    )


def test_explain_tells_stages_that_were_not_reached(run: Run, policies: Path) -> None:
    result = run("explain", *ASKED, "--path", "/admin")
    assert "DENY: shop/no-admin/0 fired\n  fired    shop/no-admin/0" in result.stdout
    assert result.stdout.endswith("ALLOW (dry run): not reached\nALLOW: not reached\n")


@pytest.mark.parametrize("command", ["check", "explain"])
def test_json_has_what_people_are_told(run: Run, tmp_path: Path, command: str) -> None:
    (tmp_path / "p.yaml").write_text("""
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny, namespace: shop}
spec:
  action: DENY
  rules: [{from: [{source: {notRequestPrincipals: ["*"]}}], to: [{operation: {paths: ["/a*"], hosts: ["https://a"]}}]},
          {from: [{source: {notRequestPrincipals: ["*"]}}]}]
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: jwt, namespace: shop}
spec: {selector: {matchLabels: {app: other}}, jwtRules: [{issuer: a, jwksUri: "https://a.test/keys"}]}
""")
    answer = json.loads(run(command, "-p", "p.yaml", "-n", "shop", "--path", "/a", "-o", "json").stdout)
    assert len(answer["because"]) == 1
    assert "the request has no accepted token" in answer["because"][0]
    assert answer["not_here"] == [
        "RequestAuthentication shop/jwt: its selector wants app=other, the workload has no label `app`"
    ]
    assert (answer["findings"], answer["notes"]) == ([], {})
    text = (tmp_path / "p.yaml").read_text().replace('notRequestPrincipals: ["*"]', "notNamespaces: ['a,b']")
    (tmp_path / "q.yaml").write_text(text)
    trapped = json.loads(run(command, "-p", "q.yaml", "-n", "shop", "--path", "/a", "-o", "json").stdout)
    assert [finding["code"] for finding in trapped["findings"]] == ["AN-14"]
    told = json.loads(run(command, "-p", "p.yaml", "-n", "nowhere", "--path", "/a", "-o", "json").stdout)
    assert (told["because"], told["findings"]) == ([], [])
    assert told["not_here"][0].startswith("no object is in namespace `nowhere`")


def test_explain_in_json_names_the_nearest_rule_and_what_failed(run: Run, policies: Path) -> None:
    answer = json.loads(run("explain", *ASKED, "--path", "/cart", "-o", "json").stdout)
    assert answer["nearest"]["rule"] == {
        "name": "ns[shop]-policy[reads]-rule[0]",
        "namespace": "shop",
        "policy": "reads",
        "index": 0,
        "file": "policies/shop.yaml",
        "line": 7,
    }
    failed = [predicate for predicate in answer["nearest"]["predicates"] if not predicate["holds"]]
    assert [(p["path"], p["expected"], p["actual"], p["vouched_by"]) for p in failed] == [
        ("from[0].source.principals", [WEB], [], "mTLS")
    ]
    assert [stage["stage"] for stage in answer["stages"]] == [
        *("PeerAuthentication", "RequestAuthentication", "AUDIT", "DENY (dry run)", "DENY", "ALLOW (dry run)", "ALLOW")
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-H", "no-colon"], "a header has the form `name: value`"),
        (["-l", "app"], "`app` is not of the form `name=value`"),
        (["--provider", "idp"], "`idp` is not of the form `name=value`"),
        (["--token", "a", "--token-file", "-"], "--token, --token-file and --claims exclude each other"),
        (["-f", "-", "--token-file", "-"], "stdin (`-`) can be read only once"),
        (["--port", "65536"], "65536 is not in the range 0<=x<=65535"),
        (["--source-ip", "10.0.0"], "Invalid value for --source-ip: `10.0.0` is not an IP address"),
        (["--tcp", "--path", "/x", "-H", "a: b"], "--path, --header: only for HTTP requests, not for --tcp"),
    ],
)
def test_wrong_usage_is_told(run: Run, policies: Path, arguments: list[str], message: str) -> None:
    result = run("check", *ASKED, *arguments, stdin="")
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.parametrize(
    ("arguments", "remark"),
    [
        (
            ["--source-principal", "web"],
            "remark: `web` is not a SPIFFE identity, so it has no namespace; Istio's form is",
        ),
        (["--provider", "ipd=deny"], "remark: the mesh knows no provider `ipd`; it knows none"),
    ],
)
def test_what_is_hardly_meant_is_remarked(run: Run, policies: Path, arguments: list[str], remark: str) -> None:
    result = run("check", *ASKED, *arguments)
    assert result.exit_code == 3
    assert result.stderr.startswith(remark)


def test_a_request_without_identity_to_a_strict_port_is_told_how_to_have_one(run: Run, policies: Path) -> None:
    strict = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: p, namespace: shop}\n"
    (policies / "mtls.yaml").write_text(f"{strict}spec: {{mtls: {{mode: STRICT}}}}\n")
    result = run("check", *ASKED)
    assert result.exit_code == 3
    assert "name the caller with --source-principal" in result.stderr


def test_headers_in_the_environment_stand_on_a_line_each(run: Run, policies: Path) -> None:
    result = run("explain", *ASKED, "--method", "PUT", AUTHZ_EXPLAIN_HEADER="x-team: red\nx-other: a b")
    assert "yes when[0] (request.headers[x-team]): expected one of `red`, got `red`" in result.stdout


@pytest.mark.parametrize(
    ("claims", "code", "text"),
    [
        ('{"iss": "i", "sub": "s"}', 0, "token:    i/s, accepted by shop/jwt/0"),
        ('{"iss": "j", "sub": "s"}', 3, "deny (401) at stage jwt: "),
        ('{"iss": "i", "sub": "s", "exp": 1}', 3, "deny (401) at stage jwt: "),
        ('{"iss": "i"}', 3, "got no value"),
        ("{", 2, "not JSON"),
        ("[]", 2, "claims must be a JSON object"),
    ],
)
def test_claims_stand_for_a_token_whose_signature_is_good(
    run: Run, policies: Path, claims: str, code: int, text: str
) -> None:
    (policies / "jwt.yaml").write_text(AUTHENTICATION)
    result = run("check", *ASKED, "--method", "PUT", "-H", "x-team: red", "--claims", claims)
    assert result.exit_code == code
    assert text in result.output


def test_claims_may_come_from_a_file(run: Run, policies: Path, tmp_path: Path) -> None:
    (policies / "jwt.yaml").write_text(AUTHENTICATION)
    (tmp_path / "claims.json").write_text('{"iss": "i", "sub": "s"}')
    assert run("check", *ASKED, "--method", "PUT", "-H", "x-team: red", "--claims", "@claims.json").exit_code == 0
    missing = run("check", *ASKED, "--claims", "@nowhere.json")
    assert (missing.exit_code, missing.stderr) == (1, "error: nowhere.json: No such file or directory\n")


MESH_DESCRIPTION = """\
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: cart-v1, namespace: shop}
spec: {address: 10.0.0.5, serviceAccount: cart, labels: {app: cart}, ports: {http: 8080}}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: cart-v1, namespace: shop}
spec:
  workloadSelector: {labels: {app: cart}}
  ingress: [{port: {number: 8080, name: http, protocol: HTTP}, defaultEndpoint: "127.0.0.1:9000"}]
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: web-v1, namespace: shop}
spec: {address: 10.0.0.6, serviceAccount: web, labels: {app: web}, ports: {http: 8081}}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: web-v1, namespace: shop}
spec:
  workloadSelector: {labels: {app: web}}
  ingress: [{port: {number: 8081, name: http, protocol: HTTP}, defaultEndpoint: "127.0.0.1:9001"}]
"""


def test_workloads_may_be_named_where_the_mesh_is_described(run: Run, policies: Path, tmp_path: Path) -> None:
    (tmp_path / "mesh.yaml").write_text(MESH_DESCRIPTION)
    asked = ("check", "-p", "policies", "--mesh", "mesh.yaml", "--path", "/cart")
    result = run(*asked, "--to", "cart-v1", "--from", "web-v1")
    assert result.exit_code == 0, result.output
    assert f"  request:  GET api.example.com/cart to port 8080, from {WEB}\n" in result.stdout
    assert run(*asked, "--to", "cart-v1", "--from", "cart-v1").exit_code == 3
    misspelt = run(*asked, "--to", "cart-v2")
    assert misspelt.exit_code == 2
    assert "`mesh.yaml` describes no workload `cart-v2`; did you mean `cart-v1`?" in misspelt.stderr
    assert run("check", "-p", "policies", "--to", "cart-v1").exit_code == 2


ROUTED = f"""{MESH_DESCRIPTION}---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: cart, namespace: shop}}
spec:
  hosts: [cart.shop.svc.cluster.local]
  location: MESH_INTERNAL
  ports: [{{number: 80, name: http, protocol: HTTP}}]
  workloadSelector: {{labels: {{app: cart}}}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: cart, namespace: shop}}
spec:
  hosts: [cart]
  http:
  - match: [{{uri: {{prefix: /old/}}}}]
    name: moved
    rewrite: {{uri: /cart/}}
    route: [{{destination: {{host: cart}}}}]
  - match: [{{uri: {{prefix: /closed}}}}]
    directResponse: {{status: 410}}
  - match: [{{uri: {{prefix: /cart}}}}]
    route: [{{destination: {{host: cart}}}}]
"""


def test_a_request_to_a_service_follows_its_routes_and_is_decided_where_it_arrives(
    run: Run, policies: Path, tmp_path: Path
) -> None:
    (tmp_path / "mesh.yaml").write_text(ROUTED)
    asked = ("explain", "-p", "policies", "--mesh", "mesh.yaml", "--from", "web-v1", "--to", "cart")
    result = run(*asked, "--path", "/old/7?secret=1")
    assert result.exit_code == 0, result.output
    line = ROUTED.splitlines().index("  - match: [{uri: {prefix: /old/}}]") + 1
    assert f"by:      VirtualService shop/cart, route `moved` at mesh.yaml:{line}:5\n" in result.stdout
    host = "cart.shop.svc.cluster.local"
    assert f"100%:    {host} (cart-v1), as GET {host}/cart/7\n" in result.stdout
    assert f"  request:  GET {host}/cart/7 to port 8080, from {WEB}\n" in result.stdout
    assert "secret" not in result.stdout
    assert run(*asked, "--path", "/cart/7", "--method", "DELETE").exit_code == 3
    assert "answer:  410, at once" in run(*asked, "--path", "/closed").stdout
    missing = run(*asked, "--path", "/nowhere")
    assert (missing.exit_code, "404: no rule takes it" in missing.stdout) == (3, True)


def test_a_followed_route_is_told_as_json(run: Run, policies: Path, tmp_path: Path) -> None:
    (tmp_path / "mesh.yaml").write_text(ROUTED)
    asked = ("explain", "-p", "policies", "--mesh", "mesh.yaml", "--from", "web-v1", "--to", "cart:80", "-o", "json")
    found = json.loads(run(*asked, "--path", "/old/7").stdout)
    assert found["route"]["route"] == "moved"
    assert found["route"]["destinations"][0]["request"]["path"] == "/cart/7"
    assert [one["workload"] for one in found["workloads"]] == ["cart-v1"]
    assert found["workloads"][0]["effect"] == "allow"
    wrong = run(*asked[:-4], "--to", "cart:81", "--path", "/")
    assert "has no port 81; its ports: 80" in wrong.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--sni", "a.example", "--tls", "plaintext"], "--sni: a plaintext connection has no server name"),
        (["--tcp", "--token", "x"], "--token: only for HTTP requests, not for --tcp"),
        (["--tcp", "--claims", "{}", "--path", "/"], "--path, --claims: only for HTTP requests"),
        (["-f", "tcp.yaml", "--token", "x"], "--token: only for HTTP requests, not for `protocol: tcp`"),
        (["-f", "tcp.yaml", "--method", "PUT"], "--method: only for HTTP requests, not for `protocol: tcp`"),
        (["-H", "Host: a.example"], "the host is given with --host"),
        (["-H", "authorization: x", "--claims", "{}"], "--claims goes into the header `authorization`"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    run: Run, policies: Path, tmp_path: Path, arguments: list[str], said: str
) -> None:
    (tmp_path / "tcp.yaml").write_text("request: {protocol: tcp}\n")
    result = run("check", *ASKED, *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--sni", "a.example"], "the server name (SNI) is not used"),
        (["--sni", "a.example", "-f", "plain.yaml"], "the server name (SNI) is not used"),
        (["--source-principal", WEB, "--tls", "plaintext"], "the identity is not used"),
        (["--tls", "mtls"], "TLS `mtls` without an identity is judged as plaintext"),
        (["--tls", "simple", "--token", "x"], "judged as a TCP connection, without identity, and --token is not read"),
        (["--claims", "{}"], "--claims is not read: no RequestAuthentication applies"),
        (["--claims", "{}", "-l", "app=own"], "but tokens are read from header `x-jwt` only"),
        (["--jwks", "keys.json"], "--jwks is not used: the request carries no token"),
        (["--host", "https://a.example"], "has a scheme or a slash"),
        (["--method", "get"], "`get` is not `GET`"),
    ],
)
def test_options_without_effect_are_said(
    run: Run, policies: Path, tmp_path: Path, arguments: list[str], said: str
) -> None:
    (tmp_path / "plain.yaml").write_text("request: {tls: plaintext}\n")
    (tmp_path / "keys.json").write_text(jwks_text(KEYS.values()))
    own = "selector: {matchLabels: {app: own}}, jwtRules: [{issuer: i, fromHeaders: [{name: x-jwt}]}]"
    (policies / "jwt.yaml").write_text(AUTHENTICATION.partition("spec:")[0] + f"spec: {{{own}}}\n")
    labels = [] if "-l" in arguments else ["-l", "app=cart"]
    result = run("check", "-p", "policies", "-n", "shop", *labels, "--port", "8080", *arguments)
    assert result.exit_code in (0, 3), result.output
    assert said in result.stderr
    assert result.stderr.startswith("warning: ")


def test_what_does_not_apply_is_told_where_nothing_does(run: Run, policies: Path) -> None:
    result = run("check", "-p", "policies", "-n", "shop", "-l", "app=Cart")
    assert "not here: AuthorizationPolicy shop/reads: its selector wants app=cart, the workload has app=Cart\n" in (
        result.stdout
    )
    elsewhere = run("check", "-p", "policies", "-n", "shopp", "-l", "app=cart")
    assert elsewhere.stdout.endswith(
        "  not here: no object is in namespace `shopp`; they are in shop\n"
        "            AuthorizationPolicy shop/reads: it is in namespace `shop`, the workload in `shopp`\n"
    )


def test_routes_that_stand_apart_are_followed(run: Run, policies: Path, tmp_path: Path) -> None:
    documents = ROUTED.split("---\n")
    routes = [one for one in documents if "kind: VirtualService" in one]
    (tmp_path / "mesh.yaml").write_text("---\n".join(one for one in documents if one not in routes))
    (tmp_path / "traffic").mkdir()
    (tmp_path / "traffic" / "routes.yaml").write_text("---\n".join(routes))
    asked = ("explain", "-p", "policies", "--mesh", "mesh.yaml", "--from", "web-v1", "--to", "cart", "--path", "/old/7")
    assert "route `moved`" not in run(*asked).stdout
    assert "route `moved` at traffic/routes.yaml:" in run(*asked, "--traffic", "traffic").stdout


def test_routes_without_a_description_are_refused(run: Run, policies: Path, tmp_path: Path) -> None:
    """Nobody would notice that they were not looked at."""
    result = run("check", *ASKED, "--path", "/cart/7", "--traffic", str(tmp_path))
    assert result.exit_code == 2, result.output
    assert "--traffic is read together with --mesh" in result.output

"""Traps are found where they are, and only there."""

from dataclasses import replace
from pathlib import Path

import pytest

from authz.analysis.needless.needless_rules import needless_rules
from authz.analysis.sets.asked_workloads import targets_of
from authz.analysis.traps.cover import covered_rules
from authz.analysis.traps.findings import CHECKS, find
from authz.analysis.traps.policy_set import Trap
from authz.core.attributes import Workload
from authz.core.compiler import compile_engine
from authz.core.errors import Problem
from authz.core.resources import MeshConfig, PathNormalization
from authz.policy.reader import read_policies

MERGE = MeshConfig(path_normalization=PathNormalization.MERGE_SLASHES)
WORKLOADS = (Workload("shop", frozenset({("app", "cart")})), Workload("web", frozenset({("app", "front")})))


def allow(rules: str, name: str = "p", namespace: str = "shop", action: str = "ALLOW", more: str = "") -> str:
    return (
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n"
        f"metadata: {{name: {name}, namespace: {namespace}}}\nspec: {{action: {action}, rules: [{rules}]{more}}}\n---\n"
    )


def deny(rules: str, name: str = "d", namespace: str = "shop", more: str = "") -> str:
    return allow(rules, name, namespace, "DENY", more)


def other(kind: str, spec: str, namespace: str = "shop") -> str:
    return (
        f"apiVersion: security.istio.io/v1\nkind: {kind}\n"
        f"metadata: {{name: x, namespace: {namespace}}}\nspec: {spec}\n---\n"
    )


JWT = other("RequestAuthentication", "{jwtRules: [{issuer: i, outputClaimToHeaders: [{header: x-role, claim: role}]}]}")
WITH_WEB = JWT.replace("shop", "web") + allow('{from: [{source: {requestPrincipals: ["*"]}}]}', "web", "web")
STRICT = other("PeerAuthentication", "{mtls: {mode: STRICT}}")
SELECT = ", selector: {matchLabels: {app: cart}}"


def findings(text: str, mesh: MeshConfig = MERGE, workloads: tuple[Workload, ...] = ()) -> tuple[Problem, ...]:
    result = read_policies([("p.yaml", text.encode())])
    return find(compile_engine(result.resources, mesh), workloads)


@pytest.mark.parametrize(
    ("code", "text", "path"),
    [
        ("AN-1", allow('{when: [{key: "request.headers[x-role]", values: [admin]}]}'), "spec.rules[0].when[0]"),
        ("AN-3", deny("{to: [{operation: {hosts: [a.example]}}]}"), "spec.rules[0].to[0].operation.hosts"),
        ("AN-3", deny('{to: [{operation: {hosts: ["*.example"]}}]}'), "spec.rules[0].to[0].operation.hosts"),
        ("AN-3", allow("{to: [{operation: {notHosts: [a.example]}}]}"), "spec.rules[0].to[0].operation.hosts"),
        ("AN-4", allow("{to: [{operation: {ports: ['1']}}]}, {}"), "spec.rules[0]"),
        ("AN-4", allow("{to: [{operation: {ports: ['1']}}]}, {to: [{operation: {ports: ['1']}}]}"), "spec.rules[1]"),
        ("AN-4", allow("{to: [{operation: {ports: ['1']}}]}") + allow("{}", "q", "istio-system"), "spec.rules[0]"),
        (
            "AN-6",
            allow('{from: [{source: {requestPrincipals: ["*"]}}]}'),
            "spec.rules[0].from[0].source.requestPrincipals",
        ),
        (
            "AN-6",
            allow('{when: [{key: "request.auth.claims[a]", values: [b]}]}') + WITH_WEB,
            "spec.rules[0].when[0]",
        ),
        (
            "AN-7",
            JWT + allow('{from: [{source: {notRequestPrincipals: ["i/bad"]}}]}'),
            "spec.rules[0].from[0].source.requestPrincipals",
        ),
        ("AN-7", allow("{from: [{source: {notNamespaces: [evil]}}]}"), "spec.rules[0].from[0].source.namespaces"),
        ("AN-8", deny("{from: [{source: {namespaces: [evil]}}]}"), "spec.rules[0].from[0].source.namespaces"),
        ("AN-9", allow("{}") + allow("", "lock"), "spec.rules[0]"),
    ],
)
def test_a_trap_is_found(code: str, text: str, path: str) -> None:
    assert [(problem.code, problem.path) for problem in findings(text)] == [(code, path)]


@pytest.mark.parametrize(
    "text",
    [
        allow("{from: [{source: {namespaces: [web]}}], when: [{key: 'request.headers[x-role]', values: [admin]}]}"),
        JWT + allow('{when: [{key: "request.headers[X-Role]", values: [admin]}]}'),
        allow('{when: [{key: "request.headers[x-debug]", notValues: ["*"]}]}'),
        deny('{when: [{key: "request.headers[x-role]", values: [admin]}]}'),
        deny('{to: [{operation: {hosts: [a.example, "a.example:*", "b.*"]}}]}'),
        allow("{to: [{operation: {hosts: [a.example]}}]}"),
        allow("{to: [{operation: {ports: ['1']}}]}, {to: [{operation: {ports: ['2']}}]}"),
        allow("{to: [{operation: {ports: ['1']}}]}") + deny("{}"),
        allow("{to: [{operation: {ports: ['1']}}]}") + allow("{}", "q", "web"),
        allow("{to: [{operation: {ports: ['1']}}]}") + allow("{}", "q", more=SELECT),
        JWT + allow('{from: [{source: {requestPrincipals: ["*"], notRequestPrincipals: ["i/bad"]}}]}'),
        STRICT + deny("{from: [{source: {namespaces: [evil]}}]}"),
        allow("{}") + allow("", "lock", "web"),
        allow("{}", more=SELECT) + allow("", "lock"),
    ],
)
def test_what_is_meant_is_no_finding(text: str) -> None:
    assert findings(text) == ()


ISSUER = "https://idp.example/realms/main"
IDP = other("RequestAuthentication", f"{{jwtRules: [{{issuer: '{ISSUER}'}}, {{issuer: 'https://other.example/'}}]}}")
EGRESS = ", selector: {matchLabels: {istio: egressgateway}}"
CALLER = "{from: [{source: {namespaces: [shop]}}]}"
HOST = "{to: [{operation: {hosts: [a.shop]}}]}"
SNI = '{when: [{key: "connection.sni", values: [a.example]}]}'


def principals(*values: str) -> str:
    listed = ", ".join(f'"{value}"' for value in values)
    return IDP + allow(f"{{from: [{{source: {{requestPrincipals: [{listed}]}}}}]}}")


def output(claim: str) -> str:
    needed = allow('{from: [{source: {requestPrincipals: ["*"]}}]}')
    rule = f"{{issuer: i, outputClaimToHeaders: [{{header: x-a, claim: '{claim}'}}]}}"
    return needed + other("RequestAuthentication", f"{{jwtRules: [{rule}]}}")


def claim(name: str) -> str:
    return JWT + allow(f'{{when: [{{key: "request.auth.claims{name}", values: [a]}}]}}')


def to(field: str, value: str) -> str:
    return allow(f"{{to: [{{operation: {{{field}: ['{value}']}}}}]}}")


def source(field: str, value: str) -> str:
    return allow(f"{{from: [{{source: {{{field}: ['{value}']}}}}]}}")


def target(kind: str, group: str = "") -> str:
    refs = f"[{{kind: {kind}, group: '{group}', name: x}}]"
    return (
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: t, namespace: shop}\n"
        f"spec: {{action: DENY, targetRefs: {refs}, rules: [{{from: [{{source: {{ipBlocks: [10.0.0.1]}}}}]}}]}}\n---\n"
    )


def custom(provider: str, name: str) -> str:
    return (
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n"
        f"metadata: {{name: {name}, namespace: shop}}\n"
        f"spec: {{action: CUSTOM, provider: {{name: {provider}}}, "
        "rules: [{to: [{operation: {ports: ['1']}}]}]}\n---\n"
    )


@pytest.mark.parametrize(
    ("code", "text", "said"),
    [
        ("AN-10", principals(f"{ISSUER}//*"), f"`{ISSUER}` differs by a slash at the end | write `{ISSUER}/*`"),
        ("AN-10", principals("https://other.example/*"), "differs by a slash at the end | write `https://other.example//*`"),
        ("AN-10", principals(ISSUER), f"split at its last slash, into the issuer | write `{ISSUER}/*`"),
        ("AN-10", principals(f"{ISSUER}/"), f"`{ISSUER}` with an empty subject | write `{ISSUER}/*`"),
        ("AN-10", principals("https://other.example/"), "and the subject `` | write `https://other.example//*`"),
        ("AN-10", principals("https://other.example"), "write `https://other.example//*`"),
        ("AN-10", principals(f"{ISSUER}/repo:org/*"), f"`{ISSUER}/repo:org` | request.auth.claims[sub]"),
        ("AN-10", principals("https://idp*"), f"into the issuer `https:/` | write `{ISSUER}/*`"),
        ("AN-10", principals("https://idp.example/*"), f"only the beginning of `{ISSUER}` | write `{ISSUER}/*`"),
        ("AN-10", principals("HTTPS://idp.example/realms/main/*"), "differs by upper and lower case"),
        ("AN-10", principals("https://nobody.example/ann"), f"the issuers are `{ISSUER}`, `https://other.example/`"),
        ("AN-11", output("https://example.com/roles"), "the member `com/roles` in `https://example`"),
        ("AN-11", output("a.b") + claim("[a.b]").replace(JWT, "").replace("name: p", "name: q"), "member `b` in `a`"),
        ("AN-12", claim("[exp]"), "`exp` is a number, so no value matches it | checked with every token"),
        ("AN-12", claim("[email_verified]"), "is a boolean"),
        ("AN-12", claim("[realm_access]"), "is an object | request.auth.claims[realm_access][<member>]"),
        ("AN-12", claim("[realm_access.roles]"), "dots included | write `request.auth.claims[realm_access][roles]`"),
        ("AN-12", claim("['groups']"), "quotes and blanks are part | write `request.auth.claims[groups]`"),
        ("AN-12", claim("[ groups ]"), "quotes and blanks are part | write `request.auth.claims[groups]`"),
        ("AN-13", to("hosts", "https://a.example"), "neither scheme nor slash | write `a.example`"),
        ("AN-13", to("hosts", "a.example/api"), "write `a.example`"),
        ("AN-13", to("hosts", "a.example/"), "write `a.example`"),
        ("AN-14", to("methods", "GET,POST"), 'is one value | write `["GET", "POST"]`'),
        ("AN-14", to("methods", "GET, POST"), 'write `["GET", "POST"]`'),
        ("AN-14", to("methods", "GET|POST"), 'write `["GET", "POST"]`'),
        ("AN-14", source("namespaces", "a,b"), 'write `["a", "b"]`'),
        ("AN-14", source("namespaces", "a "), 'write `["a"]`'),
        ("AN-14", to("hosts", "a.example, b.example"), 'write `["a.example", "b.example"]`'),
        ("AN-15", source("principals", "sleep"), "not an identity of a mesh | <trust domain>/ns/<namespace>/sa/"),
        ("AN-15", source("principals", "default/sleep"), "not an identity of a mesh"),
        ("AN-15", source("principals", "ns/default/sa/sleep"), "not an identity of a mesh"),
        ("AN-15", source("principals", "cluster.local/ns/default"), "not an identity of a mesh"),
        ("AN-15", source("principals", "system:serviceaccount:default:sleep"), "not an identity of a mesh"),
        ("AN-16", source("principals", "*/ns/default/*"), "ordinary character | use `namespaces`"),
        ("AN-16", to("hosts", "api.*.example"), "ordinary character"),
        ("AN-16", to("hosts", "^api$"), "there are no regular expressions"),
        ("AN-16", to("hosts", "api.+example"), "there are no regular expressions"),
        ("AN-17", JWT + allow('{when: [{key: "request.headers[Authorization]", values: ["Bearer *"]}], '
                             'from: [{source: {requestPrincipals: ["*"]}}]}'), "the header is gone"),
        ("AN-18", allow(SNI, more=EGRESS), "rests on the server name"),
        ("AN-19", target("Service"), "nobody obeys this DENY policy"),
        ("AN-20", JWT, "no policy asks for a token"),
        ("AN-21", allow("{from: [{source: {ipBlocks: [10.0.0.1]}}]}", more=EGRESS.replace("egress", "ingress")),
         "the direct peer"),
        ("AN-22", STRICT + STRICT.replace("name: x", "name: y"), "it has no effect: shop/x has the same scope"),
        ("AN-23", custom("a", "one") + custom("b", "two"), "two providers, `a` and `b`"),
        ("AN-24", JWT + allow('{when: [{key: "request.auth.claims[a]", values: ["source.principal"]}]}'),
         "`source.principal` is compared as it stands: a value refers to nothing"),
        ("AN-24", allow('{when: [{key: "request.headers[x-a]", notValues: ["%REQ(X-B)%"]}]}'), "`%REQ(X-B)%`"),
        ("AN-24", allow('{when: [{key: "request.headers[x-a]", values: ["2001:db8::/32"]}]}'), "no address of"),
        ("AN-25", allow(f"{CALLER}, {HOST}"), "asks nothing of the caller | remove the dash"),
        ("AN-25", allow(f"{HOST}, {CALLER}"), "asks nothing of the caller"),
        ("AN-25", allow(f"{CALLER}, {{when: [{{key: destination.ip, values: [10.0.0.1]}}]}}"), "one is enough"),
        ("AN-26", allow("", "closed", "istio-system") + allow("{}", more=SELECT), "allows nothing at gateways either"),
        ("AN-27", allow(f"{CALLER[:-1]}, {HOST[1:]}").replace("a.shop", "api.partner.example"),
         "not where one of `shop` leaves for `api.partner.example` | at an egress gateway"),
    ],
)  # fmt: skip
def test_a_trap_is_told_with_its_way_out(code: str, text: str, said: str) -> None:
    found = [problem for problem in findings(text) if problem.code == code]
    assert len(found) == 1
    assert {problem.code for problem in findings(text)} <= {code, "AN-1"}
    for part in said.split(" | "):
        assert part in f"{found[0].message}\n{found[0].help}"


@pytest.mark.parametrize(
    "text",
    [
        principals("*", f"{ISSUER}/*", f"{ISSUER}/ann", "*/ann", "*main/ann", "https://other.example//x"),
        IDP.replace("issuer: 'https://other.example/'", "jwksUri: 'https://k.example'")
        + allow('{from: [{source: {requestPrincipals: ["any/x"]}}]}'),
        output("realm_access.roles"),
        output("role"),
        claim("[realm_access][roles]"),
        claim("[role]"),
        claim("[https://example.com/role]"),
        to("hosts", "*.example.com"),
        to("hosts", "a.example:8080"),
        to("methods", "*"),
        source("namespaces", "*-prod-*"),
        source("principals", "*"),
        source("principals", "cluster.local/ns/a/*"),
        source("principals", "*/sa/reader"),
        source("principals", "other.example/path/of/a/machine"),
        source("serviceAccounts", "default/sleep"),
        source("trustDomains", "*.example"),
        allow('{when: [{key: "request.headers[authorization]", notValues: ["*"]}]}'),
        allow(SNI),
        allow(SNI.replace("{when", '{to: [{operation: {ports: ["8443"]}}], when'), more=EGRESS),
        target("Gateway", "gateway.networking.k8s.io"),
        JWT + allow(""),
        JWT + deny('{from: [{source: {notRequestPrincipals: ["*"]}}]}'),
        STRICT + other("PeerAuthentication", "{selector: {matchLabels: {app: a}}}").replace("name: x", "name: y"),
        custom("a", "one") + custom("a", "two").replace("['1']", "['2']"),
        allow('{when: [{key: "request.headers[x-a]", notValues: ["10.0.0.1"]}]}'),
        source("principals", "cluster.local/ns/a/sa/*"),
        to("hosts", "source.example"),
        allow(f"{CALLER}, {{to: [{{operation: {{paths: [/healthz]}}}}]}}"),
        allow(f"{CALLER}, {{to: [{{operation: {{ports: ['15020']}}}}]}}"),
        allow(f"{CALLER}, {{when: [{{key: source.namespace, values: [ops]}}]}}"),
        allow("", "closed", "istio-system"),
        allow("", "closed", "istio-system") + allow("{}", "gw", "istio-system", more=EGRESS),
        allow("", "closed", "istio-system") + allow("{}", "gw", "istio-ingress"),
        allow("", "closed", "shop") + allow("{}", more=SELECT).replace("name: p", "name: q"),
        allow(f"{CALLER[:-1]}, {HOST[1:]}"),
        allow(f"{CALLER[:-1]}, {HOST[1:]}", more=EGRESS).replace("a.shop", "api.partner.example"),
        allow(f"{CALLER[:-1]}, {HOST[1:]}").replace("a.shop", "api.partner.example").replace("[shop]", "[web]"),
    ],
)  # fmt: skip
def test_what_only_looks_like_a_trap_is_no_finding(text: str) -> None:
    assert findings(text) == ()


def test_the_mesh_tells_which_gateways_there_are_and_which_trust_domain() -> None:
    closed = allow("", "closed", "istio-system") + allow("{}", more=SELECT)
    gateway = Workload("edge", frozenset({("istio", "ingressgateway")}))
    assert findings(closed, workloads=WORKLOADS) == ()
    assert [problem.code for problem in findings(closed, workloads=(*WORKLOADS, gateway))] == ["AN-26"]
    short = source("principals", "cluster.local/ns/a/*")
    renamed = MeshConfig(trust_domain="ecp", path_normalization=PathNormalization.MERGE_SLASHES)
    assert [problem.code for problem in findings(short, renamed)] == ["AN-24"]


def test_a_target_is_looked_for_among_known_workloads() -> None:
    text = target("Gateway", "gateway.networking.k8s.io")
    gateway = Workload("shop", frozenset({("gateway.networking.k8s.io/gateway-name", "x")}))
    assert [problem.code for problem in findings(text, workloads=WORKLOADS)] == ["AN-19"]
    assert findings(text, workloads=(*WORKLOADS, gateway)) == ()


@pytest.mark.parametrize(("mode", "count"), [("NONE", 1), ("BASE", 1), ("MERGE_SLASHES", 0)])
def test_deny_on_paths_needs_merged_slashes(mode: str, count: int) -> None:
    mesh = MeshConfig(path_normalization=PathNormalization(mode))
    found = findings(deny('{to: [{operation: {paths: ["/admin*"], ports: ["80"]}}]}'), mesh)
    assert [problem.code for problem in found] == ["AN-2"] * count
    assert findings(allow('{to: [{operation: {paths: ["/admin*"]}}]}'), mesh) == ()
    assert findings(deny('{to: [{operation: {paths: ["*"], ports: ["80"]}}]}'), mesh) == ()


@pytest.mark.parametrize(
    ("paths", "example"),
    [
        ('"/*"', ""),
        ('"/"', "/"),
        ('"*/metrics"', ""),
        ('"*/a/b"', "/a/b"),
        ('"/api/*"', "/api/*"),
        ('"/api/*", "/*"', ""),
        ('"/*", "/admin"', ""),
        ('"/carts/{*}/items"', "/carts/{*}/items"),
        ('"/{**}"', ""),
    ],
)
def test_only_paths_that_a_doubled_slash_takes_out_are_told(paths: str, example: str) -> None:
    found = findings(deny(f'{{to: [{{operation: {{paths: [{paths}], ports: ["80"]}}}}]}}'), MeshConfig())
    assert [problem.message.partition(" written")[0] for problem in found if problem.code == "AN-2"] == (
        [f"`{example}`"] if example else []
    )


@pytest.mark.parametrize(
    ("text", "count"),
    [
        (allow("{}", more=SELECT), 0),
        (allow("{}", more=SELECT.replace("cart", "crat")), 1),
        (allow("{}", namespace="web", more=SELECT), 1),
        (allow("{}", namespace="istio-system", more=SELECT), 0),
        (allow("{}", namespace="nowhere"), 1),
    ],
)
def test_selectors_are_compared_with_workloads_that_are_known(text: str, count: int) -> None:
    assert [problem.code for problem in findings(text, workloads=WORKLOADS)] == ["AN-5"] * count
    assert findings(text) == ()


def test_a_deny_and_a_mode_that_reach_nobody_are_found() -> None:
    lost = deny("{}", more=SELECT.replace("cart", "crat"))
    assert [p.message for p in findings(lost, workloads=WORKLOADS) if p.code == "AN-5"] == [
        "no workload of namespace `shop` is selected, and nothing is denied by this policy"
    ]
    strict = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: p, namespace: shop}
spec: {selector: {matchLabels: {app: APP}}, mtls: {mode: STRICT}}
"""
    for app, found in (("cart", []), ("crat", ["AN-5"])):
        assert [p.code for p in findings(strict.replace("APP", app), workloads=WORKLOADS)] == found


def test_a_rule_is_covered_by_many_without_being_compared_with_all() -> None:
    rules = ", ".join(f"{{to: [{{operation: {{ports: ['{number}']}}}}]}}" for number in range(500))
    policies = read_policies([("p.yaml", allow(rules + ", {}").encode())]).resources.authorization_policies
    assert len(list(covered_rules(policies, "istio-system"))) == 500


def proved(text: str, mesh: MeshConfig = MERGE) -> list[tuple[str, str, bool]]:
    result = read_policies([("p.yaml", text.encode())])
    engine = compile_engine(result.resources, mesh)
    needless = needless_rules(engine, targets_of([engine])[0], lambda: lambda: False)
    found = find(engine, (), needless, result.problems)
    return [(one.code, one.path, isinstance(one, Trap) and one.proved) for one in found]


GET = "{to: [{operation: {methods: [GET]}}]}"
NOT_GET = "{to: [{operation: {notMethods: [GET]}}]}"


CONTRARY = allow("{to: [{operation: {methods: [GET], notMethods: [GET]}}]}")
TWO_NAMESPACES = allow("{from: [{source: {namespaces: [a], principals: [cluster.local/ns/b/sa/c]}}]}")
DISABLED = STRICT.replace("STRICT", "DISABLE") + source("namespaces", "a")
ALL_OF = "{from: [{source: {namespaces: [a]}}]}, {from: [{source: {notNamespaces: [a]}}]}"
PATH_A = "{to: [{operation: {paths: [/a]}}]}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (allow(f"{GET}, {GET}"), ["AN-4 rules[1]"]),
        (allow(f"{GET}, {NOT_GET}, {PATH_A}"), ["AN-32 rules[0]", "AN-4 rules[2]"]),
        (CONTRARY, ["AN-28 rules[0].to[0].operation.methods"]),
        (TWO_NAMESPACES, ["AN-28 rules[0]"]),
        (DISABLED, ["AN-29 rules[0].from[0].source.namespaces"]),
        (allow(GET) + deny("{}"), ["AN-30 rules[0]"]),
        (STRICT + deny('{from: [{source: {notPrincipals: ["*"]}}]}'), ["AN-30 rules[0]"]),
        (allow(GET) + deny('{to: [{operation: {methods: [POST], ports: ["80"]}}]}'), ["AN-31 rules[0]"]),
        (allow(ALL_OF), ["AN-32 rules[0]"]),
        # One cause is told once: by the finding that says why.
        (to("methods", "GET,POST"), ["AN-14 rules[0].to[0].operation.methods"]),
        (principals("https://nobody.example/ann"), ["AN-10 rules[0].from[0].source.requestPrincipals"]),
        (to("paths", "^/a.*$"), []),  # validation warns of it
    ],
)
def test_what_is_proved_of_rules_is_told_once(text: str, said: list[str]) -> None:
    assert proved(text) == [(code, f"spec.{path}", True) for code, path in (one.split(" ") for one in said)]


def test_rules_that_are_not_decided_are_compared_as_written() -> None:
    rule = '{when: [{key: "request.headers[:path]", values: [/a]}]}'
    assert proved(allow(f"{rule}, {rule}"))[-1] == ("AN-4", "spec.rules[1]", False)


def test_a_foreign_trust_domain_is_found_where_the_mesh_says_its_own() -> None:
    text = source("principals", "old.example/ns/a/sa/b")
    named = MeshConfig(
        trust_domain="new.example",
        path_normalization=PathNormalization.MERGE_SLASHES,
        written=frozenset({"trust_domain"}),
    )
    path = "spec.rules[0].from[0].source.principals"
    assert proved(text, named) == [("AN-29", path, False)]
    assert proved(text, replace(named, trust_domain_aliases=("old.example",))) == []
    assert proved(text, replace(named, skip_validate_trust_domain=True)) == []
    assert proved(text) == []
    assert proved(source("principals", "cluster.local/ns/a/sa/b"), named) == []


def test_every_finding_is_documented() -> None:
    text = (Path(__file__).parents[3] / "docs" / "findings.md").read_text()
    assert [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## AN-")] == list(CHECKS)

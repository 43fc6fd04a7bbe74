"""
Policies that somebody wrote to break the filters: Envoy takes each, or the report says that it stays with the check;
and what is taken decides as the engine does.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from authz.analysis.offline.request import OfflineWorkload
from authz.analysis.suites.run import compile_texts
from authz.analysis.suites.suite import PolicyText
from authz.analysis.verify.sides import TrialSubject
from authz.analysis.verify.trial import try_workload
from authz.control.envoy_validation import Validator
from authz.core.attributes import Workload
from authz.core.engine import Engine
from authz.core.resources import MeshConfig
from authz.envoy.native.binary import find_envoy
from authz.envoy.native.filters import http_filters
from authz.envoy.native.indexed import Form
from authz.envoy.native.limits import MAX_NAME_BYTES, remarks, report
from authz.envoy.native.slots import fill_slots

pytestmark = pytest.mark.envoy
pytest.importorskip("envoy")

WORKLOAD = Workload("shop", frozenset({("app", "api")}), "api")
MESH = MeshConfig(trust_domain="td.test", trust_domain_aliases=("cluster.local", "old-*.td"))
LONG = "x" * 4000
TOO_LONG = "x" * (MAX_NAME_BYTES + 1)


def when(key: str, *values: str, absent: tuple[str, ...] = ()) -> dict[str, object]:
    found: dict[str, object] = {"key": key}
    if values:
        found["values"] = list(values)
    if absent:
        found["notValues"] = list(absent)
    return {"when": [found]}


def to(**fields: list[str]) -> dict[str, object]:
    return {"to": [{"operation": fields}]}


def source(**fields: list[str]) -> dict[str, object]:
    return {"from": [{"source": fields}]}


NATIVE: Mapping[str, dict[str, object]] = {
    "a path with a null byte": to(paths=["/\0"]),
    "a path with line feeds": to(paths=["/a\nb", "/a\nb*", "*a\nb"]),
    "a host with what no host has": to(hosts=["a\nb", "*\n", "\0*", "^a.*$", "a|b", "[*"]),
    "stars everywhere": to(hosts=["**", "*.*"], paths=["/a*b", "**", "/*/*"], methods=["**", "*E*"]),
    "methods": to(methods=["\0", "G\n*", "*\0", "get"]),
    "names of headers": when("request.headers[x y]", "a"),
    "a header beyond ASCII": when("request.headers[é]", "a"),
    "a header in brackets": when("request.headers[[x]]", "a"),
    "a pseudo header that is none": when("request.headers[:x]", "a", absent=("b",)),
    "a header that is a space": when("request.headers[ ]", absent=("*",)),
    "values of headers": when("request.headers[x]", "a\nb", "\0", "*\n", "\0*", "é"),
    "a header that Envoy sets": when("request.headers[x-envoy-internal]", "true"),
    "a very long header": when(f"request.headers[{LONG}]", LONG, f"{LONG}*", f"*{LONG}"),
    "claims without a name": when("request.auth.claims[][a]", "a"),
    "claims with dots": when("request.auth.claims[a.b][c][d]", "*", absent=("x",)),
    "claims in brackets": when("request.auth.claims[a[b]]", "x"),
    "claims beyond ASCII": when("request.auth.claims[\u2603]", "\u2603*", "*\U0001f600"),
    "a claim that is a space": when("request.auth.claims[ ]", "x"),
    "a claim with quotes": when('request.auth.claims["a"\\b]', '"', "\\", "%"),
    "metadata": when("experimental.envoy.filters.a.b[c]", "[x]", "[*]", "[]", "*", absent=("[y]", "z")),
    "metadata in brackets": when("experimental.envoy.filters.a.b[c][d]", "x"),
    "very long paths": to(paths=["/" + LONG, f"/{LONG}*", f"*{LONG}"]),
    "long names": source(namespaces=[LONG, f"{LONG}*"], principals=[f"*{LONG}"]),
    "names as long as Kubernetes has them": source(serviceAccounts=[f"{'n' * 63}/{'s' * 253}"]),
    "many stars in a namespace": source(namespaces=["*" * 100, "a*b*c*d"]),
    "namespaces like expressions": source(namespaces=["a.b+(c)[d]\\e", "^$", "a|b", "a\nb", "a\0b", "n/sa"]),
    "no namespaces": source(notNamespaces=["*", "a.*"]),
    "service accounts like expressions": source(notServiceAccounts=["a.b/c+d", "x|y"]),
    "trust domains": source(trustDomains=["*a.b", "a(b*", "td.test"], notTrustDomains=["*"]),
    "principals": source(principals=["*a|b", "a(b*", "\0", "*\n", "td.test/ns/a/sa/b", "old-1.td/ns/a/sa/b", "*/*"]),
    "none of the principals": source(notPrincipals=["*", "cluster.local/ns/a/sa/b"]),
    "request principals": source(requestPrincipals=["*/*", "a//", "/", "*/", "/*", "\0/\n", "**", "***", "é/ü"]),
    "no request principal": source(notRequestPrincipals=["*", "https://issuer.test/*"]),
    "addresses": source(ipBlocks=["::ffff:1.2.3.4", "::ffff:0:0/96", "fe80::1", "127.0.0.0/31"]),
    "clients far away": source(remoteIpBlocks=["2001:db8::/33", "::/127"], notRemoteIpBlocks=["2001:db8::5"]),
    "destinations": when("destination.ip", "::1/1", "10.1.0.5/31", absent=("10.1.0.4",)),
    "server names": when("connection.sni", "*", "a\0", "*.x", "A.test"),
    "templates": to(paths=["/{*}", "/a/{*}/{**}", "/" + "{*}/" * 5 + "x", "/{**}/b.c"]),
    "templates with what they may have": to(paths=["/{*}/a@b:c=d&e,f;g!h$i'j(k)l+m~n"]),
    "ports": to(ports=["0", "00080", "65535"]),
    "everything negative": {
        "from": [{"source": {"notPrincipals": ["a*"], "notNamespaces": ["b"], "notIpBlocks": ["1.2.3.4"]}}],
        "to": [{"operation": {"notPaths": ["/no*"], "notHosts": ["*.no"], "notMethods": ["POST"], "notPorts": ["1"]}}],
        "when": [{"key": "request.headers[x]", "notValues": ["*"]}, {"key": "connection.sni", "notValues": ["z"]}],
    },
    "empty lists": {"from": [], "to": [{"operation": {"paths": ["/empty"], "hosts": []}}], "when": []},
}  # fmt: skip
CHECK: Mapping[str, dict[str, object]] = {
    "a header with a null byte": when("request.headers[x\0]", "a"),
    "a header with a line feed": when("request.headers[x\n]", "a"),
    "a namespace too long": source(namespaces=[TOO_LONG]),
    "a trust domain too long": source(notTrustDomains=[f"*{TOO_LONG}"]),
    "a principal too long": when("source.principal", absent=(f"*{TOO_LONG}",)),
}
TOKENS: Mapping[str, dict[str, object]] = {
    "a prefix with a line feed": {"fromHeaders": [{"name": "x", "prefix": "a\nb"}]},
    "a prefix with a null byte": {"fromHeaders": [{"name": "x", "prefix": "\0"}]},
    "a header with a line feed": {"fromHeaders": [{"name": "x\n"}]},
    "presence": {"presence": "REQUIRED"},
}


def document(name: str, spec: Mapping[str, object], kind: str = "AuthorizationPolicy") -> str:
    metadata = {"name": name, "namespace": "shop"}
    text = {"apiVersion": "security.istio.io/v1", "kind": kind, "metadata": metadata, "spec": dict(spec)}
    return json.dumps(text, ensure_ascii=False)  # YAML knows no pairs of surrogates


def engine_of(*documents: str) -> Engine:
    engine = compile_texts([PolicyText("p.yaml", "\n---\n".join(documents))], MESH)
    assert isinstance(engine, Engine), engine
    return engine


def test_envoy_takes_what_the_report_calls_native(tmp_path: Path) -> None:
    files = {}
    for number, rule in enumerate(NATIVE.values()):
        for action in ("ALLOW", "DENY"):
            engine = engine_of(document("p", {"action": action, "rules": [rule]}))
            assert report(engine, WORKLOAD).is_native
            for form in (Form.LINEAR, Form.INDEXED):
                filters = http_filters(engine, WORKLOAD, {}, form=form, walk=0).filters
                content = json.dumps({"resources": fill_slots(filters, MESH)}, ensure_ascii=False)
                files[f"ecds/{number}-{action}-{form}.authz-rules.json"] = content.encode()
    assert Validator(find_envoy()).validate(tmp_path, files) == ""


@pytest.mark.parametrize("name", CHECK)
def test_what_envoy_would_refuse_stays_with_the_check(name: str) -> None:
    found = report(engine_of(document("p", {"rules": [CHECK[name]]})), WORKLOAD)
    assert not found.is_native
    assert found.reasons[0].startswith("AuthorizationPolicy shop/p rules[0]: Envoy refuses")


@pytest.mark.parametrize("name", TOKENS)
def test_token_rules_that_envoy_would_refuse_or_not_know_stay_with_the_check(name: str) -> None:
    rule = {"issuer": "a", "jwksUri": "https://a.test/keys", **TOKENS[name]}
    found = report(engine_of(document("jwt", {"jwtRules": [rule]}, "RequestAuthentication")), WORKLOAD)
    assert [one.reason != "" for one in found.rules] == [True]


def test_evidence_of_certificates_keeps_a_workload_with_the_check() -> None:
    found = report(engine_of(document("p", {"rules": [{}]})), WORKLOAD, has_evidence=True)
    assert found.reasons == ("evidence of the caller's certificate is kept by the server only",)
    assert not found.is_native


def test_a_long_expression_needs_the_runtime_of_istio() -> None:
    def remarked(account: str) -> str:
        engine = engine_of(document("p", {"rules": [source(serviceAccounts=[account])]}))
        return " ".join(remarks(http_filters(engine, WORKLOAD, {}, form=Form.LINEAR)))

    assert remarked("a/b") == ""
    assert "re2.max_program_size.error_level: 32768" in remarked(f"{'n' * 30}/{'s' * 30}")


@pytest.mark.slow
@pytest.mark.parametrize("form", [Form.LINEAR, Form.INDEXED])
@pytest.mark.parametrize("action", ["ALLOW", "DENY"])
def test_what_is_taken_decides_as_the_engine_does(action: str, form: Form) -> None:
    """The requests are those of ``authz verify``: what fires each alternative, and what lies beside each value."""
    rule = {"issuer": "https://issuer.test", "jwks": json.dumps({"keys": []})}
    documents = [document("jwt", {"jwtRules": [rule]}, "RequestAuthentication")]
    documents += [document(f"p{n:02}", {"action": action, "rules": [one]}) for n, one in enumerate(NATIVE.values())]
    subject = TrialSubject(OfflineWorkload(WORKLOAD, 8080), form=form, walk=0, max_requests=500)
    outcome = try_workload(engine_of(*documents), subject, {})
    assert outcome.disagreements == []
    assert outcome.requests > 300

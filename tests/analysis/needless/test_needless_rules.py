"""Rules that decide nothing are found, with what makes them so, and no others."""

import pytest

from authz.analysis.needless.needless_rules import needless_rules
from authz.analysis.needless.verdict import NeedlessRules, RuleVerdict
from authz.analysis.sets.asked_workloads import AskedWorkload, targets_of
from authz.core.attributes import Workload
from authz.core.compiler import compile_engine
from authz.core.resources import ExtensionProvider, MeshConfig
from authz.policy.reader import read_policies

EXTERNAL = ExtensionProvider("ext", service="ext.test", port=9000)
MESH = MeshConfig(extension_providers=(EXTERNAL,))


def policy(rules: str, name: str = "p", namespace: str = "shop", action: str = "ALLOW", more: str = "") -> str:
    return (
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n"
        f"metadata: {{name: {name}, namespace: {namespace}}}\nspec: {{action: {action}, rules: [{rules}]{more}}}\n---\n"
    )


def deny(rules: str, name: str = "d", namespace: str = "shop", more: str = "") -> str:
    return policy(rules, name, namespace, "DENY", more)


def custom(rules: str, name: str = "c", provider: str = "ext") -> str:
    return policy(rules, name, action="CUSTOM", more=f", provider: {{name: {provider}}}")


def other(kind: str, spec: str) -> str:
    return (
        f"apiVersion: security.istio.io/v1\nkind: {kind}\nmetadata: {{name: x, namespace: shop}}\nspec: {spec}\n---\n"
    )


def to(**fields: str) -> str:
    return "{to: [{operation: {" + ", ".join(f"{name}: [{value}]" for name, value in fields.items()) + "}}]}"


def source(**fields: str) -> str:
    return "{from: [{source: {" + ", ".join(f"{name}: [{value}]" for name, value in fields.items()) + "}}]}"


STRICT, DISABLE = (other("PeerAuthentication", f"{{mtls: {{mode: {mode}}}}}") for mode in ("STRICT", "DISABLE"))
JWT = other("RequestAuthentication", "{jwtRules: [{issuer: https://idp.example}]}")
GET, NOT_GET = to(methods="GET"), to(notMethods="GET")
NET, GET_80 = source(ipBlocks="10.0.0.0/8"), to(methods="GET", ports="'80'")
CART, FRONT = (f", selector: {{matchLabels: {{app: {app}}}}}" for app in ("cart", "front"))


def judged(text: str, mesh: MeshConfig = MESH, workloads: tuple[AskedWorkload, ...] = ()) -> NeedlessRules:
    read = read_policies([("p.yaml", text.encode())])
    assert not any(problem.is_error for problem in read.problems), read.problems
    engine = compile_engine(read.resources, mesh)
    return needless_rules(engine, workloads or targets_of([engine])[0], lambda: lambda: False)


def told(verdict: RuleVerdict) -> tuple[str, ...]:
    return (str(verdict.kind), *(rule.short for rule in verdict.by), *verdict.fields)


@pytest.mark.parametrize(
    ("text", "rule", "said"),
    [
        (policy(f"{GET}, {to(methods='GET', paths='/a')}"), "p/1", ("covered", "shop/p/0")),
        (policy(GET) + policy(GET, "q"), "q/0", ("covered", "shop/p/0")),
        (policy(to(paths='"/a/*"')) + policy(to(paths='"/a/{*}/b"'), "q"), "q/0", ("covered", "shop/p/0")),
        (policy(f"{GET}, {NOT_GET}, {to(paths='/a')}"), "p/2", ("covered", "shop/p/0", "shop/p/1")),
        (policy(NET) + policy(source(ipBlocks="10.1.0.0/16"), "q"), "q/0", ("covered", "shop/p/0")),
        (policy(GET, namespace="istio-system") + policy(GET_80, more=CART), "p/0", ("covered", "istio-system/p/0")),
        (custom(f"{GET}, {to(methods='GET', paths='/a')}"), "c/1", ("covered", "shop/c/0")),
        (policy(f"{GET}, {to(methods='GET', paths='/a')}", action="AUDIT"), "p/1", ("covered", "shop/p/0")),
        (policy(to(paths="/admin/x")) + deny(to(paths='"/admin*"')), "p/0", ("taken", "shop/d/0")),
        (policy(to(paths="/admin/x")) + deny("{}"), "p/0", ("taken", "shop/d/0")),
        (policy(GET) + custom("{}", provider="nobody"), "p/0", ("taken", "shop/c/0")),
        (policy(GET) + deny(to(methods="POST")), "d/0", ("unneeded",)),
        (STRICT + deny(source(notPrincipals='"*"')), "d/0", ("closed",)),
        (policy(to(methods="GET", notMethods='"G*"')), "p/0", ("impossible", "to[0].operation.methods")),
        (
            policy(source(principals="cluster.local/ns/a/sa/b", namespaces="c")),
            "p/0",
            ("impossible", "from[0].source.principals", "from[0].source.namespaces"),
        ),
        (policy(to(methods="'GET,POST'")), "p/0", ("impossible", "to[0].operation.methods")),
        (policy(source(requestPrincipals='"*"')), "p/0", ("impossible", "from[0].source.requestPrincipals")),
        (JWT + policy(source(requestPrincipals="i/*")), "p/0", ("impossible", "from[0].source.requestPrincipals")),
        (JWT + policy('{when: [{key: "request.auth.claims[iss]", values: [i]}]}'), "p/0", ("impossible", "when[0]")),
        (DISABLE + policy(source(namespaces="a")), "p/0", ("impossible", "from[0].source.namespaces")),
    ],
)  # fmt: skip
def test_a_rule_that_decides_nothing_is_found_with_what_makes_it_so(
    text: str, rule: str, said: tuple[str, ...]
) -> None:
    name, _, index = rule.partition("/")
    found = judged(text)
    verdicts = {key[1:]: told(verdict) for key, verdict in found.verdicts.items()}
    assert list(verdicts) == [(name, int(index))]
    assert verdicts[name, int(index)] == said
    assert not found.undecided


@pytest.mark.parametrize(
    "text",
    [
        policy(GET) + deny(to(paths='"/admin*"')),
        policy(f"{GET}, {to(methods='GET, POST')}").replace("GET, POST", "POST"),
        policy(GET) + policy(to(methods="GET", paths="/a"), "q", "web"),  # of another namespace
        policy(GET, more=CART) + policy(to(methods="GET", paths="/a"), "q"),  # of more workloads
        policy(GET, more=CART) + policy(GET, "q", more=FRONT),
        policy(GET) + policy(to(methods="GET", paths="/a"), "q", action="AUDIT"),
        policy(GET) + custom(GET),
        policy(to(hosts="a.example")) + policy(to(hosts='"a.example:*"'), "q"),
        STRICT + deny(source(notPrincipals='"*"'), namespace="istio-system"),  # which gateways are asked about, too
        JWT + deny(source(notRequestPrincipals='"*"')) + policy("{}"),
        policy(source(principals='"*"')) + deny(to(ports="'9000'")),
    ],
)
def test_a_rule_that_decides_something_anywhere_is_not_found(text: str) -> None:
    found = judged(text)
    assert not found.verdicts
    assert not found.undecided
    assert found.judged


def test_of_rules_that_cover_each_other_one_is_left() -> None:
    found = judged(policy(f"{GET}, {GET}, {GET}"))
    assert set(found.verdicts) == {("shop", "p", 1), ("shop", "p", 2)}
    assert {rule.short for verdict in found.verdicts.values() for rule in verdict.by} == {"shop/p/0"}
    partitioned = judged(policy(f"{{}}, {GET}, {NOT_GET}"))
    assert set(partitioned.verdicts) == {("shop", "p", 1), ("shop", "p", 2)}


def test_where_mutual_tls_is_disabled_there_is_no_caller() -> None:
    (verdict,) = judged(DISABLE + policy(source(namespaces="a"))).verdicts.values()
    assert verdict.has_no_caller
    (verdict,) = judged(policy(source(principals="cluster.local/ns/a/sa/b", namespaces="c"))).verdicts.values()
    assert not verdict.has_no_caller


def test_ports_of_a_mesh_description_are_its_only_ones() -> None:
    workload = AskedWorkload(
        "cart", Workload("shop", frozenset()), ports=(8080,), callers=("spiffe://cluster.local/ns/a/sa/b",)
    )
    text = policy(
        f"{to(ports='8080').replace('8080', chr(39) + '8080' + chr(39))}, {to(ports=chr(39) + '9090' + chr(39))}"
    )
    assert set(judged(text, workloads=(workload,)).verdicts) == {("shop", "p", 1)}
    assert not judged(text).verdicts


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        (policy(f"{GET}, {NOT_GET}"), ["shop/p/0", "shop/p/1"]),
        (policy(f"{source(namespaces='a')}, {source(notNamespaces='a')}"), ["shop/p/0", "shop/p/1"]),
        (policy(to(paths='"*"')), ["shop/p/0"]),
        (policy(source(ipBlocks='"0.0.0.0/0", "::/0"')), ["shop/p/0"]),
        (policy(f"{GET}, {to(paths='/a')}, {NOT_GET}"), ["shop/p/0", "shop/p/2"]),
        (policy(GET) + policy(NOT_GET, "q"), ["shop/p/0", "shop/q/0"]),
        (policy("{}"), []),
        (policy(f"{GET}, {NOT_GET}, {{}}"), []),
        (STRICT + policy(source(principals='"*"')), []),
        (policy(f"{GET}, {to(methods='POST')}"), []),
        (policy(source(ipBlocks='"0.0.0.0/0"')), []),
        (deny(to(paths='"*"')), []),
    ],
)
def test_allow_rules_that_are_open_to_all_are_found(text: str, rules: list[str]) -> None:
    assert [[rule.short for rule in opened] for opened in judged(text).open] == ([rules] if rules else [])


def test_what_is_not_modelled_or_not_known_in_time_is_undecided() -> None:
    path = '{when: [{key: "request.headers[:path]", values: [/a]}, {key: "request.headers[:path]", notValues: [/a]}]}'
    found = judged(policy(path))
    assert not found.verdicts
    assert found.undecided == {("shop", "p", 0): "policies ask for the header `:path`, which depends on other facts"}
    sources = ", ".join(f"{{source: {{namespaces: [n{number}], ipBlocks: [10.0.0.{number}]}}}}" for number in range(40))
    operations = ", ".join(f"{{operation: {{methods: [M{number}], paths: [/{number}]}}}}" for number in range(40))
    large = f"{{from: [{sources}], to: [{operations}]}}"
    read = read_policies([("p.yaml", policy(f"{large}, {large}").encode())])
    engine = compile_engine(read.resources, MESH)
    late = needless_rules(engine, targets_of([engine])[0], lambda: lambda: True)
    assert (late.verdicts, set(late.undecided.values())) == ({}, {"the time limit is reached"})
    engine = compile_engine(read_policies([("p.yaml", policy(f"{GET}, {GET}").encode())]).resources, MESH)
    partial = needless_rules(engine, targets_of([engine])[0], lambda: lambda: False, is_whole=False)
    assert (partial.verdicts, set(partial.undecided.values())) == ({}, {"not all workloads were looked at"})

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authz.core import resources as r
from authz.core.attributes import UNKNOWN, AttributeContext, Unknown, Workload
from authz.core.compiler import compile_engine
from authz.core.decision import Effect, Stage
from authz.core.engine import MAX_WORKLOADS
from authz.core.errors import LoadError
from authz.core.index import SMALL
from authz.core.rules import CompiledRule, RuleSet
from tests import build
from tests.build import ANYTHING, operation, policy, source, when

DENY, ALLOW = r.Action.DENY, r.Action.ALLOW
ROOT = "istio-system"
GATEWAY = "gateway.networking.k8s.io"


def test_deny_wins_over_allow() -> None:
    """AP-8."""
    decision = build.decided(build.request(), policy(ANYTHING), policy(ANYTHING, name="d", action=DENY))

    assert (decision.effect, decision.stage) == (Effect.DENY, Stage.DENY)
    assert decision.rule is not None
    assert decision.rule.name == "ns[shop]-policy[d]-rule[0]"


def test_no_policy_accepts() -> None:
    """AP-2."""
    decision = build.decided(build.request())

    assert (decision.effect, decision.stage, decision.rule) == (Effect.ALLOW, Stage.DEFAULT, None)


def test_an_allow_policy_without_rules_refuses() -> None:
    """AP-4."""
    decision = build.decided(build.request(), policy())

    assert (decision.effect, decision.stage, decision.status) == (Effect.DENY, Stage.ALLOW, 403)
    assert decision.body == "RBAC: access denied"


def test_the_reported_rule_is_the_first_in_byte_order_of_names() -> None:
    """AP-93: rule[10] sorts before rule[2]."""
    rules = [when("request.headers[x]", "no")] * 2 + [ANYTHING] * 9

    decision = build.decided(build.request(), policy(*rules))

    assert decision.rule is not None
    assert decision.rule.index == 10


@pytest.mark.parametrize(
    ("rule", "holds"),
    [
        (source(not_principals=("*",)), True),
        (source(not_namespaces=("web",)), True),
        (source(not_request_principals=("*",)), True),
        (when("request.headers[x-a]", none_of=("*",)), True),
        (when("request.auth.claims[a]", none_of=("x",)), True),
        (source(principals=("*",)), False),
        (when("request.headers[x-a]", "*"), False),
    ],
)
def test_negations_of_missing_attributes_hold(rule: r.Rule, holds: bool) -> None:
    """AP-16."""
    assert build.decided(build.request(caller=None), policy(rule)).is_allowed is holds


@pytest.mark.parametrize(
    ("key", "fields"),
    [
        ("source.ip", {"source_ip": UNKNOWN}),
        ("remote.ip", {"remote_ip": UNKNOWN}),
        ("connection.sni", {"sni": UNKNOWN}),
        ("destination.ip", {"destination_ip": UNKNOWN}),
        ("destination.port", {"port": UNKNOWN}),
        ("experimental.envoy.filters.a[b]", {"metadata": UNKNOWN}),
    ],
)
@pytest.mark.parametrize("negative", [False, True])
def test_an_undelivered_attribute_never_admits(key: str, fields: dict[str, Unknown], negative: bool) -> None:
    """CS-7, CS-8: an ALLOW rule does not fire, a DENY rule does."""
    value = "80" if "port" in key else "10.0.0.1"
    rule = when(key, none_of=(value,)) if negative else when(key, value)
    attributes = build.request(**fields)  # type: ignore[arg-type]  # one field by name

    assert not build.decided(attributes, policy(rule)).is_allowed
    assert not build.decided(attributes, policy(rule, action=DENY)).is_allowed


@pytest.mark.parametrize(
    ("item", "labels", "namespace", "applies"),
    [
        (policy(namespace="shop"), {"app": "api"}, "shop", True),
        (policy(namespace="other"), {"app": "api"}, "shop", False),
        (policy(namespace=ROOT), {"app": "api"}, "shop", True),
        (policy(namespace=ROOT, labels={"app": "api"}), {"app": "api", "x": "y"}, "shop", True),
        (policy(labels={"app": "api", "v": "1"}), {"app": "api"}, "shop", False),
        (policy(labels={"app": "API"}), {"app": "api"}, "shop", False),
        (policy(target_refs=(r.TargetRef("Gateway", "g", GATEWAY),)), {"app": "api"}, "shop", False),
        (policy(target_refs=(r.TargetRef("Gateway", "g", GATEWAY),)), {f"{GATEWAY}/gateway-name": "g"}, "shop", True),
        (policy(target_refs=(r.TargetRef("Gateway", "h", GATEWAY),)), {f"{GATEWAY}/gateway-name": "g"}, "shop", False),
        (policy(target_refs=(r.TargetRef("Service", "g"),)), {f"{GATEWAY}/gateway-name": "g"}, "shop", False),
        (
            policy(namespace=ROOT, target_refs=(r.TargetRef("Gateway", "g", GATEWAY),)),
            {f"{GATEWAY}/gateway-name": "g"}, "shop", False,
        ),
    ],
)  # fmt: skip
def test_selection(item: r.AuthorizationPolicy, labels: dict[str, str], namespace: str, applies: bool) -> None:
    """RE-15 to RE-19."""
    workload = Workload(namespace, frozenset(labels.items()))

    assert bool(build.policies_for(item, workload=workload).policies) is applies


def test_the_root_namespace_is_looked_up_once() -> None:
    workload = Workload(ROOT)

    assert len(build.policies_for(policy(namespace=ROOT), workload=workload).policies) == 1


@pytest.mark.parametrize(
    ("rule", "allowed_on_tcp", "denied_on_tcp"),
    [
        (operation(methods=("GET",)), False, True),
        (operation(ports=("8080",)), True, True),
        (operation(ports=("9",), methods=("GET",)), False, False),
        (r.Rule(operations=(r.Operation(ports=("9",)), r.Operation(methods=("GET",)))), False, True),
        (source(request_principals=("*",), ip_blocks=("10.9.9.9",)), False, True),
        (r.Rule((r.Source(ip_blocks=("1.1.1.1",)),), (), (r.Condition("request.headers[x]", ("1",)),)), False, False),
    ],
)
def test_http_only_attributes_on_tcp(rule: r.Rule, allowed_on_tcp: bool, denied_on_tcp: bool) -> None:
    """AP-69, AP-70."""
    connection = build.request(tcp=True)

    assert build.decided(connection, policy(rule)).is_allowed is allowed_on_tcp
    assert build.decided(connection, policy(rule, action=DENY)).is_allowed is not denied_on_tcp


def peer(
    name: str, namespace: str, mode: str = "UNSET", *, stamp: str = "",
    labels: dict[str, str] | None = None, ports: dict[int, str] | None = None,
) -> r.PeerAuthentication:  # fmt: skip
    listed = {port: r.MtlsMode(value) for port, value in ports.items()} if ports else None
    return r.PeerAuthentication(r.Metadata(name, namespace, stamp), labels or {}, r.MtlsMode(mode), listed)


API = {"app": "api"}


@pytest.mark.parametrize(
    ("items", "port", "mode"),
    [
        ([], 8080, "PERMISSIVE"),
        ([peer("m", ROOT, "STRICT")], 8080, "STRICT"),
        ([peer("m", ROOT, "STRICT"), peer("n", "shop", "PERMISSIVE")], 8080, "PERMISSIVE"),
        ([peer("m", ROOT, "STRICT"), peer("n", "shop")], 8080, "STRICT"),
        ([peer("n", "shop", "STRICT"), peer("w", "shop", "DISABLE", labels=API)], 8080, "DISABLE"),
        ([peer("w", ROOT, "STRICT", labels=API)], 8080, "PERMISSIVE"),
        ([peer("b", "shop", "PERMISSIVE"), peer("a", "shop", "STRICT")], 8080, "STRICT"),
        ([peer("b", "shop", "PERMISSIVE", stamp="24"), peer("a", "shop", "STRICT", stamp="25")], 8080, "PERMISSIVE"),
        ([peer("b", "shop", "PERMISSIVE", stamp="2024"), peer("a", "shop", "STRICT")], 8080, "STRICT"),
        ([peer("w", "shop", "STRICT", labels=API, ports={9: "DISABLE"})], 9, "DISABLE"),
        ([peer("w", "shop", "STRICT", labels=API, ports={9: "UNSET"})], 9, "STRICT"),
        ([peer("w", "shop", "STRICT", labels=API, ports={9: "DISABLE"})], 8080, "STRICT"),
    ],
)  # fmt: skip
def test_effective_mtls_mode(items: list[r.PeerAuthentication], port: int, mode: str) -> None:
    """PA-2 to PA-8."""
    assert build.policies_for(*items).mtls_mode(port) == mode


def test_an_unknown_port_gets_the_strictest_mode() -> None:
    found = build.policies_for(peer("w", "shop", "PERMISSIVE", labels=API, ports={9: "STRICT"}))

    assert found.mtls_mode(UNKNOWN) is r.MtlsMode.STRICT
    assert build.policies_for().mtls_mode(UNKNOWN) is r.MtlsMode.PERMISSIVE


def test_jwt_rules_are_sorted_by_issuer_own_namespace_first() -> None:
    """RA-1, RA-52."""

    def authentication(namespace: str, *rules: r.JwtRule) -> r.RequestAuthentication:
        return r.RequestAuthentication(r.Metadata("ra", namespace), jwt_rules=rules)

    found = build.policies_for(
        authentication(ROOT, r.JwtRule("b", name="root-b"), r.JwtRule("", jwks_uri="u", name="any")),
        authentication("shop", r.JwtRule("b", name="own-b"), r.JwtRule("a", name="own-a")),
    )

    assert [rule.name for rule in found.jwt_rules] == ["any", "own-a", "own-b", "root-b"]


def test_values_that_cannot_be_compiled_refuse_the_set_with_every_problem() -> None:
    """RE-24."""
    bad = policy(source(ip_blocks=("1.2.3",)), when("source.user", "x"), operation(ports=("http",), paths=("a/{*}",)))

    with pytest.raises(LoadError) as refused:
        compile_engine(r.Resources((bad,)), r.MeshConfig())

    assert [problem.path for problem in refused.value.problems] == [
        "spec.rules[0].from[0].source.ipBlocks",
        "spec.rules[1].when[0].key",
        "spec.rules[2].to[0].operation.paths",
        "spec.rules[2].to[0].operation.ports",
    ]


def test_the_memory_of_workloads_is_bounded() -> None:
    engine = compile_engine(r.Resources(), r.MeshConfig())
    for number in range(MAX_WORKLOADS + 5):
        engine.for_workload(Workload(f"n{number}"))

    assert len(engine.known_workloads()) == 5


# --- the index never changes an answer -----------------------------------------------------------------------------

SEGMENT = st.sampled_from(["a", "b", "ab", "*", ""])
PATTERN = st.one_of(
    st.builds("/{}/{}".format, SEGMENT, SEGMENT),
    st.builds("/{}*".format, SEGMENT),
    st.builds("*/{}".format, SEGMENT),
    st.sampled_from(["*", "/a/{*}", "/{**}/b"]),
)
NAMES = st.sampled_from(["a", "b", "ab", "a*", "*b", "*"])
PRINCIPAL = st.sampled_from(
    ["*", "td/ns/a/sa/b", "td/ns/a/*", "*/sa/b", "cluster.local/ns/a/sa/ab", "td/ns/b/sa/*", "*b"]
)
REQUEST_PRINCIPAL = st.sampled_from(["*", "i/a", "i/*", "*/a", "i*", "*b", "i/a*", "x", "*/*", "*i/a"])
BLOCK = st.sampled_from(["10.0.0.0/8", "10.0.0.1", "10.0.0.0/31", "0.0.0.0/0", "::/0", "::1"])


def values(strategy: st.SearchStrategy[str]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(strategy, max_size=2).map(tuple)


SOURCES = st.builds(
    r.Source, principals=values(PRINCIPAL), not_principals=values(PRINCIPAL),
    request_principals=values(REQUEST_PRINCIPAL),
    namespaces=values(NAMES), trust_domains=values(st.sampled_from(["td", "*", "t*", "*d"])), ip_blocks=values(BLOCK),
    not_ip_blocks=values(BLOCK), service_accounts=values(st.sampled_from(["a/b", "b", "shop/a"])),
)  # fmt: skip
OPERATIONS = st.builds(
    r.Operation, hosts=values(NAMES), not_hosts=values(NAMES), ports=values(st.sampled_from(["80", "81"])),
    methods=values(st.sampled_from(["GET", "P*"])), paths=values(PATTERN), not_paths=values(PATTERN),
)  # fmt: skip
CONDITIONS = st.builds(
    lambda key, has, not_: r.Condition(key, has or not_ or ("a",), not_ if has else ()),
    st.sampled_from(["request.headers[x]", "request.auth.claims[g]", "connection.sni"]), values(NAMES), values(NAMES),
)  # fmt: skip
RULES = st.builds(
    r.Rule,
    st.lists(SOURCES, max_size=2).map(tuple),
    st.lists(OPERATIONS, max_size=2).map(tuple),
    st.lists(CONDITIONS, max_size=2).map(tuple),
)
REQUESTS = st.builds(
    build.request,
    method=st.sampled_from(["GET", "POST"]),
    host=st.sampled_from(["a", "AB", "b"]),
    path=st.sampled_from(["/a", "/a/b", "/ab/a", "/", "/a?x", "", "/x/b"]),
    headers=st.sampled_from([{}, {"x": ("a",)}, {"x": ("b", "ab")}, {"x": ("",)}]),
    caller=st.sampled_from([None, "spiffe://td/ns/a/sa/b", "spiffe://cluster.local/ns/a/sa/ab", "CN=b"]),
    source_ip=st.sampled_from(["10.0.0.1", "::1", "192.0.2.1", UNKNOWN]),
    port=st.sampled_from([80, 81, UNKNOWN]),
    sni=st.sampled_from(["", "a", "ab", UNKNOWN]),
    claims=st.sampled_from([None, {"iss": "i", "sub": "a", "g": ["a", "ab"]}, {"iss": "i", "sub": "a/b"}, {"g": 1}]),
    tcp=st.booleans(),
)


def walk(rules: tuple[CompiledRule, ...], attributes: AttributeContext) -> CompiledRule | None:
    """The plain engine: every rule, in order."""
    return next((rule for rule in rules if rule.fires(attributes)), None)


@settings(max_examples=400)
@given(st.lists(RULES, min_size=SMALL + 1, max_size=40), REQUESTS, st.sampled_from([ALLOW, DENY]))
def test_the_indexed_engine_answers_as_the_plain_one(
    rules: list[r.Rule], attributes: AttributeContext, action: r.Action
) -> None:
    found = build.policies_for(policy(*rules, action=action))
    sets = found.tcp if attributes.http is None else found.http
    rule_set = sets.allow if action is ALLOW else sets.deny
    assert rule_set is not None

    assert rule_set.first(attributes) == walk(rule_set.rules, attributes)


def test_a_large_bucket_is_filed_again_under_another_attribute() -> None:
    rules = [
        r.Rule((r.Source(principals=(f"td/ns/a/sa/s{number}",)),), (r.Operation(paths=(f"/p{number % 4}/*",)),))
        for number in range(400)
    ]
    found = build.policies_for(policy(*rules)).http.allow
    assert isinstance(found, RuleSet)

    attributes = build.request(caller="spiffe://td/ns/a/sa/s7", path="/p3/x")

    assert found.first(attributes) == walk(found.rules, attributes)
    assert found._index is not None
    assert len(found._index.candidates(attributes)) <= SMALL


@settings(max_examples=100)
@given(st.lists(RULES, max_size=6), RULES, REQUESTS)
def test_adding_a_deny_never_allows_more(rules: list[r.Rule], deny: r.Rule, attributes: AttributeContext) -> None:
    before = build.decided(attributes, policy(*rules))
    after = build.decided(attributes, policy(*rules), policy(deny, name="d", action=DENY))

    assert not after.is_allowed or before.is_allowed


@settings(max_examples=60)
@given(st.lists(RULES, max_size=5), REQUESTS)
def test_the_order_of_policies_does_not_matter(rules: list[r.Rule], attributes: AttributeContext) -> None:
    items = [policy(rule, name=f"p{number}") for number, rule in enumerate(rules)]

    assert build.decided(attributes, *items) == build.decided(attributes, *reversed(items))

"""Files of policies as a whole: what becomes of them, identities, kinds, lists, places, versions."""

import time
from dataclasses import replace

import pytest

from authz.core.errors import LoadError, Location, Severity
from authz.core.resources import (
    Action,
    AuthorizationPolicy,
    ClaimToHeader,
    Condition,
    ExtensionProvider,
    JwtHeader,
    JwtRule,
    MeshConfig,
    Metadata,
    MtlsMode,
    Operation,
    PeerAuthentication,
    Presence,
    RequestAuthentication,
    Rule,
    Source,
    Target,
    TargetRef,
)
from authz.policy.reader import ReadResult, read_policies


def read(*texts: str, mesh: MeshConfig | None = None) -> ReadResult:
    files = [(f"{index}.yaml", text.encode()) for index, text in enumerate(texts)]
    return read_policies(files, mesh, allow_empty=True)


def policy(spec: str, *, kind: str = "AuthorizationPolicy", name: str = "p", namespace: str = "n") -> str:
    metadata = f"{{name: {name}, namespace: {namespace}}}"
    return f"apiVersion: security.istio.io/v1\nkind: {kind}\nmetadata: {metadata}\nspec: {spec}\n"


EVERY_FIELD = """\
apiVersion: security.istio.io/v1beta1
kind: AuthorizationPolicy
metadata:
  name: everything
  namespace: shop
  creationTimestamp: 2024-01-01T00:00:00Z
  annotations: {istio.io/dry-run: "true", other: x}
  labels: {app: x}
  uid: 1-2-3
spec:
  selector:
    matchLabels: {app: web, version: ""}
  action: DENY
  rules:
  - from:
    - source:
        principals: [a]
        notPrincipals: [b]
        requestPrincipals: [c/d]
        notRequestPrincipals: [e/f]
        namespaces: [g]
        notNamespaces: [h]
        trustDomains: [i]
        notTrustDomains: [j]
        ipBlocks: [10.0.0.1]
        notIpBlocks: [10.0.0.0/8]
        remoteIpBlocks: ["::1"]
        notRemoteIpBlocks: [2001:db8::/32]
    - source:
        serviceAccounts: [k]
        notServiceAccounts: [l/m]
    to:
    - operation:
        hosts: ["n"]
        notHosts: [o]
        ports: ["80"]
        notPorts: ["81"]
        methods: [GET]
        notMethods: [PUT]
        paths: [/p]
        notPaths: [/q]
    when:
    - key: request.headers[x]
      values: [r]
      notValues: [s]
  - {}
status: {anything: [1, 2]}
"""


def test_every_field_of_an_authorization_policy_is_read() -> None:
    (found,) = read(EVERY_FIELD).resources.authorization_policies
    assert found == AuthorizationPolicy(
        Metadata(
            "everything",
            "shop",
            "2024-01-01T00:00:00Z",
            {"istio.io/dry-run": "true", "other": "x"},
            Location("0.yaml", 1, 1),
        ),
        Target({"app": "web", "version": ""}),
        Action.DENY,
        (
            Rule(
                (
                    Source(
                        principals=("a",),
                        not_principals=("b",),
                        request_principals=("c/d",),
                        not_request_principals=("e/f",),
                        namespaces=("g",),
                        not_namespaces=("h",),
                        trust_domains=("i",),
                        not_trust_domains=("j",),
                        ip_blocks=("10.0.0.1",),
                        not_ip_blocks=("10.0.0.0/8",),
                        remote_ip_blocks=("::1",),
                        not_remote_ip_blocks=("2001:db8::/32",),
                    ),
                    Source(service_accounts=("k",), not_service_accounts=("l/m",)),
                ),
                (
                    Operation(
                        hosts=("n",),
                        not_hosts=("o",),
                        ports=("80",),
                        not_ports=("81",),
                        methods=("GET",),
                        not_methods=("PUT",),
                        paths=("/p",),
                        not_paths=("/q",),
                    ),
                ),
                (Condition("request.headers[x]", ("r",), ("s",), Location("0.yaml", 43, 7)),),
                Location("0.yaml", 15, 5),
            ),
            Rule(location=Location("0.yaml", 46, 5)),
        ),
        dry_run=True,
    )


def test_a_custom_policy_keeps_its_provider() -> None:
    (found,) = read(policy("{action: CUSTOM, provider: {name: x}, rules: [{}]}")).resources.authorization_policies
    assert (found.action, found.provider) == (Action.CUSTOM, "x")


TARGETS = [
    ("{}", Target()),
    ("{selector: {matchLabels: {a: b}}}", Target({"a": "b"})),
    ("{targetRef: {group: core, kind: Service, name: s}}", Target(target_refs=(TargetRef("Service", "s"),))),
    (
        "{targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: g}, {kind: Service, name: s}]}",
        Target(target_refs=(TargetRef("Gateway", "g", "gateway.networking.k8s.io"), TargetRef("Service", "s"))),
    ),
]


@pytest.mark.parametrize(("spec", "target"), TARGETS)
@pytest.mark.parametrize("kind", ["AuthorizationPolicy", "RequestAuthentication"])
def test_targets(spec: str, target: Target, kind: str) -> None:
    resources = read(policy(spec, kind=kind)).resources
    targets = [item.target for item in resources.authorization_policies]
    targets += [item.target for item in resources.request_authentications]
    assert targets == [target]


def test_every_field_of_a_request_authentication_is_read() -> None:
    spec = """
  jwtRules:
  - issuer: https://a.example
    audiences: [x, "y"]
    jwks: '{"keys": []}'
    fromHeaders: [{name: X-Token, prefix: "Bearer "}, {name: "y"}]
    fromParams: [t]
    fromCookies: [c]
    forwardOriginalToken: true
    outputPayloadToHeader: x-payload
    outputClaimToHeaders: [{header: x-sub, claim: sub}]
    spaceDelimitedClaims: [roles]
    timeout: 1m30s
    presence: REQUIRED
  - jwks_uri: https://b.example/keys
"""
    (found,) = read(policy(spec, kind="RequestAuthentication")).resources.request_authentications
    assert found == RequestAuthentication(
        Metadata("p", "n", location=Location("0.yaml", 1, 1)),
        Target(),
        (
            JwtRule(
                issuer="https://a.example",
                audiences=("x", "y"),
                jwks='{"keys": []}',
                from_headers=(JwtHeader("X-Token", "Bearer "), JwtHeader("y")),
                from_params=("t",),
                from_cookies=("c",),
                forward_original_token=True,
                output_payload_to_header="x-payload",
                output_claim_to_headers=(ClaimToHeader("x-sub", "sub"),),
                space_delimited_claims=("roles",),
                timeout_seconds=90.0,
                presence=Presence.REQUIRED,
                name="n/p/0",
                location=Location("0.yaml", 6, 5),
            ),
            JwtRule(jwks_uri="https://b.example/keys", name="n/p/1", location=Location("0.yaml", 18, 5)),
        ),
    )


def test_every_field_of_a_peer_authentication_is_read() -> None:
    spec = '{selector: {matchLabels: {a: b}}, mtls: {mode: STRICT}, portLevelMtls: {80: {}, "81": {mode: DISABLE}}}'
    (found,) = read(policy(spec, kind="PeerAuthentication")).resources.peer_authentications
    assert found == PeerAuthentication(
        Metadata("p", "n", location=Location("0.yaml", 1, 1)),
        {"a": "b"},
        MtlsMode.STRICT,
        {80: MtlsMode.UNSET, 81: MtlsMode.DISABLE},
    )


def test_a_peer_authentication_without_spec_says_nothing() -> None:
    text = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: p}\n"
    (found,) = read(text).resources.peer_authentications
    assert found == PeerAuthentication(Metadata("p", "default", location=Location("0.yaml", 1, 1)))


DRY_RUNS = [("true", True), ("1", True), ("T", True), ("false", False), ("F", False), ("0", False)]


@pytest.mark.parametrize(("value", "dry_run"), DRY_RUNS)
def test_dry_run_is_an_annotation(value: str, dry_run: bool) -> None:
    metadata = f'metadata: {{name: p, annotations: {{istio.io/dry-run: "{value}"}}}}'
    text = f"apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n{metadata}\nspec: {{rules: [{{}}]}}"
    (found,) = read(text).resources.authorization_policies
    assert found.dry_run is dry_run


ENVELOPES = [
    (
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolcy",
        "error",
        "unknown kind `AuthorizationPolcy` of security.istio.io; did you mean `AuthorizationPolicy`?",
    ),
    ("apiVersion: security.istio.io/v1\nkind: Sidecar", "error", "unknown kind `Sidecar` of security.istio.io"),
    (
        "apiVersion: security.istio.io/v1alpha1\nkind: PeerAuthentication",
        "error",
        "`security.istio.io/v1alpha1` is not an API version of PeerAuthentication",
    ),
    (
        "apiVersion: policy.linkerd.io/v1alpha1\nkind: AuthorizationPolicy",
        "info",
        "`AuthorizationPolicy` of `policy.linkerd.io/v1alpha1` is not a policy and is skipped",
    ),
    (
        "apiVersion: security.istio.io\nkind: AuthorizationPolicy",
        "error",
        "`security.istio.io` is not an API version of AuthorizationPolicy",
    ),
    ("kind: AuthorizationPolicy", "error", "the document has no `apiVersion`"),
    ("apiVersion: security.istio.io/v1", "error", "the document has no `kind`"),
    (
        "apiVersion: security.istio.io/v1\nKind: AuthorizationPolicy",
        "error",
        "the document has no `kind`; `Kind` is written `kind`",
    ),
    ("- a", "error", "a document is not an object"),
    ("hello", "error", "a document is not an object"),
    ("apiVersion: apps/v1\nkind: Deployment", "info", "`Deployment` of `apps/v1` is not a policy and is skipped"),
    (
        "apiVersion: security.istio.oi/v1\nkind: authorizationpolicy",
        "error",
        "`authorizationpolicy` of `security.istio.oi/v1` is not a kind; "
        "did you mean `AuthorizationPolicy` of `security.istio.io/v1`?",
    ),
    (
        "apiVersion: networking.istio.io/v1beta1\nkind: ProxyConfig\nspec: {connectionSettings: {}}",
        "error",
        "`connectionSettings` can change path normalisation for one proxy, which is not supported",
    ),
    (
        "apiVersion: networking.istio.io/v1beta1\nkind: ProxyConfig\nspec: {concurrency: 1}",
        "info",
        "`ProxyConfig` of `networking.istio.io/v1beta1` is not a policy and is skipped",
    ),
]


@pytest.mark.parametrize(("text", "severity", "message"), ENVELOPES)
def test_kinds_are_told_apart_and_none_is_lost_silently(text: str, severity: str, message: str) -> None:
    result = read(text)
    assert [(p.severity, p.message) for p in result.problems] == [(severity, message)]
    assert not result.read.authorization_policies


METADATA = [
    ("{name: p, namspace: x}", "unknown field `namspace`; did you mean `namespace`?"),
    ("{namespace: n}", "the object has no name"),
    ("{name: null}", "`name` is null, which is read as absent; the object has no name"),
    ("{name: ''}", "`` is not a name: expected letters, digits, `-` and `.`, at most 253"),
    ("{name: 'a/b'}", "`a/b` is not a name: expected letters, digits, `-` and `.`, at most 253"),
    ('{name: "a\\n"}', "`a\\n` is not a name: expected letters, digits, `-` and `.`, at most 253"),
    ("{name: 7}", "expected a string, got the number `7`"),
    ("[]", "expected metadata, a mapping, got a list"),
    ("{name: p, labels: {a: 1}}", "expected a string, got the number `1`"),
    ("{name: p, labels: {1: a}}", "expected a string, got the number `1`"),
    ("{name: p, annotations: {istio.io/dry-run: null}}", "expected a string, got null"),
    (
        "{name: p, annotations: {internal.istio.io/parents: a}}",
        "the annotation `internal.istio.io/parents` is Istio's own",
    ),
    (
        "{name: p, annotations: {istio.io/dryrun: 'true'}}",
        "the annotation `istio.io/dryrun` has no effect; did you mean `istio.io/dry-run`?",
    ),
    ("{name: p, creationTimestamp: null, labels: null}", ""),
]


@pytest.mark.parametrize(("metadata", "messages"), METADATA)
def test_metadata_is_read_strictly(metadata: str, messages: str) -> None:
    text = f"apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {metadata}\n"
    found = [p.message for p in read(text).problems]
    assert sorted(found) == sorted(filter(None, messages.split("; "))) or "; ".join(found) == messages


def test_the_same_identity_twice_names_both_places() -> None:
    result = read(policy("{}"), "---\n" + policy("{}", kind="PeerAuthentication") + "---\n" + policy("{rules: [{}]}"))
    assert [str(problem) for problem in result.problems] == [
        "1.yaml:7:1: document 2, AuthorizationPolicy n/p: error: "
        "`AuthorizationPolicy n/p` is already defined at 0.yaml:1:1 [RE-2]\n  help: rename one"
    ]


def test_no_namespace_is_the_namespace_default() -> None:
    text = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p}\n"
    result = read(text, policy("{}", namespace="default"))
    assert [problem.code for problem in result.problems] == ["RE-2"]


def test_items_of_a_list_are_policies_with_their_own_places() -> None:
    text = """\
apiVersion: v1
kind: List
items:
- apiVersion: security.istio.io/v1
  kind: AuthorizationPolicy
  metadata: {name: one}
  spec: {action: NO}
- {apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: two}}
"""
    result = read(text)
    assert [(str(p.location), p.path) for p in result.problems] == [("0.yaml:7:18", "items[0].spec.action")]
    assert [p.metadata.name for p in result.read.authorization_policies] == ["one", "two"]


def test_all_problems_of_all_files_come_at_once_and_sorted() -> None:
    result = read("a: [", policy("{action: X, rules: [null]}"), policy("{rules: 1}", name="q") + "---\n- x")
    assert [(str(p.location), p.code) for p in result.problems] == [
        ("0.yaml:2:1", "YAML"),
        ("1.yaml:4:16", "VA-9"),
        ("1.yaml:4:27", "VA-15"),
        ("2.yaml:4:15", "RE-10"),
        ("2.yaml:6:1", "RE-1"),
    ]


def test_resources_of_a_result_with_errors_cannot_be_taken() -> None:
    result = read(policy("{action: DENY}"), policy("{rules: [{}]}", name="q"))
    with pytest.raises(LoadError) as caught:
        _ = result.resources
    assert caught.value.problems == result.problems
    assert str(caught.value) == "1 error in the given documents"


def test_warnings_do_not_refuse() -> None:
    result = read(policy("{selector: {}}"))
    assert [p.severity for p in result.problems] == [Severity.WARNING]
    assert len(result.resources.authorization_policies) == 1


def test_no_files_are_no_policies() -> None:
    result = read_policies([])
    assert not result.problems
    assert not result.resources.authorization_policies


# --- remarks on the set ----------------------------------------------------------------------------------------------


PROVIDERS = [
    (None, []),
    (MeshConfig(), ["the provider `x` is not defined, so this policy denies what it matches"]),
    (MeshConfig(extension_providers=(ExtensionProvider("x"),)), []),
    (
        MeshConfig(extension_providers=(ExtensionProvider("x", problems=("no port",)),)),
        ["the provider `x` has problems, so this policy denies what it matches"],
    ),
]


@pytest.mark.parametrize(("mesh", "messages"), PROVIDERS)
def test_a_missing_provider_is_said_where_the_mesh_is_known(mesh: MeshConfig | None, messages: list[str]) -> None:
    result = read(policy("{action: CUSTOM, provider: {name: x}, rules: [{}]}"), mesh=mesh)
    assert [p.message for p in result.problems] == messages
    assert not result.has_errors


def test_a_selector_in_the_root_namespace_makes_a_peer_authentication_useless() -> None:
    text = policy("{selector: {matchLabels: {a: b}}}", kind="PeerAuthentication", namespace="istio-system")
    assert [(p.code, p.path) for p in read(text, mesh=MeshConfig()).problems] == [("PA-5", "spec.selector")]
    assert not read(text, mesh=MeshConfig(root_namespace="other")).problems


ISSUERS = [
    ("n", "{matchLabels: {a: b}}", "n", "{matchLabels: {a: b}}", True),
    ("n", "{matchLabels: {a: b}}", "n", "{matchLabels: {a: c}}", False),
    ("n", "{matchLabels: {a: b}}", "n", "{matchLabels: {x: z}}", True),
    ("n", "{matchLabels: {a: b}}", "m", "{matchLabels: {a: b}}", False),
    ("istio-system", "{matchLabels: {a: b}}", "m", "{matchLabels: {a: b}}", True),
    ("m", "null", "istio-system", "null", True),
]


@pytest.mark.parametrize(("namespace", "selector", "other_namespace", "other_selector", "warns"), ISSUERS)
def test_one_issuer_twice_on_the_same_workloads_warns(
    namespace: str, selector: str, other_namespace: str, other_selector: str, warns: bool
) -> None:
    def rule(namespace: str, selector: str, name: str) -> str:
        where = f"selector: {selector}, " if selector != "null" else ""
        return policy(
            f"{{{where}jwtRules: [{{issuer: i}}]}}", kind="RequestAuthentication", name=name, namespace=namespace
        )

    result = read(rule(namespace, selector, "one"), rule(other_namespace, other_selector, "two"))
    assert [p.code for p in result.problems] == (["RA-52"] if warns else [])


# --- version ---------------------------------------------------------------------------------------------------------


ONE, TWO = policy("{rules: [{}]}", name="one"), policy("{action: DENY, rules: [{}]}", name="two")


def test_version_does_not_depend_on_order_names_and_layout_of_files() -> None:
    expected = read(ONE, TWO).resources.version
    assert len(expected) == 12
    assert read(TWO, ONE).resources.version == expected
    assert read(f"# remark\n{TWO}\n---\n{ONE}").resources.version == expected
    assert read(ONE.replace("{rules: [{}]}", "\n  action: ALLOW\n  rules:\n  - {}"), TWO).resources.version == expected
    assert read_policies([("z.yaml", TWO.encode()), ("sub/a.yml", ONE.encode())]).resources.version == expected


def test_version_does_not_change_with_metadata_that_has_no_influence() -> None:
    labelled = ONE.replace("{name: one", "{labels: {a: b}, annotations: {x: z}, name: one")
    assert read(labelled).resources.version == read(ONE).resources.version


CHANGES = ["{}", "{rules: [{}, {}]}", "{action: DENY, rules: [{}]}", "{rules: [{}], selector: {matchLabels: {a: b}}}"]


@pytest.mark.parametrize("spec", CHANGES)
def test_version_changes_with_the_meaning(spec: str) -> None:
    assert read(policy(spec, name="one")).resources.version != read(ONE).resources.version


def test_version_changes_with_the_mesh_settings() -> None:
    mesh = MeshConfig(extension_providers=(ExtensionProvider("x"),))
    versions = {read(ONE, mesh=m).resources.version for m in (mesh, MeshConfig(), MeshConfig(trust_domain="td"))}
    assert len(versions) == 3
    elsewhere = replace(mesh.extension_providers[0], location=Location("mesh.yaml", 3, 4))
    moved = replace(mesh, extension_providers=(elsewhere,))
    assert read(ONE, mesh=moved).resources.version == read(ONE, mesh=mesh).resources.version
    assert read(ONE).resources.version == read(ONE, mesh=MeshConfig()).resources.version


def test_order_of_files_does_not_matter_for_the_resources() -> None:
    def names(result: ReadResult) -> list[str]:
        return [p.metadata.name for p in result.resources.authorization_policies]

    assert names(read(ONE, TWO)) == names(read(TWO, ONE)) == ["one", "two"]


@pytest.mark.slow
def test_two_thousand_policies_are_read_in_a_second_or_two() -> None:
    """A guard against a quadratic reader, not a benchmark: the time is that of this process alone."""
    rules = "{rules: [{from: [{source: {principals: [td/ns/a/sa/b]}}], to: [{operation: {paths: [/a]}}]}]}"
    text = "---\n".join(policy(rules, name=f"p{i}") for i in range(2000))
    begun = time.process_time()
    assert len(read(text).resources.authorization_policies) == 2000
    assert time.process_time() - begun < 3


MISPLACED = [
    ("rules: [{principals: [a]}]", "it belongs to `from: [{source: {principals: …}}]`"),
    ("rules: [{from: [{notPrincipals: [a]}]}]", "it belongs to `from: [{source: {notPrincipals: …}}]`"),
    ("rules: [{to: [{methods: [GET]}]}]", "it belongs to `to: [{operation: {methods: …}}]`"),
    ("rules: [{from: [{source: {paths: [/a]}}]}]", "it belongs to `to: [{operation: {paths: …}}]`"),
    ("rules: [{to: [{operation: {ipBlocks: [10.0.0.1]}}]}]", "it belongs to `from: [{source: {ipBlocks: …}}]`"),
    ("rules: [{key: source.ip}]", "it belongs to `when: [{key: …, values: …}]`"),
    ("rules: [{selector: {matchLabels: {app: a}}}]", "it belongs to `spec`, beside `rules`"),
    ("rules: [{action: DENY}]", "it belongs to `spec`, beside `rules`"),
    ("from: [{source: {namespaces: [a]}}]", "it belongs to an element of `rules`"),
    ("paths: [/a]", "it belongs to an element of `rules`"),
    ("rules: {from: [{source: {namespaces: [a]}}]}", "begin each element with `- `"),
    ("rules: [{from: {source: {namespaces: [a]}}}]", "begin each element with `- `"),
]


@pytest.mark.parametrize(("spec", "advice"), MISPLACED)
def test_a_field_at_the_wrong_place_is_told_the_right_one(spec: str, advice: str) -> None:
    text = f"apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p}}\nspec: {{{spec}}}"
    assert next(p.help for p in read(text).problems if p.is_error) == advice


def test_a_dry_run_that_is_a_label_is_a_warning() -> None:
    text = (
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n"
        "metadata: {name: p, labels: {istio.io/dry-run: 'true'}}\nspec: {action: DENY, rules: [{}]}"
    )
    messages = [(p.severity, p.code, p.message) for p in read(text).problems if p.code == "VA-8"]
    assert messages == [("warning", "VA-8", "`istio.io/dry-run` is an annotation; as a label it has no effect")]

"""MeshConfig in all of Istio's wrappings."""

import pytest

from authz.core.errors import Location, Severity
from authz.core.resources import ExtensionProvider, MeshConfig, PathNormalization
from authz.policy.mesh_config import read_mesh


def read(text: str) -> tuple[MeshConfig, list[tuple[str, str]]]:
    """The settings, and what is more than a remark: (severity and code, message)."""
    mesh, problems = read_mesh("mesh.yaml", text.encode())
    said = [(f"{p.severity} {p.code}", p.message) for p in problems if p.severity is not Severity.INFO]
    return mesh, said


def indented(text: str, by: int) -> str:
    return "".join(f"{' ' * by}{line}\n" for line in text.splitlines())


SETTINGS = "trustDomain: td1\ntrustDomainAliases: [td2, td3.example]\nrootNamespace: root\n"
EXPECTED = MeshConfig(root_namespace="root", trust_domain="td1", trust_domain_aliases=("td2", "td3.example"))
CONFIG_MAP = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: |-\n"
SAIL = (
    "apiVersion: sailoperator.io/{}\nkind: {}\nmetadata: {{name: default}}\n"
    "spec:\n  version: v1.28.0\n  namespace: istio-system\n  values:\n    meshConfig:\n"
)
OTHERS = "---\nkind: WorkloadEntry\napiVersion: networking.istio.io/v1\n---\nkind: ServiceEntry\n---\nkind: Gateway\n"
WRAPPINGS = {
    "bare": SETTINGS,
    "config map": CONFIG_MAP + indented(SETTINGS, 4),
    "config map of a revision": CONFIG_MAP.replace("istio,", "istio-1-28,") + indented(SETTINGS, 4),
    "config map in a list": f"kind: List\napiVersion: v1\nitems:\n-\n{indented(CONFIG_MAP + indented(SETTINGS, 4), 2)}",
    "operator": f"kind: IstioOperator\nspec:\n  meshConfig:\n{indented(SETTINGS, 4)}",
    "values of an operator": f"kind: IstioOperator\nspec:\n  values:\n    meshConfig:\n{indented(SETTINGS, 6)}",
    **{
        f"sail operator {version} {kind}": SAIL.format(version, kind) + indented(SETTINGS, 6)
        for version in ("v1", "v1alpha1")
        for kind in ("Istio", "IstioRevision")
    },
    "helm values": f"pilot: {{}}\nmeshConfig:\n{indented(SETTINGS, 2)}",
    "among other kinds": f"{OTHERS}---\n{CONFIG_MAP}{indented(SETTINGS, 4)}{OTHERS}",
}


@pytest.mark.parametrize("text", WRAPPINGS.values(), ids=WRAPPINGS)
def test_settings_are_found_in_every_wrapping(text: str) -> None:
    assert read(text) == (EXPECTED, [])


@pytest.mark.parametrize("text", ["", " \n\n", "# nothing\n", "---\n", "---\n# nothing\n---\n...\n", "null\n"])
def test_an_empty_file_is_an_error(text: str) -> None:
    """It was truncated, most likely, and the root namespace whose policies deny is missing."""
    assert [problem[0] for problem in read(text)[1]] == ["error empty"]


@pytest.mark.parametrize(
    "text",
    [
        "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {}\n",
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\n",
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: other}\ndata: {mesh: 'rootNamespace: a'}\n",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio}\ndata: {}\n",
        "apiVersion: v1\nkind: List\nitems: []\n",
        "apiVersion: sailoperator.io/v1\nkind: IstioCNI\nspec: {values: {}}\n",
    ],
)
def test_a_file_with_neither_settings_nor_workloads_is_an_error(text: str) -> None:
    """Another file than was meant: policies of another root namespace would apply to nobody."""
    assert [code.partition(" ")[0] for code, _ in read(text)[1]] == ["error"]


def test_a_description_of_workloads_may_do_without_settings() -> None:
    mesh, problems = read_mesh("mesh.yaml", OTHERS.encode())
    assert mesh == MeshConfig()
    assert [str(p) for p in problems] == ["mesh.yaml: info: no MeshConfig found; Istio's defaults hold [RE-14]"]


NORMALIZATIONS = [("DEFAULT", PathNormalization.BASE), *[(mode.value, mode) for mode in PathNormalization]]


@pytest.mark.parametrize(("written", "mode"), NORMALIZATIONS)
def test_path_normalization(written: str, mode: PathNormalization) -> None:
    assert read(f"pathNormalization: {{normalization: {written}}}") == (MeshConfig(path_normalization=mode), [])


def test_trusted_proxies() -> None:
    assert read("defaultConfig: {gatewayTopology: {numTrustedProxies: 2}}") == (MeshConfig(num_trusted_proxies=2), [])


FLAG = "PILOT_ENABLE_MULTIPLE_CUSTOM_AUTHZ_PROVIDERS"


@pytest.mark.parametrize(("value", "expected"), [('"true"', True), ("true", True), ('"1"', True), ("false", False)])
@pytest.mark.parametrize(
    "wrap",
    [
        "apiVersion: sailoperator.io/v1\nkind: Istio\nspec: {{values: {{pilot: {{env: {{{}: {}}}}}}}}}",
        "kind: IstioOperator\nspec: {{values: {{pilot: {{env: {{{}: {}}}}}}}}}",
        "pilot: {{env: {{{}: {}}}}}",
    ],
)
def test_flags_of_the_control_plane(wrap: str, value: str, expected: bool) -> None:
    assert read(wrap.format(FLAG, value)) == (MeshConfig(multiple_custom_providers=expected), [])


def test_an_argument_wins_over_the_flag_of_the_file() -> None:
    mesh, _ = read_mesh("mesh.yaml", f"pilot: {{env: {{{FLAG}: true}}}}".encode(), multiple_custom_providers=False)
    assert not mesh.multiple_custom_providers
    mesh, _ = read_mesh("mesh.yaml", b"", multiple_custom_providers=True)
    assert mesh.multiple_custom_providers


WRONG = [
    ("trustDomin: x", "error RE-6", "unknown field `trustDomin`; did you mean `trustDomain`?"),
    ("trust_domain: x", "error RE-7", "unknown field `trust_domain`; did you mean `trustDomain`?"),
    ("trustDomain: ''", "error VA-57", "`` is not a trust domain"),
    ("trustDomain: a_b", "error VA-57", "`a_b` is not a trust domain"),
    ("trustDomain: a..b", "error VA-57", "`a..b` is not a trust domain"),
    ("trustDomain: A.b", "error VA-57", "`A.b` is not a trust domain"),
    ('trustDomain: "a\\n"', "error VA-57", "`a\\n` is not a trust domain"),
    (f"trustDomain: {'a' * 64}", "error VA-57", f"`{'a' * 64}` is not a trust domain"),
    ("trustDomainAliases: [a, -b]", "error VA-57", "`-b` is not a trust domain"),
    ("trustDomainAliases: a", "error RE-10", "expected a list of strings, got the string `a`"),
    ("rootNamespace: 1", "error RE-10", "expected a string, got the number `1`"),
    ("rootNamespace: ''", "error RE-14", "the root namespace is empty"),
    ("pathNormalization: BASE", "error RE-10", "expected a path normalisation, a mapping, got the string `BASE`"),
    ("pathNormalization: {normalization: base}", "error RE-14", "`base` is not a path normalisation"),
    (
        "defaultConfig: {gatewayTopology: {numTrustedProxies: -1}}",
        "error CS-9",
        "expected a whole number from 0 to 2147483647, got the number `-1`",
    ),
    (
        "defaultConfig: {gatewayTopolgy: {}}",
        "error RE-6",
        "unknown field `gatewayTopolgy`; did you mean `gatewayTopology`?",
    ),
    (
        "defaultConfig: {connectionSettings: {}}",
        "error PN-1",
        "`connectionSettings` can change path normalisation for one proxy, which is not supported",
    ),
    (
        "kind: ProxyConfig\nspec: {connectionSettings: {}}",
        "error PN-1",
        "`connectionSettings` can change path normalisation for one proxy, which is not supported",
    ),
    ("extensionProviders: {}", "error RE-10", "expected a list of providers, got a mapping"),
    ("extensionProviders: [null]", "error RE-11", "expected a provider, a mapping, got null"),
    ("- a", "error RE-14", "a document is not a mapping"),
    ("trustDomain: a\n---\ntrustDomain: b", "error RE-14", "the mesh settings are given twice, first at mesh.yaml:1:1"),
    (
        "kind: ConfigMap\nmetadata: {name: istio}\ndata: {mesh: {}}",
        "error RE-14",
        "`data.mesh` is a text with YAML in it",
    ),
    (f"pilot: {{env: {{{FLAG}: maybe}}}}", "error RE-14", f"`{FLAG}` must be true or false"),
    ("trustDomain: a\ntrustDomain: b", "error YAML", "the key `trustDomain` is given twice, first at mesh.yaml:1:1"),
    (
        "kind: IstioOperator\nspec: {meshConfig: {trustDomain: a}, values: {meshConfig: {trustDomain: b}}}",
        "error RE-14",
        "`spec.meshConfig` and `spec.values.meshConfig` are both given",
    ),
    (
        "apiVersion: sailoperator.io/v1\nkind: Istio\nspec: {meshConfig: {trustDomain: a}}",
        "error RE-14",
        "`spec.meshConfig` is not a field of Istio",
    ),
    ("trustDomain: {{ .Values.domain }}", "error file", "a Helm template, not a policy yet"),
    (
        "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12",
        "error file",
        "a Git LFS pointer, not the file it stands for",
    ),
    ("accessLogFile: ${LOG}", "warning file", "`${LOG}` looks like a variable that nobody replaced"),
    ("rootNamespace: a b", "error RE-14", "`a b` is not a namespace, so no policy would be in it"),
    (
        "rootNamespace: istio-system/x",
        "error RE-14",
        "`istio-system/x` is not a namespace, so no policy would be in it",
    ),
    ("rootNamespace: #@ data.values.ns\ntrustDomain: a", "error file", "a ytt template, not mesh settings yet"),
    ("#@ if True:\nrootNamespace: a\n#@ end", "error file", "a ytt template, not mesh settings yet"),
    ("%YAML 1.1\n---\nrootNamespace: a", "error YAML", "a directive, which `kubectl` refuses"),
    ("a: [", "error YAML", "not YAML: while parsing a flow node did not find expected node content"),
]


@pytest.mark.parametrize(("text", "code", "message"), WRONG)
def test_what_is_wrong_is_an_error(text: str, code: str, message: str) -> None:
    assert read(text)[1] == [(code, message)]


def test_known_settings_without_effect_are_remarked() -> None:
    _, problems = read_mesh("mesh.yaml", b"accessLogFile: /dev/stdout\ndefaultConfig: {concurrency: 2}\n")
    assert [(p.severity, p.path) for p in problems] == [
        ("info", "accessLogFile"),
        ("info", "defaultConfig.concurrency"),
    ]


PLACES = [
    ("|", "    a: [1]\n    trustDomain: A\n", (7, 18)),
    ("|-", "\n      # remark\n      trustDomain: A\n", (8, 20)),
    ("|2-", "      trustDomain: A\n", (6, 20)),
]


@pytest.mark.parametrize(("style", "text", "place"), PLACES)
def test_places_in_an_embedded_text_are_those_of_the_file(style: str, text: str, place: tuple[int, int]) -> None:
    written = CONFIG_MAP.replace("|-", style) + text
    _, problems = read_mesh("mesh.yaml", written.encode())
    found = [p.location for p in problems if p.code == "VA-57"]
    assert found == [Location("mesh.yaml", *place)]
    line = written.splitlines()[place[0] - 1]
    assert line[place[1] - 1] == "A"


# --- providers -------------------------------------------------------------------------------------------------------


def provider(text: str) -> tuple[ExtensionProvider, list[tuple[str, str]]]:
    mesh, said = read(f"extensionProviders: [{text}]")
    return mesh.extension_providers[0], said


GRPC = "name: a, envoyExtAuthzGrpc: {service: x.example, port: 9000"
HTTP = "name: a, envoyExtAuthzHttp: {service: x.example, port: 9000"


def test_every_field_of_a_grpc_provider_is_read() -> None:
    body = "includeRequestBodyInCheck: {maxRequestBytes: 10, allowPartialMessage: true, packAsBytes: true}"
    text = f'{{{GRPC}, timeout: 250ms, failOpen: true, statusOnError: "503", clearRouteCache: true, {body}}}}}'
    assert provider(text) == (
        ExtensionProvider(
            "a",
            "grpc",
            "x.example",
            9000,
            timeout_seconds=0.25,
            fail_open=True,
            status_on_error=503,
            max_request_bytes=10,
            allow_partial_message=True,
            pack_as_bytes=True,
            clear_route_cache=True,
            location=Location("mesh.yaml", 1, 22),
        ),
        [],
    )


def test_every_field_of_an_http_provider_is_read() -> None:
    lists = "includeRequestHeadersInCheck: [a], headersToUpstreamOnAllow: [b, 'x-*'], headersToDownstreamOnDeny: [c]"
    others = "headersToDownstreamOnAllow: [d], includeAdditionalHeadersInCheck: {e: f}, pathPrefix: /check"
    assert provider(f"{{{HTTP}, {lists}, {others}}}}}") == (
        ExtensionProvider(
            "a",
            "http",
            "x.example",
            9000,
            path_prefix="/check",
            include_request_headers_in_check=("a",),
            headers_to_upstream_on_allow=("b", "x-*"),
            headers_to_downstream_on_deny=("c",),
            headers_to_downstream_on_allow=("d",),
            include_additional_headers_in_check={"e": "f"},
            location=Location("mesh.yaml", 1, 22),
        ),
        [],
    )


HEADERS = [
    ("includeHeadersInCheck: [a]", ("a",)),
    ("includeHeadersInCheck: [a], includeRequestHeadersInCheck: [b]", ("b",)),
]


@pytest.mark.parametrize(("text", "expected"), HEADERS)
def test_the_deprecated_list_of_headers_counts_when_the_new_one_is_absent(text: str, expected: tuple[str, ...]) -> None:
    assert provider(f"{{{HTTP}, {text}}}}}")[0].include_request_headers_in_check == expected


SERVICES = ["x", "x.example", "ns/x.example", "x.example.", "10.0.0.1", "'::1'"]


@pytest.mark.parametrize("service", SERVICES)
def test_services_of_providers(service: str) -> None:
    found, said = provider(f"{{name: a, envoyExtAuthzGrpc: {{service: {service}, port: 1}}}}")
    assert found.is_usable
    assert not said


UNUSABLE = [
    ("{envoyExtAuthzGrpc: {service: x, port: 1}}", "VA-50", "a provider without a name"),
    ("{name: A, envoyExtAuthzGrpc: {service: x, port: 1}}", "VA-50", "`A` is not a provider name"),
    ("{name: a-, envoyExtAuthzGrpc: {service: x, port: 1}}", "VA-50", "`a-` is not a provider name"),
    ("{name: a, envoyExtAuthzGrpc: {port: 1}}", "VA-51", "the provider has no `service`"),
    ("{name: a, envoyExtAuthzGrpc: {service: '', port: 1}}", "VA-51", "the service is empty"),
    ("{name: a, envoyExtAuthzGrpc: {service: a/b/c, port: 1}}", "VA-51", "`a/b/c` is not a service"),
    ("{name: a, envoyExtAuthzGrpc: {service: 'x y', port: 1}}", "VA-51", "`x y` is not a service"),
    ("{name: a, envoyExtAuthzGrpc: {service: '/x', port: 1}}", "VA-51", "`/x` is not a service"),
    ("{name: a, envoyExtAuthzGrpc: {service: x}}", "VA-52", "the provider has no `port`"),
    (
        "{name: a, envoyExtAuthzGrpc: {service: x, port: 0}}",
        "VA-52",
        "expected a whole number from 1 to 65535, got the number `0`",
    ),
    (
        "{name: a, envoyExtAuthzGrpc: {service: x, port: 65536}}",
        "VA-52",
        "expected a whole number from 1 to 65535, got the number `65536`",
    ),
    (f"{{{GRPC}, statusOnError: '999'}}}}", "VA-53", "expected an HTTP status that Envoy knows, got the string `999`"),
    (f"{{{GRPC}, statusOnError: abc}}}}", "VA-53", "expected an HTTP status that Envoy knows, got the string `abc`"),
    (f"{{{HTTP}, pathPrefix: check}}}}", "VA-54", "`check` is not a path prefix"),
    (f"{{{HTTP}, pathPrefix: '/a?b'}}}}", "VA-54", "`/a?b` is not a path prefix"),
    (f"{{{HTTP}, headersToUpstreamOnAllow: ['*']}}}}", "VA-55", "`*` alone is not allowed in a list of headers"),
    (f"{{{HTTP}, headersToDownstreamOnDeny: [a, '*']}}}}", "VA-55", "`*` alone is not allowed in a list of headers"),
    ("{name: a}", "AP-79", "the provider has 0 types, expected one"),
    (f"{{{GRPC}}}, zipkin: {{}}}}", "AP-79", "the provider has 2 types, expected one"),
]


@pytest.mark.parametrize(("text", "code", "message"), UNUSABLE)
def test_an_unusable_provider_is_kept_with_its_problem(text: str, code: str, message: str) -> None:
    found, said = provider(text)
    assert said == [(f"warning {code}", message)]
    assert found.problems == (message,)
    assert not found.is_usable


def test_a_repeated_provider_name_makes_both_unusable() -> None:
    mesh, said = read(f"extensionProviders: [{{{GRPC}}}}}, {{{HTTP}}}}}]")
    assert said == [("warning VA-50", "the provider name `a` is given 2 times")] * 2
    assert not any(found.is_usable for found in mesh.extension_providers)


def test_a_provider_of_another_sort_is_fine_and_does_not_authorize() -> None:
    found, said = provider("{name: traces, zipkin: {service: z.example, port: 9411}}")
    assert not said
    assert found.problems == ("a provider of type `zipkin` does not authorize",)


PROVIDER_ERRORS = [
    (f"{{{GRPC}, failopen: true}}}}", "error RE-6", "unknown field `failopen`; did you mean `failOpen`?"),
    (f"{{{GRPC}, failOpen: 'true'}}}}", "error RE-10", "expected true or false, got the string `true`"),
    (f"{{{GRPC}, timeout: 5}}}}", "error RE-10", "expected a string, got the number `5`"),
    (f"{{{GRPC}, timeout: 5x}}}}", "error VA-41", "`5x` is not a duration"),
    (f"{{{GRPC}, pathPrefix: /x}}}}", "error RE-6", "unknown field `pathPrefix`"),
    (
        "{name: a, envoyExtAuthzHtp: {}}",
        "error RE-6",
        "unknown field `envoyExtAuthzHtp`; did you mean `envoyExtAuthzHttp`?",
    ),
]


@pytest.mark.parametrize(("text", "code", "message"), PROVIDER_ERRORS)
def test_a_misspelt_or_mistyped_field_of_a_provider_is_an_error(text: str, code: str, message: str) -> None:
    assert provider(text)[1] == [(code, message)]


WRITTEN = [
    ("trustDomain: td", {"trust_domain"}),
    ("rootNamespace: istio-system", {"root_namespace"}),
    ("trustDomainAliases: []", {"trust_domain_aliases"}),
    ("pathNormalization: {normalization: DEFAULT}", {"path_normalization"}),
    ("pathNormalization: {}", set()),
    ("trustDomain: null", set()),
    ("extensionProviders: []", {"extension_providers"}),
    ("defaultConfig: {gatewayTopology: {numTrustedProxies: 0}}", {"num_trusted_proxies"}),
    (f"pilot: {{env: {{{FLAG}: false}}}}", {"multiple_custom_providers"}),
]


@pytest.mark.parametrize(("text", "names"), WRITTEN)
def test_what_is_given_is_known_even_when_it_is_the_default(text: str, names: set[str]) -> None:
    assert read(text)[0].written == names

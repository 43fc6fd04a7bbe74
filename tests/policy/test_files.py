"""Files around policies: what is unpacked, what is refused, what is passed over, and what one line says of it."""

import json
from base64 import b64encode

import pytest

from authz.policy.reader import read_policies

BARE = "{metadata: {name: d}, spec: {action: DENY, rules: [{}]}}"
DENY = BARE.replace("{", "{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, ", 1)
EMPTY_LIST = "{apiVersion: v1, kind: List, items: []}"
TEXT = "apiVersion: security.istio.io/v1\\nkind: AuthorizationPolicy\\nmetadata: {name: d}\\n"
BASE64 = b64encode(TEXT.replace("\\n", "\n").encode()).decode()
PARAMETER = "'${KIND}'"
OTHER = "{apiVersion: v1, kind: Service, metadata: {name: s}}"


def said(text: str, file: str = "f.yaml") -> list[tuple[str, str, str]]:
    """Severity, code and message of everything but remarks."""
    problems = read_policies([(file, text.encode())]).problems
    return [(p.severity.value, p.code, p.message) for p in problems if p.severity.value != "info"]


UNPACKED = {
    "a list": f"{{apiVersion: v1, kind: List, items: [{DENY}]}}",
    "a list in a list": f"{{apiVersion: v1, kind: List, items: [{{apiVersion: v1, kind: List, items: [{DENY}]}}]}}",
    "beside an empty list": f"{{apiVersion: v1, kind: List, items: [{EMPTY_LIST}, {DENY}]}}",
    "a list of the kind": f"{{apiVersion: security.istio.io/v1, kind: AuthorizationPolicyList, items: [{BARE}]}}",
    "items that say it": f"{{apiVersion: security.istio.io/v1, kind: AuthorizationPolicyList, items: [{DENY}]}}",
    "a list of the kind in a list": "{apiVersion: v1, kind: List, items: ["
    f"{{apiVersion: security.istio.io/v1beta1, kind: AuthorizationPolicyList, items: [{BARE}]}}]}}",
    "kpt": f"{{apiVersion: config.kubernetes.io/v1, kind: ResourceList, items: [{OTHER}, {DENY}]}}",
    "another list": f"{{apiVersion: example.com/v1, kind: Bundle, items: [{DENY}]}}",
}


@pytest.mark.parametrize("text", UNPACKED.values(), ids=UNPACKED)
def test_lists_are_taken_apart_as_kubectl_does(text: str) -> None:
    result = read_policies([("f.yaml", text.encode())])
    assert [policy.action.value for policy in result.resources.authorization_policies] == ["DENY"]


@pytest.mark.parametrize("kind", ["RequestAuthentication", "PeerAuthentication"])
def test_lists_of_the_other_kinds_are_taken_apart_too(kind: str) -> None:
    items = "[{metadata: {name: a}}, {metadata: {name: b}}]"
    text = f"{{apiVersion: security.istio.io/v1, kind: {kind}List, items: {items}}}"
    read = read_policies([("f.yaml", text.encode())]).resources
    assert len(read.request_authentications) + len(read.peer_authentications) == 2


REFUSED = {
    "OpenShift": f"{{apiVersion: template.openshift.io/v1, kind: Template, objects: [{DENY}]}}",
    "OpenShift, old": f"{{apiVersion: v1, kind: Template, objects: [{DENY}], parameters: []}}",
    "a list of OpenShift's": "{apiVersion: v1, kind: List, items: ["
    f"{{apiVersion: template.openshift.io/v1, kind: Template, objects: [{DENY}]}}]}}",
    "OpenShift, a kind by parameter": "{apiVersion: template.openshift.io/v1, kind: Template, objects: "
    f"[{DENY.replace('AuthorizationPolicy', PARAMETER)}]}}",
    "beside the items of a list": f"{{apiVersion: v1, kind: List, items: [{OTHER}], objects: [{DENY}]}}",
    "the function of kpt": "{apiVersion: config.kubernetes.io/v1, kind: ResourceList, items: "
    f"[{OTHER}], functionConfig: {DENY}}}",
    "text in a ConfigMap": f'{{apiVersion: v1, kind: ConfigMap, metadata: {{name: c}}, data: {{a.yaml: "{TEXT}"}}}}',
    "JSON in a ConfigMap": "{apiVersion: v1, kind: ConfigMap, metadata: {name: c}, data: {a.json: "
    + json.dumps(json.dumps({"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy"}))
    + "}}",
    "text in a Secret": f'{{apiVersion: v1, kind: Secret, metadata: {{name: c}}, stringData: {{a.yaml: "{TEXT}"}}}}',
    "base64 in a Secret": f"{{apiVersion: v1, kind: Secret, metadata: {{name: c}}, data: {{a.yaml: {BASE64}}}}}",
    "base64 in a ConfigMap": f"{{apiVersion: v1, kind: ConfigMap, metadata: {{name: c}}, binaryData: {{a: {BASE64}}}}}",
    "base64 of two lines": "apiVersion: v1\nkind: Secret\nmetadata: {name: c}\ndata:\n  a.yaml: |\n"
    f"    {BASE64[:40]}\n    {BASE64[40:]}\n",
    "a file of Ignition": "{apiVersion: machineconfiguration.openshift.io/v1, kind: MachineConfig, spec: {config: "
    f"{{storage: {{files: [{{path: /a, contents: {{source: 'data:;base64,{BASE64}'}}}}]}}}}}}}}",
    "OCM": "{apiVersion: policy.open-cluster-management.io/v1, kind: Policy, spec: "
    "{policy-templates: [{objectDefinition: {apiVersion: policy.open-cluster-management.io/v1, "
    "kind: ConfigurationPolicy, spec: {object-templates: "
    f"[{{complianceType: musthave, objectDefinition: {DENY}}}]}}}}}}]}}}}",
    "ManifestWork": "{apiVersion: work.open-cluster-management.io/v1, kind: ManifestWork, spec: {workload: "
    f"{{manifests: [{DENY}]}}}}}}",
    "Crossplane": "{apiVersion: kubernetes.crossplane.io/v1alpha2, kind: Object, spec: {forProvider: "
    f"{{manifest: {DENY}}}}}}}",
    "Kyverno": "{apiVersion: kyverno.io/v1, kind: ClusterPolicy, spec: {rules: [{generate: {apiVersion: "
    "security.istio.io/v1, kind: AuthorizationPolicy, name: a, data: {spec: {}}}}]}}",
    "a patch of Flux": "{apiVersion: kustomize.toolkit.fluxcd.io/v1, kind: Kustomization, spec: {patches: "
    f'[{{patch: "{TEXT}"}}]}}}}',
}


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize(
    "beside", ["", f"\n---\n{DENY.replace('name: d', 'name: e')}"], ids=["alone", "beside a policy"]
)
def test_a_container_that_holds_a_policy_is_never_passed_over(text: str, beside: str) -> None:
    (problem,) = said(text + beside)
    assert problem[:2] == ("error", "RE-12")
    assert problem[2].endswith("holds a policy, which would be lost")


PASSED_OVER = {
    "a service": OTHER,
    "a definition of the kind": "{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, spec: {group: "
    "security.istio.io, names: {kind: AuthorizationPolicy, listKind: AuthorizationPolicyList}}}",
    "a role": "{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, rules: [{apiGroups: [security.istio.io], "
    "resources: [authorizationpolicies]}]}",
    "an owner": "{apiVersion: v1, kind: ConfigMap, metadata: {name: c, ownerReferences: "
    "[{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, name: a, uid: b}]}, data: {a: b}}",
    "a reference": "{apiVersion: v1, kind: Event, involvedObject: {apiVersion: security.istio.io/v1, kind: "
    "AuthorizationPolicy, name: a}}",
    "other settings": "{apiVersion: v1, kind: ConfigMap, metadata: {name: c}, data: {a.yaml: 'apiVersion: v1'}}",
    "a template of others": "{apiVersion: template.openshift.io/v1, kind: Template, objects: [{kind: Service}]}",
    "a Secret of others": f"{{apiVersion: v1, kind: Secret, data: {{a: {b64encode(bytes(90)).decode()}, b: ===}}}}",
    "a Secret that SOPS encrypted": "{apiVersion: v1, kind: Secret, data: {a: 'ENC[A]'}, sops: {mac: x, version: '3'}}",
    "an alert with a template": "{apiVersion: monitoring.coreos.com/v1, kind: PrometheusRule, a: '{{ $labels.x }}'}",
    "an empty list": "{apiVersion: security.istio.io/v1, kind: PeerAuthenticationList, items: []}",
    "KEDA": "{apiVersion: keda.sh/v1alpha1, kind: TriggerAuthentication, metadata: {name: a}}",
    "Linkerd": "{apiVersion: policy.linkerd.io/v1alpha1, kind: MeshTLSAuthentication, metadata: {name: a}}",
    "Linkerd's own": "{apiVersion: policy.linkerd.io/v1alpha1, kind: AuthorizationPolicy, metadata: {name: a}}",
    "Linkerd too": "{apiVersion: policy.linkerd.io/v1alpha1, kind: NetworkAuthentication, metadata: {name: a}}",
}


@pytest.mark.parametrize("text", PASSED_OVER.values(), ids=PASSED_OVER)
def test_other_kinds_beside_policies_are_passed_over(text: str) -> None:
    assert said(f"{text}\n---\n{DENY}") == []


@pytest.mark.parametrize("text", PASSED_OVER.values(), ids=PASSED_OVER)
def test_other_kinds_alone_are_refused(text: str) -> None:
    assert said(text) == [
        ("error", "empty", "the file holds no policy, and without policies everything would be allowed")
    ]


def test_a_folder_of_other_kinds_is_refused_by_its_name() -> None:
    result = read_policies([("p/a.yaml", OTHER.encode()), ("p/b/c.yaml", OTHER.encode())])
    assert [str(p).splitlines()[0] for p in result.problems if p.is_error] == [
        "p: error: 2 files hold no policy, and without policies everything would be allowed [empty]"
    ]


@pytest.mark.parametrize(
    ("version", "kind"), [("securty.istio.io", "AuthorisationPolicy"), ("security.istio", "PeerAuthentications")]
)
def test_a_kind_and_a_group_that_are_both_misspelt_are_refused(version: str, kind: str) -> None:
    """RE-1: dropped with a warning, its DENY would be lost."""
    near = f"{{apiVersion: {version}/v1, kind: {kind}, metadata: {{name: a}}}}"
    ((severity, code, message),) = said(f"{near}\n---\n{DENY}")
    assert (severity, code) == ("error", "RE-1")
    assert "did you mean" in message


EMPTY = ["", " ", "\n \n", "# a\n  # b\n", "---\n", "---\n---\n", "--- # a\n...\n", "null\n", "~", "\ufeff"]


@pytest.mark.parametrize("text", EMPTY)
def test_an_empty_file_is_refused_alone_and_among_others(text: str) -> None:
    message = ("error", "empty", "the file holds no document, and what is missing may be what denies")
    assert said(text) == [message]
    result = read_policies([("a.yaml", text.encode()), ("b.yaml", DENY.encode())])
    assert [p.location.file for p in result.problems if p.is_error] == ["a.yaml"]
    assert not read_policies([("a.yaml", text.encode())], allow_empty=True).has_errors


OLD = [
    ("authentication.istio.io/v1alpha1", "MeshPolicy", "PeerAuthentication in the root namespace"),
    ("authentication.istio.io/v1alpha1", "Policy", "PeerAuthentication"),
    ("rbac.istio.io/v1alpha1", "ClusterRbacConfig", "`spec: {}`"),
    ("rbac.istio.io/v1alpha1", "RbacConfig", "`spec: {}`"),
    ("rbac.istio.io/v1alpha1", "ServiceRole", "`to` and `when`"),
    ("rbac.istio.io/v1alpha1", "ServiceRoleBinding", "`from`"),
    ("rbac.istio.io/v1alpha1", "AuthorizationPolicy", "security.istio.io/v1"),
    ("config.istio.io/v1alpha2", "rule", "CUSTOM"),
]


@pytest.mark.parametrize(("version", "kind", "new"), OLD)
def test_kinds_of_old_istios_are_refused_with_what_replaces_them(version: str, kind: str, new: str) -> None:
    result = read_policies(
        [("f.yaml", f"apiVersion: {version}\nkind: {kind}\nmetadata: {{name: a}}\n---\n{DENY}".encode())]
    )
    (problem,) = result.problems
    assert problem.is_error
    assert f"`{kind}` of {version.partition('/')[0]} is from before Istio 1.6" in problem.message
    assert new in problem.help


POLICY = (
    "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n"
    "metadata:\n  name: a\n  namespace: {}\nspec: {{rules: [{{}}]}}\n"
)
ONE_LINE = {
    "a Helm template": ("t.yaml", "{{- if .Values.on }}\n" + POLICY.format("x") + "{{- end }}\n", "a Helm template"),
    "a value of Helm": ("t.yaml", POLICY.format("{{ .Release.Namespace }}"), "a Helm template"),
    "a quoted value of Helm": ("t.yaml", POLICY.format('"{{ .Values.ns | quote }}"'), "a Helm template"),
    "a helper of Helm": ("t.yaml", POLICY.format('{{ include "a.ns" . }}'), "a Helm template"),
    "Jinja": ("t.yaml", "{% if a %}\n" + POLICY.format("x") + "{% endif %}\n", "a Jinja template"),
    "a chart": ("Chart.yaml", "apiVersion: v2\nname: a\nversion: 0.1.0\n", "a Helm chart's description"),
    "values": ("values.yaml", "image: a\nreplicas: 2\n", "values of a Helm chart"),
    "values of a stage": ("values-prod.yaml", "image: a\n", "values of a Helm chart"),
    "a kustomization": ("kustomization.yaml", "namespace: a\nresources: [b.yaml]\n", "a kustomization"),
    "a kustomization with its kind": (
        "k.yaml",
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\npatches: [{path: b.yaml}]\n",
        "a kustomization",
    ),
    "a component": (
        "c.yaml", "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\npatches: []\n", "a kustomization"
    ),
    "a JSON patch": ("p.yaml", "- {op: replace, path: /spec/action, value: DENY}\n", "a JSON patch"),
    "a patch that deletes": ("p.yaml", "$patch: delete\n" + POLICY.format("x"), "a patch (`$patch`)"),
    "a list of other things": ("p.yaml", "- {op: replace}\n", "a document is not an object"),
    "Git LFS": ("p.yaml", "version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 12\n", "a Git LFS pointer"),
    "git-annex": ("p.yaml", "/annex/objects/SHA256E-s1--a.yaml\n", "a git-annex pointer"),
    "a merge conflict": ("p.yaml", f"<<<<<<< HEAD\n{DENY}\n=======\n>>>>>>> b\n", "a merge conflict"),
    "ytt": ("t.yaml", "#@ load('@ytt:data', 'data')\n---\n" + POLICY.format("#@ data.values.ns"), "a ytt template"),
    "a value of ytt": ("t.yaml", POLICY.format("x").replace("name: a", "name: #@ name()"), "a ytt template"),
    "values of ytt": ("v.yaml", "#@data/values\n---\nns: a\n", "a ytt template"),
    "an overlay of ytt": ("o.yaml", "#@overlay/match by=overlay.all\n---\nspec: {}\n", "a ytt template"),
    "SOPS": ("p.yaml", POLICY.format("x") + "sops: {mac: 'ENC[A]', version: 3.9.0}\n", "encrypted by SOPS"),
    "SOPS, all of it": (
        "p.yaml", "apiVersion: ENC[A]\nkind: ENC[B]\nsops: {lastmodified: x, mac: y}\n", "encrypted by SOPS"
    ),
    "no kind of any cluster": ("p.yaml", f"apiVersion: v1\nkind: ${{KIND}}\n---\n{DENY}", "`${KIND}` is not a kind"),
    "a kind in brackets": ("p.yaml", f"apiVersion: v1\nkind: <kind>\n---\n{DENY}", "`<kind>` is not a kind"),
    "no group of any cluster": ("p.yaml", f"apiVersion: $G/v1\nkind: A\n---\n{DENY}", "`$G/v1` is not an API version"),
    "other documents": ("x.yaml", "a: 1\n---\nb: 2\n---\nc: 3\n", "the document has no `kind`"),
}  # fmt: skip


@pytest.mark.parametrize(("file", "text", "message"), ONE_LINE.values(), ids=ONE_LINE)
def test_what_is_no_policy_yet_is_one_clear_line(file: str, text: str, message: str) -> None:
    (problem,) = said(text, file)
    assert problem[0] == "error"
    assert problem[2].startswith(message)


@pytest.mark.parametrize("mark", ["{{ ", "{%", "#@ \n[" + " a:", "#@ \n[" + "a ", "#@ \n[" + " a: "])
def test_a_large_file_of_marks_that_nothing_closes_is_refused_like_a_small_one(mark: str) -> None:
    """With patterns that try every beginning this took hours, in which no policies were read."""
    begin, _, again = mark.rpartition("[")
    (small,), (large,) = (said(f"{begin}[{again * number}") for number in (300, 300_000))
    assert large == small
    assert small[0] == "error"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a: b\n{{ x }} {{ y }}\n", (2, 1)),
        ("[ {{\n}} {{ z }}\n", (2, 4)),
        ("[ {% if\n a %}", (1, 3)),
        ("a: b: c\n# x y: #@ no\nk: #@ v\n", (2, 8)),
        ("a: b: c\n: : #@ v\n", (2, 5)),
        ("a: b: c\n  : #@ no\n k l:  #@ v #@ w\n", (3, 8)),
    ],
)
def test_the_first_mark_that_counts_is_the_place(text: str, place: tuple[int, int]) -> None:
    (problem,) = read_policies([("f.yaml", text.encode())]).problems
    assert (problem.location.line, problem.location.column) == place


def test_a_kustomization_that_only_names_files_is_a_warning() -> None:
    files = [("kustomization.yaml", b"resources: [a.yaml]\n"), ("a.yaml", DENY.encode())]
    assert [(p.severity.value, p.location.file) for p in read_policies(files).problems] == [
        ("warning", "kustomization.yaml")
    ]


VARIABLES = [
    ("'${NS}'", "`${NS}` looks like a variable that nobody replaced"),
    ("'${NS:-shop}'", "`${NS:-shop}` looks like a variable that nobody replaced"),
    ("$(NS)", "`$(NS)` looks like a variable that nobody replaced"),
    ("$NAMESPACE", "`$NAMESPACE` looks like a variable that nobody replaced"),
    ("'${{ ns }}'", "`${{ ns }}` looks like a variable that nobody replaced"),
    ("'{{ ns }}'", "`{{ ns }}` looks like a variable that nobody replaced"),
    *(
        (f"'a/{name}-b'", f"`{name}` looks like a variable that nobody replaced")
        for name in (
            "$NS", "%%NS%%", "%%ns%%", "%NS%", "%NAMESPACE%", "%(ns)s", "%{ns}", "__NS__", "__THE_NS__", "<<ns>>",
            "<ns>", "<your namespace>", "<%= ns %>", "{{ns}}", "{ns}", "#{ns}", "#{NS}#", "((ns))", "((a.ns))",
            "[[ns]]", "$[NS]", "@ns@", "@NS@", "@@NS@@", "@project.ns@", "REPLACE_ME", "CHANGEME", "YOUR_NAMESPACE",
        )
    ),
    *((name, f"`{name}` looks like a variable that nobody replaced") for name in ("$ns", "__ns__", "change-me", "TBD")),
]  # fmt: skip
NO_VARIABLES = [
    "/odata/$metadata", "/$batch", "/a/__health__", "/__webpack_hmr", "/%AB%CD%20", "/100%25/%E4%BD%A0", "/users/<x",
    "a@b.c", "a@b.c@d.e", "__Host-session", "a__b__c", "_a_", "50%", "a << b", "a < b > c", "/todo", "/@scope/a",
    "@scope/a@1.2.3", "$5", "US$AB", "c#", "(a)", "((a) b)", "[a]", "{}", "/{*}/a/{**}", "{\"a\": 1}",
    "todo list", "mytodo", "your-api", "cluster.local/ns/my-app/sa/my-app",
    "https://idp.example/realms/todo", "my_claim", "changeme2",
    "a|b", "~a~", "!a!",
]  # fmt: skip


@pytest.mark.parametrize(("value", "message"), VARIABLES)
def test_a_variable_that_nobody_replaced_is_a_warning(value: str, message: str) -> None:
    text = DENY.replace("rules: [{}]", f"rules: [{{when: [{{key: 'request.headers[x]', values: [{value}]}}]}}]")
    assert said(text) == [("warning", "file", message)]


def test_what_may_be_meant_is_none_beside_one_that_is() -> None:
    values = json.dumps(["${NS}", *NO_VARIABLES])
    text = DENY.replace("rules: [{}]", f"rules: [{{when: [{{key: 'request.headers[x]', values: {values}}}]}}]")
    assert said(text) == [("warning", "file", "`${NS}` looks like a variable that nobody replaced")]


@pytest.mark.parametrize("value", NO_VARIABLES)
def test_what_may_be_meant_is_no_variable(value: str) -> None:
    text = DENY.replace(
        "rules: [{}]", f"rules: [{{when: [{{key: 'request.headers[x]', values: [{json.dumps(value)}]}}]}}]"
    )
    assert said(text) == []


def test_a_file_of_ytt_that_is_a_policy_already_is_a_warning() -> None:
    assert said(f"#@ if True:\n{DENY}\n#@ end\n") == [("warning", "file", "a ytt template, not a policy yet")]


@pytest.mark.parametrize(
    "text", [f"\n\n# a\n\n{{{{- if .Values.a }}}}\n{DENY}\n{{{{ end }}}}", f"\n\n\n\n  #@ a\n- b\n{DENY}"]
)
def test_a_template_is_found_at_its_line(text: str) -> None:
    (problem,) = read_policies([("f.yaml", text.encode())]).problems
    assert problem.location.line == 5


NO_START = "not YAML: did not find expected <document start>"
NEVER_READ = {
    "a version": (f"%YAML 1.1\n---\n{DENY}", "a directive, which `kubectl` refuses"),
    "another version": (f"%YAML 1.2\n---\n{DENY}", "a directive, which `kubectl` refuses"),
    "a tag's handle": (f"%TAG !e! tag:example.com,2000:\n---\n{DENY}", "a directive, which `kubectl` refuses"),
    "a version later": (f"{DENY}\n...\n%YAML 1.1\n---\n{OTHER}", "a directive, which `kubectl` refuses"),
    "after the end": (f"{DENY}\n...\n{OTHER}", NO_START),
    "after the end of another": (f"{OTHER}\n---\n{OTHER}\n...\n# a\n{DENY}", NO_START),
    "a byte order mark amid it": (
        DENY.replace("spec", "\n\ufeffspec"), "a byte order mark inside the text, which `kubectl` refuses"
    ),
    "a byte order mark on a line of its own": (
        f"{OTHER}\n---\n{DENY}\n  \ufeff\n", "a byte order mark inside the text, which `kubectl` refuses"
    ),
    "carriage returns": (
        f"{DENY}\r---\r{OTHER}\r",
        "a `---` after a line end that is not a line feed; `kubectl` reads nothing after it",
    ),
    "a line separator": (
        f"{OTHER}\n---\n{OTHER}\u2028---\n{DENY}",
        "a `---` after a line end that is not a line feed; `kubectl` reads nothing after it",
    ),
    "JSON after JSON": (json.dumps({"kind": "A", "apiVersion": "v1"}) * 2 + f"\n---\n{DENY}", NO_START),
}  # fmt: skip


@pytest.mark.parametrize(("text", "message"), NEVER_READ.values(), ids=NEVER_READ)
def test_what_kubectl_refuses_or_never_reads_of_a_file_is_refused(text: str, message: str) -> None:
    """Values of k8s.io/apimachinery's YAML reader and go.yaml.in/yaml/v2 2.4.4."""
    assert ("error", "YAML", message) in said(text)


@pytest.mark.parametrize("text", [f"---\n{DENY}\n...\n", f"{DENY}\n...\n---\n{OTHER}\n...\n", f"# a\n---\n{DENY}\n..."])
def test_the_end_of_a_document_may_be_marked(text: str) -> None:
    assert said(text) == []


def test_any_line_ends_may_stand_within_a_document() -> None:
    assert said(f"{OTHER}\r\n---\r\n{DENY}\r\n") == said(f"# a\r{DENY}\r# ---\r") == []


@pytest.mark.parametrize("mark", ["---\n", "--- # a\n", "---\r\n"])
def test_a_byte_order_mark_may_stand_where_files_were_joined(mark: str) -> None:
    """Values of k8s.io/apimachinery's YAML reader and go.yaml.in/yaml/v2 2.4.4."""
    assert said(f"\ufeff{OTHER}\n{mark}\ufeff{DENY}\n") == []


def test_many_variables_are_one_warning_a_file() -> None:
    text = DENY.replace("[{}]", "[{when: [{key: 'request.headers[x]', values: ['${A}', '${B}', '${C}', '${D}']}]}]")
    assert said(text) == [
        ("warning", "file", "`${A}`, `${B}`, `${C}` and 1 more look like variables that nobody replaced")
    ]


def test_a_comment_is_no_variable_and_no_template() -> None:
    assert said(f"# {{{{ .Values.a }}}} ${{B}}\n{DENY}") == []


@pytest.mark.parametrize("version", ["a/b/c", "security.istio.io/v1/x"])
def test_an_api_version_has_one_slash_at_most(version: str) -> None:
    assert said(f"apiVersion: {version}\nkind: Foo\n---\n{DENY}")[0][:2] == ("error", "RE-1")

"""EnvoyFilter and WasmPlugin as written: what is read, and what is refused with its place and what to do."""

import pytest

from authz.core.errors import Problem
from authz.mesh.description import read_mesh_description
from authz.mesh.extensions import (
    WEAKENS,
    ApplyTo,
    FailStrategy,
    PatchContext,
    PatchOperation,
    PluginPhase,
    WorkloadMode,
)
from authz.mesh.nouns import Mesh
from tests.mesh.meshes import ONE_SIDECAR

HCM = "envoy.filters.network.http_connection_manager"


def read(text: str) -> tuple[Mesh, tuple[Problem, ...]]:
    return read_mesh_description([("mesh.yaml", ONE_SIDECAR.encode()), ("extension.yaml", text.encode())])


def envoy_filter(patch: str, spec: str = "", metadata: str = "{name: f, namespace: shop}") -> str:
    return f"kind: EnvoyFilter\nmetadata: {metadata}\nspec:\n  configPatches:\n  - {patch}\n{spec}"


def plugin(spec: str) -> str:
    return f"kind: WasmPlugin\nmetadata: {{name: p, namespace: shop}}\nspec: {{{spec}}}\n"


GOOD = "{applyTo: CLUSTER, patch: {operation: ADD, value: {name: c}}}"


def test_a_patch_is_read_with_the_places_of_its_value() -> None:
    match = (
        f"{{context: SIDECAR_INBOUND, proxy: {{proxyVersion: '^1', metadata: {{NAMESPACE: shop}}}}, listener: "
        f"{{portNumber: 15080, filterChain: {{name: mtls, filter: {{name: {HCM}, subFilter: {{name: x}}}}}}}}}}"
    )
    text = envoy_filter(
        f"{{applyTo: HTTP_FILTER, match: {match}, patch: {{operation: INSERT_BEFORE, value: {{a: 1}}}}}}"
    )
    mesh, problems = read(text)
    assert problems == ()
    (found,) = mesh.envoy_filters[0].patches
    assert (found.apply_to, found.operation, found.context) == (
        ApplyTo.HTTP_FILTER,
        PatchOperation.INSERT_BEFORE,
        PatchContext.SIDECAR_INBOUND,
    )
    assert found.listener is not None
    assert (found.listener.port, found.listener.chain, found.listener.sub_filter) == (15080, "mtls", "x")
    assert (found.proxy_version, found.proxy_metadata) == ("^1", {"NAMESPACE": "shop"})
    assert found.value is not None
    assert found.value.data == {"a": 1}
    place = found.value.at("a")
    assert (place.location.file, place.location.line) == ("extension.yaml", 5)
    assert place.path == "spec.configPatches[0].patch.value.a"
    assert text.splitlines()[4][place.location.column - 1] == "1"


REFUSED = {
    "an unknown sort": ("{applyTo: NOTHING, patch: {operation: ADD, value: {}}}", "ME-1"),
    "a bootstrap": ("{applyTo: BOOTSTRAP, patch: {operation: MERGE, value: {}}}", "ME-6"),
    "an extension config": ("{applyTo: EXTENSION_CONFIG, patch: {operation: ADD, value: {}}}", "ME-6"),
    "no operation": ("{applyTo: CLUSTER, patch: {value: {}}}", "ME-3"),
    "no value": ("{applyTo: CLUSTER, patch: {operation: ADD}}", "ME-3"),
    "no patch": ("{applyTo: CLUSTER}", "ME-3"),
    "an operation without effect": ("{applyTo: CLUSTER, patch: {operation: REPLACE, value: {}}}", "ME-1"),
    "a match of another sort": ("{applyTo: CLUSTER, match: {listener: {name: x}}, patch: {operation: REMOVE}}", "ME-1"),
    "a filter to remove without a name": ("{applyTo: HTTP_FILTER, patch: {operation: REMOVE}}", "ME-3"),
    "a waypoint": ("{applyTo: CLUSTER, match: {context: WAYPOINT}, patch: {operation: REMOVE}}", "ME-6"),
    "a filter class": ("{applyTo: CLUSTER, patch: {operation: ADD, filterClass: AUTHZ, value: {}}}", "ME-6"),
    "a version that is no expression": (
        "{applyTo: CLUSTER, match: {proxy: {proxyVersion: '['}}, patch: {operation: REMOVE}}",
        "ME-1",
    ),
    "metadata that nobody says": (
        "{applyTo: CLUSTER, match: {proxy: {metadata: {X: here}}}, patch: {operation: REMOVE}}",
        "ME-6",
    ),
    "a sub filter of something else": (
        "{applyTo: HTTP_FILTER, match: {listener: {filterChain: {filter: {name: x, subFilter: {name: z}}}}}, "
        "patch: {operation: REMOVE}}",
        "ME-1",
    ),
    "a misspelt field": ("{applyTo: CLUSTER, match: {contxt: ANY}, patch: {operation: REMOVE}}", "ME-2"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_refused_with_its_place(name: str) -> None:
    patch, code = REFUSED[name]
    _, problems = read(envoy_filter(patch))
    assert [problem.code for problem in problems] == [code], [str(one) for one in problems]
    assert problems[0].location.line == 5
    assert problems[0].path.startswith("spec.configPatches[0]")


def test_several_wrong_patches_are_all_reported() -> None:
    text = envoy_filter(REFUSED["no value"][0]) + f"  - {REFUSED['a bootstrap'][0]}\n"
    assert [problem.code for problem in read(text)[1]] == ["ME-3", "ME-6"]


@pytest.mark.parametrize(
    ("metadata", "spec", "code"),
    [
        ("{name: f, namespace: elsewhere}", "", "ME-4"),
        ("{name: f, namespace: shop}", "  workloadSelector: {labels: {app: nobody}}\n", "ME-4"),
        ("{name: f, namespace: shop}", "  targetRefs: [{kind: Gateway, name: x}]\n", "ME-6"),
        ("{name: f, namespace: shop}", "  priority: high\n", "ME-1"),
        (f"{{name: f, namespace: shop, annotations: {{{WEAKENS}: ''}}}}", "", "ME-1"),
    ],
)
def test_a_filter_for_nobody_or_without_reason_is_refused(metadata: str, spec: str, code: str) -> None:
    assert [problem.code for problem in read(envoy_filter(GOOD, spec, metadata))[1]] == [code]


def test_filters_apply_by_priority_then_the_root_namespace_then_their_names() -> None:
    written = [
        ("z", "shop", 0),
        ("a", "shop", 0),
        ("q", "istio-system", 0),
        ("late", "istio-system", 5),
        ("b", "shop", -1),
    ]
    texts = [
        envoy_filter(GOOD, f"  priority: {priority}\n", f"{{name: {name}, namespace: {namespace}}}")
        for name, namespace, priority in written
    ]
    mesh, problems = read("---\n".join(texts))
    assert problems == ()
    assert [one.name for one in mesh.envoy_filters] == ["b", "q", "a", "z", "late"]


def test_a_plugin_is_read() -> None:
    mesh, problems = read(
        plugin(
            "url: file:///m.wasm, phase: AUTHN, priority: 3, failStrategy: FAIL_OPEN, pluginName: root, "
            "pluginConfig: {b: [1], a: x}, selector: {matchLabels: {app: api}}, "
            "vmConfig: {env: [{name: A, value: b}, {name: C, valueFrom: HOST}]}, "
            "match: [{mode: SERVER, ports: [{number: 15080}]}]"
        )
    )
    assert problems == ()
    (one,) = mesh.wasm_plugins
    assert (one.file, one.phase, one.priority, one.fail) == ("/m.wasm", PluginPhase.AUTHN, 3, FailStrategy.FAIL_OPEN)
    assert (one.config, one.plugin_name) == ('{"a": "x", "b": [1]}', "root")
    assert (one.environment, one.host_environment) == ({"A": "b"}, ("C",))
    assert one.match == ((WorkloadMode.SERVER, (15080,)),)


@pytest.mark.parametrize(
    ("spec", "code"),
    [
        ("url: 'oci://x/y'", "ME-6"),
        ("url: 'https://x/y.wasm'", "ME-6"),
        ("url: x/y", "ME-6"),
        ("url: 'file://relative.wasm'", "ME-1"),
        ("phase: AUTHN", "ME-3"),
        ("url: 'file:///m', sha256: x", "ME-6"),
        ("url: 'file:///m', imagePullPolicy: Always", "ME-6"),
        ("url: 'file:///m', type: NETWORK", "ME-6"),
        ("url: 'file:///m', phase: SOON", "ME-1"),
        ("url: 'file:///m', targetRefs: [{kind: Service, name: x}]", "ME-6"),
        ("url: 'file:///m', vmConfig: {env: [{name: A, value: a}, {name: A, value: b}]}", "ME-5"),
        ("url: 'file:///m', selector: {matchLabels: {app: nobody}}", "ME-4"),
    ],
)
def test_a_plugin_that_cannot_be_done_is_refused(spec: str, code: str) -> None:
    _, problems = read(plugin(spec))
    assert [problem.code for problem in problems] == [code], [str(one) for one in problems]
    assert problems[0].location.line


def test_of_equal_extensions_the_oldest_comes_first_and_plugins_of_the_root_namespace_last() -> None:
    texts = []
    for name, namespace, year in (
        ("a", "shop", 2025),
        ("b", "shop", 2024),
        ("c", "istio-system", 2023),
        ("d", "shop", 0),
    ):
        created = f", creationTimestamp: '{year}-01-01T00:00:00Z'" if year else ""
        metadata = f"{{name: {name}, namespace: {namespace}{created}}}"
        texts.append(envoy_filter(GOOD, metadata=metadata))
        texts.append(f"kind: WasmPlugin\nmetadata: {metadata}\nspec: {{url: file:///p.wasm}}\n")
    mesh, problems = read("---\n".join(texts))
    assert problems == ()
    assert [one.name for one in mesh.envoy_filters] == ["c", "d", "b", "a"]
    assert [one.name for one in mesh.wasm_plugins] == ["d", "b", "a", "c"]

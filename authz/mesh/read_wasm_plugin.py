"""WasmPlugin as written: a module that lies beside the proxy, where it stands among the filters, what it is told."""

import json

from authz.documents.accessors import Part
from authz.mesh.extensions import FailStrategy, PluginPhase, WasmPlugin, WorkloadMode
from authz.mesh.kind_parts import read_created, read_metadata, read_spec
from authz.mesh.mesh_documents import Written
from authz.mesh.written_values import origin_of, read_labels, read_signed, read_value

_SCHEME = "file://"
_NOT_DONE = {
    "targetRef": "select by `selector.matchLabels`",
    "targetRefs": "select by `selector.matchLabels`",
    "sha256": "Envoy does not compare a local module with a digest: check the file where it is installed",
    "imagePullPolicy": "nothing is pulled: the module is a file",
    "imagePullSecret": "nothing is pulled: the module is a file",
    "verificationKey": "check the file where it is installed",
}
"""Tree that Istio knows and that mean nothing for a local module, with what to do."""


def read_wasm_plugin(part: Part, written: Written) -> None:
    """A WebAssembly module among the HTTP filters of the proxies that are selected."""
    name, namespace, _ = read_metadata(part)
    spec = read_spec(part)
    spec.only(
        *("selector", "url", "pluginConfig", "pluginName", "phase", "priority", "failStrategy", "vmConfig", "match"),
        *("type", *_NOT_DONE),
    )
    for field, help_text in _NOT_DONE.items():
        if spec.has(field):
            spec.note("ME-6", f"`{field}` is not supported for local modules", field, help_text)
    kind = spec.text("type", "HTTP")
    if kind not in ("HTTP", "UNSPECIFIED_PLUGIN_TYPE"):
        spec.note("ME-6", f"plugins of the type `{kind}` are not supported", "type", "write `type: HTTP`")
    config = read_value(spec, "pluginConfig") if spec.has("pluginConfig") else None
    environment, host = _environment(spec)
    plugin = WasmPlugin(
        name=name,
        namespace=namespace,
        file=_file(spec),
        origin=origin_of(part, "metadata"),
        labels=read_labels(spec, "selector", "matchLabels"),
        config=json.dumps(config.data, sort_keys=True, ensure_ascii=False) if config and config.data else "",
        plugin_name=spec.text("pluginName"),
        phase=spec.choice("phase", PluginPhase, PluginPhase.UNSPECIFIED_PHASE),
        priority=read_signed(spec, "priority"),
        fail=spec.choice("failStrategy", FailStrategy, FailStrategy.FAIL_CLOSE),
        environment=environment,
        host_environment=host,
        match=tuple(_selected(one) for one in spec.parts("match")),
        created=read_created(part),
    )
    written.wasm_plugins.append((plugin, part))


def _file(spec: Part) -> str:
    url = spec.text("url", required=True)
    if url.startswith(_SCHEME):
        path = url.removeprefix(_SCHEME)
        if path.startswith("/"):
            return path
        spec.note("ME-1", f"`{url}` is not an absolute path", "url", "write `file:///path/of/module.wasm`")
    elif url:
        help_text = "fetch the module yourself, check it, install it on the proxy's host, and write `file:///path.wasm`"
        spec.note("ME-6", "modules are not fetched: a proxy would run what somebody else can replace", "url", help_text)
    return ""


def _environment(spec: Part) -> tuple[dict[str, str], tuple[str, ...]]:
    """Variables with their values, and the names of those that come from the proxy's own environment."""
    vm = spec.part("vmConfig")
    if vm is None:
        return {}, ()
    vm.only("env")
    given: dict[str, str] = {}
    host: list[str] = []
    for one in vm.parts("env"):
        one.only("name", "value", "valueFrom")
        name, source = one.text("name", required=True), one.text("valueFrom", "INLINE")
        if name in given or name in host:
            one.note("ME-5", f"the variable `{name}` is given twice", "name", "leave one of them")
        elif source == "HOST":
            if one.has("value"):
                one.note("ME-1", "a variable of the host has no value here", "value", "leave it out")
            host.append(name)
        elif source == "INLINE":
            given[name] = one.text("value")
        else:
            one.note("ME-1", f"`{source}` is not one of INLINE, HOST", "valueFrom")
    return given, tuple(host)


def _selected(match: Part) -> tuple[WorkloadMode, tuple[int, ...]]:
    match.only("mode", "ports")
    for port in match.parts("ports"):
        port.only("number")
    ports = tuple(port.port("number", required=True) for port in match.parts("ports"))
    mode = match.text("mode")
    if mode == "UNDEFINED":
        return WorkloadMode.CLIENT_AND_SERVER, ports
    return match.choice("mode", WorkloadMode, WorkloadMode.CLIENT_AND_SERVER), ports

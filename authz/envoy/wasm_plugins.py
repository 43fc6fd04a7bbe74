"""
WasmPlugins as HTTP filters in their places: a local module that Envoy runs in its V8.

Istio's places: AUTHN before what authenticates, AUTHZ before what decides, STATS behind it, others before the router.
Here one filter, or one chain behind a slot, authenticates and decides, so that AUTHZ stands before authentication, too.
"""

from collections.abc import Iterable

from envoy_data_plane.envoy.config.core.v3 import AsyncDataSource, DataSource
from envoy_data_plane.envoy.extensions.filters.http.wasm.v3 import Wasm
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter
from envoy_data_plane.envoy.extensions.wasm.v3 import EnvironmentVariables, FailurePolicy, PluginConfig, VmConfig
from envoy_data_plane.google.protobuf import StringValue

from authz.core.errors import Problem, Severity
from authz.envoy.messages import as_json, pack
from authz.envoy.patches.proxy_resources import ProxyResources, Standing, items, managers_of
from authz.envoy.patches.typed_values import Tree
from authz.mesh.extensions import FailStrategy, PatchContext, PluginPhase, WasmPlugin, WorkloadMode

RUNTIME = "envoy.wasm.runtime.v8"
"""Istio's own choice, and the one that Envoy's releases have."""
_FAILURES = {
    FailStrategy.FAIL_CLOSE: FailurePolicy.FAIL_CLOSED,
    FailStrategy.FAIL_OPEN: FailurePolicy.FAIL_OPEN,
    FailStrategy.FAIL_RELOAD: FailurePolicy.FAIL_RELOAD,
}
_LOWEST = -(2**31)


def wasm_filter(plugin: WasmPlugin) -> Tree:
    """The HTTP filter of a plugin, in JSON."""
    config = PluginConfig(
        name=f"{plugin.namespace}.{plugin.name}",
        root_id=plugin.plugin_name,
        vm_config=VmConfig(
            runtime=RUNTIME,
            code=AsyncDataSource(local=DataSource(filename=plugin.file)),
            environment_variables=EnvironmentVariables(
                host_env_keys=list(plugin.host_environment), key_values=dict(sorted(plugin.environment.items()))
            ),
        ),
        configuration=pack(StringValue(value=plugin.config)) if plugin.config else None,
        failure_policy=_FAILURES[plugin.fail],
    )
    return as_json(HttpFilter(name=f"{plugin.namespace}.{plugin.name}", typed_config=pack(Wasm(config=config))))  # type: ignore[return-value]  # a message in JSON


def insert_plugins(plugins: Iterable[WasmPlugin], resources: ProxyResources, deciding: frozenset[str]) -> None:
    """
    Put the plugins of a proxy into its listeners, in place.

    Args:
        deciding: names of the filters that authenticate and decide.
    """
    ordered = sorted(plugins, key=lambda one: -(_LOWEST if one.priority is None else one.priority))
    for listener in resources.listeners:
        standing = resources.standing_of(listener)
        fitting = [one for one in ordered if _suits(one, standing)]
        for manager in managers_of(listener) if fitting else ():
            filters = items(manager, "http_filters")
            first = next((i for i, one in enumerate(filters) if one.get("name") in deciding), None)
            last = max((i for i, one in enumerate(filters) if one.get("name") in deciding), default=-1)
            before = len(filters) - 1 if first is None else first

            def of(phase: PluginPhase, fitting: list[WasmPlugin] = fitting) -> list[Tree]:
                return [wasm_filter(one) for one in fitting if one.phase is phase]

            manager["http_filters"] = [
                *(of(PluginPhase.AUTHN) if first is not None else ()),
                *filters[:before],
                *(of(PluginPhase.AUTHN) if first is None else ()),
                *of(PluginPhase.AUTHZ),
                *filters[before : last + 1],
                *of(PluginPhase.STATS),
                *filters[max(before, last + 1) : -1],
                *of(PluginPhase.UNSPECIFIED_PHASE),
                *filters[-1:],
            ]


def plugin_remarks(plugins: Iterable[WasmPlugin]) -> list[Problem]:
    """What a person has to know of each plugin: its code sees requests, and may change them."""
    found = []
    for plugin in plugins:
        early = plugin.phase in (PluginPhase.AUTHN, PluginPhase.AUTHZ)
        where = "before they are authenticated and checked" if early else "after they were allowed"
        text = f"the module `{plugin.file}` can change requests {where}, or answer them by itself"
        found.append(plugin.origin.problem("ME-8", text, severity=Severity.INFO))
        if plugin.fail is FailStrategy.FAIL_OPEN:
            text = "when the plugin fails, requests go on without it (FAIL_OPEN)"
            found.append(plugin.origin.problem("ME-8", text, severity=Severity.WARNING))
    return found


def _suits(plugin: WasmPlugin, standing: Standing) -> bool:
    own = WorkloadMode.SERVER if standing.context is PatchContext.SIDECAR_INBOUND else WorkloadMode.CLIENT
    if not plugin.match:
        return True
    return any(
        mode in (own, WorkloadMode.CLIENT_AND_SERVER) and (not ports or set(ports) & set(standing.ports))
        for mode, ports in plugin.match
    )

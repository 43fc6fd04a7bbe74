"""
A proxy's listeners, clusters and route tables with the extensions of the mesh: plugins put in, patches applied, judged.

Where no extension selects a workload, nothing happens here, and its files are those that they would be without any.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from authz.core.errors import LoadError, Problem
from authz.envoy import naming
from authz.envoy.check_filter import HTTP_FILTER
from authz.envoy.listener_frame import ANY_ADDRESS
from authz.envoy.native.slots import slot_names
from authz.envoy.options import AUTHZ_CLUSTER, CONTROL_CLUSTER, OTLP_CLUSTER, SDS_CLUSTER
from authz.envoy.patches.patching import PatchedProxy, patched, remarked, unused
from authz.envoy.patches.proxy_resources import ProxyResources, ProxySelf, Standing
from authz.envoy.patches.typed_patches import TypedPatch, typed_patches
from authz.envoy.route_tables import outbound_name
from authz.envoy.wasm_plugins import insert_plugins, plugin_remarks
from authz.mesh.extensions import EnvoyFilter, PatchContext, WasmPlugin
from authz.mesh.gateway_server import GatewayServer, group_name, server_groups, table_groups
from authz.mesh.link_extensions import is_selected
from authz.mesh.nouns import Mesh, MeshWorkload

PRIVATE = frozenset({AUTHZ_CLUSTER, CONTROL_CLUSTER, SDS_CLUSTER})


@dataclass(frozen=True, slots=True)
class Extensions:
    """The extensions of a mesh, read for rendering; ``problems`` are of their values."""

    patches: tuple[TypedPatch, ...] = ()
    plugins: tuple[WasmPlugin, ...] = ()
    problems: tuple[Problem, ...] = ()
    taken: frozenset[int] = frozenset()
    """Every port of the mesh."""
    used: set[int] = field(default_factory=set)
    """``id`` of the patches that found something, gathered from proxy to proxy."""

    @classmethod
    def of(cls, mesh: Mesh) -> "Extensions":
        """Read the values of the patches of a mesh."""
        patches, problems = typed_patches(mesh.envoy_filters) if mesh.envoy_filters else ((), ())
        ports = (
            frozenset(port for workload in mesh.workloads for port in workload.listening) if patches else frozenset()
        )
        return cls(patches, mesh.wasm_plugins, problems, ports)

    def first(self, count: int | None) -> "Extensions":
        """The same with the first patches only; None: with all of them."""
        return self if count is None else replace(self, patches=self.patches[:count], used=set())

    def concern(self, mesh: Mesh, workload: MeshWorkload) -> bool:
        """Whether any of them may change the files of a workload."""
        return bool(self.problems) or any(
            is_selected(one.namespace, one.labels, workload.namespace, workload.labels, mesh.config.root_namespace)
            for one in _selecting(mesh, self.plugins)
        )

    def extend(self, mesh: Mesh, workload: MeshWorkload, parts: ProxyResources) -> PatchedProxy:
        """The resources of one workload with everything that is for it."""
        root = mesh.config.root_namespace
        resources = ProxyResources(
            parts.listeners,
            parts.clusters,
            parts.route_tables,
            dict(_standings(mesh, workload)),
            dict(_route_standings(mesh, workload)),
            control=frozenset({*PRIVATE, OTLP_CLUSTER, *map(naming.provider_cluster, mesh.config.extension_providers)}),
            private=PRIVATE,
            services=_services(mesh, workload),
            taken=self.taken,
            rendered=parts.rendered,
        )
        selected = [
            one
            for one in self.plugins
            if is_selected(one.namespace, one.labels, workload.namespace, workload.labels, root)
        ]
        insert_plugins(selected, resources, frozenset({HTTP_FILTER, *slot_names(mesh.config)}))
        metadata = {
            "NAMESPACE": workload.namespace,
            "SERVICE_ACCOUNT": workload.service_account,
            "WORKLOAD_NAME": workload.name,
        }
        proxy = ProxySelf(workload.namespace, workload.labels, metadata, root)
        found = patched(self.patches, resources, proxy, workload.name)
        self.used.update(found.used)
        return found

    def verdict(self, found: Mapping[str, PatchedProxy]) -> tuple[Problem, ...]:
        """Every problem and remark: of the values, of the proxies, and of patches that found nothing."""
        of_proxies = tuple(problem for one in found.values() for problem in one.problems)
        idle = unused(self.patches, frozenset(self.used))
        return (*self.problems, *of_proxies, *remarked(found), *idle, *plugin_remarks(self.plugins))


def _selecting(mesh: Mesh, plugins: tuple[WasmPlugin, ...]) -> list[EnvoyFilter | WasmPlugin]:
    return [*mesh.envoy_filters, *plugins]


def extended_of(
    mesh: Mesh,
    parts_of: Callable[[MeshWorkload], ProxyResources],
    count: int | None = None,
    only: MeshWorkload | None = None,
) -> tuple[dict[str, ProxyResources], tuple[Problem, ...]]:
    """
    The resources of those workloads that extensions concern, by name, and every problem and remark.

    ``parts_of`` gives the resources of a workload without extensions: complete listeners, clusters, route tables.
    ``count``: only so many patches, the first ones; None: all. ``only``: of this workload alone.
    """
    extensions = Extensions.of(mesh).first(count)
    if not extensions.patches and not extensions.plugins and not extensions.problems:
        return {}, ()
    asked = mesh.workloads if only is None else (only,)
    found = {w.name: extensions.extend(mesh, w, parts_of(w)) for w in asked if extensions.concern(mesh, w)}
    return {name: one.resources for name, one in found.items()}, extensions.verdict(found)


def demand(problems: tuple[Problem, ...]) -> None:
    """Raise LoadError if there is an error among the problems: what is refused is not rendered."""
    if any(problem.is_error for problem in problems):
        raise LoadError(problems)


def _standings(mesh: Mesh, workload: MeshWorkload) -> Iterable[tuple[str, Standing]]:
    for inbound in workload.inbound:
        yield (
            f"inbound_{inbound.number}",
            Standing(PatchContext.SIDECAR_INBOUND, (inbound.number,), (f"0.0.0.0_{inbound.number}",), inbound.name),
        )
    for outbound in workload.outbound:
        ports = tuple(dict.fromkeys(port for port in (outbound.number, outbound.service_port) if port))
        names = (f"0.0.0.0_{outbound.service_port}",) if outbound.service_port else ()
        yield outbound_name(outbound), Standing(PatchContext.SIDECAR_OUTBOUND, ports, names)
    for group in server_groups(workload.servers):
        yield group_name(group), _server_standing(group)


def _server_standing(servers: Sequence[GatewayServer]) -> Standing:
    first = servers[0]
    gateways = tuple(dict.fromkeys(server.gateway for server in servers))
    names = (f"{first.bind or ANY_ADDRESS}_{first.port}",)
    return Standing(PatchContext.GATEWAY, (first.port,), names, first.name, gateways)


def _route_standings(mesh: Mesh, workload: MeshWorkload) -> Iterable[tuple[str, Standing]]:
    """Tables by their names here, with the names that Istio's have."""
    tables = [(name, _server_standing(servers)) for name, servers in table_groups(workload.servers)]
    for name, standing in (*_standings(mesh, workload), *tables):
        known: tuple[str, ...] = ()
        if standing.context is PatchContext.SIDECAR_INBOUND:
            known = tuple(f"inbound|{port}||" for port in standing.ports)
        elif standing.context is PatchContext.SIDECAR_OUTBOUND:
            known = tuple(str(port) for port in standing.ports)
        else:
            port = standing.ports[0]
            namespace, _, own = standing.gateways[0].partition("/")
            known = (f"http.{port}", f"https.{port}.{standing.port_name}.{own}.{namespace}")
        # Istio matches a Gateway by its name alone, or with its namespace behind it.
        short = tuple(part for one in standing.gateways for part in (one, one.rpartition("/")[2]))
        yield name, Standing(standing.context, standing.ports, known, standing.port_name, short)


def _services(mesh: Mesh, workload: MeshWorkload) -> dict[str, tuple[str, ...]]:
    """The hosts of the services of a workload, for the clusters of its own application."""
    own = tuple(service.host for service in mesh.services if workload in mesh.workloads_of(service))
    return {naming.app_cluster(port): own for port in workload.inbound}

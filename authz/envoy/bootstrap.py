"""The bootstrap of one proxy: who it is, its admin socket, and where its clusters and listeners are."""

from envoy_data_plane.envoy.config.bootstrap.v3 import (
    Admin,
    Bootstrap,
    BootstrapDynamicResources,
    BootstrapStaticResources,
    LayeredRuntime,
    RuntimeLayer,
)
from envoy_data_plane.envoy.config.cluster.v3 import Cluster
from envoy_data_plane.envoy.config.core.v3 import Locality, Node
from envoy_data_plane.envoy.config.listener.v3 import Listener
from envoy_data_plane.envoy.config.overload.v3 import OverloadManager, ResourceMonitor
from envoy_data_plane.envoy.extensions.resource_monitors.downstream_connections.v3 import DownstreamConnectionsConfig
from envoy_data_plane.google.protobuf import Struct

from authz.envoy.check_filter import LABELS_KEY, embedded_listener
from authz.envoy.clusters import clusters, helper_clusters
from authz.envoy.control_plane_source import control_cluster, from_control
from authz.envoy.messages import followed_file, pack, pipe, seconds
from authz.envoy.native.binary import RUNTIME
from authz.envoy.options import (
    LABEL_NAMESPACE,
    LABEL_PROXY,
    LABEL_SERVICE_ACCOUNT,
    LABEL_WORKLOAD,
    Authz,
    Listeners,
    RenderOptions,
)
from authz.envoy.passthrough import allow_internal_listeners
from authz.envoy.plain import KeptStruct
from authz.envoy.request_reports import request_reports
from authz.mesh.nouns import Mesh, MeshWorkload

EXPORT_MILLISECONDS = "tracing.opentelemetry.flush_interval_ms"
"""Spans are exported after a second; by default Envoy waits five."""
ADMIN_SOCKET_MODE = 0o660
"""The socket is open to the owner and the group, because ``authz rotation check`` may run as another user (XA-194)."""


def bootstrap(mesh: Mesh, workload: MeshWorkload, listeners: list[Listener], options: RenderOptions) -> Bootstrap:
    """The whole configuration of one proxy: listeners, clusters, administration."""
    own = [embedded_listener(workload.name)] if options.authz is Authz.EMBEDDED else []
    made = Bootstrap(
        node=Node(
            id=workload.name,
            cluster=workload.labels.get("app", workload.name),
            locality=_locality(workload),
            metadata=KeptStruct.of({LABELS_KEY: node_labels(workload)}),
        ),
        admin=Admin(address=pipe(f"run/{workload.name}.admin.sock", ADMIN_SOCKET_MODE)),
        layered_runtime=LayeredRuntime(
            layers=[RuntimeLayer(name="istio", static_layer=Struct.from_dict(_runtime(workload, options)))]
        ),
        overload_manager=OverloadManager(
            resource_monitors=[
                ResourceMonitor(
                    name="envoy.resource_monitors.global_downstream_max_connections",
                    typed_config=pack(
                        DownstreamConnectionsConfig(
                            max_active_downstream_connections=options.max_downstream_connections
                        )
                    ),
                )
            ]
        ),
        dynamic_resources=_dynamic(workload, options),
        static_resources=BootstrapStaticResources(
            listeners=[*own, *(listeners if options.listeners is Listeners.STATIC else [])],
            clusters=_static_clusters(mesh, workload, options),
        ),
    )
    if options.report_seconds:
        made.stats_flush_interval = seconds(options.report_seconds)
        made.stats_sinks = [request_reports(workload.name)]
    if workload.is_passthrough:
        allow_internal_listeners(made)
    return made


def _dynamic(workload: MeshWorkload, options: RenderOptions) -> BootstrapDynamicResources | None:
    match options.listeners:
        case Listeners.STATIC:
            return None
        case Listeners.ADS:
            return from_control()
    return BootstrapDynamicResources(
        cds_config=followed_file("cds", f"{workload.name}.yaml", wait_for_ever=True),
        lds_config=followed_file("lds", f"{workload.name}.yaml", wait_for_ever=True),
    )


def _static_clusters(mesh: Mesh, workload: MeshWorkload, options: RenderOptions) -> list[Cluster]:
    match options.listeners:
        case Listeners.STATIC:
            return helper_clusters(workload, options) + clusters(mesh, workload, options)
        case Listeners.ADS:
            return [control_cluster(mesh, workload, options)]
    return helper_clusters(workload, options)


def _locality(workload: MeshWorkload) -> Locality | None:
    place = workload.locality
    return Locality(region=place.region, zone=place.zone, sub_zone=place.subzone) if place.region else None


def _runtime(workload: MeshWorkload, options: RenderOptions) -> dict[str, bool | int]:
    traces = options.otlp or workload.telemetry.collectors
    return RUNTIME | {EXPORT_MILLISECONDS: 1000} if traces else dict(RUNTIME)


def node_labels(workload: MeshWorkload) -> dict[str, str]:
    """The labels sent as ``destination.labels``: the workload's own, and the reserved ones that say who is asking."""
    labels = dict(sorted(workload.labels.items()))
    labels[LABEL_NAMESPACE] = workload.namespace
    labels[LABEL_SERVICE_ACCOUNT] = workload.service_account
    labels[LABEL_WORKLOAD] = workload.name
    if workload.is_gateway:
        labels[LABEL_PROXY] = "gateway"
    return labels

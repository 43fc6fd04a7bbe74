"""What a listener traces: where spans go, how many, with which tags."""

from envoy_data_plane.envoy.config.core.v3 import GrpcService, GrpcServiceEnvoyGrpc
from envoy_data_plane.envoy.config.trace.v3 import OpenTelemetryConfig, TracingHttp
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManagerTracing,
    RequestIdExtension,
)
from envoy_data_plane.envoy.extensions.request_id.uuid.v3 import UuidRequestIdConfig
from envoy_data_plane.envoy.type.metadata.v3 import (
    MetadataKey,
    MetadataKeyPathSegment,
    MetadataKind,
    MetadataKindRequest,
)
from envoy_data_plane.envoy.type.tracing.v3 import (
    CustomTag,
    CustomTagEnvironment,
    CustomTagHeader,
    CustomTagLiteral,
    CustomTagMetadata,
)
from envoy_data_plane.envoy.type.v3 import Percent

from authz.envoy.check_filter import HTTP_FILTER
from authz.envoy.messages import pack, seconds
from authz.envoy.naming import collector_cluster
from authz.envoy.native.record_log import HTTP_RBAC
from authz.envoy.options import OTLP_CLUSTER, RenderOptions
from authz.mesh.nouns import MeshWorkload
from authz.mesh.telemetry_kind import OtlpTracer, SpanSettings, SpanTag, TagSource

_URL = "%REQ(:SCHEME)%://%REQ(:AUTHORITY)%%PATH(NQ:PATH)%"
_UNTOLD = SpanSettings(has_istio_tags=False)
"""Without a Telemetry: everything goes to the collector of the rendering."""


def _settings(workload: MeshWorkload, *, inbound: bool) -> SpanSettings:
    """Of the server's side for what comes in to a sidecar; all else, a gateway included, is a client's, as in Istio."""
    side = workload.telemetry.server if inbound else workload.telemetry.client
    return side.spans or _UNTOLD


def tracing(workload: MeshWorkload, options: RenderOptions, *, inbound: bool) -> HttpConnectionManagerTracing | None:
    """
    Export spans, so that the audit span has a parent (XA-169, XA-170).

    The URL is given without its query, which may hold a token.
    """
    settings = _settings(workload, inbound=inbound)
    if settings.is_disabled or not (settings.tracer or options.otlp):
        return None
    sampling = options.sampling_percent if settings.sampling_percent is None else settings.sampling_percent
    most = settings.tracer.most_tag_length if settings.tracer else 0
    return HttpConnectionManagerTracing(
        random_sampling=Percent(value=sampling),
        custom_tags=[CustomTag(tag="http.url", value=_URL), *_tags(workload, settings, options)],
        provider=TracingHttp(
            name="envoy.tracers.opentelemetry", typed_config=pack(_collector(workload, settings.tracer))
        ),
        max_path_tag_length=most or None,
        no_context_propagation=not settings.propagates_context,
    )


def _collector(workload: MeshWorkload, tracer: OtlpTracer | None) -> OpenTelemetryConfig:
    cluster = OTLP_CLUSTER if tracer is None else collector_cluster(tracer.collector)
    timeout = 1 if tracer is None or tracer.timeout_seconds is None else tracer.timeout_seconds
    target = GrpcServiceEnvoyGrpc(cluster_name=cluster, authority=tracer.collector.service if tracer else "")
    return OpenTelemetryConfig(
        service_name=f"{workload.name}.{workload.namespace}",
        grpc_service=GrpcService(envoy_grpc=target, timeout=seconds(timeout)),
    )


def request_ids(workload: MeshWorkload, *, inbound: bool) -> RequestIdExtension | None:
    """By default the request id decides whether a request is sampled; a Telemetry may say that it does not."""
    if _settings(workload, inbound=inbound).samples_by_request_id:
        return None
    return RequestIdExtension(typed_config=pack(UuidRequestIdConfig(use_request_id_for_trace_sampling=False)))


def _tags(workload: MeshWorkload, settings: SpanSettings, options: RenderOptions) -> list[CustomTag]:
    tags = [_tag(name, tag) for name, tag in settings.tags.items()]
    if settings.has_istio_tags:
        tags += [*_service_tags(workload), *_dry_run_tags(native=options.is_native(workload))]
    return sorted(tags, key=lambda tag: tag.tag)


def _tag(name: str, tag: SpanTag) -> CustomTag:
    match tag.source:
        case TagSource.LITERAL:
            return CustomTag(tag=name, literal=CustomTagLiteral(value=tag.value))
        case TagSource.ENVIRONMENT:
            return CustomTag(tag=name, environment=CustomTagEnvironment(name=tag.value, default_value=tag.default))
        case TagSource.HEADER:
            return CustomTag(tag=name, request_header=CustomTagHeader(name=tag.value, default_value=tag.default))
    return CustomTag(tag=name, value=tag.value)


def _service_tags(workload: MeshWorkload) -> list[CustomTag]:
    """Istio's tags of every span; mesh and cluster have no name here, as in Istio where nobody names them."""
    told = {
        "istio.canonical_revision": workload.labels.get("service.istio.io/canonical-revision", "latest"),
        "istio.canonical_service": workload.labels.get("service.istio.io/canonical-name", "unknown"),
        "istio.mesh_id": "unknown",
        "istio.namespace": workload.namespace,
        "istio.cluster_id": "unknown",
    }
    return [CustomTag(tag=name, literal=CustomTagLiteral(value=value)) for name, value in told.items()]


def _dry_run_tags(*, native: bool) -> list[CustomTag]:
    """What policies in a dry run would have said, from where it is: RBAC's metadata, or those of the check."""
    found = []
    for action in ("allow", "deny"):
        for what, rbac, check in (
            ("name", "shadow_effective_policy_id", f"dry_run_{action}_rule"),
            ("result", "shadow_engine_result", f"dry_run_{action}"),
        ):
            key = f"istio_dry_run_{action}_{rbac}" if native else check
            path = [MetadataKeyPathSegment(key=key)]
            metadata = CustomTagMetadata(
                kind=MetadataKind(request=MetadataKindRequest()),
                metadata_key=MetadataKey(key=HTTP_RBAC if native else HTTP_FILTER, path=path),
            )
            found.append(CustomTag(tag=f"istio.authorization.dry_run.{action}_policy.{what}", metadata=metadata))
    return found

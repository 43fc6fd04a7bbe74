"""
A proxy that has everything from the control plane: how it finds it, and how config sources come to point there.

Its own SVID is in files as ``authz ca join`` leaves them. Envoy follows them only by way of a file of secret discovery
(XA-148), which lies beside them.
"""

from collections.abc import Collection, Iterable, Iterator
from typing import Any

from envoy_data_plane.envoy.config.bootstrap.v3 import BootstrapDynamicResources
from envoy_data_plane.envoy.config.cluster.v3 import (
    Cluster,
    ClusterDiscoveryType,
    ClusterDnsLookupFamily,
    OutlierDetection,
    UpstreamConnectionOptions,
)
from envoy_data_plane.envoy.config.core.v3 import (
    AggregatedConfigSource,
    ApiConfigSourceApiType,
    ApiVersion,
    ConfigSource,
    PathConfigSource,
    TcpKeepalive,
    WatchedDirectory,
)
from envoy_data_plane.envoy.extensions.transport_sockets.tls.v3 import (
    CertificateValidationContext,
    CommonTlsContext,
    CommonTlsContextCombinedCertificateValidationContext,
    SdsSecretConfig,
    SubjectAltNameMatcherSanType,
    UpstreamTlsContext,
)
from envoy_data_plane.envoy.type.matcher.v3 import StringMatcher

from authz.core.spiffe import AUTHORITY_PATH
from authz.envoy.http_options import http2_upstream
from authz.envoy.messages import as_resource, asked_stream, assignment, at, seconds, transport_socket
from authz.envoy.options import CONTROL_CLUSTER, ROOTS_SECRET, RenderOptions
from authz.envoy.svid_pointers import OWN_POINTER, OWN_SECRET, ROOTS_POINTER
from authz.envoy.tls import bundle_secret, san_matcher
from authz.mesh.nouns import Address, Mesh, MeshWorkload

ConfigTree = dict[str, Any]
"""A part of a rendered tree, as JSON."""
PING_SECONDS, TELLING_PING_SECONDS = (60, 10), (10, 2)
"""
How often a proxy asks by HTTP/2 whether the control plane is there, and how long that has to answer. It finds one that
hangs; every proxy of a fleet asks, and each answer costs a third of a millisecond. One that reports its requests asks
more often, because the kernel asks nothing while it waits for an answer to what was sent.
"""
CONNECTION_SECONDS = 300
"""
After so long a connection takes no new stream; the one that it has goes on. When that is ended, because the SVID that
opened the connection expires, the next is on another connection, by the SVID of then.
"""
_SOURCE = "path_config_source"


def from_control() -> BootstrapDynamicResources:
    """Everything on one stream, in deltas; a proxy without it stays closed (XA-155)."""
    return BootstrapDynamicResources(
        ads_config=asked_stream(CONTROL_CLUSTER, ApiConfigSourceApiType.DELTA_GRPC),
        cds_config=_aggregated(),
        lds_config=_aggregated(),
    )


def control_cluster(mesh: Mesh, workload: MeshWorkload, options: RenderOptions) -> Cluster:
    """
    The control plane over mutual TLS: it is known by the authority's SPIFFE ID, whatever its address.

    Of several replicas Envoy takes one for its stream, and the next when that is gone. One that does not answer is left
    out for a while, so that coming back does not begin with it; no probe goes to replicas from each of the proxies.
    """
    directory = f"certs/{workload.name}"
    context = UpstreamTlsContext(
        common_tls_context=CommonTlsContext(
            alpn_protocols=["h2"],
            tls_certificate_sds_secret_configs=[_pointed(OWN_SECRET, directory, OWN_POINTER)],
            combined_validation_context=CommonTlsContextCombinedCertificateValidationContext(
                default_validation_context=CertificateValidationContext(
                    match_typed_subject_alt_names=[
                        san_matcher(
                            StringMatcher(exact=f"spiffe://{mesh.config.trust_domain}{AUTHORITY_PATH}"),
                            SubjectAltNameMatcherSanType.URI,
                        )
                    ]
                ),
                validation_context_sds_secret_config=_pointed(ROOTS_SECRET, directory, ROOTS_POINTER),
            ),
        ),
    )
    return Cluster(
        name=CONTROL_CLUSTER,
        type=ClusterDiscoveryType.STRICT_DNS,
        dns_lookup_family=ClusterDnsLookupFamily.V4_PREFERRED,
        connect_timeout=seconds(2),
        typed_extension_protocol_options=http2_upstream(
            keepalive=True,
            max_connection_seconds=CONNECTION_SECONDS,
            ping_seconds=TELLING_PING_SECONDS if options.report_seconds else PING_SECONDS,
        ),
        upstream_connection_options=UpstreamConnectionOptions(tcp_keepalive=_dead_machines()),
        load_assignment=assignment(CONTROL_CLUSTER, [at(_address(one)) for one in options.control]),
        outlier_detection=_left_out() if len(options.control) > 1 else None,
        transport_socket=transport_socket(context),
    )


def _dead_machines() -> TcpKeepalive:
    """A machine that is gone is found by the kernel, in 16 seconds: its questions cost a control plane nothing."""
    return TcpKeepalive(keepalive_probes=3, keepalive_time=10, keepalive_interval=2)


def _address(control: str) -> Address:
    host, _, port = control.rpartition(":")
    return Address(host.strip("[]"), int(port))


def _left_out() -> OutlierDetection:
    """A single failure leaves a replica out; when all have failed, Envoy asks all (its panic threshold)."""
    return OutlierDetection(
        consecutive_5xx=1,
        interval=seconds(1),
        base_ejection_time=seconds(5),
        max_ejection_time=seconds(30),
        max_ejection_percent=100,
    )


def roots_of(proxy: str) -> dict[str, object]:
    """The trust bundle of a proxy as a resource: where ``authz ca join`` leaves it, beside its certificate."""
    return as_resource(bundle_secret(ROOTS_SECRET, proxy))


def file_sources(tree: object) -> list[ConfigTree]:
    """The config sources of a rendered tree that name files, in the order in which they stand there."""
    found: list[ConfigTree] = []
    todo = [tree]
    while todo:
        one = todo.pop()
        if isinstance(one, dict):
            if isinstance(one.get(_SOURCE), dict):
                found.append(one)
            todo += reversed(one.values())
        elif isinstance(one, list):
            todo += reversed(one)
    return found


def followed_paths(sources: Iterable[ConfigTree]) -> Iterator[str]:
    """The files that config sources name."""
    for source in sources:
        yield str(source[_SOURCE]["path"])


def point_to_control(sources: Iterable[ConfigTree], paths: Collection[str]) -> None:
    """Have the config sources that name one of these files ask the control plane, on the stream there is already."""
    for source in sources:
        if source[_SOURCE]["path"] in paths:
            del source[_SOURCE]
            source["ads"] = {}


def _aggregated() -> ConfigSource:
    return ConfigSource(
        ads=AggregatedConfigSource(), resource_api_version=ApiVersion.V3, initial_fetch_timeout=seconds(0)
    )


def _pointed(name: str, directory: str, file: str) -> SdsSecretConfig:
    source = ConfigSource(
        path_config_source=PathConfigSource(
            path=f"{directory}/{file}", watched_directory=WatchedDirectory(path=directory)
        ),
        resource_api_version=ApiVersion.V3,
        initial_fetch_timeout=seconds(0),
    )
    return SdsSecretConfig(name=name, sds_config=source)

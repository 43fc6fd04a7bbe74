"""Small builders for Envoy's typed messages that every other file of the rendering uses."""

import datetime
from functools import lru_cache

import betterproto2
from envoy_data_plane.envoy.config.accesslog.v3 import AccessLog
from envoy_data_plane.envoy.config.core.v3 import (
    Address,
    ApiConfigSource,
    ApiConfigSourceApiType,
    ApiVersion,
    BackoffStrategy,
    ConfigSource,
    GrpcService,
    GrpcServiceEnvoyGrpc,
    JsonFormatOptions,
    PathConfigSource,
    Pipe,
    RetryPolicy,
    SocketAddress,
    SubstitutionFormatString,
    TransportSocket,
    TypedExtensionConfig,
    WatchedDirectory,
)
from envoy_data_plane.envoy.config.endpoint.v3 import (
    ClusterLoadAssignment,
    Endpoint,
    LbEndpoint,
    LocalityLbEndpoints,
)
from envoy_data_plane.envoy.extensions.access_loggers.file.v3 import FileAccessLog
from envoy_data_plane.google.protobuf import Any as PackedAny

from authz.envoy.plain import KeptStruct, Packed, plain
from authz.mesh.nouns import Address as MeshAddress


def pack(message: betterproto2.Message) -> PackedAny:
    """Put a message into an ``Any``; written out, it carries ``@type``."""
    return Packed.of(message)


def seconds(number: float) -> datetime.timedelta:
    """A duration, as Envoy's messages take it."""
    return datetime.timedelta(seconds=number)


def extension(name: str, message: betterproto2.Message) -> TypedExtensionConfig:
    """An extension by name with its configuration packed."""
    return TypedExtensionConfig(name=name, typed_config=pack(message))


def transport_socket(message: betterproto2.Message, name: str = "envoy.transport_sockets.tls") -> TransportSocket:
    """A transport socket with its configuration packed; by default TLS."""
    return TransportSocket(name=name, typed_config=pack(message))


def socket_address(host: str, port: int) -> Address:
    """An IP address or host name with a port."""
    return Address(socket_address=SocketAddress(address=host, port_value=port))


def pipe(path: str, mode: int = 0) -> Address:
    """A Unix socket; ``mode`` is for one that Envoy makes; 0: as its umask says."""
    return Address(pipe=Pipe(path=path, mode=mode))


def endpoint(address: Address) -> LbEndpoint:
    """An endpoint of a cluster at this address."""
    return LbEndpoint(endpoint=Endpoint(address=address))


def at(address: MeshAddress) -> LbEndpoint:
    """An endpoint at a place of the mesh description."""
    return endpoint(socket_address(address.host, address.port))


def assignment(cluster: str, endpoints: list[LbEndpoint]) -> ClusterLoadAssignment:
    """The endpoints of a cluster in one locality; none where there are none."""
    localities = [LocalityLbEndpoints(lb_endpoints=endpoints)] if endpoints else []
    return ClusterLoadAssignment(cluster_name=cluster, endpoints=localities)


@lru_cache(maxsize=64)
def followed_file(directory: str, name: str, *, wait_for_ever: bool = False) -> ConfigSource:
    """
    A file of resources that Envoy follows when another is renamed into its place (XA-150, XA-191).

    The message is shared by whoever asks for the same.
    ``wait_for_ever``: a proxy without it stays closed instead of opening half-configured (XA-155).
    """
    return ConfigSource(
        path_config_source=PathConfigSource(
            path=f"{directory}/{name}", watched_directory=WatchedDirectory(path=directory)
        ),
        resource_api_version=ApiVersion.V3,
        initial_fetch_timeout=seconds(0) if wait_for_ever else None,
    )


def asked_stream(cluster: str, api_type: ApiConfigSourceApiType) -> ApiConfigSource:
    """Resources that a proxy asks a cluster for, on one stream; after an outage it tries again every few seconds."""
    # Envoy's own maximum of 30 s would delay everything after an outage.
    back_off = BackoffStrategy(base_interval=seconds(0.5), max_interval=seconds(4))
    retry = RetryPolicy(retry_back_off=back_off)
    return ApiConfigSource(
        api_type=api_type,
        transport_api_version=ApiVersion.V3,
        set_node_on_first_message_only=True,
        grpc_services=[GrpcService(envoy_grpc=GrpcServiceEnvoyGrpc(cluster_name=cluster, retry_policy=retry))],
    )


def json_log(path: str, fields: dict[str, str]) -> AccessLog:
    """An access log of one JSON object per line, keys in the given order."""
    return AccessLog(
        name="envoy.access_loggers.file",
        typed_config=pack(
            FileAccessLog(
                path=path,
                log_format=SubstitutionFormatString(
                    json_format=KeptStruct.of(fields), json_format_options=JsonFormatOptions(sort_properties=False)
                ),
            )
        ),
    )


def as_json(message: betterproto2.Message) -> dict[str, object]:
    """A message as plain data, field names as in Envoy's documentation."""
    found: dict[str, object] = plain(message)
    return found


def as_resource(message: betterproto2.Message) -> dict[str, object]:
    """A message as one resource of a discovery file, ``@type`` first."""
    return as_json(pack(message))

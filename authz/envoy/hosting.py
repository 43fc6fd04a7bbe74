"""
An Envoy that hosts the authorization server in its own process: the filter that does, and a listener for it.

Used twice: in the bootstrap of an Envoy that does nothing else (``authz serve --server envoy``), and in a sidecar that
asks itself (``authz="embedded"``). The module is pyvoy's: it runs an ASGI application in an embedded Python.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from envoy_data_plane.envoy.config.bootstrap.v3 import Admin, Bootstrap, BootstrapStaticResources
from envoy_data_plane.envoy.config.core.v3 import (
    Address,
    AsyncDataSource,
    DataSource,
    Http2ProtocolOptions,
    Pipe,
    TransportSocket,
    WatchedDirectory,
)
from envoy_data_plane.envoy.config.listener.v3 import AdditionalAddress, Filter, FilterChain, Listener
from envoy_data_plane.envoy.config.overload.v3 import OverloadManager, ResourceMonitor
from envoy_data_plane.envoy.config.route.v3 import RouteConfiguration, VirtualHost
from envoy_data_plane.envoy.extensions.dynamic_modules.v3 import DynamicModuleConfig
from envoy_data_plane.envoy.extensions.filters.http.dynamic_modules.v3 import DynamicModuleFilter
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManager,
    HttpConnectionManagerCodecType,
    HttpConnectionManagerForwardClientCertDetails,
    HttpConnectionManagerSetCurrentClientCertDetails,
    HttpFilter,
)
from envoy_data_plane.envoy.extensions.resource_monitors.downstream_connections.v3 import DownstreamConnectionsConfig
from envoy_data_plane.envoy.extensions.transport_sockets.tls.v3 import (
    CertificateValidationContext,
    CommonTlsContext,
    DownstreamTlsContext,
    SdsSecretConfig,
    Secret,
    TlsCertificate,
    TlsParameters,
    TlsParametersTlsProtocol,
)
from envoy_data_plane.google.protobuf import StringValue

from authz.envoy.messages import (
    as_json,
    as_resource,
    followed_file,
    pack,
    pipe,
    seconds,
    socket_address,
    transport_socket,
)

APPLICATION = "authz.service.embedded:application"
"""The application that the module loads."""
SOCKET_MODE = 0o660
"""Group members may connect, strangers may not."""
UPLOAD_SECONDS = 10.0
"""A request must be complete by then: a check comes from an Envoy beside us, not over a slow line."""
MOST_CONNECTIONS = 10_000


@dataclass(frozen=True, slots=True)
class HostTls:
    """Files of the port's certificate; with ``client_ca`` clients must show one too."""

    certificate: Path
    key: Path
    client_ca: Path | None = None


def hosting_listener(
    name: str,
    addresses: Sequence[Address],
    module: str,
    *,
    max_message_bytes: int,
    transport: TransportSocket | None = None,
    is_mutual: bool = False,
    is_judged: bool = False,
    drain_seconds: float = 1.0,
) -> Listener:
    """
    One listener on all ``addresses``: each listener would load the application once more.

    ``module`` is the path of the shared library, absolute or relative to the directory in which Envoy runs.
    ``is_mutual``: clients show a certificate, and the application is told its SPIFFE ID; ``is_judged``: all of it.
    """
    first, *others = addresses
    return Listener(
        name=name,
        address=first,
        additional_addresses=[AdditionalAddress(address=address) for address in others],
        enable_reuse_port=False,  # a second process on the port must fail, not take a part of the traffic (XA-123)
        per_connection_buffer_limit_bytes=max_message_bytes + (64 << 10),
        filter_chains=[
            FilterChain(
                transport_socket=transport, filters=[_manager(name, module, drain_seconds, (is_mutual, is_judged))]
            )
        ],
    )


def _manager(name: str, module: str, drain_seconds: float, certificates: tuple[bool, bool]) -> Filter:
    manager = HttpConnectionManager(
        stat_prefix=name,
        codec_type=HttpConnectionManagerCodecType.HTTP2,  # gRPC is always that
        route_config=RouteConfiguration(name=name, virtual_hosts=[VirtualHost(name=name, domains=["*"])]),
        http_filters=[hosting_filter(module)],
        http2_protocol_options=Http2ProtocolOptions(max_concurrent_streams=10_000),
        generate_request_id=False,
        request_timeout=seconds(UPLOAD_SECONDS),
        request_headers_timeout=seconds(UPLOAD_SECONDS),
        stream_idle_timeout=seconds(0),  # a health watcher hears nothing for hours
        stream_flush_timeout=seconds(UPLOAD_SECONDS),
        drain_timeout=seconds(drain_seconds),
    )
    is_mutual, is_judged = certificates
    if is_mutual:  # otherwise Envoy removes the header, whoever wrote it
        manager.forward_client_cert_details = HttpConnectionManagerForwardClientCertDetails.SANITIZE_SET
        manager.set_current_client_cert_details = HttpConnectionManagerSetCurrentClientCertDetails(
            uri=True, cert=is_judged
        )
    return Filter(name="envoy.filters.network.http_connection_manager", typed_config=pack(manager))


def hosting_filter(module: str) -> HttpFilter:
    """The module as the last filter; it fails to start when the application does."""
    told = {"app": APPLICATION, "interface": "asgi", "root_path": "", "lifespan": True}
    return HttpFilter(
        name="authz.host",
        typed_config=pack(
            DynamicModuleFilter(
                dynamic_module_config=DynamicModuleConfig(
                    module=AsyncDataSource(local=DataSource(filename=module)), do_not_close=True
                ),
                filter_name="pyvoy",
                terminal_filter=True,
                filter_config=pack(StringValue(value=json.dumps(told))),
            )
        ),
    )


def hosting_bootstrap(listener: Listener, admin_socket: str) -> dict[str, object]:
    """Configuration of an Envoy that only hosts, as plain data."""
    limit = DownstreamConnectionsConfig(max_active_downstream_connections=MOST_CONNECTIONS)
    return as_json(
        Bootstrap(
            admin=Admin(address=pipe(admin_socket)),
            overload_manager=OverloadManager(
                resource_monitors=[
                    ResourceMonitor(
                        name="envoy.resource_monitors.global_downstream_max_connections", typed_config=pack(limit)
                    )
                ]
            ),
            static_resources=BootstrapStaticResources(listeners=[listener]),
        )
    )


def hosting_address(written: str, socket_mode: int = SOCKET_MODE) -> Address:
    """``host:port``, ``unix:/path`` or ``unix-abstract:name`` as Envoy writes it. Raises ValueError."""
    kind, _, rest = written.partition(":")
    if kind == "unix" and rest:
        return Address(pipe=Pipe(path=rest, mode=socket_mode))
    if kind == "unix-abstract" and rest:
        return Address(pipe=Pipe(path=f"@{rest}"))
    host, _, port = written.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"`{written}` is none of host:port, unix:/path and unix-abstract:name")
    return socket_address(host.strip("[]"), int(port))


def hosting_tls(directory: str, tls: HostTls) -> tuple[TransportSocket, dict[str, dict[str, object]]]:
    """
    TLS of the port, and the files to write into ``directory``, by name.

    Certificates are followed when files are renamed into their place (XA-150).
    """
    pair = Secret(
        name="server",
        tls_certificate=TlsCertificate(
            certificate_chain=DataSource(filename=str(tls.certificate)),
            private_key=DataSource(filename=str(tls.key)),
            watched_directory=WatchedDirectory(path=str(tls.certificate.parent)),
        ),
    )
    files: dict[str, dict[str, object]] = {"server.yaml": {"resources": [as_resource(pair)]}}
    clients = None
    if tls.client_ca is not None:
        bundle = Secret(
            name="clients",
            validation_context=CertificateValidationContext(
                trusted_ca=DataSource(filename=str(tls.client_ca)),
                watched_directory=WatchedDirectory(path=str(tls.client_ca.parent)),
            ),
        )
        files["clients.yaml"] = {"resources": [as_resource(bundle)]}
        clients = SdsSecretConfig(name="clients", sds_config=followed_file(directory, "clients.yaml"))
    context = DownstreamTlsContext(
        require_client_certificate=tls.client_ca is not None,
        common_tls_context=CommonTlsContext(
            tls_params=TlsParameters(
                tls_minimum_protocol_version=TlsParametersTlsProtocol.TLSv1_2,
                tls_maximum_protocol_version=TlsParametersTlsProtocol.TLSv1_3,
            ),
            tls_certificate_sds_secret_configs=[
                SdsSecretConfig(name="server", sds_config=followed_file(directory, "server.yaml"))
            ],
            validation_context_sds_secret_config=clients,
            alpn_protocols=["h2"],
        ),
    )
    return transport_socket(context), files

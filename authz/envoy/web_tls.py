"""TLS of a gateway's servers towards the outside, with certificates of the user's own, and the files that hold them."""

from collections.abc import Iterable
from hashlib import sha256
from pathlib import PurePosixPath

from envoy_data_plane.envoy.config.core.v3 import DataSource, TransportSocket, WatchedDirectory
from envoy_data_plane.envoy.extensions.transport_sockets.tls.v3 import (
    CertificateValidationContext,
    CommonTlsContext,
    CommonTlsContextCombinedCertificateValidationContext,
    DownstreamTlsContext,
    SdsSecretConfig,
    Secret,
    TlsCertificate,
    TlsParameters,
    TlsParametersTlsProtocol,
)
from envoy_data_plane.envoy.type.matcher.v3 import StringMatcher

from authz.envoy.messages import transport_socket
from authz.envoy.tls import bundle_secret, pair_secret, san_matcher, san_type, secret_file
from authz.mesh.gateway_server import CertificatePaths, GatewayServer, TlsMode

_VERSIONS = {"TLSV1_2": TlsParametersTlsProtocol.TLSv1_2, "TLSV1_3": TlsParametersTlsProtocol.TLSv1_3}


def web_server(server: GatewayServer) -> TransportSocket:
    """TLS of a server; MUTUAL demands a certificate of the client, OPTIONAL_MUTUAL a good one or none (XA-137)."""
    common = CommonTlsContext(
        tls_params=TlsParameters(
            tls_minimum_protocol_version=_VERSIONS[server.minimum_protocol],
            tls_maximum_protocol_version=_VERSIONS[server.maximum_protocol],
            cipher_suites=list(server.ciphers),
        ),
        tls_certificate_sds_secret_configs=[_followed(name) for name in _pairs(server)],
        alpn_protocols=["h2", "http/1.1"],
    )
    if server.asks_for_certificate:
        roots, client = _followed(_roots(server)), server.client
        if client.crl or client.subject_alt_names or client.spki or client.hashes:
            common.combined_validation_context = CommonTlsContextCombinedCertificateValidationContext(
                default_validation_context=CertificateValidationContext(
                    match_typed_subject_alt_names=[
                        san_matcher(StringMatcher(exact=name), san_type(name)) for name in client.subject_alt_names
                    ],
                    verify_certificate_spki=list(client.spki),
                    verify_certificate_hash=list(client.hashes),
                    crl=DataSource(filename=client.crl) if client.crl else None,
                ),
                validation_context_sds_secret_config=roots,
            )
        else:
            common.validation_context_sds_secret_config = roots
    return transport_socket(
        DownstreamTlsContext(
            require_client_certificate=True if server.tls is TlsMode.MUTUAL else None, common_tls_context=common
        )
    )


def web_secret_files(servers: Iterable[GatewayServer]) -> dict[str, Secret]:
    """The files below ``sds/`` that lead to the certificates of a gateway's servers, and of who vouches for clients."""
    found: dict[str, Secret] = {}
    for server in servers:
        for name in server.credentials:
            found[f"{name}.yaml"] = pair_secret(name, name)
        for pair in server.certificates:
            found[f"{_pair_name(pair)}.yaml"] = _pair_of_files(pair)
        if server.asks_for_certificate:
            found[f"{_roots(server)}.yaml"] = _roots_secret(server)
    return found


def _pairs(server: GatewayServer) -> list[str]:
    return [*server.credentials, *(_pair_name(pair) for pair in server.certificates)]


def _pair_name(pair: CertificatePaths) -> str:
    return f"pair-{_digest(f'{pair.certificate} {pair.private_key}')}"


def _pair_of_files(pair: CertificatePaths) -> Secret:
    return Secret(
        name=_pair_name(pair),
        tls_certificate=TlsCertificate(
            certificate_chain=DataSource(filename=pair.certificate),
            private_key=DataSource(filename=pair.private_key),
            watched_directory=WatchedDirectory(path=str(PurePosixPath(pair.certificate).parent)),
        ),
    )


def _roots(server: GatewayServer) -> str:
    client = server.client
    if client.ca_certificates:
        return f"roots-{_digest(client.ca_certificates)}"
    return f"{client.ca_credential or server.credential}-cacert"


def _roots_secret(server: GatewayServer) -> Secret:
    client = server.client
    if not client.ca_certificates:
        return bundle_secret(_roots(server), client.ca_credential or server.credential)
    return Secret(
        name=_roots(server),
        validation_context=CertificateValidationContext(
            trusted_ca=DataSource(filename=client.ca_certificates),
            watched_directory=WatchedDirectory(path=str(PurePosixPath(client.ca_certificates).parent)),
        ),
    )


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:12]


def _followed(name: str) -> SdsSecretConfig:
    return SdsSecretConfig(name=name, sds_config=secret_file(name))

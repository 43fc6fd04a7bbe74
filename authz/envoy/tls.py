"""
TLS contexts and the secrets behind them.

Between proxies: certificates of the mesh, TLS 1.3 unless told otherwise, the client verified by trust domain and the
server by the exact identity of the workloads behind the service (secure naming, XA-2).
"""

import ipaddress
from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from hashlib import sha256
from pathlib import PurePosixPath

from envoy_data_plane.envoy.config.core.v3 import (
    ApiConfigSourceApiType,
    ApiVersion,
    ConfigSource,
    DataSource,
    TransportSocket,
    WatchedDirectory,
)
from envoy_data_plane.envoy.extensions.transport_sockets.raw_buffer.v3 import RawBuffer
from envoy_data_plane.envoy.extensions.transport_sockets.tls.v3 import (
    CertificateValidationContext,
    CertificateValidationContextSystemRootCerts,
    CommonTlsContext,
    CommonTlsContextCombinedCertificateValidationContext,
    DownstreamTlsContext,
    SdsSecretConfig,
    Secret,
    SubjectAltNameMatcher,
    SubjectAltNameMatcherSanType,
    TlsCertificate,
    TlsParameters,
    TlsParametersTlsProtocol,
    UpstreamTlsContext,
)
from envoy_data_plane.envoy.type.matcher.v3 import StringMatcher

from authz.core.resources import MeshConfig
from authz.envoy.messages import asked_stream, followed_file, pack, seconds, transport_socket
from authz.envoy.options import ROOTS_SECRET, SDS_CLUSTER, RenderOptions, Secrets
from authz.envoy.plain import kept
from authz.mesh.nouns import MeshWorkload
from authz.mesh.traffic_policy import ClientTls, ClientTlsMode


def mesh_server(workload: MeshWorkload, mesh: MeshConfig, options: RenderOptions) -> TransportSocket:
    """Demand a client certificate of one of the mesh's trust domains (PA-13, XA-131)."""
    prefixes = ["spiffe://"] if mesh.skip_validate_trust_domain else [f"spiffe://{td}/" for td in mesh.trust_domains]
    return transport_socket(
        DownstreamTlsContext(
            require_client_certificate=True,
            common_tls_context=_mesh_context(
                workload, [StringMatcher(prefix=prefix) for prefix in prefixes], options, ["h2", "http/1.1"]
            ),
        )
    )


def mesh_client(
    workload: MeshWorkload, server_ids: Iterable[str], sni: str, options: RenderOptions, *, http: bool
) -> TransportSocket:
    """Speak mTLS as ``workload`` to nobody but ``server_ids`` (exact URI SANs, XA-2)."""
    matchers = [StringMatcher(exact=identity) for identity in server_ids]
    return transport_socket(
        UpstreamTlsContext(
            sni=sni,
            common_tls_context=_mesh_context(workload, matchers, options, ["h2"] if http else []),
        )
    )


def plaintext() -> TransportSocket:
    """The transport socket without TLS."""
    return TransportSocket(name="envoy.transport_sockets.raw_buffer", typed_config=_RAW_BUFFER)


def outside_client(tls: ClientTls, alpn: Sequence[str] = ("http/1.1",)) -> TransportSocket:
    """
    TLS that a DestinationRule describes, verified against the given bundle or the system's roots (XA-118, XA-138).

    Of MUTUAL the certificate comes by SDS, so that Envoy follows when it is renewed.
    """
    common = CommonTlsContext(
        tls_params=TlsParameters(
            tls_minimum_protocol_version=_TLS12,
            tls_maximum_protocol_version=TlsParametersTlsProtocol.TLSv1_3,
        ),
        alpn_protocols=list(alpn),
    )
    if tls.mode is ClientTlsMode.MUTUAL:
        pair = client_pair_secret(tls)
        common.tls_certificate_sds_secret_configs = [SdsSecretConfig(name=pair, sds_config=secret_file(pair))]
    names = [san_matcher(StringMatcher(exact=name), san_type(name)) for name in tls.subject_alt_names]
    if tls.credential:
        roots = f"{tls.credential}-cacert"
        common.combined_validation_context = CommonTlsContextCombinedCertificateValidationContext(
            default_validation_context=CertificateValidationContext(match_typed_subject_alt_names=names),
            validation_context_sds_secret_config=SdsSecretConfig(name=roots, sds_config=secret_file(roots)),
        )
    else:
        common.validation_context = CertificateValidationContext(
            trusted_ca=DataSource(filename=tls.ca_certificates) if tls.ca_certificates else None,
            system_root_certs=None if tls.ca_certificates else CertificateValidationContextSystemRootCerts(),
            match_typed_subject_alt_names=names,
            crl=DataSource(filename=tls.ca_crl) if tls.ca_crl else None,
        )
    return transport_socket(UpstreamTlsContext(sni=tls.sni, common_tls_context=common))


def client_pair_secret(tls: ClientTls) -> str:
    """Name of the secret with the certificate that is shown to a host outside."""
    if tls.credential:
        return tls.credential
    return f"pair-{sha256(f'{tls.client_certificate} {tls.private_key}'.encode()).hexdigest()[:12]}"


def client_secret_files(policies: Iterable[ClientTls]) -> dict[str, Secret]:
    """The files below ``sds/`` that the TLS of DestinationRules needs."""
    found: dict[str, Secret] = {}
    for tls in policies:
        if tls.mode not in (ClientTlsMode.SIMPLE, ClientTlsMode.MUTUAL):
            continue
        if tls.credential:
            found[f"{tls.credential}-cacert.yaml"] = bundle_secret(f"{tls.credential}-cacert", tls.credential)
        if tls.mode is ClientTlsMode.MUTUAL:
            name = client_pair_secret(tls)
            found[f"{name}.yaml"] = pair_secret(name, tls.credential) if tls.credential else _pair_of_files(name, tls)
    return found


def _pair_of_files(secret: str, tls: ClientTls) -> Secret:
    certificate = TlsCertificate(
        certificate_chain=DataSource(filename=tls.client_certificate),
        private_key=DataSource(filename=tls.private_key),
        watched_directory=WatchedDirectory(path=str(PurePosixPath(tls.client_certificate).parent)),
    )
    return Secret(name=secret, tls_certificate=certificate)


def san_type(name: str) -> SubjectAltNameMatcherSanType:
    """Istio does not say of which sort a name is; Envoy wants to know."""
    if "://" in name:
        return SubjectAltNameMatcherSanType.URI
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return SubjectAltNameMatcherSanType.DNS
    return SubjectAltNameMatcherSanType.IP_ADDRESS


def secret_files(workload: MeshWorkload, options: RenderOptions) -> dict[str, Secret]:
    """
    The files below ``sds/`` that a proxy reads of the mesh: its certificate, and the trust bundle.

    With secrets from the discovery server none of them does; see ``web_tls`` for those of gateways, the user's own.
    """
    found: dict[str, Secret] = {}
    if options.secrets is Secrets.FILES:
        found[f"{workload.name}.yaml"] = pair_secret(str(workload.spiffe_id), workload.name)
        found["roots.yaml"] = bundle_secret(ROOTS_SECRET, "roots")
    return found


_RAW_BUFFER = pack(RawBuffer())
_TLS12 = TlsParametersTlsProtocol.TLSv1_2


def _mesh_context(
    workload: MeshWorkload, peers: list[StringMatcher], options: RenderOptions, alpn: list[str]
) -> CommonTlsContext:
    return CommonTlsContext(
        tls_params=_mesh_parameters(options.tls_minimum, options.tls_ciphers),
        tls_certificate_sds_secret_configs=[_mesh_certificate(workload, options.secrets)],
        combined_validation_context=CommonTlsContextCombinedCertificateValidationContext(
            default_validation_context=CertificateValidationContext(
                match_typed_subject_alt_names=[san_matcher(peer, SubjectAltNameMatcherSanType.URI) for peer in peers]
            ),
            validation_context_sds_secret_config=_mesh_roots(options.secrets),
        ),
        alpn_protocols=alpn,
    )


@cache
def _mesh_parameters(minimum: str, ciphers: tuple[str, ...]) -> TlsParameters:
    made = TlsParameters(
        tls_minimum_protocol_version=TlsParametersTlsProtocol.from_string(minimum),
        # Upstream TLS ends at 1.2 unless told otherwise (XA-118).
        tls_maximum_protocol_version=TlsParametersTlsProtocol.TLSv1_3,
        cipher_suites=list(ciphers),
    )
    return kept(made)


def _mesh_certificate(workload: MeshWorkload, secrets: Secrets) -> SdsSecretConfig:
    return _certificate(str(workload.spiffe_id), workload.name, secrets)


@lru_cache(maxsize=64)
def _certificate(identity: str, name: str, secrets: Secrets) -> SdsSecretConfig:
    """All clusters and listeners of a proxy share it."""
    return kept(SdsSecretConfig(name=identity, sds_config=_mesh_secret(name, secrets)))


@cache
def _mesh_roots(secrets: Secrets) -> SdsSecretConfig:
    return kept(SdsSecretConfig(name=ROOTS_SECRET, sds_config=_mesh_secret("roots", secrets)))


def san_matcher(matcher: StringMatcher, san_type: SubjectAltNameMatcherSanType) -> SubjectAltNameMatcher:
    """A name that a certificate must have, with its sort."""
    return SubjectAltNameMatcher(san_type=san_type, matcher=matcher)


def _mesh_secret(name: str, secrets: Secrets) -> ConfigSource:
    if secrets is Secrets.FILES:
        return secret_file(name)
    return ConfigSource(
        resource_api_version=ApiVersion.V3,
        initial_fetch_timeout=seconds(0),  # closed until the certificate is there (XA-155)
        api_config_source=asked_stream(SDS_CLUSTER, ApiConfigSourceApiType.GRPC),
    )


def secret_file(name: str) -> ConfigSource:
    """Where a secret is that is a file below ``sds/``."""
    return followed_file("sds", f"{name}.yaml", wait_for_ever=True)


def pair_secret(secret: str, directory: str) -> Secret:
    """A certificate that is followed when files are renamed into place (XA-148 to XA-150)."""
    return Secret(
        name=secret,
        tls_certificate=TlsCertificate(
            certificate_chain=DataSource(filename=f"certs/{directory}/tls.crt"),
            private_key=DataSource(filename=f"certs/{directory}/tls.key"),
            watched_directory=WatchedDirectory(path=f"certs/{directory}"),
        ),
    )


def bundle_secret(secret: str, directory: str) -> Secret:
    """Who vouches for certificates: ``ca.crt`` in a directory below ``certs/``, followed likewise."""
    return Secret(
        name=secret,
        validation_context=CertificateValidationContext(
            trusted_ca=DataSource(filename=f"certs/{directory}/ca.crt"),
            watched_directory=WatchedDirectory(path=f"certs/{directory}"),
        ),
    )

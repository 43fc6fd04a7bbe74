"""
Istio's MeshConfig as written, in any of its own wrappings.

A bare mapping, the ConfigMap ``istio`` with the text under ``data.mesh``, an IstioOperator, the sail operator's Istio,
or Helm values with ``meshConfig``. Other documents of the file are skipped: the same file may describe workloads. What
Istio knows and this product does not consult is accepted with a remark; a name that Istio does not know is an error,
and so is a file in which no settings are found, unless it describes workloads.
"""

from collections.abc import Iterable
from dataclasses import replace
from enum import StrEnum
from typing import Any, NamedTuple

from authz.core.errors import Location, Problem, Severity, sort_problems
from authz.core.resources import MeshConfig, PathNormalization
from authz.documents import reading
from authz.documents.decoders import anything, choice, integer, text, texts
from authz.documents.reading import Document, Node, Scalar, read_documents
from authz.documents.schema import Decoder, Fault, Field, Notes, Shape, given, text_of
from authz.policy import foreign, variables
from authz.policy.extension_providers import decode_providers
from authz.policy.mesh_wrappings import WrittenMesh, no_connection_settings, search
from authz.policy.token_introspection import decode_introspections
from authz.policy.value_checks import is_dns_name, object_name

_FLAGS = {
    "PILOT_ENABLE_MULTIPLE_CUSTOM_AUTHZ_PROVIDERS": "multiple_custom_providers",
    "PILOT_SKIP_VALIDATE_TRUST_DOMAIN": "skip_validate_trust_domain",
}
"""Control-plane flags: environment of istiod, ``values.pilot.env`` (AP-81, PA-13)."""

_IGNORED = (
    *("proxyListenPort", "proxyInboundListenPort", "proxyHttpPort", "connectTimeout", "protocolDetectionTimeout"),
    *("tcpKeepalive", "ingressClass", "ingressService", "ingressControllerMode", "ingressSelector", "enableTracing"),
    *("accessLogFile", "accessLogFormat", "accessLogEncoding", "enableEnvoyAccessLogService"),
    *("disableEnvoyListenerLog", "inboundTrafficPolicy", "configSources", "enableAutoMtls"),
    *("caCertificates", "defaultServiceExportTo", "defaultVirtualServiceExportTo", "defaultDestinationRuleExportTo"),
    *("localityLbSetting", "dnsRefreshRate", "h2UpgradePolicy", "inboundClusterStatName", "outboundClusterStatName"),
    *("certificates", "serviceSettings", "enablePrometheusMerge", "verifyCertificateAtClient", "ca"),
    *("discoverySelectors", "defaultHttpRetryPolicy", "meshMTLS", "tlsDefaults"),
    *("compliancePolicy", "hboneIdleTimeout", "serviceScopeConfigs"),
)
_IGNORED_PROXY = (
    *("configPath", "binaryPath", "serviceCluster", "tracingServiceName", "drainDuration", "parentShutdownDuration"),
    *("discoveryAddress", "discoveryRefreshDelay", "zipkinAddress", "statsdUdpAddress", "proxyAdminPort", "meshId"),
    *("envoyMetricsServiceAddress", "availabilityZone", "controlPlaneAuthPolicy", "customConfigFile"),
    *("statNameLength", "concurrency", "proxyBootstrapTemplatePath", "interceptionMode", "tracing", "sds"),
    *("envoyAccessLogService", "envoyMetricsService", "proxyMetadata", "runtimeValues", "statusPort", "extraStatTags"),
    *("terminationDrainDuration", "readinessProbe", "proxyStatsMatcher", "holdApplicationUntilProxyStarts"),
    *("caCertificatesPem", "image", "privateKeyProvider", "proxyHeaders", "fileFlushInterval"),
    *("fileFlushMinSizeKb", "statsEvictionInterval", "statsCompression"),
)


class _Normalization(NamedTuple):
    normalization: PathNormalization = PathNormalization.BASE


class _OutboundMode(StrEnum):
    REGISTRY_ONLY = "REGISTRY_ONLY"
    ALLOW_ANY = "ALLOW_ANY"


class _Outbound(NamedTuple):
    mode: _OutboundMode = _OutboundMode.REGISTRY_ONLY


class _Topology(NamedTuple):
    trusted_proxies: int = 0


class _ProxyConfig(NamedTuple):
    topology: _Topology = _Topology()


def _ignored(name: str) -> Field:
    def decode(node: Node, notes: Notes) -> None:
        message = f"`{name}` is Istio's and has no effect here"
        notes.info("RE-14", node, message)

    return Field("", decode, null_is_silent=True)


def _trust_domain(value: str) -> Fault | None:
    """Check that a trust domain is a DNS name (VA-57)."""
    if is_dns_name(value):
        return None
    advice = "expected dot-separated names of a-z, 0-9 and `-`, each at most 63 characters"
    return Fault("VA-57", f"`{value}` is not a trust domain", advice)


def _namespace(value: str) -> Fault | None:
    if not value:
        return Fault("RE-14", "the root namespace is empty", "remove it for `istio-system`")
    if object_name(value) is None:
        return None
    return Fault("RE-14", f"`{value}` is not a namespace, so no policy would be in it", "expected a-z, 0-9 and `-`")


def _normalization(node: Node, notes: Notes) -> PathNormalization:
    """DEFAULT is BASE (RE-14)."""
    if text_of(node) == "DEFAULT":
        return PathNormalization.BASE
    return _NORMALIZATIONS(node, notes)


_NORMALIZATIONS: Decoder[PathNormalization] = choice(
    PathNormalization, "a path normalisation", "RE-14", PathNormalization.BASE
)


_TOPOLOGY: Shape[_Topology] = Shape(
    "a gateway topology",
    {
        "numTrustedProxies": Field("trusted_proxies", integer(0, 2**31 - 1, "CS-9")),
        "forwardClientCertDetails": _ignored("forwardClientCertDetails"),
        "proxyProtocol": _ignored("proxyProtocol"),
    },
    _Topology,
)
_PROXY_CONFIG: Shape[_ProxyConfig] = Shape(
    "a proxy configuration",
    {
        "gatewayTopology": Field("topology", _TOPOLOGY.decode),
        "connectionSettings": Field("", no_connection_settings),
        **{name: _ignored(name) for name in _IGNORED_PROXY},
    },
    _ProxyConfig,
)
_OUTBOUND: Shape[_Outbound] = Shape(
    "an outbound traffic policy",
    {
        "mode": Field("mode", choice(_OutboundMode, "a mode", "RE-14", _OutboundMode.REGISTRY_ONLY)),
        "egressProxy": _ignored("egressProxy"),
    },
    _Outbound,
)
"""Istio's default of one that is there but says nothing is REGISTRY_ONLY."""
_NORMALIZATION: Shape[_Normalization] = Shape(
    "a path normalisation", {"normalization": Field("normalization", _normalization)}, _Normalization
)


def _mesh_config(
    path_normalization: _Normalization = _Normalization(),  # noqa: B008  # a frozen value
    default_config: _ProxyConfig = _ProxyConfig(),  # noqa: B008  # a frozen value
    outbound: _Outbound | None = None,
    **others: Any,
) -> MeshConfig:
    return MeshConfig(
        path_normalization=path_normalization.normalization,
        num_trusted_proxies=default_config.topology.trusted_proxies,
        is_registry_only=outbound is not None and outbound.mode is _OutboundMode.REGISTRY_ONLY,
        **others,
    )


MESH_CONFIG: Shape[MeshConfig] = Shape(
    "a MeshConfig",
    {
        "rootNamespace": Field("root_namespace", text(_namespace)),
        "trustDomain": Field("trust_domain", text(_trust_domain)),
        "trustDomainAliases": Field("trust_domain_aliases", texts(_trust_domain)),
        "pathNormalization": Field("path_normalization", _NORMALIZATION.decode),
        "extensionProviders": Field("extension_providers", decode_providers),
        "tokenIntrospection": Field("introspections", decode_introspections),
        "outboundTrafficPolicy": Field("outbound", _OUTBOUND.decode),  # whoever renders a mesh heeds it
        "defaultProviders": Field("", anything),  # of logs and spans: whoever renders a mesh reads them
        "defaultConfig": Field("default_config", _PROXY_CONFIG.decode),
        **{name: _ignored(name) for name in _IGNORED},
    },
    _mesh_config,
)


# --- files -----------------------------------------------------------------------------------------------------------


def read_mesh(
    file: str,
    data: bytes,
    *,
    documents: Iterable[Document] | None = None,
    multiple_custom_providers: bool | None = None,
) -> tuple[MeshConfig, tuple[Problem, ...]]:
    """
    Read the mesh settings of a file.

    Args:
        file: name that appears in places.
        data: YAML in one of Istio's forms. Without a MeshConfig it is an error, and only a remark where workloads are
            described: Istio's defaults then hold.
        documents: those of the file, which may hold settings, if they were already read.
        multiple_custom_providers: the control-plane flag of AP-81; overrides what the file says.

    Returns:
        The settings, meaningful only if no problem is an error, and the sorted problems. Raises nothing.
    """
    pointer = foreign.pointer(file, data)
    if pointer is not None:
        return MeshConfig(), (pointer,)
    problems: list[Problem] = []
    mesh: MeshConfig | None = None
    first: WrittenMesh | None = None
    for found in search(read_documents(file, data, problems) if documents is None else documents, data, problems):
        notes = Notes(found.document, problems, found.resource)
        if first is not None:
            before = notes.place(first.document.root)
            notes.error("RE-14", found.document.root, f"the mesh settings are given twice, first at {before}")
            continue
        first = found
        mesh = MESH_CONFIG.decode(found.config, notes) if found.config is not None else MeshConfig()
        mesh = _with_flags(mesh, found.environment, notes)
        mesh = replace(mesh, written=_written(found))
    if mesh is None:
        mesh = MeshConfig()
        if not any(problem.is_error for problem in problems):
            problems.append(_nothing_found(file, data))
    ytt = foreign.ytt(file, data, is_refused=any(problem.is_error for problem in problems))
    if ytt is not None:
        return MeshConfig(), (replace(ytt, severity=Severity.ERROR, message="a ytt template, not mesh settings yet"),)
    if variables.may_hold_variables(data):
        template = foreign.template(file, data) if any(problem.code == "YAML" for problem in problems) else None
        if template is not None:
            return MeshConfig(), (template,)
        if first is not None and first.config is not None:
            variables.warn_of_variables([replace(first.document, root=first.config)], problems)
    if multiple_custom_providers is not None:
        mesh = replace(mesh, multiple_custom_providers=multiple_custom_providers)
    return mesh, sort_problems(problems)


def _nothing_found(file: str, data: bytes) -> Problem:
    """A description of workloads may do without settings; a file without either is empty, or not the one meant."""
    kinds = [_kind_of(document.root) for document in read_documents(file, data, [])]
    if "WorkloadEntry" in kinds:
        return Problem(Severity.INFO, "RE-14", "no MeshConfig found; Istio's defaults hold", Location(file))
    if not kinds:
        message = "the file holds no mesh settings; what is missing may be a root namespace or a trust domain"
        return Problem(Severity.ERROR, "empty", message, Location(file), help="write them, or leave the file out")
    advice = (
        "expected its fields, the ConfigMap `istio`, an IstioOperator, the sail operator's Istio, or Helm values with "
    )
    return Problem(Severity.ERROR, "RE-14", "no MeshConfig found", Location(file), help=f"{advice}`meshConfig`")


def _kind_of(root: Node) -> str:
    return (text_of(root.entries.get("kind")) or "") if isinstance(root, reading.Mapping) else ""


_PLACES = {
    "root_namespace": ("rootNamespace",),
    "trust_domain": ("trustDomain",),
    "trust_domain_aliases": ("trustDomainAliases",),
    "path_normalization": ("pathNormalization", "normalization"),
    "extension_providers": ("extensionProviders",),
    "introspections": ("tokenIntrospection",),
    "num_trusted_proxies": ("defaultConfig", "gatewayTopology", "numTrustedProxies"),
}
"""Where the attributes of MeshConfig are written."""


def _written(found: WrittenMesh) -> frozenset[str]:
    """The attributes that are given, even with Istio's default or empty."""
    names = {name for name, path in _PLACES.items() if _given_below(found.config, path)}
    names |= {attribute for name, attribute in _FLAGS.items() if _given_below(found.environment, (name,))}
    return frozenset(names)


def _given_below(node: Node | None, path: tuple[str, ...]) -> bool:
    for name in path:
        node = given(node, name) if isinstance(node, reading.Mapping) else None
    return node is not None


def _with_flags(mesh: MeshConfig, environment: reading.Mapping | None, notes: Notes) -> MeshConfig:
    """The control-plane flags, written as booleans or as text."""
    for name, attribute in _FLAGS.items():
        node = given(environment, name) if environment is not None else None
        if node is None:
            continue
        value = node.value.lower() if isinstance(node, Scalar) else ""
        if value not in ("true", "false", "1", "0"):
            notes.error("RE-14", node, f"`{name}` must be true or false")
        flags: dict[str, Any] = {attribute: value in ("true", "1")}
        mesh = replace(mesh, **flags)
    return mesh

"""
Istio's MeshConfig as written, in any of its own wrappings.

A bare mapping, the ConfigMap ``istio`` with the text under ``data.mesh``, an IstioOperator, or Helm values with
``meshConfig``. Other documents of the file are skipped: the same file may describe workloads. What Istio knows and this
product does not consult is accepted with a remark; a name that Istio does not know is an error.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from authz.core.errors import Location, Problem, Severity, sort_problems
from authz.core.resources import MeshConfig, PathNormalization
from authz.documents import reading
from authz.documents.decoders import choice, integer, text, texts
from authz.documents.reading import Document, Kind, Node, Scalar, read_documents
from authz.documents.schema import Decoder, Fault, Field, Notes, Shape, given, text_of
from authz.policy.providers import decode_providers
from authz.policy.values import is_dns_name

_FLAGS = {
    "PILOT_ENABLE_MULTIPLE_CUSTOM_AUTHZ_PROVIDERS": "multiple_custom_providers",
    "PILOT_SKIP_VALIDATE_TRUST_DOMAIN": "skip_validate_trust_domain",
}
"""Control-plane flags: environment of istiod, ``values.pilot.env`` (AP-81, PA-13)."""

_IGNORED = (
    *("proxyListenPort", "proxyInboundListenPort", "proxyHttpPort", "connectTimeout", "protocolDetectionTimeout"),
    *("tcpKeepalive", "ingressClass", "ingressService", "ingressControllerMode", "ingressSelector", "enableTracing"),
    *("accessLogFile", "accessLogFormat", "accessLogEncoding", "enableEnvoyAccessLogService"),
    *("disableEnvoyListenerLog", "outboundTrafficPolicy", "inboundTrafficPolicy", "configSources", "enableAutoMtls"),
    *("caCertificates", "defaultServiceExportTo", "defaultVirtualServiceExportTo", "defaultDestinationRuleExportTo"),
    *("localityLbSetting", "dnsRefreshRate", "h2UpgradePolicy", "inboundClusterStatName", "outboundClusterStatName"),
    *("certificates", "serviceSettings", "enablePrometheusMerge", "verifyCertificateAtClient", "ca"),
    *("defaultProviders", "discoverySelectors", "defaultHttpRetryPolicy", "meshMTLS", "tlsDefaults"),
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
    """VA-57."""
    if is_dns_name(value):
        return None
    advice = "expected dot-separated names of a-z, 0-9 and `-`, each at most 63 characters"
    return Fault("VA-57", f"`{value}` is not a trust domain", advice)


def _namespace(value: str) -> Fault | None:
    return None if value else Fault("RE-14", "the root namespace is empty", "remove it for `istio-system`")


def _normalization(node: Node, notes: Notes) -> PathNormalization:
    """DEFAULT is BASE (RE-14)."""
    if text_of(node) == "DEFAULT":
        return PathNormalization.BASE
    return _NORMALIZATIONS(node, notes)


_NORMALIZATIONS: Decoder[PathNormalization] = choice(
    PathNormalization, "a path normalisation", "RE-14", PathNormalization.BASE
)


def _no_connection_settings(node: Node, notes: Notes) -> None:
    """Section 10: it could override the mesh's normalisation for one proxy."""
    message = "`connectionSettings` can change path normalisation for one proxy, which is not supported"
    notes.error("PN-1", node, message, "remove it and set `pathNormalization` for the mesh")


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
        "connectionSettings": Field("", _no_connection_settings),
        **{name: _ignored(name) for name in _IGNORED_PROXY},
    },
    _ProxyConfig,
)
_NORMALIZATION: Shape[_Normalization] = Shape(
    "a path normalisation", {"normalization": Field("normalization", _normalization)}, _Normalization
)


def _mesh_config(
    path_normalization: _Normalization = _Normalization(),  # noqa: B008  # a frozen value
    default_config: _ProxyConfig = _ProxyConfig(),  # noqa: B008  # a frozen value
    **others: Any,
) -> MeshConfig:
    return MeshConfig(
        path_normalization=path_normalization.normalization,
        num_trusted_proxies=default_config.topology.trusted_proxies,
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
        "defaultConfig": Field("default_config", _PROXY_CONFIG.decode),
        **{name: _ignored(name) for name in _IGNORED},
    },
    _mesh_config,
)


# --- where it stands -------------------------------------------------------------------------------------------------


class _Found(NamedTuple):
    """A mapping that is a MeshConfig, and the environment of istiod beside it."""

    document: Document
    config: Node | None
    environment: reading.Mapping | None = None
    resource: str = ""


def read_mesh(
    file: str, data: bytes, *, multiple_custom_providers: bool | None = None
) -> tuple[MeshConfig, tuple[Problem, ...]]:
    """
    Read the mesh settings of a file.

    Args:
        file: name that appears in places.
        data: YAML in one of Istio's forms; without a MeshConfig in it Istio's defaults hold, which is remarked.
        multiple_custom_providers: the control-plane flag of AP-81, winning over what the file says.

    Returns:
        The settings, meaningful only if no problem is an error, and the sorted problems. Raises nothing.
    """
    problems: list[Problem] = []
    mesh: MeshConfig | None = None
    first: _Found | None = None
    for found in _search(file, data, problems):
        notes = Notes(found.document, problems, found.resource)
        if first is not None:
            before = notes.place(first.document.root)
            notes.error("RE-14", found.document.root, f"the mesh settings are given twice, first at {before}")
            continue
        first = found
        mesh = MESH_CONFIG.decode(found.config, notes) if found.config is not None else MeshConfig()
        mesh = _with_flags(mesh, found.environment, notes)
    if mesh is None:
        mesh = MeshConfig()
        if not any(problem.is_error for problem in problems) and data.strip():
            problems.append(_nothing_found(file, data))
    if multiple_custom_providers is not None:
        mesh = replace(mesh, multiple_custom_providers=multiple_custom_providers)
    return mesh, sort_problems(problems)


def _nothing_found(file: str, data: bytes) -> Problem:
    """A description of workloads may do without settings; a file without both was hardly meant."""
    message = "no MeshConfig found; Istio's defaults hold"
    if b"networking.istio.io/" in data:
        return Problem(Severity.INFO, "RE-14", message, Location(file))
    advice = "expected its fields, the ConfigMap `istio`, an IstioOperator, or Helm values with `meshConfig`"
    return Problem(Severity.WARNING, "RE-14", message, Location(file), help=advice)


def _search(file: str, data: bytes, problems: list[Problem]) -> Iterator[_Found]:
    for document in read_documents(file, data, problems):
        root = document.root
        if not isinstance(root, reading.Mapping):
            Notes(document, problems).error("RE-14", root, "a document is no mapping", "expected a MeshConfig")
            continue
        kind = text_of(root.entries.get("kind"))
        if kind == "ConfigMap":
            yield from _in_config_map(document, root, data, problems)
        elif kind == "IstioOperator":
            spec = given(root, "spec")
            values = given(spec, "values") if isinstance(spec, reading.Mapping) else None
            if isinstance(spec, reading.Mapping):
                yield _Found(document, given(spec, "meshConfig"), _environment(values), "IstioOperator")
        elif kind == "ProxyConfig":
            _check_proxy_config(document, root, problems)
        elif "kind" not in root.entries and "apiVersion" not in root.entries:
            if "meshConfig" in root.entries or "pilot" in root.entries:
                yield _Found(document, given(root, "meshConfig"), _environment(root))
            else:
                yield _Found(document, root)


def _in_config_map(document: Document, root: reading.Mapping, data: bytes, problems: list[Problem]) -> Iterator[_Found]:
    """The ConfigMap ``istio``, or ``istio-<revision>``, with the settings as text."""
    metadata, held = given(root, "metadata"), given(root, "data")
    name = text_of(given(metadata, "name")) if isinstance(metadata, reading.Mapping) else None
    mesh = given(held, "mesh") if isinstance(held, reading.Mapping) else None
    if mesh is None or not name or not (name == "istio" or name.startswith("istio-")):
        return
    if not isinstance(mesh, Scalar) or mesh.kind is not Kind.TEXT:
        Notes(document, problems, f"ConfigMap {name}").error("RE-14", mesh, "`data.mesh` is a text with YAML in it")
        return
    prefix = f"{document.prefix}.data.mesh" if document.prefix else "data.mesh"
    embedded = read_documents(document.file, mesh.value.encode(), problems, origin=_origin(mesh, data))
    for inner in embedded:
        yield _Found(replace(inner, number=document.number, prefix=prefix), inner.root, None, f"ConfigMap {name}")


def _origin(mesh: Scalar, data: bytes) -> tuple[int, int]:
    """Where an embedded text begins: below its ``|``, indented; a quoted text only tells its line."""
    if mesh.style not in ("|", ">"):
        return mesh.line, 1
    lines = data.decode("utf-8").splitlines()
    written = next((line for line in lines[mesh.line :] if line.strip()), "")
    text_line = next((line for line in mesh.value.splitlines() if line.strip()), "")
    indented = len(written) - len(written.lstrip()) - (len(text_line) - len(text_line.lstrip()))
    return mesh.line + 1, indented + 1


def _check_proxy_config(document: Document, root: reading.Mapping, problems: list[Problem]) -> None:
    spec = given(root, "spec")
    settings = given(spec, "connectionSettings") if isinstance(spec, reading.Mapping) else None
    if settings is not None:
        _no_connection_settings(settings, Notes(document, problems, "ProxyConfig"))


def _environment(values: Node | None) -> reading.Mapping | None:
    """``pilot.env`` of Helm values."""
    pilot = given(values, "pilot") if isinstance(values, reading.Mapping) else None
    env = given(pilot, "env") if isinstance(pilot, reading.Mapping) else None
    return env if isinstance(env, reading.Mapping) else None


def _with_flags(mesh: MeshConfig, environment: reading.Mapping | None, notes: Notes) -> MeshConfig:
    """The control-plane flags, written as booleans or as text."""
    for name, attribute in _FLAGS.items():
        node = given(environment, name) if environment is not None else None
        if node is None:
            continue
        value = node.value.lower() if isinstance(node, Scalar) else ""
        if value not in ("true", "false", "1", "0"):
            notes.error("RE-14", node, f"`{name}` is true or false")
        flags: dict[str, Any] = {attribute: value in ("true", "1")}
        mesh = replace(mesh, **flags)
    return mesh

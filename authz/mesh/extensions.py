"""
Extensions as nouns: what EnvoyFilters and WasmPlugins of a mesh description say.

Values of patches stay plain data here, with the place of every part: Envoy's types are known to ``envoy.patches`` only.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from authz.core.attributes import Json
from authz.core.errors import NOWHERE, Location, Problem, Severity

WEAKENS = "mesh.authz/weakens-enforcement"
"""Annotation on an EnvoyFilter: the reason why it may change what enforces policies."""
ISTIO_VERSION = "1.31.0"
"""The version of Istio whose meaning the proxies have, and which ``proxyVersion`` of a patch is compared with."""
VIRTUAL_INBOUND = "virtualInbound"
"""Istio's one listener of everything that comes in; here each port has a listener of its own."""


@dataclass(frozen=True, slots=True)
class WrittenAt:
    """Where something was written, for problems that are found long after reading."""

    location: Location = field(default=NOWHERE, compare=False)
    document: int = 0
    resource: str = ""
    path: str = ""

    def problem(self, code: str, message: str, help_text: str = "", severity: Severity = Severity.ERROR) -> Problem:
        """A problem at this place."""
        return Problem(severity, code, message, self.location, self.document, self.resource, self.path, help_text)


@dataclass(frozen=True, slots=True)
class WrittenValue:
    """
    A value as it was written: plain data, and the places of its parts by their path below it.

    ``keys`` are the places of the names of fields, ``places`` those of their values; the path of the whole is empty.
    """

    data: Json
    origin: WrittenAt
    places: Mapping[str, Location] = field(default_factory=dict)
    keys: Mapping[str, Location] = field(default_factory=dict)
    _exact: str = field(init=False, repr=False)
    """Python takes ``1``, ``1.0`` and ``true`` for equal, and a proxy does not: values are compared as texts, too."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "_exact", repr(self.data))

    def at(self, path: str, *, key: bool = False) -> WrittenAt:
        """The origin of a part."""
        own = self.origin
        place = (self.keys if key else self.places).get(path) or self.places.get(path, own.location)
        below = path if not path or path.startswith("[") else f".{path}"
        return WrittenAt(place, own.document, own.resource, f"{own.path}{below}")


class ApplyTo(StrEnum):
    """The sort of object that a patch changes."""

    LISTENER = "LISTENER"
    FILTER_CHAIN = "FILTER_CHAIN"
    NETWORK_FILTER = "NETWORK_FILTER"
    HTTP_FILTER = "HTTP_FILTER"
    ROUTE_CONFIGURATION = "ROUTE_CONFIGURATION"
    VIRTUAL_HOST = "VIRTUAL_HOST"
    HTTP_ROUTE = "HTTP_ROUTE"
    CLUSTER = "CLUSTER"
    LISTENER_FILTER = "LISTENER_FILTER"


class PatchOperation(StrEnum):
    """What a patch does."""

    MERGE = "MERGE"
    ADD = "ADD"
    REMOVE = "REMOVE"
    INSERT_BEFORE = "INSERT_BEFORE"
    INSERT_AFTER = "INSERT_AFTER"
    INSERT_FIRST = "INSERT_FIRST"
    REPLACE = "REPLACE"
    MERGE_AND_REPLACE_LIST = "MERGE_AND_REPLACE_LIST"

    @property
    def is_merge(self) -> bool:
        """Whether the value is merged into what is there."""
        return self in (PatchOperation.MERGE, PatchOperation.MERGE_AND_REPLACE_LIST)


class PatchContext(StrEnum):
    """Which side of a proxy a patch is for."""

    ANY = "ANY"
    SIDECAR_INBOUND = "SIDECAR_INBOUND"
    SIDECAR_OUTBOUND = "SIDECAR_OUTBOUND"
    GATEWAY = "GATEWAY"


class RouteActionKind(StrEnum):
    """What a route does, for matches."""

    ANY = "ANY"
    ROUTE = "ROUTE"
    REDIRECT = "REDIRECT"
    DIRECT_RESPONSE = "DIRECT_RESPONSE"


@dataclass(frozen=True, slots=True)
class ListenerMatch:
    """``match.listener``; empty texts and zeros match everything, None means that nothing was said."""

    port: int = 0
    name: str = ""
    listener_filter: str = ""
    chain: str = ""
    sni: str = ""
    transport_protocol: str = ""
    application_protocols: tuple[str, ...] = ()
    destination_port: int = 0
    filter: str | None = None
    sub_filter: str | None = None


@dataclass(frozen=True, slots=True)
class RouteTableMatch:
    """``match.routeConfiguration``."""

    name: str = ""
    port: int = 0
    port_name: str = ""
    gateway: str = ""
    has_vhost: bool = False
    vhost: str = ""
    domain: str = ""
    has_route: bool = False
    route: str = ""
    action: RouteActionKind = RouteActionKind.ANY


@dataclass(frozen=True, slots=True)
class ClusterMatch:
    """``match.cluster``; a name alone decides, as in Istio."""

    name: str = ""
    service: str = ""
    subset: str = ""
    port: int = 0


@dataclass(frozen=True, slots=True)
class ConfigPatch:
    """One ``configPatches[]``; at most one of the three matches is there."""

    apply_to: ApplyTo
    operation: PatchOperation
    origin: WrittenAt
    value: WrittenValue | None = None
    """None only with REMOVE."""
    context: PatchContext = PatchContext.ANY
    proxy_version: str = ""
    proxy_metadata: Mapping[str, str] = field(default_factory=dict)
    listener: ListenerMatch | None = None
    route_table: RouteTableMatch | None = None
    cluster: ClusterMatch | None = None


@dataclass(frozen=True, slots=True)
class EnvoyFilter:
    """An EnvoyFilter: patches for the proxies that it selects."""

    name: str
    namespace: str
    patches: tuple[ConfigPatch, ...]
    origin: WrittenAt = field(default_factory=WrittenAt)
    labels: Mapping[str, str] | None = None
    """None selects every workload."""
    priority: int = 0
    weakens: str = ""
    """The reason why it may weaken enforcement; empty: it must not."""
    created: str = ""
    """``metadata.creationTimestamp`` of YAML that came from a cluster: there the older one is first."""


class PluginPhase(StrEnum):
    """Where among the other filters a plugin stands."""

    UNSPECIFIED_PHASE = "UNSPECIFIED_PHASE"
    AUTHN = "AUTHN"
    AUTHZ = "AUTHZ"
    STATS = "STATS"


class FailStrategy(StrEnum):
    """What happens to requests when a plugin fails."""

    FAIL_CLOSE = "FAIL_CLOSE"
    FAIL_OPEN = "FAIL_OPEN"
    FAIL_RELOAD = "FAIL_RELOAD"


class WorkloadMode(StrEnum):
    """On which side of a proxy a plugin runs; a gateway's listeners are its clients' side, as in Istio."""

    CLIENT = "CLIENT"
    SERVER = "SERVER"
    CLIENT_AND_SERVER = "CLIENT_AND_SERVER"


@dataclass(frozen=True, slots=True)
class WasmPlugin:
    """A WasmPlugin with a local module."""

    name: str
    namespace: str
    file: str
    """Path of the module on the proxy's host."""
    origin: WrittenAt = field(default_factory=WrittenAt)
    labels: Mapping[str, str] | None = None
    """None selects every workload."""
    config: str = ""
    """The plugin's configuration as JSON text; empty: none."""
    plugin_name: str = ""
    phase: PluginPhase = PluginPhase.UNSPECIFIED_PHASE
    priority: int | None = None
    """The higher comes first; without one a plugin comes after those that have one."""
    fail: FailStrategy = FailStrategy.FAIL_CLOSE
    environment: Mapping[str, str] = field(default_factory=dict)
    host_environment: tuple[str, ...] = ()
    """Variables of the proxy's own environment that the plugin sees."""
    match: tuple[tuple[WorkloadMode, tuple[int, ...]], ...] = ()
    """Sides and ports; no ports: all of them. Empty: everywhere."""
    created: str = ""
    """As that of an EnvoyFilter."""

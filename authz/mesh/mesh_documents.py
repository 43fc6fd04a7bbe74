"""The documents of a mesh description as written, before they are tied together."""

from collections.abc import Iterable
from dataclasses import dataclass, field, fields

from authz.core.errors import Problem
from authz.core.resources import MeshConfig
from authz.documents.accessors import Part
from authz.mesh.extensions import EnvoyFilter, WasmPlugin
from authz.mesh.nouns import (
    GatewayServer,
    InboundPort,
    MeshService,
    MeshWorkload,
    OutboundPort,
)
from authz.mesh.rate_limits import RateLimitPolicy
from authz.mesh.telemetry_kind import SpanTag, TelemetryMode, TelemetryProviders
from authz.mesh.traffic_policy import DestinationRule
from authz.mesh.virtual_service import HttpRoute, RouteDestination, VirtualService


@dataclass(frozen=True, slots=True)
class EgressListener:
    """One of a Sidecar's ``egress`` as written, before its hosts are found."""

    port: OutboundPort
    hosts: tuple[tuple[str, str], ...]
    """Namespace and host, each of which may be ``*``; a namespace with ``~`` excludes."""
    part: Part


@dataclass(frozen=True, slots=True)
class Sidecar:
    """A Sidecar as written: which workloads, and their ports."""

    namespace: str
    labels: dict[str, str] | None
    """None: for every workload of its namespace that no other selects."""
    inbound: tuple[tuple[InboundPort, Part], ...]
    outbound: tuple[EgressListener, ...]
    leaves: bool | None
    """Whether hosts that are not described may be asked for; None: where the mesh has an egress gateway."""
    part: Part


@dataclass(frozen=True, slots=True)
class Gateway:
    """A Gateway as written; routes come from VirtualServices."""

    namespace: str
    name: str
    labels: dict[str, str]
    servers: tuple[tuple[GatewayServer, Part], ...]
    part: Part


@dataclass(frozen=True, slots=True)
class WrittenVirtualService:
    """A VirtualService as written, with the places of what it refers to."""

    service: VirtualService
    part: Part
    http: tuple[Part, ...]
    destinations: tuple[tuple[RouteDestination, Part], ...]
    delegates: tuple[tuple[tuple[str, str], Part], ...]
    unreached: "tuple[UnreachedRoute, ...] | None" = field(default=None, compare=False, repr=False)
    """What is told of its routes alone, found out once; None: not yet."""


UnreachedRoute = tuple[HttpRoute, Part, str, str, str]
"""A route that no request takes, or a match of it: with its part, what is wrong, the field, and what to do."""


@dataclass(frozen=True, slots=True)
class WrittenGroup:
    """A WorkloadGroup as written: what its WorkloadEntries have unless they say something else."""

    name: str
    template: MeshWorkload
    """Its address is empty."""
    given: frozenset[str]
    """Fields of the template that are there."""
    part: Part


@dataclass(frozen=True, slots=True)
class LogRule:
    """One ``accessLogging[]`` of a Telemetry; ``providers`` are names with their places."""

    mode: TelemetryMode
    providers: tuple[tuple[str, Part], ...]
    is_disabled: bool
    expression: str
    part: Part


@dataclass(frozen=True, slots=True)
class SpanRule:
    """One ``tracing[]`` of a Telemetry; None is what is not written and inherited."""

    mode: TelemetryMode
    providers: tuple[tuple[str, Part], ...]
    is_disabled: bool | None
    sampling_percent: float | None
    tags: dict[str, SpanTag] | None
    samples_by_request_id: bool | None
    has_istio_tags: bool | None
    is_silent: bool | None
    part: Part


@dataclass(frozen=True, slots=True)
class WrittenTelemetry:
    """A Telemetry as written: which workloads, and the rules of logs and spans."""

    name: str
    namespace: str
    created: str
    labels: dict[str, str]
    gateways: tuple[str, ...] | None
    """Names of gateways that are targets; None: the labels select."""
    logs: tuple[LogRule, ...]
    spans: tuple[SpanRule, ...]
    part: Part

    @property
    def is_wide(self) -> bool:
        """Whether it is for all workloads of its namespace."""
        return not self.labels and self.gateways is None


@dataclass(slots=True)
class Written:
    """What was read of some documents, or of all, before they are tied together."""

    config: MeshConfig = field(default_factory=MeshConfig)
    config_part: Part | None = None
    """Where the settings are; None where they are not."""
    workloads: list[tuple[MeshWorkload, Part]] = field(default_factory=list)
    services: list[tuple[MeshService, Part]] = field(default_factory=list)
    sidecars: list[Sidecar] = field(default_factory=list)
    gateways: list[Gateway] = field(default_factory=list)
    virtual_services: list[WrittenVirtualService] = field(default_factory=list)
    destination_rules: list[tuple[DestinationRule, Part]] = field(default_factory=list)
    envoy_filters: list[tuple[EnvoyFilter, Part]] = field(default_factory=list)
    wasm_plugins: list[tuple[WasmPlugin, Part]] = field(default_factory=list)
    rate_limits: list[tuple[RateLimitPolicy, Part]] = field(default_factory=list)
    groups: list["WrittenGroup"] = field(default_factory=list)
    telemetries: list[WrittenTelemetry] = field(default_factory=list)
    telemetry_providers: TelemetryProviders = field(default_factory=TelemetryProviders)
    problems: list[Problem] = field(default_factory=list)
    data: bytes = b""
    """The file that is being read, in which YAML within its YAML is located."""
    noting: list[list[Problem]] = field(default_factory=list)
    """Where the documents that were put together here note their problems."""
    documents: int = 0
    own_problems: int = 0
    """How many problems were found in the documents alone; tying them together finds more."""

    @property
    def noted(self) -> int:
        """How many problems there are by now, of all documents."""
        return len(self.problems) + sum(map(len, self.noting))


_OF_PROBLEMS = ("problems", "noting")


def joined(parts: Iterable[Written]) -> Written:
    """Put together what was read in parts; problems stay where they are, and the parts still note theirs there."""
    made = Written()
    lists = [
        one.name
        for one in fields(Written)
        if isinstance(getattr(made, one.name), list) and one.name not in _OF_PROBLEMS
    ]
    for part in parts:
        for name in lists:
            if found := getattr(part, name):
                getattr(made, name).extend(found)
        made.noting.append(part.problems)
        if part.config_part is not None:
            if made.config_part is None:
                made.config, made.config_part = part.config, part.config_part
                made.telemetry_providers = part.telemetry_providers
            else:
                note_second_settings(part.config_part, made)
    return made


def note_second_settings(part: Part, written: Written) -> None:
    """Say that there are settings already."""
    assert written.config_part is not None
    part.note("ME-5", f"the mesh settings are given twice, first at {written.config_part.location}")

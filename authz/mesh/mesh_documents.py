"""The documents of a mesh description as written, before they are tied together."""

from dataclasses import dataclass, field

from authz.core.errors import NOWHERE, Location, Problem
from authz.core.resources import MeshConfig
from authz.documents.accessors import Part
from authz.mesh.nouns import (
    GatewayServer,
    InboundPort,
    MeshService,
    MeshWorkload,
    OriginatedTls,
    OutboundPort,
    RouteHost,
)


@dataclass(frozen=True, slots=True)
class Sidecar:
    """A Sidecar as written: which workloads, and their ports."""

    namespace: str
    labels: dict[str, str]
    inbound: tuple[tuple[InboundPort, Part], ...]
    outbound: tuple[tuple[OutboundPort, Part], ...]
    part: Part


@dataclass(frozen=True, slots=True)
class Gateway:
    """A Gateway as written; routes come from VirtualServices."""

    namespace: str
    name: str
    labels: dict[str, str]
    servers: tuple[GatewayServer, ...]
    part: Part


@dataclass(frozen=True, slots=True)
class VirtualService:
    """A VirtualService as written; ``gateways`` are ``namespace/name``."""

    gateways: tuple[str, ...]
    routes: RouteHost
    part: Part


@dataclass(slots=True)
class Written:
    """Everything that was read, before the documents are tied together."""

    config: MeshConfig = field(default_factory=MeshConfig)
    config_at: Location = NOWHERE
    workloads: list[tuple[MeshWorkload, Part]] = field(default_factory=list)
    services: list[tuple[MeshService, Part]] = field(default_factory=list)
    sidecars: list[Sidecar] = field(default_factory=list)
    gateways: list[Gateway] = field(default_factory=list)
    virtual_services: list[VirtualService] = field(default_factory=list)
    rules: list[tuple[str, OriginatedTls, Part]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    data: bytes = b""
    """The file that is being read, in which YAML within its YAML is located."""

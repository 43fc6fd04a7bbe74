"""
What patches change: the listeners, clusters and route tables of one proxy, with what matches may ask about them.

All of them are messages in protobuf's JSON with the names of Envoy's documentation, as they are written to files.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from authz.envoy.patches.typed_values import TYPE, Tree
from authz.mesh.extensions import PatchContext

MANAGER = "envoy.filters.network.http_connection_manager"
MANAGER_TYPE = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
LISTENER_TYPE = "type.googleapis.com/envoy.config.listener.v3.Listener"
CLUSTER_TYPE = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
TABLE_TYPE = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"


@dataclass(frozen=True, slots=True)
class Standing:
    """What a listener, or a route table, is for."""

    context: PatchContext
    ports: tuple[int, ...] = ()
    """The port that it binds; on the way out also the service's, which Istio's listeners bind."""
    names: tuple[str, ...] = ()
    """Names by which Istio's users know it, besides its own."""
    port_name: str = ""
    gateways: tuple[str, ...] = ()
    """``namespace/name`` of the Gateways that it serves."""


UNPLACED = Standing(PatchContext.ANY)


@dataclass(frozen=True, slots=True)
class ProxyResources:
    """The resources of one proxy; ``standings`` and ``route_standings`` are by name."""

    listeners: list[Tree] = field(default_factory=list)
    clusters: list[Tree] = field(default_factory=list)
    route_tables: list[Tree] = field(default_factory=list)
    """Those that are not written in a listener."""
    standings: Mapping[str, Standing] = field(default_factory=dict)
    route_standings: Mapping[str, Standing] = field(default_factory=dict)
    control: frozenset[str] = frozenset()
    """Names of the clusters behind which decisions, keys and records are: no patch sees them."""
    private: frozenset[str] = frozenset()
    """Names of those among them to which no request may be led."""
    services: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Hosts of the services behind a cluster whose name does not say it, by the cluster's name."""

    taken: frozenset[int] = frozenset()
    """Ports of the whole mesh, which may run on one machine: nobody else listens there."""
    rendered: frozenset[str] = frozenset()
    """Names of the clusters as they were without extensions."""

    def standing_of(self, listener: Tree) -> Standing:
        """What a listener is for; one that nobody said anything about is for no side, and guarded."""
        return self.standings.get(str(listener.get("name")), UNPLACED)


@dataclass(frozen=True, slots=True)
class ProxySelf:
    """What a proxy says of itself, for selectors and ``match.proxy``."""

    namespace: str
    labels: Mapping[str, str]
    metadata: Mapping[str, str] = field(default_factory=dict)
    root_namespace: str = "istio-system"


def chains_of(listener: Tree) -> list[Tree]:
    """The filter chains of a listener, the default one last."""
    found = items(listener, "filter_chains")
    default = listener.get("default_filter_chain")
    return [*found, default] if isinstance(default, dict) else found


def items(holder: Tree, name: str) -> list[Tree]:
    """The messages of a repeated field."""
    held = holder.get(name)
    return [one for one in held if isinstance(one, dict)] if isinstance(held, list) else []


def part(holder: Tree, name: str) -> Tree:
    """The message in a field; an empty one where there is none."""
    held = holder.get(name)
    return held if isinstance(held, dict) else {}


def type_of(holder: Tree) -> str:
    """The type of an extension's configuration; empty where it has none."""
    return str(part(holder, "typed_config").get(TYPE, ""))


def is_manager(network_filter: Tree) -> bool:
    """Whether a network filter is the HTTP connection manager; Envoy goes by the type, not by the name."""
    return type_of(network_filter) == MANAGER_TYPE


def managers_of(listener: Tree) -> Iterator[Tree]:
    """The configuration of every HTTP connection manager of a listener."""
    for chain in chains_of(listener):
        for one in items(chain, "filters"):
            if is_manager(one):
                yield part(one, "typed_config")


def plain_resources(listeners: Any, clusters: Any, tables: Any) -> ProxyResources:  # JSON of messages
    """Resources that nobody said anything about."""
    names = frozenset(str(cluster["name"]) for cluster in clusters)
    return ProxyResources(list(listeners), list(clusters), list(tables), rendered=names)


def as_resources(url: str, messages: Iterable[Tree]) -> list[dict[str, object]]:
    """Messages as resources of a discovery file, ``@type`` first."""
    return [{TYPE: url, **one} for one in messages]

"""Which objects a patch is for: istiod's conditions, on listeners that have a port each."""

import re

from authz.envoy.patches.proxy_resources import ProxySelf, Standing, items, part
from authz.envoy.patches.typed_values import Tree
from authz.mesh.extensions import (
    ISTIO_VERSION,
    VIRTUAL_INBOUND,
    ClusterMatch,
    ConfigPatch,
    ListenerMatch,
    PatchContext,
    RouteActionKind,
    RouteTableMatch,
)

_ACTIONS = {
    "route": RouteActionKind.ROUTE,
    "redirect": RouteActionKind.REDIRECT,
    "direct_response": RouteActionKind.DIRECT_RESPONSE,
}


def is_for_proxy(patch: ConfigPatch, proxy: ProxySelf) -> bool:
    """Whether ``match.proxy`` fits: the version, anywhere in it, and each of the metadata."""
    if patch.proxy_version and not re.search(patch.proxy_version, ISTIO_VERSION):
        return False
    return all(proxy.metadata.get(name) == value for name, value in patch.proxy_metadata.items())


def is_in_context(patch: ConfigPatch, context: PatchContext) -> bool:
    """Whether a patch is for this side of a proxy."""
    return patch.context in (context, PatchContext.ANY)


def is_listener(match: ListenerMatch | None, listener: Tree, standing: Standing) -> bool:
    """Whether a listener is meant; ``virtualInbound`` means each that receives for a sidecar's application."""
    if match is None:
        return True
    if match.name and match.name not in (listener.get("name"), *standing.names):
        return match.name == VIRTUAL_INBOUND and standing.context is PatchContext.SIDECAR_INBOUND
    return match.port in (0, *standing.ports)


def is_chain(match: ListenerMatch | None, chain: Tree, standing: Standing) -> bool:
    """Whether a filter chain of a listener that was found is meant."""
    if match is None:
        return True
    own = part(chain, "filter_chain_match")
    if match.name == VIRTUAL_INBOUND and match.port not in (0, *standing.ports):
        return False
    if match.chain and match.chain != chain.get("name"):
        return False
    if match.sni and match.sni not in _texts(own, "server_names"):
        return False
    if match.transport_protocol and match.transport_protocol != own.get("transport_protocol"):
        return False
    protocols = _texts(own, "application_protocols")
    if any(one not in protocols for one in match.application_protocols):
        return False
    # Istio's chains of one listener differ by it; here a listener is of one port.
    number = own.get("destination_port")
    return match.destination_port in (0, *(standing.ports if number is None else (number,)))


def is_network_filter(match: ListenerMatch | None, network_filter: Tree) -> bool:
    """Whether a network filter is meant; without a name every one is."""
    return match is None or match.filter is None or match.filter == network_filter.get("name")


def is_http_filter(match: ListenerMatch | None, http_filter: Tree) -> bool:
    """Whether an HTTP filter is meant; without a name every one is."""
    return match is None or match.sub_filter is None or match.sub_filter == http_filter.get("name")


def is_route_table(match: RouteTableMatch | None, table: Tree, standing: Standing) -> bool:
    """Whether a route table is meant: by name and port, at gateways also by server and Gateway."""
    if match is None:
        return True
    if match.name and match.name not in (table.get("name"), *standing.names):
        return False
    if standing.context is PatchContext.GATEWAY:
        if match.port_name and match.port_name != standing.port_name:
            return False
        if match.gateway and match.gateway not in standing.gateways:
            return False
    return match.port in (0, *standing.ports)


def is_virtual_host(match: RouteTableMatch | None, host: Tree) -> bool:
    """Whether a virtual host of a table that was found is meant."""
    if match is None or not match.has_vhost:
        return True
    if match.vhost and match.vhost != host.get("name"):
        return False
    return not match.domain or match.domain in _texts(host, "domains")


def is_route(match: RouteTableMatch | None, route: Tree) -> bool:
    """Whether a route of a virtual host that was found is meant."""
    if match is None or not match.has_route:
        return True
    if match.route and match.route != route.get("name"):
        return False
    if match.action is RouteActionKind.ANY:
        return True
    # istiod compares with what it makes; any other action matches every kind.
    return all(kind is match.action for name, kind in _ACTIONS.items() if name in route)


def is_cluster(match: ClusterMatch | None, cluster: Tree, hosts: tuple[str, ...]) -> bool:
    """Whether a cluster is meant; ``hosts`` are those of the services behind one whose name does not say it."""
    if match is None:
        return True
    name = str(cluster.get("name", ""))
    if match.name:
        return match.name == name
    pieces = name.split("|")
    direction, port, subset, host = pieces if len(pieces) == 4 else ("", "", "", "")
    behind = hosts if direction == "inbound" and hosts else (host,)
    if match.subset and match.subset != subset:
        return False
    if match.service and match.service not in behind:
        return False
    return match.port == 0 or str(match.port) == port


def _texts(holder: Tree, name: str) -> list[object]:
    held = holder.get(name)
    return list(held) if isinstance(held, list) else []


def bound_hosts(listener: Tree) -> list[str]:
    """The addresses that a listener binds: IP addresses; a socket, or something else, by a word for it."""
    addresses = [part(listener, "address"), *(part(one, "address") for one in items(listener, "additional_addresses"))]
    found = []
    for address in addresses:
        held = part(address, "socket_address").get("address")
        found.append(str(held) if held else "unix" if "pipe" in address else "none")
    return found

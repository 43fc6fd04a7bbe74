"""Clusters before and after: whom a proxy speaks to, and how it knows them; those of control stay as they are."""

from collections.abc import Iterator

from authz.envoy.patches import free_fields
from authz.envoy.patches.proxy_resources import ProxyResources, items, managers_of, part
from authz.envoy.patches.typed_values import TYPE, Tree
from authz.envoy.patches.weakening import Weakening, broken, changed_fields, refused

_OPTIONS = "typed_extension_protocol_options"
_UPSTREAM = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def compare_clusters(before: ProxyResources, after: ProxyResources) -> Iterator[Weakening]:
    """Compare by name; a cluster that is removed leads nowhere, which weakens nothing unless it is one of control."""
    own = {str(cluster.get("name")): cluster for cluster in before.clusters}
    seen: set[str] = set()
    for cluster in after.clusters:
        name = str(cluster.get("name"))
        place = f"cluster `{name}`"
        if name in seen:
            yield broken(
                place, "there are two of this name", "choose another name, or MERGE into the one that is there"
            )
        seen.add(name)
        if name not in own and name in before.control:
            yield broken(place, "the proxy has one of this name from its start", "choose another name")
        elif name not in own:
            yield from _added(place, cluster)
        elif cluster != own[name]:
            yield from _changed(place, own[name], cluster, closed=name in before.control)
    for name in sorted(before.control - seen):
        if name in own:
            yield refused(f"cluster `{name}`", "is removed")


def _changed(place: str, before: Tree, after: Tree, *, closed: bool) -> Iterator[Weakening]:
    free = frozenset() if closed else free_fields.CLUSTER
    for name in changed_fields(before, after, free):
        if name != _OPTIONS or closed:
            yield refused(place, f"`{name}` changes", "", after.get(name))
            continue
        own, now = part(before, name), part(after, name)
        for key in dict.fromkeys([*own, *now]):
            old, new = part(own, key), part(now, key)
            if old.get(TYPE, _UPSTREAM) != new.get(TYPE, _UPSTREAM) or new.get(TYPE, _UPSTREAM) != _UPSTREAM:
                yield refused(place, f"`{name}[{key}]` changes", "", new)
                continue
            for inner in changed_fields(old, new, free_fields.UPSTREAM_OPTIONS | {TYPE}):
                yield refused(place, f"`{name}[{key}].{inner}` changes", "", new.get(inner))


def _added(place: str, cluster: Tree) -> Iterator[Weakening]:
    """A new cluster says itself where it leads, to addresses and names, and to no socket of this host."""
    kind = cluster.get("type", "STATIC")
    if "cluster_type" in cluster or kind not in free_fields.ADDED_CLUSTER_TYPES:
        what = "where it leads is not said in it (its type)"
        yield refused(place, what, f"use one of {', '.join(sorted(free_fields.ADDED_CLUSTER_TYPES))}", cluster)
    if "load_balancing_policy" in cluster or cluster.get("lb_policy") == "CLUSTER_PROVIDED":
        yield refused(place, "its load balancing may lead elsewhere", "use `lb_policy`", cluster)
    for locality in items(part(cluster, "load_assignment"), "endpoints"):
        for one in items(locality, "lb_endpoints"):
            address = part(part(one, "endpoint"), "address")
            if "socket_address" not in address:
                what = "leads to a socket of this host, where administration and keys are"
                yield refused(place, what, "write `socket_address`", cluster)
        if "leds_cluster_locality_config" in locality or "load_balancer_endpoints" in locality:
            yield refused(place, "where it leads is not said in it (its endpoints)", "write `lb_endpoints`", cluster)


def compare_references(before: ProxyResources, after: ProxyResources) -> Iterator[Weakening]:
    """Clusters to which routes lead must be there."""
    missing = _referred(after) - {str(cluster.get("name")) for cluster in after.clusters}
    for name in sorted(missing - (_referred(before) - {str(cluster.get("name")) for cluster in before.clusters})):
        yield broken(
            f"cluster `{name}`", "a route leads there, and there is no such cluster", "add one, or lead elsewhere"
        )


def _referred(resources: ProxyResources) -> set[str]:
    tables = [*resources.route_tables]
    found: set[str] = set()
    for listener in resources.listeners:
        tables += [part(manager, "route_config") for manager in managers_of(listener)]
    for table in tables:
        for host in items(table, "virtual_hosts"):
            for route in items(host, "routes"):
                action = part(route, "route")
                weighted = [one.get("name") for one in items(part(action, "weighted_clusters"), "clusters")]
                mirrored = [one.get("cluster") for one in items(action, "request_mirror_policies")]
                found |= {str(name) for name in (action.get("cluster"), *weighted, *mirrored) if name}
    return found

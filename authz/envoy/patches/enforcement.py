"""
Whether patched resources enforce what they enforced before: the results are compared, not the patches read.

However a patch is put, by MERGE, REMOVE or three of them together, what comes out is a listener, a cluster, a route
table. In those that enforce, every difference is closed unless it stands among ``free_fields``; what is added is
judged by its type, since Envoy goes by types and a name says nothing.
"""

from collections.abc import Callable, Iterator, Sequence

from authz.envoy.patches import free_fields
from authz.envoy.patches.cluster_enforcement import compare_clusters, compare_references
from authz.envoy.patches.free_fields import FilterEffect
from authz.envoy.patches.patch_matches import bound_hosts
from authz.envoy.patches.proxy_resources import (
    MANAGER_TYPE,
    ProxyResources,
    is_manager,
    items,
    managers_of,
    part,
    type_of,
)
from authz.envoy.patches.route_enforcement import compare_tables, compare_written_files, reaching_private
from authz.envoy.patches.typed_values import Tree
from authz.envoy.patches.weakening import Weakening, broken, changed_fields, is_loopback, refused, said
from authz.mesh.extensions import PatchContext

ROUTER_TYPE = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
_TCP_PROXY_TYPE = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
_BINDING = (
    "address",
    "additional_addresses",
    "api_listener",
    "internal_listener",
    "udp_listener_config",
    "fcds_config",
)
"""Who can reach a listener."""


def compare(before: ProxyResources, after: ProxyResources) -> list[Weakening]:
    """
    Compare the resources of a proxy before and after patching, each difference once.

    Listeners of a sidecar for its own application (outbound, on loopback) enforce nothing; they may be changed at
    will, as long as nobody else can reach them.
    """
    found = [
        *_compare_listeners(before, after),
        *compare_clusters(before, after),
        *_compare_route_tables(before, after),
        *compare_written_files(before, after),
        *compare_references(before, after),
    ]
    return list(dict.fromkeys(found))


def _compare_listeners(before: ProxyResources, after: ProxyResources) -> Iterator[Weakening]:
    left: dict[str, Tree] = {}
    for listener in after.listeners:
        name = str(listener.get("name"))
        if name in left:
            yield broken(f"listener `{name}`", "there are two of this name", "choose another name")
        left[name] = listener
    own = {str(listener.get("name")) for listener in before.listeners}
    for listener in before.listeners:
        name = str(listener.get("name"))
        place = f"listener `{name}`"
        now = left.get(name)
        guarded = before.standing_of(listener).context is not PatchContext.SIDECAR_OUTBOUND
        if now is None:
            if guarded:
                yield refused(place, "is removed, or renamed")
        elif now != listener:
            yield from (
                _compare_guarded(place, listener, now, before)
                if guarded
                else _compare_open(place, listener, now, before)
            )
    for name, listener in left.items():
        if name not in own:
            yield from _added_listener(f"listener `{name}`", listener, before)


def _compare_open(place: str, before: Tree, after: Tree, resources: ProxyResources) -> Iterator[Weakening]:
    for name in _BINDING:
        if before.get(name) != after.get(name):
            help_text = "it is bound to loopback: whoever reaches it acts as this workload"
            yield refused(place, f"`{name}` changes", help_text, after.get(name))
    yield from _inner(place, after, before, resources)


def _added_listener(place: str, listener: Tree, resources: ProxyResources) -> Iterator[Weakening]:
    closed = [name for name in _BINDING[2:] if name in listener]
    if closed or not all(map(is_loopback, bound_hosts(listener))):
        help_text = "bind it to 127.0.0.1, or describe the port in a Sidecar or Gateway, where it is checked"
        yield refused(place, "is open to others, and nothing in it asks for a decision", help_text, listener)
    ports = {part(part(one, "address"), "socket_address").get("port_value") for one in _addresses(listener)}
    for port in sorted(one for one in ports if isinstance(one, int) and one in resources.taken):
        yield broken(place, f"the port {port} is one of a described listener", "choose another one")
    yield from _inner(place, listener, {}, resources)


def _addresses(listener: Tree) -> list[Tree]:
    return [listener, *items(listener, "additional_addresses")]


def _inner(place: str, after: Tree, before: Tree, resources: ProxyResources) -> Iterator[Weakening]:
    """What holds in a listener that enforces nothing: routers are last, and nothing leads to control."""
    private = resources.private
    for manager in managers_of(after):
        yield from _router_is_last(place, items(manager, "http_filters"))
    tables: Tree = {"tables": [part(one, "route_config") for one in managers_of(after)]}
    own: Tree = {"tables": [part(one, "route_config") for one in managers_of(before)]}
    yield from compare_tables(place, own, tables, frozenset(), private, inbound=False)
    if reaching_private(after, private) - reaching_private(before, private):
        yield refused(place, "leads to where decisions are made and keys are given out", "lead elsewhere", after)


def _compare_guarded(place: str, before: Tree, after: Tree, resources: ProxyResources) -> Iterator[Weakening]:
    special = frozenset({"filter_chains", "default_filter_chain", "listener_filters", "name"})
    inbound = resources.standing_of(before).context is PatchContext.SIDECAR_INBOUND
    yield from _fields(place, before, after, free_fields.LISTENER, special)
    yield from _sequence(
        place, "listener filter", before, after, "listener_filters", free_fields.listener_effect, _same
    )
    if before.get("default_filter_chain") != after.get("default_filter_chain"):
        yield refused(place, "`default_filter_chain` changes", "", after.get("default_filter_chain"))
    if reaching_private(after, resources.private) - reaching_private(before, resources.private):
        yield refused(place, "leads to where decisions are made and keys are given out", "lead elsewhere", after)
    left = items(after, "filter_chains")
    for chain in items(before, "filter_chains"):
        name = chain.get("name", "")
        inner = f"{place}, filter chain `{name}`"
        at = next((i for i, one in enumerate(left) if one.get("name", "") == name), None)
        if at is None:
            yield refused(inner, "is removed, or renamed")
            continue
        now = left.pop(at)
        if now != chain:
            yield from _fields(inner, chain, now, free_fields.CHAIN, frozenset({"filters"}))
            yield from _sequence(
                inner, "network filter", chain, now, "filters", free_fields.network_effect,
                lambda at, old, new: _network_filter(at, old, new, resources, inbound=inbound),
            )  # fmt: skip
    for chain in left:
        inner = f"{place}, filter chain `{chain.get('name', '')}`"
        yield refused(inner, "is added, and nothing in it asks for a decision", "", chain)


def _fields(
    place: str, before: Tree, after: Tree, free: frozenset[str], special: frozenset[str]
) -> Iterator[Weakening]:
    """Tree that are closed; lists that may only get longer."""
    for name in changed_fields(before, after, free | special):
        if name in free_fields.APPENDED:
            own, now = items(before, name), items(after, name)
            if now[: len(own)] == own:
                continue
        yield refused(place, f"`{name}` changes", "", after.get(name))


_Compared = Callable[[str, Tree, Tree], Iterator[Weakening]]


def _sequence(
    place: str,
    what: str,
    before: Tree,
    after: Tree,
    name: str,
    effect_of: Callable[[str], FilterEffect | None],
    compared: _Compared,
) -> Iterator[Weakening]:
    """Filters that were there stay, in their order; those that are added are judged by their type and place."""
    own, now = items(before, name), items(after, name)
    at = 0
    added: list[tuple[int, Tree]] = []
    for i, one in enumerate(now):
        if at < len(own) and one.get("name") == own[at].get("name"):
            if one != own[at]:
                yield from compared(f"{place}, {what} `{one.get('name')}`", own[at], one)
            at += 1
        else:
            added.append((i, one))
    for missing in own[at:]:
        yield refused(f"{place}, {what} `{missing.get('name')}`", "is removed, renamed or moved", "", [*now])
    deciding = max((i for i, one in enumerate(now) if one in own and type_of(one) not in _LAST), default=-1)
    for i, one in added:
        yield from _added_filter(f"{place}, {what} `{one.get('name')}`", one, effect_of, before=i < deciding)


_LAST = (ROUTER_TYPE, _TCP_PROXY_TYPE, MANAGER_TYPE)
"""Filters that do not decide, but forward."""


def _added_filter(
    place: str, one: Tree, effect_of: Callable[[str], FilterEffect | None], *, before: bool
) -> Iterator[Weakening]:
    effect = effect_of(type_of(one))
    if effect is None:
        help_text = "use another filter, or allow it by name"
        shown = type_of(one).rpartition("/")[2] or "no type of its own"
        yield refused(place, f"what it does to a checked request is not known ({shown})", help_text, one)
    elif effect is FilterEffect.AFTER and before:
        help_text = "insert it before `envoy.filters.http.router`, behind what decides"
        yield refused(place, "stands before what decides, and could make the decision its own", help_text, one)
    elif effect is not FilterEffect.NONE:
        where = "before they are checked" if before else "after they were allowed"
        yield said(place, f"can change requests {where}, or answer them by itself", one)


def _same(place: str, _before: Tree, after: Tree) -> Iterator[Weakening]:
    """A filter that must stay as it is."""
    yield refused(place, "changes", "", after)


def _network_filter(
    place: str, before: Tree, after: Tree, resources: ProxyResources, *, inbound: bool
) -> Iterator[Weakening]:
    own, now = part(before, "typed_config"), part(after, "typed_config")
    if type_of(before) != type_of(after) or type_of(before) not in _LAST:
        yield refused(place, "changes", "", after)
    elif not is_manager(before):
        yield from _fields(place, own, now, free_fields.TCP_PROXY, frozenset())
    else:
        yield from _manager(place, own, now, resources, inbound=inbound)


def _manager(place: str, before: Tree, after: Tree, resources: ProxyResources, *, inbound: bool) -> Iterator[Weakening]:
    special = frozenset({"http_filters", "route_config", "local_reply_config", *free_fields.INNER})
    yield from _fields(place, before, after, free_fields.MANAGER, special)
    for name, free in free_fields.INNER.items():
        for inner in changed_fields(part(before, name), part(after, name), free):
            yield refused(place, f"`{name}.{inner}` changes", "", part(after, name).get(inner))
    yield from _local_replies(place, part(before, "local_reply_config"), part(after, "local_reply_config"))
    yield from _sequence(place, "HTTP filter", before, after, "http_filters", free_fields.http_effect, _http_filter)
    yield from _router_is_last(place, items(after, "http_filters"))
    own, now = part(before, "route_config"), part(after, "route_config")
    if own:
        yield from compare_tables(place, own, now, protected_names(before), resources.private, inbound=inbound)
    elif now:
        yield refused(place, "`route_config` changes", "write the routes as patches of HTTP_ROUTE", now)


def _local_replies(place: str, before: Tree, after: Tree) -> Iterator[Weakening]:
    """Texts of answers are free; the entries by which denials are recorded stay first."""
    own = items(before, "mappers")
    if items(after, "mappers")[: len(own)] != own:
        yield refused(place, "`local_reply_config.mappers` changes", "", after)
    yield from compare_tables(f"{place}, `local_reply_config`", before, after, frozenset(), frozenset(), inbound=False)


def _http_filter(place: str, before: Tree, after: Tree) -> Iterator[Weakening]:
    if type_of(before) == ROUTER_TYPE == type_of(after):
        own, now = part(before, "typed_config"), part(after, "typed_config")
        for name in changed_fields(own, now, free_fields.ROUTER):
            yield refused(place, f"`{name}` changes", "", now.get(name))
        for name in changed_fields(before, after, frozenset({"typed_config"})):
            yield refused(place, f"`{name}` changes", "", after.get(name))
    else:
        yield refused(place, "changes", "", after)


def _router_is_last(place: str, filters: Sequence[Tree]) -> Iterator[Weakening]:
    routers = [i for i, one in enumerate(filters) if type_of(one) == ROUTER_TYPE]
    for one in filters[routers[0] + 1 :] if routers else ():
        help_text = "write INSERT_BEFORE with the subFilter `envoy.filters.http.router`"
        yield broken(
            f"{place}, HTTP filter `{one.get('name')}`", "stands behind the router, where no request gets", help_text
        )
    if not routers:
        yield broken(place, "there is no router left among the HTTP filters", "leave `envoy.filters.http.router`")


def protected_names(manager: Tree) -> frozenset[str]:
    """The filters of a connection manager that no route may reconfigure: all but the router."""
    return frozenset(str(one.get("name")) for one in items(manager, "http_filters") if type_of(one) != ROUTER_TYPE)


def _compare_route_tables(before: ProxyResources, after: ProxyResources) -> Iterator[Weakening]:
    """Tables in files of their own; which filters are protected is said by the listeners that enforce."""
    protected: frozenset[str] = frozenset()
    for listener in before.listeners:
        if before.standing_of(listener).context is not PatchContext.SIDECAR_OUTBOUND:
            for manager in managers_of(listener):
                protected |= protected_names(manager)
    own = {str(table.get("name")): table for table in before.route_tables}
    for table in after.route_tables:
        name = str(table.get("name"))
        if name not in own:
            yield broken(f"route table `{name}`", "is renamed", "listeners know it by its name")
            continue
        if table == own[name]:
            continue
        standing = before.route_standings.get(name)
        context = standing.context if standing else PatchContext.ANY
        outbound = context is PatchContext.SIDECAR_OUTBOUND
        yield from compare_tables(
            f"route table `{name}`",
            own[name],
            table,
            frozenset() if outbound else protected,
            before.private,
            inbound=context is PatchContext.SIDECAR_INBOUND,
        )

"""
EnvoyFilter as written: which proxies, which objects, which operation; the value is kept for those who know its type.

What Istio's own validation refuses is refused, and so is what istiod passes over without a word, because a patch that
does nothing is a mistake that nobody sees.
"""

import re

from authz.documents.accessors import Part
from authz.mesh.extensions import (
    WEAKENS,
    ApplyTo,
    ClusterMatch,
    ConfigPatch,
    EnvoyFilter,
    ListenerMatch,
    PatchContext,
    PatchOperation,
    RouteActionKind,
    RouteTableMatch,
)
from authz.mesh.kind_parts import read_created, read_metadata, read_spec
from authz.mesh.mesh_documents import Written
from authz.mesh.written_values import origin_of, read_labels, read_signed, read_value

MANAGER = "envoy.filters.network.http_connection_manager"
PROXY_METADATA = ("NAMESPACE", "SERVICE_ACCOUNT", "WORKLOAD_NAME")
"""What ``match.proxy.metadata`` may ask for: what Istio's proxies say of themselves and is known here, too."""
_LISTENER_PARTS = (
    ApplyTo.LISTENER,
    ApplyTo.FILTER_CHAIN,
    ApplyTo.NETWORK_FILTER,
    ApplyTo.HTTP_FILTER,
    ApplyTo.LISTENER_FILTER,
)
_ROUTE_PARTS = (ApplyTo.ROUTE_CONFIGURATION, ApplyTo.VIRTUAL_HOST, ApplyTo.HTTP_ROUTE)
_INSERTS = (PatchOperation.INSERT_BEFORE, PatchOperation.INSERT_AFTER, PatchOperation.INSERT_FIRST)
_MERGES = (PatchOperation.MERGE, PatchOperation.MERGE_AND_REPLACE_LIST)
_OF_FILTERS = (
    *(PatchOperation.MERGE, PatchOperation.ADD, PatchOperation.REMOVE, PatchOperation.REPLACE),
    *_INSERTS,
)
_OF_OBJECTS = (*_MERGES, PatchOperation.ADD, PatchOperation.REMOVE)
OPERATIONS: dict[ApplyTo, tuple[PatchOperation, ...]] = {
    ApplyTo.LISTENER: _OF_OBJECTS,
    ApplyTo.FILTER_CHAIN: _OF_OBJECTS,
    ApplyTo.NETWORK_FILTER: _OF_FILTERS,
    ApplyTo.HTTP_FILTER: _OF_FILTERS,
    ApplyTo.LISTENER_FILTER: _OF_FILTERS,
    ApplyTo.ROUTE_CONFIGURATION: _MERGES,
    ApplyTo.VIRTUAL_HOST: (*_OF_OBJECTS, PatchOperation.REPLACE),
    ApplyTo.HTTP_ROUTE: (*_OF_OBJECTS, *_INSERTS),
    ApplyTo.CLUSTER: _OF_OBJECTS,
}
"""What has an effect on what; istiod takes any other pair and does nothing, or adds."""
NOT_DONE = {
    "EXTENSION_CONFIG": "filters are written in their listeners here: use HTTP_FILTER with `typed_config`",
    "BOOTSTRAP": "the bootstrap holds who the proxy is and its administration: use the options of the rendering",
}
"""Sorts of objects that Istio knows and nobody can patch here, with what to do."""


def read_envoy_filter(part: Part, written: Written) -> None:
    """Patches for the configuration of the proxies that are selected."""
    name, namespace, annotations = read_metadata(part, WEAKENS)
    spec = read_spec(part)
    spec.only("workloadSelector", "targetRefs", "configPatches", "priority")
    if spec.has("targetRefs"):
        help_text = "there are no Gateways of the Gateway API here: select by `workloadSelector.labels`"
        spec.note("ME-6", "patches are not attached by reference", "targetRefs", help_text)
    weakens = annotations.text(WEAKENS).strip() if annotations else ""
    if annotations and annotations.has(WEAKENS) and not weakens:
        help_text = "write why this proxy may enforce less than it does"
        annotations.note("ME-1", "the annotation must give a reason", WEAKENS, help_text)
    patches = [made for one in spec.parts("configPatches") if (made := _patch(one)) is not None]
    priority = read_signed(spec, "priority") or 0
    labels = read_labels(spec, "workloadSelector", "labels")
    found = EnvoyFilter(
        name, namespace, tuple(patches), origin_of(part, "metadata"), labels, priority, weakens, read_created(part)
    )
    written.envoy_filters.append((found, part))


def _patch(part: Part) -> ConfigPatch | None:
    part.only("applyTo", "match", "patch")
    asked = part.text("applyTo", required=True)
    if asked in NOT_DONE:
        part.note("ME-6", f"`{asked}` cannot be patched here", "applyTo", NOT_DONE[asked])
        return None
    if asked not in ApplyTo.__members__:
        if asked:
            part.note("ME-1", f"`{asked}` is not one of {', '.join(ApplyTo)}", "applyTo")
        return None
    apply_to = ApplyTo(asked)
    patch = part.part("patch", required=True)
    if patch is None:
        return None
    patch.only("operation", "value", "filterClass")
    if patch.text("filterClass", "UNSPECIFIED") != "UNSPECIFIED":
        patch.note("ME-6", "filters are not placed by class here", "filterClass", "write INSERT_BEFORE with a filter")
    operation = patch.choice("operation", PatchOperation, PatchOperation.MERGE)
    if not patch.has("operation"):
        patch.note("ME-3", "`operation` is missing", "operation", f"one of {', '.join(OPERATIONS[apply_to])}")
        return None
    if operation not in OPERATIONS[apply_to] and not (operation in _INSERTS and apply_to in _ADDED_AT_THE_END):
        help_text = f"one of {', '.join(OPERATIONS[apply_to])}"
        patch.note("ME-1", f"{operation} has no effect on {apply_to}", "operation", help_text)
        return None
    value = None if operation is PatchOperation.REMOVE and not patch.has("value") else read_value(patch, "value")
    if value is None and operation is not PatchOperation.REMOVE:
        return None
    return _matched(part, apply_to, operation, ConfigPatch(apply_to, operation, origin_of(part), value))


_ADDED_AT_THE_END = (ApplyTo.LISTENER, ApplyTo.FILTER_CHAIN, ApplyTo.VIRTUAL_HOST, ApplyTo.CLUSTER)
"""Where istiod takes INSERT_* for ADD."""


def _matched(part: Part, apply_to: ApplyTo, operation: PatchOperation, patch: ConfigPatch) -> ConfigPatch | None:
    match = part.part("match")
    if operation in _INSERTS and apply_to in _ADDED_AT_THE_END:
        operation = PatchOperation.ADD
    listener = route_table = cluster = None
    context, version = PatchContext.ANY, ""
    metadata: dict[str, str] = {}
    if match:
        match.only("context", "proxy", "listener", "routeConfiguration", "cluster", "waypoint")
        if match.has("waypoint") or match.text("context") == "WAYPOINT":
            match.note("ME-6", "there are no waypoints here", "context", f"one of {', '.join(PatchContext)}")
            return None
        context = match.choice("context", PatchContext, PatchContext.ANY)
        version, metadata = _proxy(match)
        fitting = "listener" if apply_to in _LISTENER_PARTS else "cluster"
        fitting = "routeConfiguration" if apply_to in _ROUTE_PARTS else fitting
        for field in ("listener", "routeConfiguration", "cluster"):
            if field != fitting and match.has(field):
                match.note("ME-1", f"{apply_to} is not found by `{field}`", field, f"write `{fitting}`")
        listener = _listener(match, apply_to) if fitting == "listener" else None
        route_table = _route_table(match) if fitting == "routeConfiguration" else None
        cluster = _cluster(match) if fitting == "cluster" else None
    made = ConfigPatch(
        apply_to,
        operation,
        patch.origin,
        patch.value,
        context=context,
        proxy_version=version,
        proxy_metadata=metadata,
        listener=listener,
        route_table=route_table,
        cluster=cluster,
    )
    return made if _names_its_filter(part, made) else None


def _names_its_filter(part: Part, patch: ConfigPatch) -> bool:
    """Without a filter to compare with, istiod passes over REMOVE, REPLACE and MERGE of filters without a word."""
    merges_listener_filter = patch.apply_to is ApplyTo.LISTENER_FILTER and patch.operation is PatchOperation.MERGE
    if patch.operation not in (PatchOperation.REMOVE, PatchOperation.REPLACE) and not merges_listener_filter:
        return True
    said = patch.listener or ListenerMatch()
    missing = {
        ApplyTo.HTTP_FILTER: ("listener.filterChain.filter.subFilter.name", said.sub_filter),
        ApplyTo.NETWORK_FILTER: ("listener.filterChain.filter.name", said.filter),
        ApplyTo.LISTENER_FILTER: ("listener.listenerFilter", said.listener_filter or None),
    }.get(patch.apply_to)
    if missing is None or missing[1] is not None:
        return True
    part.note("ME-3", f"{patch.operation} does not say which filter", "match", f"write `match.{missing[0]}`")
    return False


def _proxy(match: Part) -> tuple[str, dict[str, str]]:
    proxy = match.part("proxy")
    if proxy is None:
        return "", {}
    proxy.only("proxyVersion", "metadata")
    version = proxy.text("proxyVersion")
    try:
        re.compile(version)
    except re.error as error:
        proxy.note("ME-1", f"`{version}` is not a regular expression: {error}", "proxyVersion", "leave it out")
        version = ""
    metadata = proxy.strings("metadata")
    at = proxy.part("metadata")
    for name in metadata:
        if name not in PROXY_METADATA and at:
            at.note("ME-6", f"proxies here do not say `{name}`", name, f"known: {', '.join(PROXY_METADATA)}")
    return version, metadata


def _listener(match: Part, apply_to: ApplyTo) -> ListenerMatch | None:
    listener = match.part("listener")
    if listener is None:
        return None
    listener.only("portNumber", "name", "filterChain", "listenerFilter", "portName")
    if listener.has("portName"):
        listener.note("ME-6", "listeners are not found by the name of a port", "portName", "write `portNumber`")
    chain = listener.part("filterChain")
    network, sub = _filter(chain, apply_to) if chain else (None, None)
    if chain:
        chain.only("name", "sni", "transportProtocol", "applicationProtocols", "destinationPort", "filter")
    protocols = chain.text("applicationProtocols") if chain else ""
    return ListenerMatch(
        port=listener.port("portNumber") if listener.has("portNumber") else 0,
        name=listener.text("name"),
        listener_filter=listener.text("listenerFilter"),
        chain=chain.text("name") if chain else "",
        sni=chain.text("sni") if chain else "",
        transport_protocol=chain.text("transportProtocol") if chain else "",
        application_protocols=tuple(protocols.split(",")) if protocols else (),
        destination_port=chain.port("destinationPort") if chain else 0,
        filter=network,
        sub_filter=sub,
    )


def _filter(chain: Part, apply_to: ApplyTo) -> tuple[str | None, str | None]:
    """The names of the network filter and of the HTTP filter within it."""
    found = chain.part("filter")
    if found is None:
        return None, None
    found.only("name", "subFilter")
    name = found.text("name", required=True)
    if apply_to in (ApplyTo.LISTENER, ApplyTo.FILTER_CHAIN):
        chain.note("ME-1", f"a filter says nothing about a {apply_to}", "filter", "leave it out")
    sub = found.part("subFilter")
    if sub is None:
        return name, None
    sub.only("name")
    if apply_to is not ApplyTo.HTTP_FILTER:
        found.note("ME-1", f"`subFilter` is for HTTP_FILTER, not for {apply_to}", "subFilter", "leave it out")
    elif name != MANAGER:
        found.note("ME-1", f"`{name}` holds no HTTP filters", "name", f"write `{MANAGER}`")
    return name, sub.text("name", required=True)


def _route_table(match: Part) -> RouteTableMatch | None:
    table = match.part("routeConfiguration")
    if table is None:
        return None
    table.only("name", "portNumber", "portName", "gateway", "vhost")
    vhost = table.part("vhost")
    route = vhost.part("route") if vhost else None
    if vhost:
        vhost.only("name", "domainName", "route")
    if route:
        route.only("name", "action")
    return RouteTableMatch(
        name=table.text("name"),
        port=table.port("portNumber") if table.has("portNumber") else 0,
        port_name=table.text("portName"),
        gateway=table.text("gateway"),
        has_vhost=vhost is not None,
        vhost=vhost.text("name") if vhost else "",
        domain=vhost.text("domainName") if vhost else "",
        has_route=route is not None,
        route=route.text("name") if route else "",
        action=route.choice("action", RouteActionKind, RouteActionKind.ANY) if route else RouteActionKind.ANY,
    )


def _cluster(match: Part) -> ClusterMatch | None:
    cluster = match.part("cluster")
    if cluster is None:
        return None
    cluster.only("name", "service", "subset", "portNumber")
    number = cluster.port("portNumber") if cluster.has("portNumber") else 0
    return ClusterMatch(cluster.text("name"), cluster.text("service"), cluster.text("subset"), number)

"""
Render a mesh: every file that its Envoys read, as bytes, in a fixed order.

Pure: nothing is read or written here. ``options`` documents the layout of the state directory.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from hashlib import sha256

from authz.core.asked import asked_of
from authz.core.attributes import Json
from authz.core.policies_by_workload import PoliciesByWorkload
from authz.core.resources import MtlsMode
from authz.envoy.bootstrap import bootstrap
from authz.envoy.browser_login import kept_document, kept_file, login_secret_files
from authz.envoy.clusters import clusters, helper_clusters
from authz.envoy.endpoints import endpoint_files
from authz.envoy.light_messages import lighten
from authz.envoy.listeners import MtlsModeOf, listeners
from authz.envoy.messages import as_json, as_resource
from authz.envoy.naming import provider_cluster
from authz.envoy.native.filters import http_filters, linear_tcp
from authz.envoy.native.filters_version import filters_version
from authz.envoy.native.limits import report
from authz.envoy.native.slots import fill_slots, slot_names
from authz.envoy.options import Listeners, RenderOptions, filters_file, routes_file
from authz.envoy.patches.proxy_resources import (
    CLUSTER_TYPE,
    LISTENER_TYPE,
    TABLE_TYPE,
    ProxyResources,
    as_resources,
)
from authz.envoy.proxy_parts import (
    DEFAULTS,
    completed,
    extended_resources,
    static_bootstrap,
)
from authz.envoy.proxy_parts import KeyTexts as KeyTexts
from authz.envoy.proxy_parts import Native as Native
from authz.envoy.proxy_parts import extension_problems as extension_problems
from authz.envoy.proxy_parts import permissive as permissive
from authz.envoy.rendered_text import file_text, resources_text
from authz.envoy.route_tables import route_tables
from authz.envoy.tls import client_secret_files, secret_files
from authz.envoy.web_tls import web_secret_files
from authz.mesh.nouns import Mesh, MeshWorkload


def modes_of(engine: PoliciesByWorkload) -> MtlsModeOf:
    """The effective PeerAuthentication modes of a compiled policy set (PA-4 to PA-7)."""

    def mode_of(workload: MeshWorkload, port: int) -> MtlsMode:
        return engine.for_workload(workload.workload).mtls_mode(port)

    return mode_of


def keep_check(
    mesh: Mesh, engine: PoliciesByWorkload, options: RenderOptions
) -> tuple[RenderOptions, dict[str, tuple[str, ...]]]:
    """
    Let those workloads ask the check whose policies Envoy could not decide by itself.

    Returns:
        The options for these policies, and the reasons by name of the workload.
    """

    kept: dict[str, tuple[str, ...]] = {}
    for workload in mesh.workloads:
        if options.is_native(workload):
            found = report(engine, workload.workload, has_evidence=options.include_peer_certificate)
            if not found.is_native:
                kept[workload.name] = found.reasons
    return replace(options, keep_check=options.keep_check | kept.keys()), kept


def render_all(
    mesh: Mesh,
    mode_of: MtlsModeOf = permissive,
    options: RenderOptions = DEFAULTS,
    native: Native | None = None,
) -> dict[str, bytes]:
    """
    Render every file of a mesh that was read without errors.

    Args:
        native: needed where a workload's own Envoy decides.

    Returns:
        Path below the state directory to content, sorted by path. ``eds-compose/`` takes the place of ``eds/`` among
        containers; everything else is the same in both worlds (XA-190).
    """
    files: dict[str, bytes] = {}
    extended = extended_resources(mesh, mode_of, options, native)
    for workload in mesh.workloads:
        files |= _render_own(mesh, workload, mode_of, options, native, extended)
    for login in mesh.logins:
        files[kept_file(login)] = kept_document(login, options.logins[login.issuer])
    files |= render_changing(mesh, mode_of, options, native, extended)
    return dict(sorted(files.items()))


def render_proxy(
    mesh: Mesh,
    workload: MeshWorkload,
    mode_of: MtlsModeOf,
    options: RenderOptions,
    native: Native | None,
    extended: Mapping[str, ProxyResources],
    *,
    has_clusters: bool = False,
) -> dict[str, bytes]:
    """Render everything that is one proxy's alone, its filters excepted, and its clusters if it ``has`` them."""
    files = _render_own(mesh, workload, mode_of, options, native, extended)
    if options.listeners is not Listeners.STATIC:
        if not has_clusters:
            files |= render_clusters(mesh, workload, options, extended)
        files |= render_listeners(mesh, workload, mode_of, options, native, extended)
        files |= render_routes(mesh, workload, options, extended)
    return files


def _render_own(
    mesh: Mesh,
    workload: MeshWorkload,
    mode_of: MtlsModeOf,
    options: RenderOptions,
    native: Native | None,
    extended: Mapping[str, ProxyResources],
) -> dict[str, bytes]:
    """The bootstrap and where secrets are; who has everything from the control plane brings its bootstrap."""
    files: dict[str, bytes] = {}
    if options.listeners is not Listeners.ADS:
        if options.listeners is Listeners.STATIC:
            made = static_bootstrap(mesh, workload, mode_of, options, native, extended)
        else:
            made = as_json(bootstrap(mesh, workload, [], options))
        files[f"envoy/{workload.name}.yaml"] = file_text(made, mesh, options)
    secrets = secret_files(workload, options) | web_secret_files(workload.servers) | login_secret_files(workload)
    for name, secret in secrets.items():
        files[f"sds/{name}"] = resources_text([as_resource(secret)], mesh, options)
    return files


def render_client_secrets(mesh: Mesh, options: RenderOptions) -> dict[str, bytes]:
    """Render where the certificates are that DestinationRules name."""
    return {
        f"sds/{name}": resources_text([as_resource(secret)], mesh, options)
        for name, secret in client_secret_files(mesh.destination_rules.client_tls).items()
    }


def render_changing(
    mesh: Mesh,
    mode_of: MtlsModeOf,
    options: RenderOptions = DEFAULTS,
    native: Native | None = None,
    extended: Mapping[str, ProxyResources] | None = None,
) -> dict[str, bytes]:
    """
    Render only what changes while proxies run: filters, clusters, endpoints, listeners, routes.

    They are in the order in which to rename them.

    Renamed while Envoys run, they change the mode of a port without a restart and without losing a connection.
    """
    files: dict[str, bytes] = {}
    extended = extended_resources(mesh, mode_of, options, native) if extended is None else extended
    for workload in mesh.workloads:
        if options.is_native(workload):
            assert native is not None, "whoever renders for native enforcement gives the policies"
            files |= render_filters(mesh, workload, native)
    is_dynamic = options.listeners is not Listeners.STATIC
    if is_dynamic:
        for workload in mesh.workloads:
            files |= render_clusters(mesh, workload, options, extended)
    files |= render_client_secrets(mesh, options)
    for compose in (False, True):
        files |= render_endpoints(mesh, mode_of, options, compose=compose)
    if is_dynamic:
        for workload in mesh.workloads:
            files |= render_listeners(mesh, workload, mode_of, options, native, extended)
        for workload in mesh.workloads:
            files |= render_routes(mesh, workload, options, extended)
    return files


def render_clusters(
    mesh: Mesh, workload: MeshWorkload, options: RenderOptions, extended: Mapping[str, ProxyResources]
) -> dict[str, bytes]:
    """Render the clusters of one proxy that follow the description; ``extended`` as ``render_listeners`` takes it."""
    if workload.name in extended:
        found = as_resources(CLUSTER_TYPE, extended[workload.name].clusters)
    else:
        found = [as_resource(cluster) for cluster in clusters(mesh, workload, options)]
    if options.listeners is Listeners.ADS:  # the bootstrap is as small as can be, and no patch sees these
        found = [*(as_resource(cluster) for cluster in helper_clusters(workload, options)), *found]
    return {f"cds/{workload.name}.yaml": resources_text(found, mesh, options)}


def render_routes(
    mesh: Mesh, workload: MeshWorkload, options: RenderOptions, extended: Mapping[str, ProxyResources]
) -> dict[str, bytes]:
    """Render the route tables of one proxy that are files; ``extended`` as ``render_listeners`` takes it."""
    if workload.name in extended:
        found = as_resources(TABLE_TYPE, extended[workload.name].route_tables)
    else:
        found = [as_resource(table) for table in route_tables(mesh, workload)]
    return {routes_file(workload.name, str(table["name"])): resources_text([table], mesh, options) for table in found}


def render_filters(mesh: Mesh, workload: MeshWorkload, native: Native) -> dict[str, bytes]:
    """
    Render the filters of one proxy as files of extension config discovery, in the order in which to rename them.

    They are JSON, which is read by Envoy and written here many times faster than YAML. The version is the digest of the
    content: a policy that does not concern the workload changes nothing here. With TCP alone no listener has a slot.
    """
    return filter_files(mesh, workload, filter_contents(mesh, workload, native))


def filter_files(mesh: Mesh, workload: MeshWorkload, contents: Iterable[bytes]) -> dict[str, bytes]:
    """The files of one proxy that have these contents."""
    if not workload.speaks_http:
        return {}
    names = (filters_file(workload.name, slot) for slot in slot_names(mesh.config))
    return dict(zip(names, contents, strict=True))


def filter_contents(mesh: Mesh, workload: MeshWorkload, native: Native) -> tuple[bytes, ...]:
    """
    What is in the files of a proxy's filters, by slot; none with TCP alone.

    It is the same for proxies with the same policies and token rules, if both or neither are gateways.
    """
    if not workload.speaks_http:
        return ()
    filters = http_filters(
        native.engine, workload.workload, native.key_sets, gateway=workload.is_gateway, cluster_of=provider_cluster
    ).filters
    asked = asked_of(native.engine.for_workload(workload.workload))
    resources = fill_slots(filters, mesh.config, filters_version(native.engine, workload.workload), asked)
    contents = []
    for resource in resources:
        text = json.dumps(resource, separators=(",", ":"), ensure_ascii=False)
        version = sha256(text.encode()).hexdigest()[:16]
        contents.append(f'{{"version_info":"{version}","resources":[{text}]}}\n'.encode())
    return tuple(contents)


def network_filters(workload: MeshWorkload, native: Native) -> tuple[dict[str, Json], ...]:
    """The filters of a workload's TCP ports, as they stand in its listeners; none where it has no such port."""
    filters = linear_tcp(native.engine, workload.workload, provider_cluster) if workload.speaks_tcp else []
    return tuple(one.as_extension() for one in filters)


_NO_RULES = json.dumps([(), "", []])


def listener_rules(workload: MeshWorkload, native: Native) -> str:
    """All that the listeners of a workload that decides by itself take from its rules; equal texts, equal listeners."""
    policies = native.engine.for_workload(workload.workload)
    if not policies.jwt_rules and not workload.speaks_tcp:
        return _NO_RULES
    parameters = sorted({name for rule in policies.jwt_rules for name in rule.from_params})
    network = network_filters(workload, native)
    return json.dumps([network, repr(asked_of(policies)) if workload.speaks_tcp else "", parameters])


def render_listeners(
    mesh: Mesh,
    workload: MeshWorkload,
    mode_of: MtlsModeOf,
    options: RenderOptions = DEFAULTS,
    native: Native | None = None,
    extended: Mapping[str, ProxyResources] | None = None,
) -> dict[str, bytes]:
    """
    Render the listeners of one proxy.

    Args:
        extended: the resources of the workloads that extensions concern; None finds those of this one.

    Raises:
        LoadError: if an extension is refused, and nobody has found that out before.
    """
    extended = extended_resources(mesh, mode_of, options, native, workload) if extended is None else extended
    if workload.name in extended:
        found = as_resources(LISTENER_TYPE, extended[workload.name].listeners)
    else:
        found = [
            completed(as_resource(listener), workload, options, native)
            for listener in listeners(mesh, workload, mode_of, options)
        ]
    return {f"lds/{workload.name}.yaml": resources_text(found, mesh, options)}


def render_endpoints(
    mesh: Mesh, mode_of: MtlsModeOf, options: RenderOptions = DEFAULTS, *, compose: bool = False
) -> dict[str, bytes]:
    """Render the addresses, of one machine or of containers."""
    directory = "eds-compose" if compose else "eds"
    files = endpoint_files(mesh, mode_of, options, compose=compose)
    return {
        f"{directory}/{name}": resources_text([as_resource(content)], mesh, options) for name, content in files.items()
    }


lighten()

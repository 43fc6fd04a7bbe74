"""Gateways tied to the workloads that they select: which servers share a port, and which of them may."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from authz.documents.accessors import Part
from authz.mesh.gateway_server import GatewayServer, TlsMode, server_groups
from authz.mesh.login import Login
from authz.mesh.mesh_documents import Gateway, Written
from authz.mesh.nouns import MeshWorkload
from authz.mesh.virtual_service import VirtualService

ROOTS = "roots"
"""Name of the secret, and of the directory below ``certs/``, with the mesh's own authorities."""
DescribedServers = Sequence[tuple[Gateway, Sequence[tuple[GatewayServer, Part]]]]
"""The Gateways in order, with their servers as they are bound."""


def described_servers(written: Written) -> DescribedServers:
    """Every server with its Gateway's name, and whether routes lead where its unopened TLS goes."""
    bound: dict[str, list[VirtualService]] = {}
    for virtual in written.virtual_services:
        for name in virtual.service.gateways:
            bound.setdefault(name, []).append(virtual.service)
    found = []
    for gateway in sorted(written.gateways, key=lambda g: (g.namespace, g.name)):
        name = f"{gateway.namespace}/{gateway.name}"
        servers = []
        every = tuple(server for server, _ in gateway.servers)
        for server, part in gateway.servers:
            led = is_routed(server, bound.get(name, ()), every)
            servers.append((replace(server, gateway=name, is_routed=led), part))
        found.append((gateway, servers))
    return found


def is_routed(server: GatewayServer, bound: Iterable[VirtualService], servers: Iterable[GatewayServer] = ()) -> bool:
    """
    Whether what could lead outwards goes by the routes of what is bound to its Gateway, which has these ``servers``.

    Without a route, the policies decide which hosts may be asked for, and DNS where they are. A Gateway may also have
    servers that take what comes into the mesh: their routes are no reason that nothing else may leave by this one.
    """
    if server.tls is TlsMode.PASSTHROUGH:
        return server.hosts != ("*",) or any(one.tls for one in bound)
    if server.tls is not TlsMode.ISTIO_MUTUAL:
        return False
    others = [one for one in servers if one.tls not in (TlsMode.PASSTHROUGH, TlsMode.ISTIO_MUTUAL)]
    return any(
        server.admits(host, one.namespace)
        and not (server.hosts == ("*",) and any(other.admits(host, one.namespace) for other in others))
        for one in bound
        if (one.http if server.protocol.is_http else one.tcp)
        for host in one.hosts
    )


def with_gateways(workload: MeshWorkload, gateways: DescribedServers) -> MeshWorkload:
    """The workload with every server of the Gateways that select it, of whatever namespace, as in Istio."""
    found = tuple(server for server, _ in _selecting(workload, gateways))
    return replace(workload, servers=found) if found else workload


def _selecting(workload: MeshWorkload, gateways: DescribedServers) -> Iterable[tuple[GatewayServer, Part]]:
    for gateway, servers in gateways:
        if gateway.labels and gateway.labels.items() <= workload.labels.items():
            yield from servers


def check_gateways(workloads: Iterable[MeshWorkload], written: Written, gateways: DescribedServers) -> None:
    """Note Gateways given twice, logins that differ, and servers of a port that cannot be told apart."""
    _note_twice(written)
    _check_logins(written)
    workloads = tuple(workloads)
    _check_credentials(workloads, gateways)
    for gateway, _ in gateways:
        if not any(gateway.labels.items() <= workload.labels.items() for workload in workloads):
            help_text = "give a WorkloadEntry all these labels"
            spec = gateway.part.part("spec") or gateway.part
            spec.warn("ME-4", "no workload has these labels, so no gateway has these servers", "selector", help_text)
    noted: set[int] = set()
    for workload in workloads:
        found = list(_selecting(workload, gateways))
        parts = {id(server): part for server, part in found}
        for group in server_groups(server for server, _ in found):
            for message, server, help_text in _clashes(group):
                part = parts[id(server)]
                if id(part.node) not in noted:
                    noted.add(id(part.node))
                    part.note("ME-5", message, "port", help_text)


def _clashes(group: tuple[GatewayServer, ...]) -> Iterable[tuple[str, GatewayServer, str]]:
    first, *others = group
    names: dict[str, GatewayServer] = {}
    for server in group:
        if server.tls is TlsMode.DISABLE or server.is_passthrough or server.is_egress:
            continue
        for name in server.server_names or ("*",):
            other = names.setdefault(name, server)
            if other is not server:
                message = f"two servers with TLS on port {server.port} are for `{name}`: also {_called(other)}"
                yield message, server, "one certificate answers to a name: give each server its own hosts"
    for server in others:
        if first.leads_inwards is not server.leads_inwards or not first.leads_inwards:
            help_text = "what leads outwards (ISTIO_MUTUAL, or PASSTHROUGH for `*`) has a port of its own"
            yield f"port {server.port} is also that of {_called(first)}", server, help_text
        elif (first.tls is TlsMode.DISABLE) is not (server.tls is TlsMode.DISABLE):
            yield f"port {server.port} is with TLS and without: also {_called(first)}", server, "choose another port"
        elif first.tls is TlsMode.DISABLE and not (first.takes_requests and server.takes_requests):
            help_text = "only HTTP servers share a port without TLS"
            yield f"port {server.port} is also that of {_called(first)}", server, help_text


def _called(server: GatewayServer) -> str:
    return f"`{server.name}` of the Gateway `{server.gateway}`"


def _note_twice(written: Written) -> None:
    first: dict[tuple[str, str], Part] = {}
    for gateway in written.gateways:
        other = first.setdefault((gateway.namespace, gateway.name), gateway.part)
        if other is not gateway.part and gateway.name:
            message = f"the Gateway `{gateway.namespace}/{gateway.name}` is given twice, first at {other.location}"
            gateway.part.note("ME-5", message)


def _check_credentials(workloads: tuple[MeshWorkload, ...], gateways: DescribedServers) -> None:
    """What the mesh calls by a name is not also a certificate of the user's own: one file would hide the other."""
    taken = {ROOTS, *(workload.name for workload in workloads)}
    bundles = {
        f"{server.client.ca_credential or server.credential}-cacert"
        for _, servers in gateways
        for server, _ in servers
        if server.asks_for_certificate and not server.client.ca_certificates
    }
    for _, servers in gateways:
        for server, part in servers:
            for name in server.credentials:
                if name in taken or name in bundles:
                    whose = "a bundle of another server" if name in bundles else "the mesh's own"
                    help_text = "choose another name of the directory below certs/"
                    part.note("ME-5", f"the credential `{name}` has the name of {whose}", "tls", help_text)
            if (name := f"{server.client.ca_credential or server.credential}-cacert") in taken & bundles:
                help_text = "choose another name of the workload, or of the directory below certs/"
                part.note("ME-5", f"the bundle `{name}` has the name of a workload", "tls", help_text)


def _check_logins(written: Written) -> None:
    """Two gateways may share a session, if everything about their logins is the same."""
    first: dict[str, tuple[Login, Part]] = {}
    for gateway in written.gateways:
        for login in {server.login for server, _ in gateway.servers if server.login}:
            other, at = first.setdefault(login.credential, (login, gateway.part))
            if other != login and login.credential:
                message = f"another login has the credential `{login.credential}`, at {at.location}"
                gateway.part.note("ME-5", message, "", "write the same login there, or choose another `credentialName`")

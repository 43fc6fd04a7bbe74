"""The reader of Gateway: the ports of a gateway, the hosts that they are for, and their TLS."""

import ipaddress
from dataclasses import replace

from authz.documents.accessors import Part
from authz.mesh.kind_parts import read_metadata, read_protocol, read_spec
from authz.mesh.login import Login
from authz.mesh.mesh_documents import Gateway, Written
from authz.mesh.nouns import GatewayServer, Protocol, TlsMode
from authz.mesh.read_login import LOGIN, read_login
from authz.mesh.read_server_tls import read_server_tls
from authz.mesh.traffic_entry_fields import FIELDS
from authz.mesh.value_parts import is_host, is_label, only_fields

_REQUESTS = (Protocol.HTTP, Protocol.HTTP2, Protocol.GRPC)


def read_gateway(part: Part, written: Written) -> None:
    """The ports of a gateway and their TLS."""
    name, namespace, annotations = read_metadata(part, LOGIN)
    login = read_login(annotations, written)
    spec = read_spec(part)
    only_fields(spec, FIELDS["Gateway"])
    servers = [(_server(server, namespace, login), server) for server in spec.parts("servers")]
    if not servers:
        spec.note("ME-3", "`servers` is missing", "servers", "a gateway has at least one")
    selector = spec.strings("selector")
    if not selector:
        help_text = "write labels of a WorkloadEntry: without any, every workload would become a gateway"
        spec.note("ME-3", "`selector` is missing", "selector", help_text)
    _note_twice(servers)
    written.gateways.append(Gateway(namespace, name, selector, tuple(servers), part))


def _server(server: Part, namespace: str, login: Login | None) -> GatewayServer:
    only_fields(server, FIELDS["Server"])
    port = server.part("port", required=True)
    if port:
        only_fields(port, FIELDS["Port"])
    written = server.part("tls")
    protocol = read_protocol(port) if port and port.has("protocol") else None
    tls = read_server_tls(written, is_http=protocol in _REQUESTS)
    if protocol is None:
        protocol = _default_protocol(tls.mode)
    if tls.mode is TlsMode.PASSTHROUGH and port and protocol not in (Protocol.TLS, Protocol.HTTPS):
        port.note("ME-6", "what passes through unopened is TLS", "protocol", "write `protocol: TLS`")
    elif tls.mode is TlsMode.DISABLE and protocol in (Protocol.TLS, Protocol.HTTPS) and not written:
        help_text = f"`{protocol}` needs to know its certificate, or `mode: PASSTHROUGH`"
        server.note("ME-3", "`tls` is missing", "tls", help_text)
    elif tls.mode is not TlsMode.DISABLE and protocol is Protocol.TCP and port:
        port.note("ME-1", "`TCP` speaks no TLS", "protocol", "write `protocol: TLS`")
    elif protocol is Protocol.HTTP_PROXY and port:
        port.note("ME-6", "a gateway is no forward proxy", "protocol", "use the `HTTP_PROXY` port of a Sidecar")
    redirects = bool((tls.arguments or {}).get("https_redirect"))
    if login and not redirects and tls.mode not in (TlsMode.SIMPLE, TlsMode.MUTUAL, TlsMode.OPTIONAL_MUTUAL):
        help_text = "a session is a cookie, which browsers send over TLS alone: write SIMPLE or MUTUAL"
        server.note("ME-6", f"nobody can log in at a server whose TLS is `{tls.mode}`", "tls", help_text)
    hosts, scopes = _hosts(server, namespace, is_tls=tls.mode is not TlsMode.DISABLE)
    port_name = port.text("name", required=True) if port else ""
    if port and port_name and not is_label(port_name):
        port.note("ME-1", f"`{port_name}` is not the name of a port", "name", "write a-z, 0-9 and `-`")
    made = GatewayServer(
        port=port.port("number", required=True) if port else 0,
        name=port_name,
        hosts=hosts,
        tls=tls.mode,
        login=None if redirects else login,
        protocol=protocol,
        scopes=scopes,
        bind=_bind(server),
    )
    server.text("name")
    return replace(made, **(tls.arguments or {}))


def _default_protocol(mode: TlsMode) -> Protocol:
    if mode is TlsMode.PASSTHROUGH:
        return Protocol.TLS
    return Protocol.HTTP if mode is TlsMode.DISABLE else Protocol.HTTPS


def _bind(server: Part) -> str:
    written = server.text("bind")
    if not written:
        return ""
    try:
        address = ipaddress.ip_address(written)
    except ValueError:
        help_text = "leave it out to listen on every address; sockets of the file system are not done here"
        code = "ME-6" if written.startswith("unix:") else "ME-1"
        server.note(code, f"`{written}` is not an IP address", "bind", help_text)
        return ""
    return "" if address.is_unspecified else str(address)


def _hosts(server: Part, namespace: str, *, is_tls: bool) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """
    The hosts without namespaces, and the namespaces of those that are for the VirtualServices of one.

    ``*/host`` is a host for all, and ``*/*`` everything, as in Istio.
    """
    scopes: dict[str, list[str]] = {}
    everybody = set()
    for i, written in enumerate(server.texts("hosts", required=True)):
        scope, slash, host = written.rpartition("/")
        scope = namespace if scope == "." else scope
        if not is_host(host) or "/" in scope or (slash and scope != "*" and not is_label(scope)):
            help_text = "a DNS name, `*` or `*.example.com`, or one of them behind `namespace/`"
            server.note("ME-1", f"`{written}` is not a host", f"hosts[{i}]", help_text)
            continue
        if is_tls and host.startswith("*") and host != "*" and not host.startswith("*."):
            help_text = "TLS is told apart by whole labels: write `*.` and a name"
            server.note("ME-6", f"`{host}` is not done for servers with TLS", f"hosts[{i}]", help_text)
            continue
        if slash and scope != "*":
            scopes.setdefault(host, []).append(scope)
        else:
            scopes.setdefault(host, [])
            everybody.add(host)
    if server.has("hosts") and not server.texts("hosts"):
        server.note("ME-3", "`hosts` is empty", "hosts", 'write `hosts: ["*"]` for every host')
    limited = tuple((scope, host) for host, found in scopes.items() if host not in everybody for scope in found)
    return tuple(scopes), limited


def _note_twice(servers: list[tuple[GatewayServer, Part]]) -> None:
    """Routes and filter chains are told apart by the names of ports, in Istio as here."""
    first: dict[str, Part] = {}
    for server, part in servers:
        other = first.setdefault(server.name, part)
        if other is not part and server.name:
            message = f"the port name `{server.name}` is given twice in this Gateway, first at {other.location}"
            part.note("ME-5", message, "port", "give each server's port a name of its own")

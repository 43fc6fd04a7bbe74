"""The reader of Gateway: the ports of a gateway and their TLS."""

from authz.documents.accessors import Part
from authz.mesh.kind_parts import read_metadata, read_spec
from authz.mesh.mesh_documents import Gateway, Written
from authz.mesh.nouns import GatewayServer, TlsMode
from authz.mesh.read_login import LOGIN, read_login


def read_gateway(part: Part, written: Written) -> None:
    """The ports of a gateway and their TLS."""
    name, namespace, annotations = read_metadata(part, LOGIN)
    login = read_login(annotations, written)
    spec = read_spec(part)
    spec.only("selector", "servers")
    servers = []
    for server in spec.parts("servers"):
        server.only("port", "hosts", "tls", "name", "bind")
        port = server.part("port", required=True)
        if port:
            port.only("number", "name", "protocol", "targetPort")
        tls = server.part("tls")
        mode = tls.choice("mode", TlsMode, TlsMode.SIMPLE) if tls else TlsMode.DISABLE
        if tls:
            opened = () if mode is TlsMode.PASSTHROUGH else ("credentialName", "minProtocolVersion", "cipherSuites")
            tls.only("mode", *opened)
        if mode is TlsMode.PASSTHROUGH:
            _check_passthrough(server, port)
        if login and mode not in (TlsMode.SIMPLE, TlsMode.MUTUAL):
            help_text = "a session is a cookie, which browsers send over TLS alone: write SIMPLE or MUTUAL"
            server.note("ME-6", f"nobody can log in at a server whose TLS is `{mode}`", "tls", help_text)
        needs_name = tls is not None and mode in (TlsMode.SIMPLE, TlsMode.MUTUAL)
        servers.append(
            GatewayServer(
                port=port.port("number", required=True) if port else 0,
                name=port.text("name", required=True) if port else "",
                hosts=tuple(host.rpartition("/")[2] for host in server.texts("hosts", required=True)),
                tls=mode,
                credential=tls.text("credentialName", required=needs_name) if tls else "",
                minimum_protocol=_tls_version(tls),
                ciphers=tls.texts("cipherSuites") if tls else (),
                login=login,
            )
        )
    written.gateways.append(Gateway(namespace, name, spec.strings("selector"), tuple(servers), part))


def _check_passthrough(server: Part, port: Part | None) -> None:
    """TLS of the clients themselves, for any name."""
    if port and port.text("protocol", "TLS") not in ("TLS", "HTTPS"):
        port.note("ME-6", "what passes through unopened is TLS", "protocol", "write `protocol: TLS`")
    if server.texts("hosts") != ("*",):
        help_text = 'write `hosts: ["*"]` and an AuthorizationPolicy with `when: [{key: connection.sni, values: […]}]`'
        server.note("ME-6", "the policies decide which names may be asked for, not the gateway", "hosts", help_text)


def _tls_version(tls: Part | None) -> str:
    written = tls.text("minProtocolVersion", "TLSV1_2") if tls else "TLSV1_2"
    if written not in ("TLSV1_2", "TLSV1_3") and tls:
        tls.note(
            "ME-1", f"`{written}` is not one of TLSV1_2, TLSV1_3", "minProtocolVersion", "older versions are unsafe"
        )
        return "TLSV1_2"
    return written

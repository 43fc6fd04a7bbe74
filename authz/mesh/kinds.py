"""
One reader per kind of a mesh description: a document becomes nouns as written, not yet tied to other documents.

Fields that Istio knows and that are not rendered here are problems, never silently ignored.
"""

from collections.abc import Callable

from authz.core.spiffe import SpiffeId
from authz.documents.accessors import Part
from authz.mesh.kind_parts import (
    COMPOSE_ADDRESS,
    COMPOSE_APP,
    ENFORCE,
    read_compose_address,
    read_enforce,
    read_host_port,
    read_ip,
    read_listener_port,
    read_metadata,
    read_protocol,
    read_spec,
)
from authz.mesh.mesh_documents import Gateway, Sidecar, VirtualService, Written
from authz.mesh.nouns import (
    Address,
    GatewayServer,
    InboundPort,
    MeshService,
    MeshWorkload,
    OriginatedTls,
    OutboundPort,
    Place,
    Protocol,
    RouteHost,
    RouteRule,
    ServicePort,
    TlsMode,
)
from authz.mesh.read_login import LOGIN, read_login


def read_workload_entry(part: Part, written: Written) -> None:
    """A workload: address, identity, labels, ports."""
    name, namespace, annotations = read_metadata(part, COMPOSE_ADDRESS, COMPOSE_APP, ENFORCE)
    spec = read_spec(part)
    spec.only("address", "ports", "labels", "serviceAccount", "network", "locality", "weight")
    address = read_ip(spec, "address")
    account = spec.text("serviceAccount", "default")
    identity = _identity(spec, namespace, account)
    ports = spec.part("ports")
    workload = MeshWorkload(
        name=name,
        namespace=namespace,
        service_account=account,
        spiffe_id=identity,
        labels=spec.strings("labels"),
        address=address,
        compose_address=read_compose_address(annotations, address),
        ports={key: ports.port(key) for key in ports.node.entries} if ports else {},
        enforce=read_enforce(annotations),
        location=part.location,
    )
    written.workloads.append((workload, part))


def _identity(spec: Part, namespace: str, account: str) -> SpiffeId:
    """The identity in the default trust domain; linking puts the mesh's own in its place."""
    try:
        found = SpiffeId.for_workload("cluster.local", namespace, account)
    except ValueError as error:
        spec.note("ME-1", str(error), "serviceAccount")
    else:
        if (found.namespace, found.service_account) == (namespace, account):
            return found
        spec.note("ME-1", f"`{account}` in namespace `{namespace}` does not make a SPIFFE ID", "serviceAccount")
    return SpiffeId.for_workload("cluster.local", "default", "default")


def read_service_entry(part: Part, written: Written) -> None:
    """A name that workloads call, in the mesh or outside."""
    name, namespace, annotations = read_metadata(part, COMPOSE_ADDRESS)
    spec = read_spec(part)
    spec.only("hosts", "ports", "location", "resolution", "endpoints", "workloadSelector", "exportTo", "addresses")
    ports = []
    for port in spec.parts("ports"):
        port.only("number", "name", "protocol", "targetPort")
        number, port_name = port.port("number", required=True), port.text("name", required=True)
        ports.append(ServicePort(number, port_name, read_protocol(port)))
    selector = spec.part("workloadSelector")
    external = spec.text("location", "MESH_EXTERNAL") == "MESH_EXTERNAL"
    if not external and selector is None:
        spec.note("ME-3", "`workloadSelector` is missing", help_text="a MESH_INTERNAL service is its workloads")
    compose = annotations.text(COMPOSE_ADDRESS) if annotations else ""
    endpoints = _endpoints(spec, compose) if external else {}
    for host in spec.texts("hosts", required=True):
        service = MeshService(
            name=name,
            namespace=namespace,
            host=host,
            ports=tuple(ports),
            selector=selector.strings("labels") if selector else {},
            external=external,
            endpoints=endpoints,
            location=part.location,
        )
        written.services.append((service, part))


def _endpoints(spec: Part, compose: str) -> dict[str, tuple[Place, ...]]:
    found: dict[str, tuple[Place, ...]] = {}
    for endpoint in spec.parts("endpoints"):
        endpoint.only("address", "ports", "labels", "weight", "locality", "network", "serviceAccount")
        host, ports = read_ip(endpoint, "address"), endpoint.part("ports", required=True)
        for name in ports.node.entries if ports else ():
            number = ports.port(name) if ports else 0
            place = Place(Address(host, number), Address(compose or host, number))
            found[name] = (*found.get(name, ()), place)
    return found


def read_sidecar(part: Part, written: Written) -> None:
    """The ports of a proxy, inbound and outbound."""
    _, namespace, _ = read_metadata(part)
    spec = read_spec(part)
    spec.only("workloadSelector", "ingress", "egress", "outboundTrafficPolicy")
    selector = spec.part("workloadSelector", required=True)
    inbound = []
    for listener in spec.parts("ingress"):
        listener.only("port", "bind", "captureMode", "defaultEndpoint")
        number, name, protocol = read_listener_port(listener)
        app = read_host_port(listener, "defaultEndpoint", listener.text("defaultEndpoint", required=True))
        inbound.append((InboundPort(number, name, protocol, Place(app, app)), listener))
    outbound = []
    for listener in spec.parts("egress"):
        listener.only("port", "bind", "captureMode", "hosts")
        if listener.text("bind", "127.0.0.1") != "127.0.0.1":
            listener.note(
                "ME-6", "outbound ports are bound to 127.0.0.1 only", "bind", "anybody could use this identity"
            )
        number, _, protocol = read_listener_port(listener)
        hosts = listener.texts("hosts", required=True)
        outbound.append((OutboundPort(number, protocol, _egress_host(listener, hosts, protocol)), listener))
    labels = selector.strings("labels") if selector else {}
    written.sidecars.append(Sidecar(namespace, labels, tuple(inbound), tuple(outbound), part))


def _egress_host(listener: Part, hosts: tuple[str, ...], protocol: Protocol) -> str:
    """``./host`` and ``namespace/host`` name one service; ``*/*`` belongs to the forward proxy."""
    if protocol is Protocol.HTTP_PROXY:
        if hosts != ("*/*",):
            listener.note(
                "ME-1", "an HTTP_PROXY port leads everywhere", "hosts", 'write `hosts: ["*/*"]`; policies decide'
            )
        return ""
    if len(hosts) != 1 or "*" in hosts[0]:
        listener.note(
            "ME-6", "an outbound port leads to exactly one service", "hosts", "write one port for each service"
        )
        return ""
    return hosts[0].partition("/")[2] or hosts[0]


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


def read_virtual_service(part: Part, written: Written) -> None:
    """Where an ingress gateway leads."""
    _, namespace, _ = read_metadata(part)
    spec = read_spec(part)
    spec.only("hosts", "gateways", "http", "exportTo")
    gateways = tuple(name if "/" in name else f"{namespace}/{name}" for name in spec.texts("gateways", required=True))
    rules: list[RouteRule] = []
    for http in spec.parts("http"):
        http.only("match", "route", "name")
        destinations = tuple(_destination(route) for route in http.parts("route"))
        if not destinations:
            http.note("ME-3", "`route` is missing", "route")
        matches = [_path_match(match) for match in http.parts("match")] or [("prefix", "/")]
        rules.extend(RouteRule(kind, path, destinations) for kind, path in matches)
    hosts = spec.texts("hosts", required=True)
    written.virtual_services.append(VirtualService(gateways, RouteHost(hosts, tuple(rules)), part))


def _destination(route: Part) -> tuple[str, int, int]:
    route.only("destination", "weight")
    destination = route.part("destination", required=True)
    if destination is None:
        return ("", 0, 1)
    destination.only("host", "port")
    port = destination.part("port")
    number = port.port("number", required=True) if port else 0
    return (destination.text("host", required=True), number, route.number("weight", 1))


def _path_match(match: Part) -> tuple[str, str]:
    match.only("uri", "name")
    uri = match.part("uri", required=True)
    if uri is None:
        return ("prefix", "/")
    uri.only("exact", "prefix")
    return ("exact", uri.text("exact")) if uri.has("exact") else ("prefix", uri.text("prefix", "/"))


def read_destination_rule(part: Part, written: Written) -> None:
    """TLS that the egress gateway speaks to an external host."""
    read_metadata(part)
    spec = read_spec(part)
    spec.only("host", "trafficPolicy", "exportTo")
    policy = spec.part("trafficPolicy")
    tls = policy.part("tls") if policy else None
    if policy:
        policy.only("tls")
    if tls:
        tls.only("mode", "caCertificates", "sni", "subjectAltNames")
        originated = OriginatedTls(
            tls.choice("mode", TlsMode, TlsMode.SIMPLE),
            tls.text("caCertificates"),
            tls.text("sni"),
            tls.texts("subjectAltNames"),
        )
        if originated.mode not in (TlsMode.SIMPLE, TlsMode.DISABLE):
            tls.note("ME-6", f"`{originated.mode}` is not supported here", "mode", "write SIMPLE or DISABLE")
        written.rules.append((spec.text("host", required=True), originated, part))


READERS: dict[str, Callable[[Part, Written], None]] = {
    "WorkloadEntry": read_workload_entry,
    "ServiceEntry": read_service_entry,
    "Sidecar": read_sidecar,
    "Gateway": read_gateway,
    "VirtualService": read_virtual_service,
    "DestinationRule": read_destination_rule,
}
"""Every kind of ``networking.istio.io`` that is understood."""
